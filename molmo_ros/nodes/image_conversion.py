"""sensor_msgs/Image to and from numpy.

The encodings that cameras mostly send are read in plain numpy, without copying where the layout allows it, Bayer and
YUV 4:2:2 by the conversions of OpenCV that cv_bridge stands on (its port on PyPI has no YUV and knows no padding); the
rest goes through cv_bridge, which is imported only then. Encodings are those of sensor_msgs/image_encodings.hpp.
Whatever does not fit is refused with BAD_IMAGE, by name.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
from sensor_msgs.msg import Image

from molmo_ros.geometry.depth_image import METRE_ENCODINGS, MILLIMETRE_ENCODINGS, depth_m_from
from molmo_ros.outcome import Code, PointingError

# encoding -> numpy type of one channel, channels
LAYOUTS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "8UC3": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "32FC1": ("f4", 1),
    **{f"bayer_{pattern}8": ("u1", 1) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{pattern}16": ("u2", 1) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    **dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), ("u1", 2)),
}

# OpenCV names a Bayer pattern by the second row and column, ROS by the first.
_OF_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "mono16": cv2.COLOR_GRAY2RGB,
    **dict.fromkeys(("yuv422", "uyvy"), cv2.COLOR_YUV2RGB_UYVY),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), cv2.COLOR_YUV2RGB_YUYV),
    **{f"bayer_{pattern}{bits}": code for pattern, code in _OF_BAYER.items() for bits in (8, 16)},
}


def pixels(message: Image) -> np.ndarray:
    """The image as it was sent: HxW or HxWxC in the machine's byte order; a view of the message when
    possible.

    Raises PointingError(BAD_IMAGE) for sizes that do not add up and encodings outside `LAYOUTS`.
    """
    if message.encoding not in LAYOUTS:
        raise PointingError(
            Code.BAD_IMAGE,
            f"encoding {message.encoding!r} has no plain layout; known: {', '.join(LAYOUTS)}",
        )
    kind, channels = LAYOUTS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height == 0 or width == 0:
        raise PointingError(Code.BAD_IMAGE, f"the {message.encoding} image is empty ({width}x{height})")
    row_bytes = width * channels * dtype.itemsize
    if step < row_bytes:
        raise PointingError(
            Code.BAD_IMAGE,
            f"a row of the {width}x{height} {message.encoding} image has {step} bytes (step); it needs "
            f"{row_bytes}",
        )
    data = np.frombuffer(message.data, np.uint8)
    needed = step * (height - 1) + row_bytes
    if data.size < needed:
        raise PointingError(
            Code.BAD_IMAGE,
            f"the {width}x{height} {message.encoding} image carries {data.size} bytes; it needs {needed}",
        )
    shape = (height, width) if channels == 1 else (height, width, channels)
    if step == row_bytes:
        image = data[: step * height].view(dtype).reshape(shape)
    elif data.size >= step * height:
        image = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :row_bytes]).view(dtype)
        image = image.reshape(shape)
    else:  # the last row comes without its padding
        rows = [data[step * row : step * row + row_bytes] for row in range(height)]
        image = np.stack(rows).view(dtype).reshape(shape)
    return image if dtype.isnative else image.astype(dtype.newbyteorder("="))


def rgb_from_message(message: Image) -> np.ndarray:
    """HxWx3 uint8 RGB of any colour or grey image; PointingError(BAD_IMAGE) when that cannot be."""
    if message.encoding in ("rgb8", "8UC3"):
        return pixels(message)
    if message.encoding in _TO_RGB:
        try:
            image = np.asarray(cv2.cvtColor(pixels(message), _TO_RGB[message.encoding]))
        except cv2.error as error:
            size = f"{message.width}x{message.height}"
            raise PointingError(
                Code.BAD_IMAGE, f"the {size} {message.encoding} image cannot be turned into RGB: {error.err}"
            ) from error
        return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    if message.encoding in LAYOUTS:
        raise PointingError(
            Code.BAD_IMAGE,
            f"encoding {message.encoding} is not a colour image; is the depth topic given as color_topic?",
        )
    return _through_cv_bridge(message)


def depth_from_message(message: Image) -> np.ndarray:
    """HxW float32 metres, NaN where there is no return; PointingError(BAD_IMAGE) when it is not a depth
    image."""
    if message.encoding not in (*MILLIMETRE_ENCODINGS, *METRE_ENCODINGS):
        raise PointingError(
            Code.BAD_IMAGE,
            f"encoding {message.encoding!r} is not a depth image; depth comes as "
            f"{', '.join((*MILLIMETRE_ENCODINGS, *METRE_ENCODINGS))}",
        )
    return depth_m_from(message.encoding, pixels(message))


def message_from_rgb(image_HW3: np.ndarray) -> Image:
    """An rgb8 message with an empty header from HxWx3 uint8 RGB."""
    if image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or image_HW3.dtype != np.uint8:
        raise ValueError(f"an rgb8 image is HxWx3 uint8, not {image_HW3.shape} {image_HW3.dtype}")
    message = Image()
    message.height, message.width = image_HW3.shape[:2]
    message.encoding = "rgb8"
    message.is_bigendian = sys.byteorder == "big"
    message.step = 3 * message.width
    # `_data` takes the buffer as it is; the checked setter would look at a megabyte byte by byte.
    message._data.frombytes(np.ascontiguousarray(image_HW3).data)
    return message


def _through_cv_bridge(message: Image) -> np.ndarray:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError as error:
        raise PointingError(
            Code.BAD_IMAGE,
            f"encoding {message.encoding!r} needs cv_bridge, which is not installed "
            f"(apt install ros-$ROS_DISTRO-cv-bridge); without it: {', '.join(LAYOUTS)}",
        ) from error
    try:
        image = np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"))
    except (CvBridgeError, cv2.error, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PointingError(
            Code.BAD_IMAGE,
            f"encoding {message.encoding!r} cannot be turned into RGB ({error}); known: "
            f"{', '.join(LAYOUTS)}, and what else cv_bridge knows",
        ) from error
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise PointingError(
            Code.BAD_IMAGE, f"encoding {message.encoding!r} came out as {image.shape} {image.dtype}, not RGB"
        )
    return image
