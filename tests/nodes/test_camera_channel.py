"""Headers are read from the bytes exactly as rclpy would read the whole message."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from molmo_ros.nodes.camera_channel import header_of

FRAMES = st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=30).filter(
    lambda frame: not frame.startswith("/")
)


@given(
    sec=st.integers(-(2**31), 2**31 - 1),
    nanosec=st.integers(0, 999_999_999),
    frame_id=FRAMES,
    kind=st.sampled_from([Image, CameraInfo]),
)
def test_stamp_and_frame_are_read_from_the_bytes(sec: int, nanosec: int, frame_id: str, kind: type) -> None:
    message = kind()
    message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
    message.header.frame_id = frame_id
    assert header_of(serialize_message(message)) == (sec * 1_000_000_000 + nanosec, frame_id)


def test_big_endian_publishers_are_understood() -> None:
    data = b"\x00\x00\x00\x00" + struct.pack(">iII", 7, 8, 4) + b"cam\x00"
    assert header_of(data) == (7_000_000_008, "cam")


@given(st.binary(max_size=40))
def test_broken_bytes_are_no_header_and_no_crash(data: bytes) -> None:
    header = header_of(data)
    assert header is None or isinstance(header[1], str)
