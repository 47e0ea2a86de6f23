"""The parameters of a camera, as data, and the frozen `CameraParameters` they become. See `parameters.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from molmo_ros.nodes.parameter_table import Parameter, ParameterError, Value
from molmo_ros.pointing.formats import AUTO

#: In a topic it stands for the camera's name.
CAMERA_PLACE = "{camera}"

CAMERA_PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "color_topic",
        "{camera}/color/image_raw",
        "Colour images (sensor_msgs/Image, or sensor_msgs/CompressedImage). {camera} stands for the camera's name.",
        change="inactive",
    ),
    Parameter(
        "color_transport",
        AUTO,
        "What comes on color_topic. auto: compressed when its name ends in /compressed, else raw.",
        choices=(AUTO, "raw", "compressed"),
        change="inactive",
    ),
    Parameter(
        "color_info_topic",
        "{camera}/color/camera_info",
        "Intrinsics of the colour camera (sensor_msgs/CameraInfo).",
        change="inactive",
    ),
    Parameter(
        "color_is_rectified",
        False,
        "Whether the colour images are already free of lens distortion (topics called image_rect).",
        change="inactive",
    ),
    Parameter(
        "depth_topic",
        "{camera}/depth/image_rect",
        "Depth images (sensor_msgs/Image, 16UC1 in mm or 32FC1 in m, or sensor_msgs/CompressedImage). "
        "Empty: no depth; points stay in the image and every target says NO_DEPTH.",
        change="inactive",
    ),
    Parameter(
        "depth_transport",
        AUTO,
        "What comes on depth_topic. auto: compressedDepth or compressed when its name ends so, else raw.",
        choices=(AUTO, "raw", "compressed", "compressedDepth"),
        change="inactive",
    ),
    Parameter(
        "depth_info_topic",
        "",
        "Intrinsics of the depth camera, when its images are its own and are to be registered to colour here. "
        "Empty: the depth images are registered to colour already.",
        change="inactive",
    ),
    Parameter(
        "depth_is_rectified",
        True,
        "Whether the depth images are free of lens distortion; of use with depth_info_topic only.",
        change="inactive",
    ),
    Parameter(
        "streaming",
        False,
        "Keep the camera subscribed, so that a request need not wait for the next frame. Off: subscribed only "
        "while a request waits, which costs nothing in between.",
        change="inactive",
    ),
    Parameter(
        "keep_open_s",
        0.0,
        "How long a camera that does not stream stays subscribed after its last request, so that the next of "
        "several finds it running: a few milliseconds of waiting against the work of taking frames that nobody "
        "asked for. What came while nobody waited is not used. 0: close it at once.",
        "s",
        (0.0, 3600.0),
        change="inactive",
    ),
    Parameter(
        "sensor_qos",
        "auto",
        "Reliability asked of the camera topics. auto: reliable when every publisher offers it, "
        "else best effort.",
        choices=("auto", "reliable", "best_effort"),
        change="inactive",
    ),
    Parameter(
        "max_frame_age_s",
        1.0,
        "Images older than this are refused (STALE_FRAME). A request may ask for less or more.",
        "s",
        (0.01, 3600.0),
    ),
    Parameter(
        "max_stamp_lead_s",
        0.25,
        "Images stamped further than this ahead of the node's clock are refused (FUTURE_STAMP).",
        "s",
        (0.0, 3600.0),
        change="inactive",
    ),
    Parameter(
        "max_pairing_gap_s",
        0.02,
        "Furthest that the stamps of colour, depth and intrinsics may lie apart; 0: they must be equal.",
        "s",
        (0.0, 1.0),
        change="inactive",
    ),
    Parameter(
        "frame_timeout_s",
        3.0,
        "How long a request waits for a complete frame.",
        "s",
        (0.05, 600.0),
        change="inactive",
    ),
    Parameter("depth_min_m", 0.1, "Nearest depth that is trusted (OUT_OF_RANGE below).", "m", (0.0, 100.0)),
    Parameter("depth_max_m", 4.0, "Furthest depth that is trusted (OUT_OF_RANGE above).", "m", (0.0, 1000.0)),
    Parameter(
        "depth_noise",
        "d435",
        "Noise of the depth camera, behind the covariance of a target. generic: a camera nobody has "
        "measured.",
        choices=("d435", "kinect", "generic"),
    ),
    Parameter(
        "depth_radius_px",
        0,
        "Half the side of the square around a point in which depth is read; 0 means 1/64 of the image's "
        "width.",
        "pixels",
        (0, 200),
    ),
    Parameter(
        "extrinsic_sigma_m",
        0.0,
        "Standard deviation, per axis, of where the camera is mounted (from the hand-eye calibration).",
        "m",
        (0.0, 1.0),
    ),
    Parameter(
        "extrinsic_sigma_rad",
        0.0,
        "Standard deviation, per axis, of how the camera is turned on its mount.",
        "rad",
        (0.0, 1.0),
    ),
)


@dataclass(frozen=True)
class CameraParameters:
    """One camera; units and meaning are those of `CAMERA_PARAMETERS`."""

    name: str
    color_topic: str
    color_transport: str
    color_info_topic: str
    color_is_rectified: bool
    depth_topic: str
    depth_transport: str
    depth_info_topic: str
    depth_is_rectified: bool
    streaming: bool
    keep_open_s: float
    sensor_qos: str
    max_frame_age_s: float
    max_stamp_lead_s: float
    max_pairing_gap_s: float
    frame_timeout_s: float
    depth_min_m: float
    depth_max_m: float
    depth_noise: str
    depth_radius_px: int
    extrinsic_sigma_m: float
    extrinsic_sigma_rad: float

    @classmethod
    def from_values(cls, name: str, values: Mapping[str, Value]) -> CameraParameters:
        """What is given for this camera, else what is given for all; `ParameterError` names what is wrong."""
        chosen: dict[str, Any] = {}
        for parameter in CAMERA_PARAMETERS:
            own = f"{name}.{parameter.name}"
            where = own if own in values else parameter.name
            value = parameter.check(values[where], where)
            if parameter.name.endswith("_topic"):
                value = str(value).replace(CAMERA_PLACE, name)
            chosen[parameter.name] = value
        camera = cls(name=name, **chosen)
        if not camera.color_topic or not camera.color_info_topic:
            raise ParameterError("parameters color_topic and color_info_topic must name topics: one is empty")
        if camera.depth_min_m >= camera.depth_max_m:
            raise ParameterError(
                f"parameter depth_min_m is {camera.depth_min_m:g}: it must be below "
                f"depth_max_m ({camera.depth_max_m:g})"
            )
        return camera


assert [field.name for field in fields(CameraParameters)] == ["name", *(entry.name for entry in CAMERA_PARAMETERS)]
