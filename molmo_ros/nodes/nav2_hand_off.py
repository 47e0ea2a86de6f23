"""Goals in Nav2's words: stand before the target and face it; and what Nav2's error codes mean."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from geometry_msgs.msg import PoseStamped
from nav2_msgs.action import NavigateToPose

from molmo_ros.geometry.pose import inverse
from molmo_ros.geometry.stand_off import stand_off_pose
from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.base_motion import BaseNow
from molmo_ros.nodes.messages import pose_from_matrix, stamped_header
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, Outcome, PointingError

# TF bounds its own wait; this is how much longer its answer may take before it counts as lost.
_LOST_AFTER_S = 5.0

#: Of those that differ from their kind's. NavigateToPose hands on the codes of the servers that it uses: those of paths
#: are 200 to 399, of controllers 100 to 199, its own 9000 to 9099.
CODES: dict[int, Code] = {
    101: Code.INVALID_REQUEST,  # no such controller
    102: Code.TF_UNAVAILABLE,
    103: Code.INVALID_REQUEST,  # invalid path
    104: Code.BLOCKED,  # patience exceeded
    105: Code.BLOCKED,  # no progress
    106: Code.BLOCKED,  # no valid control
    107: Code.TIMEOUT,
    201: Code.INVALID_REQUEST,  # no such planner
    202: Code.TF_UNAVAILABLE,
    204: Code.UNREACHABLE,  # goal outside the map
    205: Code.START_IN_COLLISION,
    206: Code.BLOCKED,  # goal occupied
    207: Code.TIMEOUT,
    208: Code.UNREACHABLE,  # no valid path
    9001: Code.INVALID_REQUEST,  # the behaviour tree cannot be loaded
    9002: Code.TF_UNAVAILABLE,
    9003: Code.TIMEOUT,
}
_PATH_CODES = range(200, 400)


class Nav2Interface:
    """See `PlannerInterface`."""

    name = "Nav2"
    action_type = NavigateToPose
    how_to_start = "start Nav2 (ros2 launch nav2_bringup navigation_launch.py), or set nav2_action"
    only_plans_if_told = False

    def __init__(self, parameters: PointingParameters, base_in: Callable[[str], Future[BaseNow]]) -> None:
        """`base_in` tells where target_frame is in a frame now."""
        self._parameters = parameters.planner
        self._tf_timeout_s = parameters.tf_timeout_s
        self._base_in = base_in
        self.action_name = parameters.planner.nav2_action

    def goal(self, answer: Answer) -> tuple[NavigateToPose.Goal, PoseStamped]:
        assert answer.goal is not None
        frame = self._parameters.nav2_frame
        try:
            base = self._base_in(frame).result(self._tf_timeout_s + _LOST_AFTER_S)
        except TimeoutError as error:
            raise PointingError(
                Code.INTERNAL, "the thread of cameras and TF did not answer; see the node's log"
            ) from error
        T_map_base = inverse(base.T_target_fixed)
        position_base_m = answer.found[answer.goal].located.position_base_m
        position_map_m = T_map_base[:3, :3] @ position_base_m + T_map_base[:3, 3]
        T = stand_off_pose(position_map_m, T_map_base[:3, 3], self._parameters.nav2_stand_off_m)
        pose = PoseStamped(
            header=stamped_header(base.stamp_ns, frame.lstrip("/")), pose=pose_from_matrix(T)
        )
        return NavigateToPose.Goal(pose=pose, behavior_tree=self._parameters.nav2_behavior_tree), pose

    def outcome(self, result: NavigateToPose.Result) -> Outcome:
        # Jazzy's result has no words.
        return outcome_of_code(result.error_code, getattr(result, "error_msg", ""))

    def stage(self, feedback: NavigateToPose.Feedback) -> str:
        return "move"


def outcome_of_code(error_code: int, words: str) -> Outcome:
    """Our code for Nav2's, with its number and what Nav2 says of it."""
    if error_code == NavigateToPose.Result.NONE:
        return Outcome()
    of_its_kind = Code.PLANNING_FAILED if error_code in _PATH_CODES else Code.EXECUTION_FAILED
    said = f": {words}" if words else ""
    # Paths through several poses have the same codes as those to one, a hundred further on.
    code = error_code - 100 if error_code in range(300, 400) else error_code
    return Outcome(CODES.get(code, of_its_kind), f"Nav2 says error {error_code}{said}")
