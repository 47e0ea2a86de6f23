"""From the bytes of one instant to a `Frame`: pixels, depth in the colour image, camera model.

What only depends on the cameras (their models, the table behind registration) is made once and kept as long as
their CameraInfo stays the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from molmo_ros.geometry.camera_model import CameraModel, RegionOfInterest
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.registration import DepthRegistration
from molmo_ros.nodes.compressed_images import depth_from_compressed, rgb_from_compressed
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.image_conversion import depth_from_message, rgb_from_message
from molmo_ros.outcome import Code, PointingError

# Of a CDR message: encapsulation, then the header's stamp, which changes with every frame.
_STAMP = slice(4, 12)


class FrameReader:
    """For one camera, on one thread."""

    def __init__(self, rules: FrameRules, *, color_is_rectified: bool, depth_is_rectified: bool) -> None:
        self._rules = rules
        self._color_camera = _KeptCamera(color_is_rectified)
        self._depth_camera = _KeptCamera(depth_is_rectified)
        self._registration: DepthRegistration | None = None
        self._registered_for: tuple[CameraModel, CameraModel, bytes] | None = None

    def read(self, raw: RawFrame) -> Frame:
        """Raises PointingError: BAD_IMAGE and BAD_CAMERA_INFO for what does not fit together."""
        color_HW3, color_frame = self._color(raw)
        camera = self._color_camera.model(raw.color_info)
        _same_frame("CameraInfo", self._color_camera.frame_id, color_frame, Code.BAD_CAMERA_INFO)
        depth_m = None
        if raw.depth is not None:
            depth_m, depth_frame = self._depth(raw.depth)
            if raw.depth_info is None:
                _same_frame("depth", depth_frame, color_frame, Code.BAD_IMAGE)
            else:
                depth_camera = self._depth_camera.model(raw.depth_info)
                _same_frame(
                    "the depth camera's CameraInfo",
                    self._depth_camera.frame_id,
                    depth_frame,
                    Code.BAD_CAMERA_INFO,
                )
                depth_m = self._registered(depth_m, depth_camera, camera, raw.T_color_depth)
        return Frame(
            color_HW3=color_HW3,
            depth_m=depth_m,
            camera=camera,
            stamp_ns=raw.stamp_ns,
            frame_id=raw.frame_id,
        )

    def _color(self, raw: RawFrame) -> tuple[np.ndarray, str]:
        if self._rules.color_transport == "raw":
            message = _deserialised(raw.color, Image, "colour image")
            return rgb_from_message(message), message.header.frame_id.lstrip("/")
        message = _deserialised(raw.color, CompressedImage, "colour image")
        return rgb_from_compressed(message), message.header.frame_id.lstrip("/")

    def _depth(self, data: bytes) -> tuple[np.ndarray, str]:
        transport = self._rules.depth_transport
        if transport == "raw":
            message = _deserialised(data, Image, "depth image")
            return depth_from_message(message), message.header.frame_id.lstrip("/")
        message = _deserialised(data, CompressedImage, "depth image")
        return depth_from_compressed(message, transport), message.header.frame_id.lstrip("/")

    def _registered(
        self,
        depth_m: np.ndarray,
        depth_camera: CameraModel,
        color_camera: CameraModel,
        T_color_depth: np.ndarray | None,
    ) -> np.ndarray:
        if T_color_depth is None:
            raise ValueError("a frame with its own depth camera needs the pose between the two cameras")
        if depth_m.shape != (depth_camera.height, depth_camera.width):
            raise PointingError(
                Code.BAD_IMAGE,
                f"the depth image is {depth_m.shape[1]}x{depth_m.shape[0]} but its CameraInfo of "
                f"{depth_camera.width}x{depth_camera.height}; give its own (depth_info_topic)",
            )
        made_for = (depth_camera, color_camera, T_color_depth.tobytes())
        if self._registration is None or self._registered_for != made_for:
            self._registration = DepthRegistration(depth_camera, color_camera, T_color_depth)
            self._registered_for = made_for
        return self._registration.registered(depth_m)


class _KeptCamera:
    """The model of the last CameraInfo, made anew only when more than its stamp changes."""

    def __init__(self, rectified: bool) -> None:
        self._rectified = rectified
        self._content: bytes | None = None
        self._model: CameraModel | None = None
        self.frame_id = ""

    def model(self, cdr: bytes) -> CameraModel:
        content = bytes(cdr[: _STAMP.start]) + bytes(cdr[_STAMP.stop :])
        if self._model is None or content != self._content:
            info = _deserialised(cdr, CameraInfo, "CameraInfo")
            self._model = camera_model_of(info, rectified=self._rectified)
            self.frame_id = info.header.frame_id.lstrip("/")
            self._content = content
        return self._model


def camera_model_of(info: CameraInfo, *, rectified: bool) -> CameraModel:
    """Raises PointingError(BAD_CAMERA_INFO)."""
    roi = info.roi
    return CameraModel.from_info(
        width=info.width,
        height=info.height,
        k=info.k,
        d=info.d,
        r=info.r,
        p=info.p,
        distortion_model=info.distortion_model,
        binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=RegionOfInterest(roi.x_offset, roi.y_offset, roi.height, roi.width, roi.do_rectify),
        rectified=rectified,
    )


def _same_frame(name: str, frame_id: str, color_frame: str, code: Code) -> None:
    if frame_id and frame_id != color_frame:
        raise PointingError(
            code,
            f"{name} is of frame {frame_id!r} but its image of {color_frame!r}; give the camera's own CameraInfo, "
            "and depth registered to colour or depth_info_topic",
        )


def _deserialised(data: bytes, message_type: type[Any], name: str) -> Any:
    try:
        return deserialize_message(data, message_type)
    except Exception as error:  # rclpy's typesupport raises bare errors for broken bytes
        raise PointingError(Code.BAD_IMAGE, f"the {name} message cannot be read: {error}") from error
