"""Goals of MoveToGoal as motions in the arm's base frame: TF at their stamps, their age, and whether they are any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2
from tf2_ros import Buffer, TransformException, TransformListener

from molmo_ros.geometry.pose import transform as rigid_transform
from molmo_ros.nodes.messages import NANOSECONDS
from molmo_ros.nodes.motion_messages import held_of, opening_of, points_of, posture_of
from molmo_ros.nodes.planner_parameters import PlannerParameters
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.motion import Motion
from molmo_ros.planning.obstacles import voxels_from_points
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros_interfaces.action import MoveToGoal

MOST_FUTURE_S = 0.25
_TF_POLL_S = 0.01

WhyStop = Callable[[], str]


class MotionReader:
    """Called from the worker's thread; listens to TF on the executor's."""

    def __init__(self, node: Node, settings: PlannerParameters, scene: RoboplanScene) -> None:
        self._clock = node.get_clock()
        self._settings, self._scene = settings, scene
        self._base_frame = (settings.base_frame or scene.robot.base).lstrip("/")
        self._tf = Buffer()
        self._tf_listener = TransformListener(self._tf, node)

    def motion(self, request: MoveToGoal.Goal, why_stop: WhyStop) -> Motion:
        """What the goal asks for. `why_stop` ends waits for TF.

        Raises PointingError: INVALID_REQUEST, FUTURE_STAMP, TF_UNAVAILABLE, CANCELLED."""
        gripper = self._scene.robot.gripper
        return Motion(
            goals=tuple(self._goal_in_base(goal, why_stop) for goal in request.goals),
            posture=posture_of(request.posture, self._scene.limits.names),
            approach_m=request.approach_offset,
            retreat_m=request.retreat_offset,
            back=request.back,
            opening_m=opening_of(request.gripper_opening, gripper.max_opening_m if gripper else 0.0),
            held=held_of(request.held_size, request.held_centre),
            half_turns=not request.one_way_round,
            attempts=request.attempts,
        )

    def obstacles(self, cloud: PointCloud2, why_stop: WhyStop) -> np.ndarray:
        """Middles (N, 3) of the cells that the request's own cloud fills."""
        points = points_of(cloud)
        if len(points) == 0:
            return points
        T = self.T_base(cloud.header.frame_id, Time.from_msg(cloud.header.stamp), why_stop)
        in_base = points @ T[:3, :3].T + T[:3, 3]
        # Every point counts: whoever sent them has looked at them already.
        voxels = voxels_from_points(in_base, self._settings.voxel_size_m, fewest_points=1)
        return voxels.centres_N3

    def _goal_in_base(self, goal: PoseStamped, why_stop: WhyStop) -> np.ndarray:
        """4x4 pose in the arm's base, by TF at the goal's stamp."""
        stamp = Time.from_msg(goal.header.stamp)
        age_s = (self._clock.now().nanoseconds - stamp.nanoseconds) / NANOSECONDS
        if stamp.nanoseconds == 0:
            raise PointingError(Code.INVALID_REQUEST, "the goal has no stamp: its age cannot be judged")
        if age_s > self._settings.max_goal_age_s:
            raise PointingError(
                Code.INVALID_REQUEST,
                f"the goal is {age_s:.2f} s old; at most {self._settings.max_goal_age_s:g} s are allowed "
                "(max_goal_age_s): look again and send a fresh one",
            )
        if age_s < -MOST_FUTURE_S:
            raise PointingError(
                Code.FUTURE_STAMP, f"the goal is stamped {-age_s:.2f} s ahead of this node's clock"
            )
        p, q = goal.pose.position, goal.pose.orientation
        numbers = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        if not np.isfinite(numbers).all() or abs(np.linalg.norm(numbers[3:]) - 1) > 0.01:
            raise PointingError(
                Code.INVALID_REQUEST,
                "the goal's pose is no pose: its numbers must be finite, its quaternion of length 1",
            )
        T_frame_goal = rigid_transform(numbers[:3], numbers[3:])
        T: np.ndarray = self.T_base(goal.header.frame_id, stamp, why_stop) @ T_frame_goal
        return T

    def T_base(self, frame: str, stamp: Time, why_stop: WhyStop) -> np.ndarray:
        """T_base_frame at a stamp; waits a little for TF to arrive."""
        frame = frame.lstrip("/")
        if frame == self._base_frame:
            return np.eye(4)
        end_s = time.monotonic() + self._settings.tf_timeout_s
        pause = threading.Event()
        while True:
            try:
                found = self._tf.lookup_transform(
                    self._base_frame, frame, stamp, timeout=Duration(seconds=0)
                )
                break
            except TransformException as error:
                if time.monotonic() > end_s:
                    raise PointingError(
                        Code.TF_UNAVAILABLE,
                        f"no transform from {frame or 'a frame without a name'} to {self._base_frame} within "
                        f"{self._settings.tf_timeout_s:g} s: {error}",
                    ) from error
            if why_stop():
                raise PointingError(Code.CANCELLED, why_stop())
            pause.wait(_TF_POLL_S)
        t, q = found.transform.translation, found.transform.rotation
        return rigid_transform([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])
