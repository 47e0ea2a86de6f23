"""The parameters of the pointing node, as data: each stands once, here in `NODE_PARAMETERS`, or, in a file
of its own, in `CAMERA_PARAMETERS`, `MODEL_PARAMETERS`, `GRIPPER_PARAMETERS`, `RECORDING_PARAMETERS` or
`HAND_OFF_PARAMETERS`.

They are read into a frozen `PointingParameters`. A camera's parameters stand at the top level for all cameras,
and as `NAME.parameter` for one camera alone. The page `docs/parameters.md` is printed from here:
`python -m molmo_ros.nodes.parameters > docs/parameters.md`, and with `--yaml` the example file
`config/pointing.yaml`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from molmo_ros.geometry.gripper_room import Gripper
from molmo_ros.nodes.camera_parameters import CAMERA_PARAMETERS, CAMERA_PLACE, CameraParameters
from molmo_ros.nodes.gripper_parameters import GRIPPER_PARAMETERS
from molmo_ros.nodes.hand_off_parameters import HAND_OFF_PARAMETERS, NAV2, HandOffParameters
from molmo_ros.nodes.model_parameters import MODEL_PARAMETERS
from molmo_ros.nodes.parameter_table import (
    Parameter,
    ParameterError,
    Value,
    markdown_rows,
    nearest_name,
    yaml_lines,
)
from molmo_ros.nodes.recording_parameters import RECORDING_PARAMETERS
from molmo_ros.pointing.formats import AUTO, FORMATS

_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

NODE_PARAMETERS: tuple[Parameter, ...] = (
    # The node
    Parameter(
        "autostart",
        True,
        "Configure and activate by itself. Off: a lifecycle manager does it (docs/node.md).",
        change="start",
    ),
    Parameter(
        "strict_parameters",
        True,
        "Parameters that this node does not have end it at the start. Off: they are only warned of.",
        change="start",
    ),
    Parameter(
        "diagnostics_period_s",
        1.0,
        "Time between two messages on /diagnostics.",
        "s",
        (0.1, 60.0),
        change="start",
    ),
    *MODEL_PARAMETERS,
    # Transforms
    Parameter(
        "target_frame",
        "base_link",
        "Frame in which targets and goals are expressed.",
        change="inactive",
    ),
    Parameter(
        "fixed_frame",
        "",
        "A frame that does not move with the robot, such as odom. Given, targets are carried through it from the "
        "image's stamp to the time of the goal, for bases that move meanwhile. Empty: the base stands still.",
        change="inactive",
    ),
    Parameter(
        "tf_timeout_s",
        1.0,
        "How long a complete frame waits for a transform at its stamp.",
        "s",
        (0.0, 600.0),
        change="inactive",
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
    Parameter(
        "max_target_length",
        256,
        "Longest words to point at. A question may be eight times as long.",
        "characters",
        (1, 4096),
    ),
    Parameter(
        "max_points",
        0,
        "Most points per answer when the request sets no limit; 0 means no limit.",
        range=(0, 1000),
    ),
    # Held frames
    Parameter(
        "held_frames",
        8,
        "Most frames kept for later questions by their token; the one not used for longest goes first.",
        range=(0, 1000),
        change="inactive",
    ),
    Parameter(
        "held_megabytes",
        512.0,
        "Memory that frames kept for later questions may take together, what the model made of them included.",
        "MB",
        (0.0, 1.0e6),
        change="inactive",
    ),
    Parameter(
        "held_age_s",
        120.0,
        "Frames kept for later questions go after this time.",
        "s",
        (0.1, 86400.0),
        change="inactive",
    ),
    # Checks
    Parameter(
        "min_confidence",
        0.0,
        "Targets below this confidence are refused (LOW_CONFIDENCE). 0 accepts all.",
        range=(0.0, 1.0),
    ),
    Parameter(
        "sigma_px_if_unknown",
        4.0,
        "Standard deviation taken for a point of a model that gives none.",
        "pixels",
        (0.0, 100.0),
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
        "single",
        "Which of several good targets goes to ~/goal_pose. single: none, only one alone does. best: the highest "
        "confidence. first: the model's first.",
        choices=("single", "best", "first"),
    ),
    Parameter(
        "publish_annotated_image",
        False,
        "Draw and publish ~/annotated_image for every request, not only while somebody subscribes to it.",
    ),
    *GRIPPER_PARAMETERS,
    *RECORDING_PARAMETERS,
    # Cameras
    Parameter(
        "cameras",
        ["camera"],
        "What requests call the cameras; an empty name in a request means the first. Any parameter in the last "
        "table may be given for one camera alone, as NAME.parameter.",
        change="start",
    ),
)

PARAMETERS = (*NODE_PARAMETERS, *HAND_OFF_PARAMETERS, *CAMERA_PARAMETERS)


@dataclass(frozen=True)
class PointingParameters:
    """The values of all parameters at one time; units and meaning are those of `NODE_PARAMETERS`. Where goals go stands
    in `planner`."""

    autostart: bool
    strict_parameters: bool
    diagnostics_period_s: float
    backend: str
    model: str
    allow_downloads: bool
    point_format: str
    device: str
    dtype: str
    quantization: str
    max_crops: int
    remote_url: str
    remote_key_variable: str
    remote_key_file: str
    remote_timeout_s: float
    remote_tries: int
    target_frame: str
    fixed_frame: str
    tf_timeout_s: float
    request_timeout_s: float
    max_queue: int
    max_target_length: int
    max_points: int
    held_frames: int
    held_megabytes: float
    held_age_s: float
    min_confidence: float
    sigma_px_if_unknown: float
    workspace_min: tuple[float, ...]
    workspace_max: tuple[float, ...]
    approach: str
    select: str
    publish_annotated_image: bool
    gripper_max_opening_m: float
    gripper_finger_depth_m: float
    gripper_finger_width_m: float
    gripper_finger_thickness_m: float
    gripper_tip_clearance_m: float
    record: str
    record_max_megabytes: float
    cameras: tuple[CameraParameters, ...]
    planner: HandOffParameters

    @classmethod
    def from_values(cls, values: Mapping[str, Value]) -> PointingParameters:
        """Check every value and those that hang together; `ParameterError` names the first that is wrong."""
        checked: dict[str, Any] = {}
        for parameter in NODE_PARAMETERS:
            value = parameter.check(values[parameter.name])
            checked[parameter.name] = tuple(value) if isinstance(value, list) else value
        names = checked["cameras"]
        check_camera_names(names)
        checked["cameras"] = tuple(CameraParameters.from_values(name, values) for name in names)
        checked["planner"] = HandOffParameters.from_values(values)
        parameters = cls(**checked)
        by_topic: dict[str, str] = {}
        for camera in parameters.cameras:
            other = by_topic.setdefault(camera.color_topic, camera.name)
            if other != camera.name:
                raise ParameterError(
                    f"cameras {other} and {camera.name} have the same color_topic {camera.color_topic!r}: give each "
                    f"its own, as {camera.name}.color_topic, or write {CAMERA_PLACE} in it"
                )
        if not parameters.target_frame.strip("/"):
            raise ParameterError("parameter target_frame is empty: it names a frame of TF, e.g. base_link")
        if any(
            low >= high for low, high in zip(parameters.workspace_min, parameters.workspace_max, strict=True)
        ):
            raise ParameterError("parameter workspace_min must be below workspace_max in x, y and z")
        if parameters.planner.hand_off == NAV2:
            parameters.check_frames_of_nav2()
        if parameters.backend == "remote":
            for name in ("remote_url", "model"):
                if not getattr(parameters, name):
                    raise ParameterError(f"parameter {name} is empty: backend remote needs it")
            if parameters.point_format == AUTO:
                raise ParameterError(
                    "parameter point_format is auto: backend remote needs the format that the model speaks; "
                    f"it takes one of {', '.join(FORMATS)}"
                )
        return parameters

    def check_frames_of_nav2(self) -> None:
        """Raises ParameterError for frames with which no goal for a base that drives can be made."""
        if not self.fixed_frame:
            raise ParameterError(
                "parameter fixed_frame is empty: hand_off nav2 drives the base, so targets must be carried through a "
                "frame that stands still, e.g. odom"
            )
        if self.target_frame.lstrip("/") in (self.planner.nav2_frame.lstrip("/"), self.fixed_frame.lstrip("/")):
            raise ParameterError(
                f"parameter target_frame is {self.target_frame}: hand_off nav2 needs a frame of the robot, e.g. "
                "base_link, to know where it stands"
            )

    def camera_called(self, name: str) -> CameraParameters | None:
        """The camera of that name, the first for ""; None when there is none."""
        if not name:
            return self.cameras[0]
        return next((camera for camera in self.cameras if camera.name == name), None)

    @property
    def gripper(self) -> Gripper:
        return Gripper(
            **{each.name: getattr(self, f"gripper_{each.name}") for each in fields(Gripper)}
        )

    def values(self) -> dict[str, Value]:
        """What `from_values` makes equal parameters of; cameras each with values of their own."""
        values: dict[str, Value] = {
            entry.name: _as_value(getattr(self, entry.name)) for entry in NODE_PARAMETERS
        }
        values |= {
            entry.name: _as_value(getattr(self.planner, entry.name)) for entry in HAND_OFF_PARAMETERS
        }
        values["cameras"] = [camera.name for camera in self.cameras]
        for camera in self.cameras:
            for entry in CAMERA_PARAMETERS:
                values[f"{camera.name}.{entry.name}"] = getattr(camera, entry.name)
        return values

    def model_choice(self) -> tuple[Any, ...]:
        """Equal for two sets of parameters exactly when they mean the same model."""
        return tuple(getattr(self, entry.name) for entry in MODEL_PARAMETERS)


def _as_value(value: Any) -> Value:
    return list(value) if isinstance(value, tuple) else value


def check_camera_names(names: tuple[str, ...]) -> None:
    if not names or len(set(names)) != len(names):
        raise ParameterError(f"parameter cameras is {list(names)!r}: it takes at least one name, each once")
    for name in names:
        if not _CAMERA_NAME.fullmatch(name) or name in {parameter.name for parameter in PARAMETERS}:
            raise ParameterError(
                f"parameter cameras holds {name!r}: a camera's name has letters, digits and underscores, begins "
                "with a letter, and is no parameter's name"
            )


def table_entry(name: str, cameras: tuple[str, ...]) -> Parameter:
    """The entry behind a name, which may stand for one camera. `ParameterError` names the nearest when there is
    none."""
    known = {parameter.name: parameter for parameter in PARAMETERS}
    known |= {f"{camera}.{entry.name}": entry for camera in cameras for entry in CAMERA_PARAMETERS}
    if name in known:
        return known[name]
    camera, dot, rest = name.rpartition(".")
    if dot and rest in {entry.name for entry in CAMERA_PARAMETERS}:
        raise ParameterError(
            f"unknown parameter {name}: no camera is called {camera!r}; parameter cameras names {', '.join(cameras)}"
        )
    near = nearest_name(name, known)
    meant = f"; is {near} meant?" if near else ""
    raise ParameterError(f"unknown parameter {name}{meant} (all parameters: docs/parameters.md)")


def as_markdown() -> str:
    """The page docs/parameters.md."""
    lines = [
        "# Parameters of pointing_node",
        "",
        "Printed from `molmo_ros/nodes/parameters.py` by `python -m molmo_ros.nodes.parameters`; a test",
        "keeps this page and `config/pointing.yaml` current.",
        "",
        "*Changes* says when a parameter may be set on a running node: at any time (it holds from the next request",
        "on), while the node is not active (deactivate, set, activate), or never. What cannot be is refused with the",
        "reason; names that do not exist end the node at its start, with the nearest name (`strict_parameters`).",
        "",
        "## The node",
        "",
        *markdown_rows(NODE_PARAMETERS),
        "",
        "## Where goals go",
        "",
        "To whom a goal is handed, whether that may move the robot, and whether a person is asked first:",
        "[moveit.md](moveit.md), [node.md](node.md).",
        "",
        *markdown_rows(HAND_OFF_PARAMETERS),
        "",
        "## Each camera",
        "",
        "Given as they stand here they hold for all cameras; as `NAME.parameter` (at the start) for that camera alone:",
        "",
        "```yaml",
        "cameras: [head, wrist]",
        'color_topic: "/{camera}/color/image_raw"',
        "wrist:",
        "  depth_min_m: 0.05",
        "```",
        "",
        *markdown_rows(CAMERA_PARAMETERS),
    ]
    return "\n".join(lines) + "\n"


def as_example() -> str:
    """The file config/pointing.yaml."""
    lines = [
        "# Parameters of pointing_node with their defaults; docs/parameters.md says the same as a table.",
        "# Copy it, keep the lines that differ for your robot, and give it to the launch file as params_file.",
        "/**:",
        "  ros__parameters:",
        *yaml_lines(PARAMETERS, "    "),
    ]
    return "\n".join(lines) + "\n"


assert [field.name for field in fields(PointingParameters)] == [
    *(entry.name for entry in NODE_PARAMETERS),
    "planner",
]

if __name__ == "__main__":
    sys.stdout.write(as_example() if "--yaml" in sys.argv[1:] else as_markdown())
