"""Goals in MoveIt's words: a MoveGroup goal for a group and its tip link, and what MoveIt's error codes mean."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import PoseStamped
from moveit_msgs.action import MoveGroup
from moveit_msgs.msg import (
    CollisionObject,
    Constraints,
    MotionPlanRequest,
    MoveItErrorCodes,
    OrientationConstraint,
    PlanningOptions,
    PositionConstraint,
)
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import Header

from molmo_ros.geometry.locate import Located
from molmo_ros.geometry.pose import inverse, tool_rotation
from molmo_ros.geometry.rotation import from_rpy
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.hand_off_parameters import HandOffParameters
from molmo_ros.nodes.messages import goal_message, pose_from_matrix
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, Outcome, PointingError

TARGET_ID, SUPPORT_ID = "molmo_ros_target", "molmo_ros_support"
# The plate that stands for the support lies this far below the plane that was measured, and is so thick.
SUPPORT_GAP_M = 0.005
SUPPORT_THICKNESS_M = 0.02

_E = MoveItErrorCodes
CODES: dict[int, Code] = {
    _E.SUCCESS: Code.OK,
    _E.UNDEFINED: Code.PLANNING_FAILED,
    _E.FAILURE: Code.PLANNING_FAILED,
    _E.PLANNING_FAILED: Code.PLANNING_FAILED,
    _E.INVALID_MOTION_PLAN: Code.PLANNING_FAILED,
    _E.MOTION_PLAN_INVALIDATED_BY_ENVIRONMENT_CHANGE: Code.BLOCKED,
    _E.CONTROL_FAILED: Code.EXECUTION_FAILED,
    _E.UNABLE_TO_AQUIRE_SENSOR_DATA: Code.STATE_STALE,
    _E.TIMED_OUT: Code.TIMEOUT,
    _E.PREEMPTED: Code.CANCELLED,
    _E.START_STATE_IN_COLLISION: Code.START_IN_COLLISION,
    _E.START_STATE_VIOLATES_PATH_CONSTRAINTS: Code.PLANNING_FAILED,
    _E.START_STATE_INVALID: Code.PLANNING_FAILED,
    _E.GOAL_IN_COLLISION: Code.BLOCKED,
    _E.GOAL_VIOLATES_PATH_CONSTRAINTS: Code.UNREACHABLE,
    _E.GOAL_CONSTRAINTS_VIOLATED: Code.UNREACHABLE,
    _E.GOAL_STATE_INVALID: Code.UNREACHABLE,
    _E.UNRECOGNIZED_GOAL_TYPE: Code.INVALID_REQUEST,
    _E.INVALID_GROUP_NAME: Code.INVALID_REQUEST,
    _E.INVALID_GOAL_CONSTRAINTS: Code.INVALID_REQUEST,
    _E.INVALID_ROBOT_STATE: Code.INVALID_REQUEST,
    _E.INVALID_LINK_NAME: Code.INVALID_REQUEST,
    _E.INVALID_OBJECT_NAME: Code.INVALID_REQUEST,
    _E.FRAME_TRANSFORM_FAILURE: Code.TF_UNAVAILABLE,
    _E.COLLISION_CHECKING_UNAVAILABLE: Code.PLANNER_UNAVAILABLE,
    _E.ROBOT_STATE_STALE: Code.STATE_STALE,
    _E.SENSOR_INFO_STALE: Code.STATE_STALE,
    _E.COMMUNICATION_FAILURE: Code.EXECUTION_FAILED,
    _E.CRASH: Code.EXECUTION_FAILED,
    _E.ABORT: Code.EXECUTION_FAILED,
    _E.NO_IK_SOLUTION: Code.UNREACHABLE,
}
#: MoveIt's names of its codes.
NAMES: dict[int, str] = {
    getattr(_E, name): name
    for name in dir(type(_E))
    if name.isupper() and isinstance(getattr(_E, name), int)
}


class MoveItInterface:
    """See `PlannerInterface`."""

    name = "MoveIt"
    action_type = MoveGroup
    how_to_start = "start move_group with your robot's MoveIt configuration, or set moveit_action"
    only_plans_if_told = True

    def __init__(self, parameters: PointingParameters) -> None:
        self._parameters = parameters.planner
        self.action_name = parameters.planner.moveit_action

    def goal(self, answer: Answer) -> tuple[MoveGroup.Goal, PoseStamped]:
        return move_group_goal(answer, self._parameters)

    def outcome(self, result: MoveGroup.Result) -> Outcome:
        return outcome_of_codes(result.error_code)

    def stage(self, feedback: MoveGroup.Feedback) -> str:
        return {"PLANNING": "plan", "MONITOR": "move"}.get(feedback.state, "")


def outcome_of_codes(error: MoveItErrorCodes) -> Outcome:
    """Our code for MoveIt's, with its name and what MoveIt says of it."""
    code = CODES.get(error.val, Code.PLANNING_FAILED)
    if code == Code.OK:
        return Outcome()
    said = f": {error.message}" if error.message else ""
    return Outcome(code, f"MoveIt says {NAMES.get(error.val, 'error')} ({error.val}){said}")


def tip_pose(T_base_goal: np.ndarray, parameters: HandOffParameters) -> np.ndarray:
    """Where the tip link must be (4x4, base frame) for a goal (x = closing, z = approach)."""
    T_tip_goal = np.eye(4)
    T_tip_goal[:3, :3] = from_rpy(parameters.moveit_tool_from_goal_rpy_rad)
    T_tip_goal[:3, 3] = parameters.moveit_tool_from_goal_xyz_m
    before = T_base_goal.copy()
    before[:3, 3] -= parameters.moveit_goal_offset_m * T_base_goal[:3, 2]
    tip: np.ndarray = before @ inverse(T_tip_goal)
    return tip


def move_group_goal(answer: Answer, parameters: HandOffParameters) -> tuple[MoveGroup.Goal, PoseStamped]:
    """The goal and the tip's pose in it. Raises PointingError(NO_DEPTH) without the support that is asked for."""
    message = goal_message(answer)
    assert message is not None and answer.goal is not None
    located = answer.found[answer.goal].located
    tip = PoseStamped(
        header=message.header, pose=pose_from_matrix(tip_pose(located.T_base_target, parameters))
    )
    request = MotionPlanRequest(
        group_name=parameters.moveit_group,
        pipeline_id=parameters.moveit_pipeline,
        planner_id=parameters.moveit_planner,
        num_planning_attempts=parameters.moveit_planning_attempts,
        allowed_planning_time=parameters.moveit_planning_time_s,
        max_velocity_scaling_factor=parameters.moveit_velocity_scale,
        max_acceleration_scaling_factor=parameters.moveit_acceleration_scale,
        goal_constraints=[_constraints(tip, parameters)],
    )
    request.workspace_parameters.header = message.header
    request.start_state.is_diff = True  # from where the robot is
    options = PlanningOptions(plan_only=not parameters.execute)
    scene = options.planning_scene_diff
    scene.is_diff = scene.robot_state.is_diff = True  # the obstacles hold for this goal alone
    scene.world.collision_objects = _obstacles(located, answer.support, message.header, parameters)
    return MoveGroup.Goal(request=request, planning_options=options), tip


def _constraints(tip: PoseStamped, parameters: HandOffParameters) -> Constraints:
    ball = SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[parameters.moveit_position_tolerance_m])
    where = PositionConstraint(header=tip.header, link_name=parameters.moveit_tip_link, weight=1.0)
    where.constraint_region.primitives = [ball]
    middle = pose_from_matrix(np.eye(4))
    middle.position = tip.pose.position
    where.constraint_region.primitive_poses = [middle]
    lean = parameters.moveit_orientation_tolerance_rad
    turned = OrientationConstraint(
        header=tip.header,
        link_name=parameters.moveit_tip_link,
        orientation=tip.pose.orientation,
        absolute_x_axis_tolerance=lean,
        absolute_y_axis_tolerance=lean,
        absolute_z_axis_tolerance=lean,
        weight=1.0,
    )
    return Constraints(position_constraints=[where], orientation_constraints=[turned])


def _obstacles(
    located: Located, support: SupportPlane | None, header: Header, parameters: HandOffParameters
) -> list[CollisionObject]:
    obstacles = []
    if parameters.moveit_target_object:
        obstacles.append(_box(TARGET_ID, header, *target_box(located, parameters.moveit_target_size_m)))
    if parameters.moveit_support_size_m:
        if support is None:
            raise PointingError(
                Code.NO_DEPTH,
                "what the target rests on is not seen, and moveit_support_size_m asks for it as an obstacle; show the "
                "camera more of it, or set that to 0",
            )
        T = support_plate(support, located.position_base_m)
        edge = parameters.moveit_support_size_m
        obstacles.append(_box(SUPPORT_ID, header, T, (edge, edge, SUPPORT_THICKNESS_M)))
    return obstacles


def target_box(located: Located, size_if_unknown_m: float) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Pose of the middle (4x4, base frame) and edges (metres, along its axes) of a box around the target."""
    T = np.eye(4)
    plan = located.grasp
    if plan is None or not plan.outcome.ok:
        T[:3, 3] = located.position_base_m
        return T, (size_if_unknown_m,) * 3
    T[:3, :3] = plan.T_base_plan[:3, :3] @ from_rpy([0.0, 0.0, plan.footprint.yaw_rad])
    T[:3, 3] = plan.top_base_m - 0.5 * plan.height_m * T[:3, 2]
    return T, (plan.footprint.width_m, plan.footprint.length_m, plan.height_m)


def support_plate(support: SupportPlane, position_base_m: np.ndarray) -> np.ndarray:
    """Pose (4x4, base frame) of the middle of a plate just below the support, under the target."""
    up = support.normal_cam  # of a plane in the base frame it is in the base frame
    T = np.eye(4)
    T[:3, :3] = tool_rotation(up)
    height_m = float(support.height_m(position_base_m))
    T[:3, 3] = position_base_m - (height_m + SUPPORT_GAP_M + SUPPORT_THICKNESS_M / 2) * up
    return T


def _box(
    name: str, header: Header, T_base_box: np.ndarray, edges_m: tuple[float, float, float]
) -> CollisionObject:
    if not all(math.isfinite(edge) and edge > 0 for edge in edges_m):
        raise PointingError(Code.INTERNAL, f"the obstacle {name} has no size: {edges_m}")
    box = CollisionObject(header=header, id=name, operation=CollisionObject.ADD)
    box.pose = pose_from_matrix(T_base_box)
    box.primitives = [SolidPrimitive(type=SolidPrimitive.BOX, dimensions=list(edges_m))]
    box.primitive_poses = [pose_from_matrix(np.eye(4))]
    return box
