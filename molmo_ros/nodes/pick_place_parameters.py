"""The parameters of pick_place_node, as data: the page `docs/pick_place_parameters.md` is printed from here, by
`python -m molmo_ros.nodes.pick_place_parameters`, and with `--yaml` the example file `config/pick_place.yaml`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from molmo_ros.nodes.parameter_table import Parameter, ParameterError, Value, fixed_example, fixed_page
from molmo_ros.planning.pick_options import PickOptions
from molmo_ros.planning.task_words import EMPTY_SPOTS, PREPOSITIONS, PlaceWords
from molmo_ros.planning.top_grasp import Fingers

if TYPE_CHECKING:
    from rclpy.node import Node

PICK_PLACE_PARAMETERS: tuple[Parameter, ...] = (
    # The robot
    Parameter(
        "robot",
        "fr3",
        "Which arm: a name in config/robots/ or the path of a YAML file, the same as planner_node's.",
    ),
    Parameter(
        "base_frame", "", "TF frame of the arm's base. Empty: the base link's own name in the robot's file."
    ),
    Parameter("joint_states_topic", "joint_states", "Where the arm's joints are heard of."),
    Parameter(
        "max_state_age_s", 0.5, "Joint states older than this are no state (STATE_STALE).", "s", (0.01, 10.0)
    ),
    # Whom it asks
    Parameter("pointing_action", "pointing_node/point_to_target", "The action that points."),
    Parameter("pointing_timeout_s", 30.0, "How long an answer may take.", "s", (0.1, 3600.0)),
    Parameter("planner_action", "planner_node/move_to_goal", "The action that moves."),
    Parameter(
        "planner_heartbeat_topic",
        "planner_node/heartbeat",
        "Where planner_node says that it is alive (std_msgs/Empty) while a goal is at work.",
    ),
    Parameter(
        "planner_silence_s",
        5.0,
        "A planner that is silent for this long in the middle of a goal has died (PLANNER_UNAVAILABLE).",
        "s",
        (0.1, 60.0),
    ),
    Parameter(
        "speed_scale",
        0.0,
        "Share of the joints' limits that is asked of the planner; 0: as the planner's parameter says.",
        range=(0.0, 1.0),
    ),
    Parameter(
        "gripper_action",
        "gripper_controller/gripper_cmd",
        "The gripper's action (control_msgs/action/GripperCommand).",
    ),
    Parameter(
        "gripper_position_per_opening",
        1.0,
        "What that action calls position, per metre between the fingers: 1 for the whole gap, 0.5 for each finger's "
        "way.",
        range=(0.001, 1000.0),
    ),
    Parameter(
        "gripper_force_n", 0.0, "Force asked of the gripper; 0: its own default.", "N", (0.0, 1000.0)
    ),
    Parameter("gripper_timeout_s", 10.0, "How long the fingers may take.", "s", (0.1, 60.0)),
    # Cameras
    Parameter("camera", "camera", "The standing camera that a task points in when it names none."),
    Parameter(
        "wrist_camera",
        "",
        "The camera on the hand, which looks again from above before the grasp. Empty: there is none.",
    ),
    Parameter(
        "ask_from_wrist",
        True,
        "Ask the model in the wrist camera's pictures too, for which the pointing node must know that camera by the "
        "same name. What is not seen from afar is then looked for with the hand, and so is what the model does not "
        "see from above where it saw it from afar.",
    ),
    Parameter(
        "search_height_m", 0.38, "How high above the table the hand looks for things.", "m", (0.05, 2.0)
    ),
    Parameter("color_topic", "{camera}/color/image_raw", "Colour images; {camera} stands for the name."),
    Parameter("color_info_topic", "{camera}/color/camera_info", "Intrinsics of the colour camera."),
    Parameter("depth_topic", "{camera}/depth/image_rect", "Depth images, 16UC1 in mm or 32FC1 in m."),
    Parameter(
        "depth_info_topic",
        "",
        "Intrinsics of the depth camera, when its images are not registered to colour. Empty: they are.",
    ),
    Parameter("color_is_rectified", False, "Whether the colour images are free of lens distortion."),
    Parameter("max_frame_age_s", 1.0, "Images older than this are refused (STALE_FRAME).", "s", (0.01, 60.0)),
    Parameter("frame_timeout_s", 3.0, "How long a look waits for a frame (NO_FRAME).", "s", (0.1, 60.0)),
    Parameter(
        "max_pairing_gap_s", 0.02, "Furthest that stamps of one frame may lie apart.", "s", (0.0, 1.0)
    ),
    Parameter("tf_timeout_s", 1.0, "How long a frame or a pose waits for its transform.", "s", (0.01, 60.0)),
    # The table and the task
    Parameter(
        "table_height_m",
        0.0,
        "Height of the table in the arm's base frame: it makes the cameras' poses level.",
        "m",
        (-2.0, 2.0),
    ),
    Parameter(
        "tries", 2, "Grasps tried at most; each begins with a fresh look.", range=(1, 10)
    ),
    Parameter("hover_m", 0.14, "How far above a thing the hand looks at it.", "m", (0.02, 1.0)),
    Parameter(
        "approach_m", 0.10, "Length of the straight way down to a grasp and up again.", "m", (0.0, 0.5)
    ),
    Parameter(
        "least_width_m",
        0.003,
        "Fingers that close to less than this hold nothing (GRASP_FAILED).",
        "m",
        (0.0, 0.1),
    ),
    Parameter("max_opening_m", 0.078, "How far the fingers are opened at most.", "m", (0.005, 0.5)),
    Parameter("finger_thickness_m", 0.017, "Size of a finger along the closing.", "m", (0.001, 0.1)),
    Parameter("finger_width_m", 0.022, "Size of a finger across the closing.", "m", (0.001, 0.1)),
    Parameter(
        "finger_depth_m", 0.030, "How far the fingers go down beside a thing's top.", "m", (0.005, 0.2)
    ),
    Parameter("voxel_size_m", 0.015, "Edge of the cells that what stands around fills.", "m", (0.005, 0.2)),
    Parameter(
        "robot_padding_m",
        0.03,
        "What a camera sees nearer to the arm than this is the arm.",
        "m",
        (0.0, 0.3),
    ),
    Parameter(
        "max_hidden_share",
        0.10,
        "Where the arm itself covers more of the picture than this, what is not found is called hidden (BLOCKED), and "
        "not absent (NOT_FOUND).",
        range=(0.0, 1.0),
    ),
    # Places
    Parameter(
        "place_prepositions",
        list(PREPOSITIONS),
        "What words for a place may begin with, besides articles; what follows is what the model is asked for.",
    ),
    Parameter(
        "empty_spot_words",
        list(EMPTY_SPOTS),
        "Words, whole, that mean an empty spot of the table, which geometry finds and no model is asked for.",
    ),
    Parameter(
        "reach_min_m",
        0.32,
        "Empty spots, and what the hand searches for, are at least this far from the base.",
        "m",
        (0.0, 5.0),
    ),
    Parameter("reach_max_m", 0.62, "And at most this far.", "m", (0.0, 5.0)),
)


@dataclass(frozen=True)
class PickPlaceParameters:
    """The values of all parameters, read once; units and meaning are those of `PICK_PLACE_PARAMETERS`."""

    robot: str
    base_frame: str
    joint_states_topic: str
    max_state_age_s: float
    pointing_action: str
    pointing_timeout_s: float
    planner_action: str
    planner_heartbeat_topic: str
    planner_silence_s: float
    speed_scale: float
    gripper_action: str
    gripper_position_per_opening: float
    gripper_force_n: float
    gripper_timeout_s: float
    camera: str
    wrist_camera: str
    ask_from_wrist: bool
    search_height_m: float
    color_topic: str
    color_info_topic: str
    depth_topic: str
    depth_info_topic: str
    color_is_rectified: bool
    max_frame_age_s: float
    frame_timeout_s: float
    max_pairing_gap_s: float
    tf_timeout_s: float
    table_height_m: float
    tries: int
    hover_m: float
    approach_m: float
    least_width_m: float
    max_opening_m: float
    finger_thickness_m: float
    finger_width_m: float
    finger_depth_m: float
    voxel_size_m: float
    robot_padding_m: float
    max_hidden_share: float
    place_prepositions: list[str]
    empty_spot_words: list[str]
    reach_min_m: float
    reach_max_m: float

    @classmethod
    def from_values(cls, values: Mapping[str, Value]) -> PickPlaceParameters:
        """Check every value and those that hang together; `ParameterError` names the first that is wrong."""
        checked = {entry.name: entry.check(values[entry.name]) for entry in PICK_PLACE_PARAMETERS}
        parameters = cls(**checked)  # type: ignore[arg-type]
        if parameters.reach_min_m >= parameters.reach_max_m:
            raise ParameterError(
                f"parameter reach_min_m is {parameters.reach_min_m:g}: it must be below reach_max_m "
                f"({parameters.reach_max_m:g})"
            )
        if not parameters.camera:
            raise ParameterError("parameter camera is empty: it takes the name of the standing camera")
        return parameters

    @classmethod
    def declare(cls, node: Node) -> PickPlaceParameters:
        """Declare all parameters on the node, read-only, and read them; `ParameterError` when one is wrong."""
        from molmo_ros.nodes.declared_parameters import declare_fixed

        return cls.from_values(declare_fixed(node, PICK_PLACE_PARAMETERS))

    def options(self) -> PickOptions:
        """How picks are made."""
        fingers = Fingers(
            max_opening_m=self.max_opening_m,
            thickness_m=self.finger_thickness_m,
            width_m=self.finger_width_m,
            depth_m=self.finger_depth_m,
        )
        return PickOptions(
            table_z_m=self.table_height_m,
            tries=self.tries,
            uses_wrist=bool(self.wrist_camera),
            asks_from_wrist=self.ask_from_wrist,
            search_height_m=self.search_height_m,
            hover_m=self.hover_m,
            approach_m=self.approach_m,
            least_width_m=self.least_width_m,
            voxel_m=self.voxel_size_m,
            most_hidden=self.max_hidden_share,
            reach_m=(self.reach_min_m, self.reach_max_m),
            fingers=fingers,
        )

    def place_words(self) -> PlaceWords:
        """How words for a place are read."""
        return PlaceWords(tuple(self.place_prepositions), tuple(self.empty_spot_words))


def as_markdown() -> str:
    """The page docs/pick_place_parameters.md."""
    return fixed_page("pick_place_node", "pick_place_parameters", PICK_PLACE_PARAMETERS)


def as_example() -> str:
    """The file config/pick_place.yaml."""
    return fixed_example("pick_place_node", "docs/pick_place_parameters.md", PICK_PLACE_PARAMETERS)


assert [f.name for f in fields(PickPlaceParameters)] == [entry.name for entry in PICK_PLACE_PARAMETERS]

if __name__ == "__main__":
    sys.stdout.write(as_example() if "--yaml" in sys.argv[1:] else as_markdown())
