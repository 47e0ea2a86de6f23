"""A planner that is told by an action: hand it a goal, follow it to its end, call it back. Planners differ in what a
`PlannerInterface` says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future as ConcurrentFuture
from typing import Any, Protocol

from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseStamped
from rclpy.action.client import ClientGoalHandle
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future

from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.base_motion import BaseNow
from molmo_ros.nodes.goal_client import GoalClient, cancel_if_taken
from molmo_ros.nodes.hand_off_parameters import MOVEIT, NAV2, TOPIC, HandOffParameters
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, Outcome, PointingError

#: How often a wait looks whether its goal is still wanted.
WATCH_S = 0.02
#: A planner that is told to stop has this long to say that it has.
STOP_S = 5.0
# Between two looks whether a planner that has a goal is still there.
_PRESENCE_S = 0.5

Stop = Callable[[], Outcome | None]


class PlannerInterface(Protocol):
    """What one planner understands and says."""

    name: str
    action_type: Any
    action_name: str
    how_to_start: str
    only_plans_if_told: bool  # whether its goal can say that nothing may move

    def goal(self, answer: Answer) -> tuple[Any, PoseStamped]:
        """The action's goal for the answer's, and the pose in it for people to see. Raises PointingError."""

    def outcome(self, result: Any) -> Outcome:
        """What a result of the action means."""

    def stage(self, feedback: Any) -> str:
        """plan or move; empty when the feedback does not tell."""


class PlannerAction:
    """One planner's action. `hand_over` and `follow` block the thread that calls them, never the executor's."""

    def __init__(
        self, node: Node, executor: Executor, interface: PlannerInterface, parameters: HandOffParameters
    ) -> None:
        """`executor` spins the node on another thread than this."""
        self.interface = interface
        self._accept_s, self._motion_s = parameters.planner_timeout_s, parameters.motion_timeout_s
        self._client = GoalClient(node, interface.action_type, interface.action_name, executor)
        self._name = f"{interface.name} ({node.resolve_topic_name(interface.action_name)})"

    def destroy(self) -> None:
        self._client.destroy()

    def hand_over(self, goal: Any, stop: Stop, tell: Callable[[str], None]) -> ClientGoalHandle:
        """Returns when the planner has taken the goal. `stop` says why it is no longer wanted, `tell` hears of stages.

        Raises PointingError: PLANNER_UNAVAILABLE, PLANNING_FAILED when it is rejected, or what `stop` says; then the
        planner is not at it, and will not be.
        """
        end_s = time.monotonic() + self._accept_s
        pause = threading.Event()
        _raise_if(stop())
        while not self._client.server_is_ready():
            _raise_if(stop())
            if time.monotonic() > end_s:
                raise PointingError(
                    Code.PLANNER_UNAVAILABLE,
                    f"nobody serves {self._name}, waited {self._accept_s:g} s; {self.interface.how_to_start}",
                )
            pause.wait(WATCH_S)
        sent = self._client.send(goal, lambda message: tell(self.interface.stage(message.feedback)))
        answered = _when_done(sent)
        while not answered.wait(WATCH_S):
            why = stop()
            if why is None and time.monotonic() > end_s:
                why = Outcome(
                    Code.PLANNER_UNAVAILABLE, f"{self._name} did not take the goal within {self._accept_s:g} s"
                )
            if why is not None:
                cancel_if_taken(sent)
                raise PointingError(why.code, why.message)
        handle: ClientGoalHandle = sent.result()
        if not handle.accepted:
            raise PointingError(
                Code.PLANNING_FAILED, f"{self._name} rejected the goal; is it active? Its log says why"
            )
        return handle

    def follow(self, handle: ClientGoalHandle, stop: Stop) -> Outcome:
        """How the goal ended. When `stop` says so it is cancelled, and the end of that is waited for."""
        result: Future[Any] = handle.get_result_async()
        ended = _when_done(result)
        end_s = time.monotonic() + self._motion_s
        look_s = time.monotonic() + _PRESENCE_S
        while not ended.wait(WATCH_S):
            now_s = time.monotonic()
            why = stop()
            if why is None and now_s > end_s:
                why = Outcome(
                    Code.TIMEOUT, f"{self._name} had not ended after {self._motion_s:g} s (motion_timeout_s)"
                )
            if why is not None:
                return self._stopped(handle, result, ended, why)
            if now_s > look_s:
                look_s = now_s + _PRESENCE_S
                if not self._client.server_is_ready():
                    return Outcome(
                        Code.PLANNER_UNAVAILABLE,
                        f"{self._name} went away while it had the goal: look whether the robot still moves",
                    )
        return self._judged(result.result())

    def _stopped(
        self, handle: ClientGoalHandle, result: Future[Any], ended: threading.Event, why: Outcome
    ) -> Outcome:
        handle.cancel_goal_async()
        if not ended.wait(STOP_S):
            return Outcome(
                Code.EXECUTION_FAILED,
                f"{why.message}, but {self._name} did not say within {STOP_S:g} s that it has stopped: look whether "
                "the robot still moves",
            )
        if result.result().status == GoalStatus.STATUS_SUCCEEDED:  # it was there before the cancel was
            return self._judged(result.result())
        return Outcome(why.code, f"{why.message}; {self._name} has stopped")

    def _judged(self, reply: Any) -> Outcome:
        if reply.status == GoalStatus.STATUS_CANCELED:
            return Outcome(Code.CANCELLED, f"somebody else cancelled the goal at {self._name}")
        outcome = self.interface.outcome(reply.result)
        if reply.status != GoalStatus.STATUS_SUCCEEDED and outcome.ok:
            return Outcome(Code.EXECUTION_FAILED, f"{self._name} gave the goal up and does not say why")
        return outcome


def planner_interface(
    parameters: PointingParameters, base_in: Callable[[str], ConcurrentFuture[BaseNow]]
) -> PlannerInterface | None:
    """The planner that the parameters name, None for the topic. `base_in` tells where the base is in a frame.

    Raises PointingError(PLANNER_UNAVAILABLE) where its interfaces are not installed.
    """
    hand_off = parameters.planner.hand_off
    if hand_off == TOPIC:
        return None
    package = {MOVEIT: "moveit_msgs", NAV2: "nav2_msgs"}[hand_off]
    try:
        if hand_off == MOVEIT:
            from molmo_ros.nodes.moveit_hand_off import MoveItInterface

            return MoveItInterface(parameters)
        from molmo_ros.nodes.nav2_hand_off import Nav2Interface

        return Nav2Interface(parameters, base_in)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        distro = os.environ.get("ROS_DISTRO", "$ROS_DISTRO")
        raise PointingError(
            Code.PLANNER_UNAVAILABLE,
            f"hand_off is {hand_off}, and the package {package} is not installed: sudo apt install "
            f"ros-{distro}-{package.replace('_', '-')}, or set hand_off to topic",
        ) from error


def _when_done(future: Future[Any] | ConcurrentFuture[Any]) -> threading.Event:
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    return done


def _raise_if(outcome: Outcome | None) -> None:
    if outcome is not None:
        raise PointingError(outcome.code, outcome.message)
