"""Where a goal goes from here, how, and whether a person has a word in it: one group of the pointing node's
parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from molmo_ros.nodes.parameter_table import Parameter, ParameterError, Value

TOPIC, MOVEIT, NAV2 = "topic", "moveit", "nav2"

HAND_OFF_PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "hand_off",
        TOPIC,
        "Where a goal goes. topic: to ~/goal_pose and ~/goal_poses, and this node moves nothing. moveit: to MoveIt's "
        "MoveGroup action. nav2: to Nav2's NavigateToPose action (docs/moveit.md).",
        choices=(TOPIC, MOVEIT, NAV2),
        change="inactive",
    ),
    Parameter(
        "execute",
        False,
        "Whether moveit or nav2 may move the robot. Off: MoveIt only plans; Nav2, which cannot only plan, is not "
        "asked. What was sent, or would have been, is shown on ~/planner_goal.",
        change="inactive",
    ),
    Parameter(
        "planner_timeout_s",
        5.0,
        "How long the planner's action may take to be there, and to take a goal (PLANNER_UNAVAILABLE).",
        "s",
        (0.1, 600.0),
        change="inactive",
    ),
    Parameter(
        "motion_timeout_s",
        120.0,
        "A plan or a motion that takes longer is cancelled (TIMEOUT).",
        "s",
        (0.1, 86400.0),
        change="inactive",
    ),
    # The operator
    Parameter("confirm", False, "Hold every goal until ~/confirm, or a click in RViz, accepts it."),
    Parameter(
        "confirm_timeout_s",
        60.0,
        "How long a goal waits for that (CONFIRM_TIMEOUT).",
        "s",
        (0.1, 86400.0),
    ),
    # MoveIt
    Parameter("moveit_action", "move_action", "Name of the MoveGroup action.", change="inactive"),
    Parameter("moveit_group", "", "Planning group of the arm, as the SRDF calls it.", change="inactive"),
    Parameter(
        "moveit_tip_link",
        "",
        "Link of that group that is brought to the goal.",
        change="inactive",
    ),
    Parameter(
        "moveit_tool_from_goal_xyz_m",
        [0.0, 0.0, 0.0],
        "Origin of the goal's frame (between the finger tips) in the tip link's frame; as tool_from_goal in "
        "config/robots/.",
        "m",
        (-10.0, 10.0),
        change="inactive",
    ),
    Parameter(
        "moveit_tool_from_goal_rpy_rad",
        [0.0, 0.0, 0.0],
        "Axes of the goal's frame (x closing, z approach) in the tip link's frame, as roll, pitch, yaw about its fixed "
        "axes.",
        "rad",
        (-7.0, 7.0),
        change="inactive",
    ),
    Parameter(
        "moveit_goal_offset_m",
        0.0,
        "How far before the goal, against its approach, the tool stops; for what comes before a grasp.",
        "m",
        (0.0, 1.0),
        change="inactive",
    ),
    Parameter(
        "moveit_position_tolerance_m",
        0.005,
        "Radius of the ball around the goal in which the tip may end.",
        "m",
        (1e-5, 1.0),
        change="inactive",
    ),
    Parameter(
        "moveit_orientation_tolerance_rad",
        0.02,
        "How far the tip may lean from the goal, about each axis.",
        "rad",
        (1e-5, 3.2),
        change="inactive",
    ),
    Parameter(
        "moveit_velocity_scale",
        0.1,
        "Share of the joints' limits of speed.",
        range=(0.001, 1.0),
        change="inactive",
    ),
    Parameter(
        "moveit_acceleration_scale",
        0.1,
        "Share of the joints' limits of acceleration.",
        range=(0.001, 1.0),
        change="inactive",
    ),
    Parameter(
        "moveit_planning_time_s",
        5.0,
        "How long MoveIt may search.",
        "s",
        (0.01, 600.0),
        change="inactive",
    ),
    Parameter(
        "moveit_planning_attempts",
        4,
        "How often MoveIt plans, to keep the shortest.",
        range=(1, 1000),
        change="inactive",
    ),
    Parameter(
        "moveit_pipeline",
        "",
        "Planning pipeline, e.g. ompl. Empty: MoveIt's default.",
        change="inactive",
    ),
    Parameter(
        "moveit_planner",
        "",
        "Planner of that pipeline, e.g. PTP of pilz_industrial_motion_planner. Empty: its default.",
        change="inactive",
    ),
    Parameter(
        "moveit_target_object",
        False,
        "Whether the target is an obstacle: a box of its measured extent, for this plan alone. Needs a "
        "moveit_goal_offset_m that keeps the fingers outside it.",
        change="inactive",
    ),
    Parameter(
        "moveit_target_size_m",
        0.08,
        "Edge of that box, a cube around the goal, where the extent could not be measured.",
        "m",
        (0.001, 2.0),
        change="inactive",
    ),
    Parameter(
        "moveit_support_size_m",
        0.0,
        "Edge of the plate that stands for what the target rests on, an obstacle for this plan alone. 0: none. Goals "
        "are refused (NO_DEPTH) while the support is not seen.",
        "m",
        (0.0, 10.0),
        change="inactive",
    ),
    # Nav2
    Parameter("nav2_action", "navigate_to_pose", "Name of the NavigateToPose action.", change="inactive"),
    Parameter(
        "nav2_frame",
        "map",
        "Frame in which Nav2 gets its goal. nav2 needs fixed_frame, too: what was seen on a base that drives is "
        "carried through it.",
        change="inactive",
    ),
    Parameter(
        "nav2_stand_off_m",
        0.7,
        "How far before the target, on the line from where target_frame is now, the robot is to stand, facing it.",
        "m",
        (0.0, 100.0),
        change="inactive",
    ),
    Parameter("nav2_behavior_tree", "", "Behaviour tree of Nav2. Empty: its default.", change="inactive"),
)


@dataclass(frozen=True)
class HandOffParameters:
    """Units and meaning are those of `HAND_OFF_PARAMETERS`."""

    hand_off: str
    execute: bool
    planner_timeout_s: float
    motion_timeout_s: float
    confirm: bool
    confirm_timeout_s: float
    moveit_action: str
    moveit_group: str
    moveit_tip_link: str
    moveit_tool_from_goal_xyz_m: tuple[float, ...]
    moveit_tool_from_goal_rpy_rad: tuple[float, ...]
    moveit_goal_offset_m: float
    moveit_position_tolerance_m: float
    moveit_orientation_tolerance_rad: float
    moveit_velocity_scale: float
    moveit_acceleration_scale: float
    moveit_planning_time_s: float
    moveit_planning_attempts: int
    moveit_pipeline: str
    moveit_planner: str
    moveit_target_object: bool
    moveit_target_size_m: float
    moveit_support_size_m: float
    nav2_action: str
    nav2_frame: str
    nav2_stand_off_m: float
    nav2_behavior_tree: str

    @classmethod
    def from_values(cls, values: Mapping[str, Value]) -> HandOffParameters:
        """Check every value and those that hang together; `ParameterError` names the first that is wrong."""
        checked: dict[str, Any] = {}
        for parameter in HAND_OFF_PARAMETERS:
            value = parameter.check(values[parameter.name])
            checked[parameter.name] = tuple(value) if isinstance(value, list) else value
        parameters = cls(**checked)
        needed = {
            TOPIC: (),
            MOVEIT: ("moveit_action", "moveit_group", "moveit_tip_link"),
            NAV2: ("nav2_action", "nav2_frame"),
        }
        for name in needed[parameters.hand_off]:
            if not checked[name].strip("/"):
                raise ParameterError(f"parameter {name} is empty: hand_off {parameters.hand_off} needs it")
        if parameters.moveit_target_object and not parameters.moveit_goal_offset_m:
            raise ParameterError(
                "parameter moveit_target_object makes the target an obstacle, and moveit_goal_offset_m is 0, which "
                "puts the fingers into it: stop before it, or leave the target out"
            )
        return parameters


assert [field.name for field in fields(HandOffParameters)] == [entry.name for entry in HAND_OFF_PARAMETERS]
