"""One RGB-D instant: what everything after the camera works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.outcome import Code, PointingError


@dataclass(frozen=True, eq=False)
class Frame:
    """Colour, depth and camera of one instant; checked once here and trusted afterwards.

    `color_HW3`: uint8 RGB. `depth_m`: HxW float32 in metres, NaN = no return, registered to the colour image;
    None when there is only colour. `camera`: the model of this very image. `stamp_ns`: the image's stamp in
    nanoseconds. `frame_id`: the optical frame that `camera` speaks of.

    Raises PointingError: BAD_IMAGE for the pictures, BAD_CAMERA_INFO when the camera is another image's.
    """

    color_HW3: np.ndarray
    depth_m: np.ndarray | None
    camera: CameraModel
    stamp_ns: int
    frame_id: str

    def __post_init__(self) -> None:
        color = self.color_HW3
        if color.ndim != 3 or color.shape[2] != 3 or color.dtype != np.uint8 or color.size == 0:
            raise PointingError(
                Code.BAD_IMAGE,
                f"colour image has shape {color.shape} of {color.dtype}; needs HxWx3 uint8 RGB",
            )
        height, width = color.shape[:2]
        if (self.camera.width, self.camera.height) != (width, height):
            raise PointingError(
                Code.BAD_CAMERA_INFO,
                f"colour image is {width}x{height} but the camera model is of {self.camera.width}x"
                f"{self.camera.height}; publish this image's own CameraInfo (or use CameraModel.scaled)",
            )
        if self.depth_m is None:
            return
        if self.depth_m.ndim != 2 or self.depth_m.dtype != np.float32:
            raise PointingError(
                Code.BAD_IMAGE,
                f"depth has shape {self.depth_m.shape} of {self.depth_m.dtype}; needs HxW float32 metres "
                "(depth_m_from converts)",
            )
        if self.depth_m.shape != (height, width):
            raise PointingError(
                Code.BAD_IMAGE,
                f"depth image is {self.depth_m.shape[1]}x{self.depth_m.shape[0]} but colour is "
                f"{width}x{height}; depth must be registered to colour (RealSense: align_depth.enable:=true; "
                "others: depth_image_proc's register node)",
            )
