"""The one way in which the arm is told to move: an action that answers, or a topic that does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory
from rclpy.action.client import ClientGoalHandle
from rclpy.node import Node
from rclpy.task import Future
from trajectory_msgs.msg import JointTrajectory

from molmo_ros.nodes.goal_client import GoalClient, cancel_if_taken
from molmo_ros.nodes.trajectory_messages import trajectory_message
from molmo_ros.outcome import Code, Outcome
from molmo_ros.planning.trajectory import JointLimits, Trajectory

#: How often a motion looks whether it is to stop.
_WATCH_S = 0.02
_ACCEPT_S = 5.0
_OK = Outcome()


class ArmCommand(Protocol):
    """Follows a trajectory to its end or until it is to stop; called from one worker thread."""

    def follow(
        self, trajectory: Trajectory, stop: Callable[[], str], progress: Callable[[float], None]
    ) -> Outcome:
        """OK, CANCELLED with the reason that `stop` gives, EXECUTION_FAILED, or PLANNER_UNAVAILABLE.

        `stop` says why the arm is to stop, or "" while it is not. The arm is braked along its path.
        """


class ActionCommand:
    """By control_msgs/action/FollowJointTrajectory."""

    def __init__(self, node: Node, action: str, limits: JointLimits, settle_s: float) -> None:
        self._name = node.resolve_topic_name(action)
        self._client = GoalClient(node, FollowJointTrajectory, action)
        self._limits, self._settle_s = limits, settle_s

    def follow(
        self, trajectory: Trajectory, stop: Callable[[], str], progress: Callable[[float], None]
    ) -> Outcome:
        if not self._client.wait_for_server(_ACCEPT_S):
            return Outcome(
                Code.EXECUTION_FAILED, f"there is no action {self._name}; is the arm's controller running?"
            )
        handle = self._accepted(trajectory)
        if isinstance(handle, Outcome):
            return handle
        began_s = time.monotonic()
        result: Future[Any] = handle.get_result_async()
        ended = threading.Event()
        result.add_done_callback(lambda _: ended.set())
        while not ended.wait(_WATCH_S):
            elapsed_s = time.monotonic() - began_s
            progress(min(elapsed_s / max(trajectory.duration_s, 1e-9), 1.0))
            reason = stop()
            if reason:
                return self._brake(trajectory, elapsed_s, handle, reason)
            if elapsed_s > trajectory.duration_s + self._settle_s:
                handle.cancel_goal_async()
                return Outcome(
                    Code.EXECUTION_FAILED,
                    f"{self._name} has not ended {self._settle_s:g} s after the motion's {trajectory.duration_s:.1f} s",
                )
        return _judged(result.result().result, self._name)

    def _accepted(self, trajectory: Trajectory) -> ClientGoalHandle | Outcome:
        goal = FollowJointTrajectory.Goal(trajectory=trajectory_message(trajectory))
        goal.goal_time_tolerance = Duration(sec=1)
        sent = self._client.send(goal)
        try:
            handle = sent.result(_ACCEPT_S)
        except TimeoutError:
            cancel_if_taken(sent)
            return Outcome(Code.EXECUTION_FAILED, f"{self._name} did not answer within {_ACCEPT_S:g} s")
        if not handle.accepted:
            return Outcome(Code.EXECUTION_FAILED, f"{self._name} rejected the trajectory")
        return handle

    def _brake(
        self, trajectory: Trajectory, elapsed_s: float, running: ClientGoalHandle, reason: str
    ) -> Outcome:
        """A second trajectory, which replaces the first, comes to rest along the same path. If the controller
        does not take it, the first is cancelled, and the controller stops in its own way."""
        braking = trajectory.braked(elapsed_s, self._limits)
        handle = self._accepted(braking)
        if isinstance(handle, Outcome):
            running.cancel_goal_async()
            return Outcome(Code.CANCELLED, f"{reason}; the controller stopped the arm in its own way")
        ended = threading.Event()
        handle.get_result_async().add_done_callback(lambda _: ended.set())
        if not ended.wait(braking.duration_s + self._settle_s):
            return Outcome(Code.EXECUTION_FAILED, f"{reason}, but the arm's stop was not confirmed")
        return Outcome(Code.CANCELLED, f"{reason}; the arm stopped on its path")


class TopicCommand:
    """By a trajectory_msgs/JointTrajectory topic: nobody says whether it was followed."""

    def __init__(self, node: Node, topic: str, limits: JointLimits) -> None:
        self._publisher = node.create_publisher(JointTrajectory, topic, 1)
        self._limits = limits

    def follow(
        self, trajectory: Trajectory, stop: Callable[[], str], progress: Callable[[float], None]
    ) -> Outcome:
        if self._publisher.get_subscription_count() == 0:
            return Outcome(
                Code.EXECUTION_FAILED,
                f"nobody listens to {self._publisher.topic_name}; is the arm's controller running?",
            )
        self._publisher.publish(trajectory_message(trajectory))
        began_s = time.monotonic()
        pause = threading.Event()
        while (elapsed_s := time.monotonic() - began_s) < trajectory.duration_s:
            progress(elapsed_s / trajectory.duration_s)
            reason = stop()
            if reason:
                braking = trajectory.braked(elapsed_s, self._limits)
                self._publisher.publish(trajectory_message(braking))
                pause.wait(braking.duration_s)
                return Outcome(Code.CANCELLED, f"{reason}; the arm was told to stop on its path")
            pause.wait(_WATCH_S)
        return _OK


def _judged(result: FollowJointTrajectory.Result, name: str) -> Outcome:
    if result.error_code == FollowJointTrajectory.Result.SUCCESSFUL:
        return _OK
    what = {
        FollowJointTrajectory.Result.INVALID_GOAL: "invalid goal",
        FollowJointTrajectory.Result.INVALID_JOINTS: "invalid joints",
        FollowJointTrajectory.Result.OLD_HEADER_TIMESTAMP: "old stamp",
        FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED: "the arm left its path",
        FollowJointTrajectory.Result.GOAL_TOLERANCE_VIOLATED: "the arm did not arrive",
    }.get(result.error_code, f"error {result.error_code}")
    said = f": {result.error_string}" if result.error_string else ""
    return Outcome(Code.EXECUTION_FAILED, f"{name} ended the motion: {what}{said}")
