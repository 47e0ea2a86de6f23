"""sensor_msgs/Image to numpy and back: any layout that the standard allows, and clear words for the rest."""

from __future__ import annotations

import numpy as np
import pytest
from camera_rig import encoded
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


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("big_endian", [False, True])
def test_a_bayer_mosaic_has_its_first_row_and_column_where_its_name_says(
    pattern: str, bits: int, big_endian: bool
) -> None:
    rgb = np.full((8, 10, 3), (200, 90, 10), np.uint8)
    mosaic = encoded(rgb, f"bayer_{pattern}8").astype(np.uint16)
    mosaic = mosaic.astype(np.uint8) if bits == 8 else mosaic * 257
    message = message_of(mosaic, f"bayer_{pattern}{bits}", padding=6, big_endian=big_endian)
    np.testing.assert_array_equal(rgb_from_message(message), rgb)


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv_pictures_keep_their_colours(encoding: str) -> None:
    rgb = np.full((4, 6, 3), (200, 90, 10), np.uint8)
    message = message_of(encoded(rgb, encoding), encoding, padding=6)
    np.testing.assert_allclose(rgb_from_message(message), rgb, atol=3)


def test_yuv_of_an_odd_width_is_refused() -> None:
    message = message_of(np.zeros((4, 5, 2), np.uint8), "yuv422")
    with pytest.raises(PointingError, match="the 5x4 yuv422 image cannot be turned into RGB"):
        rgb_from_message(message)


def test_what_else_cv_bridge_knows_goes_through_it() -> None:
    """Which only its refusal shows where it is the port of PyPI."""
    pytest.importorskip("cv_bridge")
    with pytest.raises(PointingError, match="what else cv_bridge knows"):
        rgb_from_message(Image(height=2, width=3, encoding="sepia", step=9, data=bytes(18)))


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
