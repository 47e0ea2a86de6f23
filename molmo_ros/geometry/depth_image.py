"""Depth images in metres, whatever the driver sends."""

from __future__ import annotations

import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.outcome import Code, PointingError

MILLIMETRE_ENCODINGS = ("16UC1", "mono16")
METRE_ENCODINGS = ("32FC1",)


def depth_m_from(encoding: str, raw_HW: np.ndarray) -> np.ndarray:
    """HxW float32 metres from a ROS depth image, NaN where the sensor saw nothing.

    Units come from the encoding (REP 118): 16UC1 and mono16 hold millimetres, 32FC1 metres. 0, NaN, infinity
    and negative values all mean "no return".

    Raises PointingError(BAD_IMAGE) for other encodings and for pixels that are not of the encoding's type.
    """
    if encoding in MILLIMETRE_ENCODINGS:
        kind, itemsize = "u", 2
    elif encoding in METRE_ENCODINGS:
        kind, itemsize = "f", 4
    else:
        raise PointingError(
            Code.BAD_IMAGE,
            f"depth encoding '{encoding}' is unknown; valid are {', '.join(MILLIMETRE_ENCODINGS)} "
            f"(millimetres) and {', '.join(METRE_ENCODINGS)} (metres)",
        )
    if raw_HW.ndim != 2 or raw_HW.dtype.kind != kind or raw_HW.dtype.itemsize != itemsize:
        raise PointingError(
            Code.BAD_IMAGE,
            f"depth image says {encoding} but its pixels have shape {raw_HW.shape} of {raw_HW.dtype}",
        )
    if kind == "u":
        depth_m = raw_HW.astype(np.float32)
        depth_m *= np.float32(0.001)
        depth_m[raw_HW == 0] = np.nan
        return depth_m
    depth_m = raw_HW.astype(np.float32)
    depth_m[~((depth_m > 0) & (depth_m < np.inf))] = np.nan
    return depth_m


def check_depth_m(depth_m: np.ndarray, camera: CameraModel) -> None:
    """Raise PointingError(BAD_IMAGE) unless this is a depth image in metres of this camera's size."""
    if not isinstance(depth_m, np.ndarray) or depth_m.ndim != 2 or depth_m.dtype.kind != "f":
        found = f"{depth_m.shape} of {depth_m.dtype}" if isinstance(depth_m, np.ndarray) else type(depth_m)
        raise PointingError(
            Code.BAD_IMAGE, f"depth_m is {found}; needs HxW float32 metres (depth_m_from converts)"
        )
    if depth_m.shape != (camera.height, camera.width):
        raise PointingError(
            Code.BAD_IMAGE,
            f"depth_m is {depth_m.shape[1]}x{depth_m.shape[0]} but the camera model is of {camera.width}x"
            f"{camera.height}; give depth registered to the camera's image",
        )
