"""The parameters of planner_node, as data: the page `docs/planner_parameters.md` is printed from here, by
`python -m molmo_ros.nodes.planner_parameters`, and with `--yaml` the example file `config/planner.yaml`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from molmo_ros.nodes.parameter_table import Parameter, ParameterError, Value, fixed_example, fixed_page

if TYPE_CHECKING:
    from rclpy.node import Node

PLANNER_PARAMETERS: tuple[Parameter, ...] = (
    # The robot
    Parameter(
        "robot", "fr3", "Which arm: fr3, ur5, so101, or the path of a YAML file like those in config/robots/."
    ),
    Parameter(
        "base_frame", "", "TF frame of the arm's base. Empty: the base link's own name in the robot's file."
    ),
    Parameter("joint_states_topic", "joint_states", "Where the arm's joints are heard of."),
    Parameter(
        "max_state_age_s", 0.5, "Joint states older than this are no state (STATE_STALE).", "s", (0.01, 10.0)
    ),
    Parameter(
        "resting_speed",
        0.05,
        "A joint faster than this is moving; nothing is planned from there.",
        "rad/s",
        (0.0, 10.0),
    ),
    # What moves, and how fast
    Parameter(
        "execute", False, "Whether the arm moves at all. Off: goals are planned and shown, and that is all."
    ),
    Parameter(
        "command",
        "action",
        "How the arm is told: action (control_msgs/action/FollowJointTrajectory) or topic "
        "(trajectory_msgs/JointTrajectory, which nobody answers).",
        choices=("action", "topic"),
    ),
    Parameter(
        "controller_action",
        "joint_trajectory_controller/follow_joint_trajectory",
        "The controller's action, with command: action.",
    ),
    Parameter(
        "trajectory_topic",
        "joint_trajectory_controller/joint_trajectory",
        "The controller's topic, with command: topic.",
    ),
    Parameter(
        "speed_scale",
        0.1,
        "Share of the joints' limits of speed and acceleration; a request may ask for less or more.",
        range=(0.001, 1.0),
    ),
    Parameter(
        "max_speed_scale", 1.0, "The most that a request may ask for; more is refused.", range=(0.001, 1.0)
    ),
    Parameter(
        "approach_speed_m_s",
        0.15,
        "Speed of the tool on straight parts, times the speed scale.",
        "m/s",
        (0.001, 1.0),
    ),
    Parameter("confirm", False, "Wait for ~/confirm before every motion, when a plan has been found."),
    Parameter(
        "confirm_timeout_s", 60.0, "How long a plan waits for that (CONFIRM_TIMEOUT).", "s", (0.1, 3600.0)
    ),
    Parameter(
        "settle_timeout_s",
        5.0,
        "A motion that has not ended this long after its time is stopped (EXECUTION_FAILED).",
        "s",
        (0.1, 60.0),
    ),
    # Goals
    Parameter("max_goal_age_s", 2.0, "Goals stamped earlier than this are refused.", "s", (0.01, 3600.0)),
    Parameter("tf_timeout_s", 1.0, "How long a goal waits for its transform.", "s", (0.0, 60.0)),
    Parameter(
        "approach_offset_m",
        0.10,
        "Length of the straight approach to goals from ~/goal_pose.",
        "m",
        (0.0, 1.0),
    ),
    Parameter(
        "retreat_offset_m",
        0.0,
        "Length of the straight retreat after goals from ~/goal_pose; 0 = stay.",
        "m",
        (0.0, 1.0),
    ),
    # Planning
    Parameter(
        "seed",
        0,
        "Of all random searches: the same seed, start and goal give the same plan.",
        range=(0, 2**31 - 1),
    ),
    Parameter("attempts", 24, "Postures that are tried before and at the goals.", range=(1, 1000)),
    Parameter("max_nodes", 20000, "Nodes at which the search for a way ends.", range=(10, 1_000_000)),
    Parameter("planning_timeout_s", 10.0, "Time after which planning ends (TIMEOUT).", "s", (0.01, 600.0)),
    # Obstacles
    Parameter(
        "obstacles_file",
        "",
        "YAML file of boxes that are always there (molmo_ros/planning/obstacles.py). Empty: none.",
    ),
    Parameter(
        "depth_topic",
        "",
        "Depth image whose surfaces are obstacles (sensor_msgs/Image), looked at anew for each plan. Empty: none.",
    ),
    Parameter(
        "depth_info_topic", "camera/depth/camera_info", "Intrinsics of that image (sensor_msgs/CameraInfo)."
    ),
    Parameter("max_depth_age_s", 1.0, "Depth images older than this are refused.", "s", (0.01, 60.0)),
    Parameter(
        "depth_timeout_s", 3.0, "How long a plan waits for a depth image (NO_FRAME).", "s", (0.05, 60.0)
    ),
    Parameter("voxel_size_m", 0.015, "Edge of the cells that depth fills.", "m", (0.005, 0.2)),
    Parameter(
        "robot_padding_m",
        0.03,
        "What the camera sees nearer to the arm than this is the arm.",
        "m",
        (0.0, 0.3),
    ),
    Parameter(
        "target_radius_m",
        0.06,
        "What the camera sees within this of a goal, sideways, is what the goal is about and no obstacle.",
        "m",
        (0.0, 0.5),
    ),
)


@dataclass(frozen=True)
class PlannerParameters:
    """The values of all parameters, read once; units and meaning are those of `PLANNER_PARAMETERS`."""

    robot: str
    base_frame: str
    joint_states_topic: str
    max_state_age_s: float
    resting_speed: float
    execute: bool
    command: str
    controller_action: str
    trajectory_topic: str
    speed_scale: float
    max_speed_scale: float
    approach_speed_m_s: float
    confirm: bool
    confirm_timeout_s: float
    settle_timeout_s: float
    max_goal_age_s: float
    tf_timeout_s: float
    approach_offset_m: float
    retreat_offset_m: float
    seed: int
    attempts: int
    max_nodes: int
    planning_timeout_s: float
    obstacles_file: str
    depth_topic: str
    depth_info_topic: str
    max_depth_age_s: float
    depth_timeout_s: float
    voxel_size_m: float
    robot_padding_m: float
    target_radius_m: float

    @classmethod
    def from_values(cls, values: Mapping[str, Value]) -> PlannerParameters:
        """Check every value and those that hang together; `ParameterError` names the first that is wrong."""
        checked = {
            parameter.name: parameter.check(values[parameter.name]) for parameter in PLANNER_PARAMETERS
        }
        parameters = cls(**checked)  # type: ignore[arg-type]
        if parameters.speed_scale > parameters.max_speed_scale:
            raise ParameterError(
                f"parameter speed_scale is {parameters.speed_scale:g}: it must not be above max_speed_scale "
                f"({parameters.max_speed_scale:g})"
            )
        return parameters

    @classmethod
    def declare(cls, node: Node) -> PlannerParameters:
        """Declare all parameters on the node, read-only, and read them; `ParameterError` when one is wrong."""
        from molmo_ros.nodes.declared_parameters import declare_fixed

        return cls.from_values(declare_fixed(node, PLANNER_PARAMETERS))


def as_markdown() -> str:
    """The page docs/planner_parameters.md."""
    return fixed_page("planner_node", "planner_parameters", PLANNER_PARAMETERS)


def as_example() -> str:
    """The file config/planner.yaml."""
    return fixed_example("planner_node", "docs/planner_parameters.md", PLANNER_PARAMETERS)


assert [f.name for f in fields(PlannerParameters)] == [parameter.name for parameter in PLANNER_PARAMETERS]

if __name__ == "__main__":
    sys.stdout.write(as_example() if "--yaml" in sys.argv[1:] else as_markdown())
