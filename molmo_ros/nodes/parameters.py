"""The parameters of the pointing node, as data: each stands once in `PARAMETERS`, with its meaning and
limits.

The node declares them from this table, reads them into a frozen `PointingParameters`, and the page
`docs/parameters.md` is printed from it: `python -m molmo_ros.nodes.parameters > docs/parameters.md`, and with
`--yaml` the example file `config/pointing.yaml`.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from molmo_ros.pointing.formats import AUTO, FORMATS

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node

Value = bool | int | float | str | list[float]


class ParameterError(ValueError):
    """A parameter has a value that it cannot have; the message names it and says which values it takes."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: `range` is inclusive and applies to every element of a list; `choices` are for
    strings."""

    name: str
    default: Value
    description: str
    unit: str = ""
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    @property
    def type_name(self) -> str:
        """The ROS name of the type, as `ros2 param describe` writes it."""
        if isinstance(self.default, list):
            return "double array"
        names = {bool: "boolean", int: "integer", float: "double", str: "string"}
        return names[type(self.default)]

    def limits(self) -> str:
        """The allowed values in words, empty when any value of the type will do."""
        if self.choices:
            return ", ".join(self.choices)
        if self.range:
            return f"{self.range[0]:g} to {self.range[1]:g}"
        return ""

    def check(self, value: Value) -> Value:
        """The value, if this parameter can have it; `ParameterError` otherwise."""
        if self.choices and value not in self.choices:
            raise ParameterError(f"parameter {self.name} is {value!r}: it takes one of {self.limits()}")
        numbers: Sequence[Any] = value if isinstance(value, list) else [value]
        if isinstance(self.default, list) and len(numbers) != len(self.default):
            raise ParameterError(
                f"parameter {self.name} has {len(numbers)} numbers: it takes {len(self.default)}"
            )
        if self.range:
            low, high = self.range
            for number in numbers:
                if math.isnan(number) or not low <= number <= high:
                    unit = f" {self.unit}" if self.unit else ""
                    raise ParameterError(
                        f"parameter {self.name} is {value!r}: it takes {self.limits()}{unit}"
                    )
        return value


PARAMETERS: tuple[Parameter, ...] = (
    # The model
    Parameter(
        "model",
        "",
        "Folder of a checkpoint (docs/models.md). Empty: the small bundled model, which knows the simulated tabletop.",
    ),
    Parameter(
        "point_format",
        AUTO,
        "How the model was trained to point; it cannot be told from the numbers. auto: for Molmo and Molmo2, "
        "which have but one way.",
        choices=(AUTO, *FORMATS),
    ),
    Parameter(
        "device",
        "auto",
        "Where the model runs, as torch names it: cpu, cuda, cuda:1. auto: a GPU if there is one.",
    ),
    Parameter(
        "dtype",
        "auto",
        "Number format of the model's arithmetic. auto: bfloat16 on a GPU, float32 elsewhere.",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Parameter(
        "quantization",
        "none",
        "Weights of the language model on a CPU: int8 takes a quarter, int4 about a seventh of the memory of float32.",
        choices=("none", "int8", "int4"),
    ),
    # The camera
    Parameter(
        "camera_name",
        "camera",
        "What requests call this camera; an empty name in a request means it too.",
    ),
    Parameter("color_topic", "camera/color/image_raw", "Colour images (sensor_msgs/Image)."),
    Parameter(
        "color_info_topic",
        "camera/color/camera_info",
        "Intrinsics of the colour camera (sensor_msgs/CameraInfo).",
    ),
    Parameter(
        "color_is_rectified",
        False,
        "Whether the colour images are already free of lens distortion (topics called image_rect).",
    ),
    Parameter(
        "depth_topic",
        "camera/depth/image_rect",
        "Depth registered to the colour image (sensor_msgs/Image, 16UC1 in mm or 32FC1 in m). "
        "Empty: no depth; points stay in the image and every target says NO_DEPTH.",
    ),
    Parameter(
        "sensor_qos",
        "auto",
        "Reliability asked of the camera topics. auto: reliable when every publisher offers it, "
        "else best effort.",
        choices=("auto", "reliable", "best_effort"),
    ),
    Parameter(
        "max_frame_age_s",
        1.0,
        "Images older than this when they arrive are refused (STALE_FRAME). A request may ask for less "
        "or more.",
        "s",
        (0.01, 3600.0),
    ),
    Parameter(
        "max_stamp_lead_s",
        0.25,
        "Images stamped further than this ahead of the node's clock are refused (FUTURE_STAMP).",
        "s",
        (0.0, 3600.0),
    ),
    Parameter(
        "max_pairing_gap_s",
        0.02,
        "Furthest that the stamps of colour, depth and intrinsics may lie apart.",
        "s",
        (0.0, 1.0),
    ),
    Parameter(
        "frame_timeout_s",
        3.0,
        "How long a request waits for a complete frame.",
        "s",
        (0.05, 600.0),
    ),
    # Transforms
    Parameter("target_frame", "base_link", "Frame in which targets and goals are expressed."),
    Parameter(
        "tf_timeout_s",
        1.0,
        "How long a complete frame waits for a transform at its stamp.",
        "s",
        (0.0, 600.0),
    ),
    # Requests
    Parameter(
        "request_timeout_s",
        30.0,
        "A request is answered after this time at the latest. A request may ask for less or more.",
        "s",
        (0.1, 3600.0),
    ),
    Parameter(
        "max_queue",
        4,
        "Requests that may wait behind the one at work; one more is answered BUSY.",
        range=(0, 1000),
    ),
    Parameter("max_target_length", 256, "Longest words to point at.", "characters", (1, 4096)),
    Parameter(
        "max_points",
        0,
        "Most points per answer when the request sets no limit; 0 means no limit.",
        range=(0, 1000),
    ),
    # Checks
    Parameter(
        "min_confidence",
        0.0,
        "Targets below this confidence are refused (LOW_CONFIDENCE). 0 accepts all.",
        range=(0.0, 1.0),
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
        "sigma_px_if_unknown",
        4.0,
        "Standard deviation taken for a point of a model that gives none.",
        "pixels",
        (0.0, 100.0),
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
    Parameter(
        "workspace_min",
        [-1000.0, -1000.0, -1000.0],
        "Lower corner of the box in target_frame in which goals may lie.",
        "m",
        (-1.0e6, 1.0e6),
    ),
    Parameter(
        "workspace_max",
        [1000.0, 1000.0, 1000.0],
        "Upper corner of the box in target_frame in which goals may lie.",
        "m",
        (-1.0e6, 1.0e6),
    ),
    # Goals
    Parameter(
        "approach",
        "top_down",
        "Direction of the tool. top_down: against z of target_frame. surface_normal: into the surface.",
        choices=("top_down", "surface_normal"),
    ),
    Parameter(
        "select",
        "best",
        "Which of several good targets becomes the goal. best: the highest confidence. first: the "
        "model's first.",
        choices=("best", "first"),
    ),
    Parameter(
        "publish_annotated_image",
        False,
        "Draw and publish ~/annotated_image for every request, not only while somebody subscribes to it.",
    ),
)


@dataclass(frozen=True)
class PointingParameters:
    """The values of all parameters, read once; units and meaning are those of `PARAMETERS`."""

    model: str
    point_format: str
    device: str
    dtype: str
    quantization: str
    camera_name: str
    color_topic: str
    color_info_topic: str
    color_is_rectified: bool
    depth_topic: str
    sensor_qos: str
    max_frame_age_s: float
    max_stamp_lead_s: float
    max_pairing_gap_s: float
    frame_timeout_s: float
    target_frame: str
    tf_timeout_s: float
    request_timeout_s: float
    max_queue: int
    max_target_length: int
    max_points: int
    min_confidence: float
    depth_min_m: float
    depth_max_m: float
    depth_noise: str
    depth_radius_px: int
    sigma_px_if_unknown: float
    extrinsic_sigma_m: float
    extrinsic_sigma_rad: float
    workspace_min: tuple[float, ...]
    workspace_max: tuple[float, ...]
    approach: str
    select: str
    publish_annotated_image: bool

    @classmethod
    def from_values(cls, values: Mapping[str, Value]) -> PointingParameters:
        """Check every value and those that hang together; `ParameterError` names the first that is wrong."""
        checked = {parameter.name: parameter.check(values[parameter.name]) for parameter in PARAMETERS}
        parameters = cls(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in checked.items()}  # type: ignore[arg-type]
        )
        if not parameters.color_topic or not parameters.color_info_topic:
            raise ParameterError("parameters color_topic and color_info_topic must name topics: one is empty")
        if not parameters.target_frame:
            raise ParameterError("parameter target_frame is empty: it names a frame of TF, e.g. base_link")
        if parameters.depth_min_m >= parameters.depth_max_m:
            raise ParameterError(
                f"parameter depth_min_m is {parameters.depth_min_m:g}: it must be below "
                f"depth_max_m ({parameters.depth_max_m:g})"
            )
        if any(
            low >= high for low, high in zip(parameters.workspace_min, parameters.workspace_max, strict=True)
        ):
            raise ParameterError("parameter workspace_min must be below workspace_max in x, y and z")
        return parameters

    @classmethod
    def declare(cls, node: Node) -> PointingParameters:
        """Declare all parameters on the node, read-only, and read them; `ParameterError` when one is
        wrong."""
        from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

        values: dict[str, Value] = {}
        for parameter in PARAMETERS:
            try:
                value = node.declare_parameter(
                    parameter.name, parameter.default, _descriptor(parameter)
                ).value
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                limits = f" ({parameter.limits()})" if parameter.limits() else ""
                raise ParameterError(
                    f"parameter {parameter.name} takes a {parameter.type_name}{limits}: {error}"
                ) from error
            values[parameter.name] = list(value) if isinstance(parameter.default, list) else value
        return cls.from_values(values)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(
        description=parameter.description + (f" [{parameter.unit}]" if parameter.unit else ""),
        additional_constraints=parameter.limits(),
        read_only=True,
    )
    if parameter.range and isinstance(parameter.default, float):
        low, high = parameter.range
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif parameter.range and isinstance(parameter.default, int):
        low, high = parameter.range
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def as_markdown() -> str:
    """The page docs/parameters.md."""
    lines = [
        "# Parameters of pointing_node",
        "",
        "Printed from `molmo_ros/nodes/parameters.py` by `python -m molmo_ros.nodes.parameters`; a test",
        "keeps this page and `config/pointing.yaml` current. All are read when the node starts.",
        "",
        "| name | type | default | allowed | unit | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{parameter.name}` | {parameter.type_name} | `{_as_yaml(parameter.default)}` "
        f"| {parameter.limits()} | {parameter.unit} | {parameter.description} |"
        for parameter in PARAMETERS
    ]
    return "\n".join(lines) + "\n"


def as_example() -> str:
    """The file config/pointing.yaml."""
    lines = [
        "# Parameters of pointing_node with their defaults; docs/parameters.md says the same as a table.",
        "# Copy it, keep the lines that differ for your robot, and give it to the launch file as params_file.",
        "/**:",
        "  ros__parameters:",
    ]
    for parameter in PARAMETERS:
        unit = f" [{parameter.unit}]" if parameter.unit else ""
        lines += [f"    # {line}" for line in textwrap.wrap(parameter.description + unit, 100)]
        lines.append(f"    {parameter.name}: {_as_yaml(parameter.default)}")
    return "\n".join(lines) + "\n"


def _as_yaml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


assert [field.name for field in fields(PointingParameters)] == [parameter.name for parameter in PARAMETERS]

if __name__ == "__main__":
    sys.stdout.write(as_example() if "--yaml" in sys.argv[1:] else as_markdown())
