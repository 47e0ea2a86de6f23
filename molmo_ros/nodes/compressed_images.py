"""sensor_msgs/CompressedImage to numpy: jpeg and png colour, and the depth of compressed_depth_image_transport.

The format field says what is inside: "<encoding>; jpeg compressed bgr8", "<encoding>; compressedDepth png" and
"<encoding>; compressedDepth rvl", or plain "jpeg" and "png". compressedDepth carries 12 bytes before its picture
(int32 kind, float32 A, float32 B): a 32FC1 depth is stored as the whole number A / depth + B.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from molmo_ros.geometry.depth_image import MILLIMETRE_ENCODINGS, depth_m_from
from molmo_ros.nodes.rvl import BrokenRvl, decode_rvl
from molmo_ros.outcome import Code, PointingError

_DEPTH_HEADER = struct.Struct("<iff")
_RVL_SIZE = struct.Struct("<II")
_MOST_PIXELS = 1 << 28


def rgb_from_compressed(message: CompressedImage) -> np.ndarray:
    """HxWx3 uint8 RGB of a jpeg or png (or whatever OpenCV reads); PointingError(BAD_IMAGE) when it is none."""
    # Orientation marks are for people's photographs; intrinsics belong to the pixels as they were sent.
    picture = _decoded(
        message.data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION, message
    )
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise _bad(message, f"its pixels are {picture.dtype}")
    if picture.ndim == 2:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB))
    # image_transport names the order in which the channels were handed to the encoder.
    if "compressed rgb" in message.format:
        return picture
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def depth_from_compressed(message: CompressedImage, transport: str) -> np.ndarray:
    """HxW float32 metres, NaN where there is no return. `transport`: compressed (a plain 16-bit png) or
    compressedDepth. PointingError(BAD_IMAGE) when it is not one."""
    encoding, _, codec = (part.strip() for part in message.format.partition(";"))
    if transport == "compressed":
        return _plain_depth(message, encoding)
    data = bytes(message.data)
    if len(data) <= _DEPTH_HEADER.size:
        raise _bad(message, f"it has {len(data)} bytes, fewer than its header")
    _, quant_a, quant_b = _DEPTH_HEADER.unpack_from(data)
    payload = data[_DEPTH_HEADER.size :]
    if "rvl" in codec:
        stored = _rvl(payload, message)
    else:
        stored = _decoded(payload, cv2.IMREAD_UNCHANGED, message)
    if stored.ndim != 2 or stored.dtype != np.uint16:
        raise _bad(message, f"its pixels are {stored.shape} of {stored.dtype}, not 16-bit depth")
    if encoding in MILLIMETRE_ENCODINGS:
        return depth_m_from(encoding, stored)
    if encoding != "32FC1":
        raise _bad(
            message, f"its encoding {encoding!r} is no depth; known: 32FC1, {', '.join(MILLIMETRE_ENCODINGS)}"
        )
    if not np.isfinite([quant_a, quant_b]).all() or quant_a <= 0:
        raise _bad(message, f"its quantisation A = {quant_a:g}, B = {quant_b:g} cannot be")
    with np.errstate(divide="ignore", invalid="ignore"):
        depth_m = np.float32(quant_a) / (stored.astype(np.float32) - np.float32(quant_b))
    depth_m[stored == 0] = 0.0
    return depth_m_from("32FC1", depth_m)


def compressed_from_rgb(image_HW3: np.ndarray, quality: int = 90) -> CompressedImage:
    """A jpeg with an empty header from HxWx3 uint8 RGB."""
    good, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not good:
        raise ValueError(f"an image of {image_HW3.shape} {image_HW3.dtype} cannot be written as jpeg")
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    # `_data` takes the buffer as it is; the checked setter would look at it byte by byte.
    message._data.frombytes(jpeg.data)
    return message


def _plain_depth(message: CompressedImage, encoding: str) -> np.ndarray:
    stored = _decoded(message.data, cv2.IMREAD_UNCHANGED, message)
    if stored.ndim != 2 or stored.dtype != np.uint16:
        raise _bad(
            message, f"its pixels are {stored.shape} of {stored.dtype}; depth comes as 16-bit png in mm"
        )
    if encoding not in (*MILLIMETRE_ENCODINGS, "png", ""):
        raise _bad(message, f"its encoding {encoding!r} is no depth in whole millimetres")
    return depth_m_from("16UC1", stored)


def _decoded(data: bytes, flags: int, message: CompressedImage) -> np.ndarray:
    buffer = np.frombuffer(data, np.uint8)
    if not buffer.size:
        raise _bad(message, "it is empty")
    try:
        picture = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise _bad(message, " ".join(str(error).split())) from error
    if picture is None:
        raise _bad(message, f"its {buffer.size} bytes are no picture, or cut short")
    return np.asarray(picture)


def _rvl(payload: bytes, message: CompressedImage) -> np.ndarray:
    if len(payload) < _RVL_SIZE.size:
        raise _bad(message, f"its rvl part has {len(payload)} bytes, fewer than its size field")
    width, height = _RVL_SIZE.unpack_from(payload)
    if not 0 < width * height <= _MOST_PIXELS:
        raise _bad(message, f"its rvl part says {width}x{height} pixels")
    try:
        return decode_rvl(payload[_RVL_SIZE.size :], width * height).reshape(height, width)
    except BrokenRvl as error:
        raise _bad(message, str(error)) from error


def _bad(message: CompressedImage, why: str) -> PointingError:
    return PointingError(
        Code.BAD_IMAGE,
        f"the compressed image of format {message.format!r} cannot be read: {why}; known are jpeg and png for colour, "
        "compressedDepth png and rvl for depth",
    )
