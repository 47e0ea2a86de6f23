"""Compressed pictures are read as image_transport's plugins write them, and refused by name when they cannot be."""

from __future__ import annotations

import struct
from array import array
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage

from molmo_ros.nodes.compressed_images import compressed_from_rgb, depth_from_compressed, rgb_from_compressed
from molmo_ros.nodes.rvl import encode_rvl
from molmo_ros.outcome import Code, PointingError

HEIGHT, WIDTH = 48, 64
RGB = np.dstack(
    [np.full((HEIGHT, WIDTH), 200), np.tile(np.arange(WIDTH) * 3, (HEIGHT, 1)), np.full((HEIGHT, WIDTH), 30)]
).astype(np.uint8)
DEPTH_M = np.linspace(0.4, 3.5, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
DEPTH_M[5:9, 5:9] = 0.0


def message(form: str, data: bytes) -> CompressedImage:
    return CompressedImage(format=form, data=array("B", data))


def encoded(extension: str, pixels: np.ndarray) -> bytes:
    good, data = cv2.imencode(extension, pixels)
    assert good
    return data.tobytes()


def compressed_depth(codec: str, encoding: str) -> CompressedImage:
    """As compressed_depth_image_transport does it: quantisation 100, farthest 10 m."""
    if encoding == "16UC1":
        header, stored = struct.pack("<iff", 0, 0.0, 0.0), np.rint(DEPTH_M * 1000).astype(np.uint16)
    else:
        a = 100.0 * 101.0
        b = 1.0 - a / 10.0
        header = struct.pack("<iff", 0, a, b)
        with np.errstate(divide="ignore"):
            stored = np.where(DEPTH_M > 0, np.rint(a / DEPTH_M + b), 0).astype(np.uint16)
    if codec == "png":
        payload = encoded(".png", stored)
    else:
        payload = struct.pack("<II", WIDTH, HEIGHT) + encode_rvl(stored)
    return message(f"{encoding}; compressedDepth {codec}", header + payload)


@pytest.mark.parametrize("form", ["rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8", "jpeg", "jpg"])
def test_jpeg_colours_are_red_green_blue(form: str) -> None:
    data = encoded(".jpg", cv2.cvtColor(RGB, cv2.COLOR_RGB2BGR))
    assert np.abs(rgb_from_compressed(message(form, data)).astype(int) - RGB).mean() < 4


def test_the_order_of_channels_that_the_encoder_was_given_is_respected() -> None:
    assert (rgb_from_compressed(message("rgb8; png compressed rgb8", encoded(".png", RGB))) == RGB).all()


def test_png_is_read_exactly_grey_and_deep_ones_too() -> None:
    bgr = encoded(".png", cv2.cvtColor(RGB, cv2.COLOR_RGB2BGR))
    assert (rgb_from_compressed(message("png", bgr)) == RGB).all()
    grey = RGB[..., 1]
    assert (
        rgb_from_compressed(message("mono8; png compressed ", encoded(".png", grey))) == grey[..., None]
    ).all()
    deep = grey.astype(np.uint16) << 8
    assert (
        rgb_from_compressed(message("mono16; png compressed ", encoded(".png", deep))) == grey[..., None]
    ).all()


@pytest.mark.parametrize("codec", ["png", "rvl"])
@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_compressed_depth_is_metres_and_nothing_where_there_is_none(codec: str, encoding: str) -> None:
    depth_m = depth_from_compressed(compressed_depth(codec, encoding), "compressedDepth")
    assert depth_m.dtype == np.float32 and depth_m.shape == (HEIGHT, WIDTH)
    there = DEPTH_M > 0
    assert np.isnan(depth_m[~there]).all() and np.isfinite(depth_m[there]).all()
    # Millimetres are rounded; quantised depth has steps of z^2 / 10100.
    allowed = 5.01e-4 if encoding == "16UC1" else 0.51 * DEPTH_M[there] ** 2 / 10100 + 1e-5
    assert (np.abs(depth_m[there] - DEPTH_M[there]) <= allowed).all()


def test_depth_may_come_as_a_plain_png() -> None:
    stored = np.rint(DEPTH_M * 1000).astype(np.uint16)
    depth_m = depth_from_compressed(message("16UC1; png compressed ", encoded(".png", stored)), "compressed")
    assert np.nanmax(depth_m) == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("broken", "transport", "says"),
    [
        (message("jpeg", b""), "colour", "it is empty"),
        (message("jpeg", b"no picture"), "colour", "no picture, or cut short"),
        (message("16UC1; compressedDepth png", b"short"), "compressedDepth", "fewer than its header"),
        (message("16UC1; compressedDepth rvl", bytes(14)), "compressedDepth", "fewer than its size field"),
        (
            message("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<II", 2**31, 2**31)),
            "compressedDepth",
            "2147483648x2147483648",
        ),
        (
            message("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<II", 64, 48) + bytes(8)),
            "compressedDepth",
            "does not fit",
        ),
        (
            message("rgb8; compressedDepth png", bytes(12) + encoded(".png", RGB)),
            "compressedDepth",
            "not 16-bit depth",
        ),
        (
            message("32FC1; compressedDepth png", bytes(12) + encoded(".png", np.ones((4, 4), np.uint16))),
            "compressedDepth",
            "quantisation",
        ),
        (message("rgb8; png compressed ", encoded(".png", RGB)), "compressed", "16-bit png"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(broken: CompressedImage, transport: str, says: str) -> None:
    with pytest.raises(PointingError) as caught:
        rgb_from_compressed(broken) if transport == "colour" else depth_from_compressed(broken, transport)
    assert caught.value.outcome.code == Code.BAD_IMAGE
    assert says in caught.value.outcome.message and broken.format in caught.value.outcome.message


@given(data=st.binary(max_size=120), codec=st.sampled_from(["png", "rvl", ""]))
def test_any_bytes_are_a_picture_or_refused(data: bytes, codec: str) -> None:
    with suppress(PointingError):
        rgb_from_compressed(message("jpeg", data))
    with suppress(PointingError):
        depth_from_compressed(message(f"16UC1; compressedDepth {codec}", data), "compressedDepth")


def test_the_annotated_picture_is_written_as_others_read_it() -> None:
    picture = compressed_from_rgb(RGB)
    assert np.abs(rgb_from_compressed(picture).astype(int) - RGB).mean() < 4
