"""sensor_msgs/Image to numpy and back: any layout that the standard allows, and clear words for the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from molmo_ros.nodes.image_conversion import (
    LAYOUTS,
    depth_from_message,
    message_from_rgb,
    pixels,
    rgb_from_message,
)
from molmo_ros.outcome import Code, PointingError


def message_of(image: np.ndarray, encoding: str, *, padding: int = 0, big_endian: bool = False) -> Image:
    """A message with the rows padded and the bytes swapped as asked for."""
    image = image.astype(image.dtype.newbyteorder(">" if big_endian else "<"))
    height, width = image.shape[:2]
    rows = image.reshape(height, -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAA)
    message = Image(
        height=height, width=width, encoding=encoding, is_bigendian=big_endian, step=padded.shape[1]
    )
    message.data = padded.tobytes()
    return message


@given(
    encoding=st.sampled_from(sorted(LAYOUTS)),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 7),
    big_endian=st.booleans(),
    drop_last_padding=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_plain_layout_comes_out_as_it_went_in(
    encoding: str, height: int, width: int, padding: int, big_endian: bool, drop_last_padding: bool, seed: int
) -> None:
    kind, channels = LAYOUTS[encoding]
    shape = (height, width) if channels == 1 else (height, width, channels)
    image = np.random.default_rng(seed).integers(0, 255, shape).astype(kind)
    message = message_of(image, encoding, padding=padding, big_endian=big_endian)
    if drop_last_padding and padding:
        message.data = bytes(message.data)[:-padding]
    found = pixels(message)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", (0, 1, 2)), ("bgr8", (2, 1, 0)), ("rgba8", (0, 1, 2)), ("bgra8", (2, 1, 0))],
)
def test_colour_orders_all_become_rgb(encoding: str, order: tuple[int, ...]) -> None:
    channels = LAYOUTS[encoding][1]
    image = np.arange(2 * 3 * channels, dtype=np.uint8).reshape(2, 3, channels)
    np.testing.assert_array_equal(rgb_from_message(message_of(image, encoding)), image[:, :, list(order)])


def test_grey_images_become_grey_rgb() -> None:
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    np.testing.assert_array_equal(rgb_from_message(message_of(grey, "mono8")), np.dstack([grey] * 3))
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(rgb_from_message(message_of(deep, "mono16")), np.dstack([grey] * 3))


def test_bayer_goes_through_cv_bridge() -> None:
    pytest.importorskip("cv_bridge")
    mosaic = np.full((8, 8), 90, np.uint8)
    np.testing.assert_array_equal(rgb_from_message(message_of(mosaic, "bayer_rggb8")), np.full((8, 8, 3), 90))


def test_tight_rgb_is_a_view_of_the_message() -> None:
    message = message_of(np.zeros((4, 5, 3), np.uint8), "rgb8")
    found = rgb_from_message(message)
    message.data[0] = 77
    assert found[0, 0, 0] == 77


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_units_come_from_the_encoding(big_endian: bool) -> None:
    millimetres = np.array([[0, 1500]], np.uint16)
    metres = np.array([[np.nan, 1.5]], np.float32)
    for message in (
        message_of(millimetres, "16UC1", big_endian=big_endian),
        message_of(metres, "32FC1", big_endian=big_endian),
    ):
        np.testing.assert_allclose(depth_from_message(message), metres)


@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 99))
def test_rgb_survives_the_way_there_and_back(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    np.testing.assert_array_equal(rgb_from_message(message_from_rgb(image)), image)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"height": 0}, "empty"),
        ({"step": 5}, "it needs 9"),
        ({"data": b"12345"}, "carries 5 bytes"),
        ({"encoding": "32FC1", "step": 12}, "depth topic"),
        ({"encoding": ""}, "''"),
        ({"encoding": "nonsense"}, "nonsense"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(fields: dict[str, object], words: str) -> None:
    message = Image(height=2, width=3, encoding="rgb8", step=9, data=bytes(18))
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(PointingError) as raised:
        rgb_from_message(message)
    assert raised.value.outcome.code == Code.BAD_IMAGE
    assert words in raised.value.outcome.message


def test_a_colour_image_is_no_depth_image() -> None:
    with pytest.raises(PointingError, match="'rgb8' is not a depth image"):
        depth_from_message(message_from_rgb(np.zeros((2, 2, 3), np.uint8)))
