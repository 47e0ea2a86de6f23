"""The operator in the loop: goals that wait are announced, and go on, or do not, at an operator's word.

The word comes by the service ~/confirm or by a button in RViz.
"""

from __future__ import annotations

import threading
import time

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from molmo_ros.nodes.confirm_markers import ConfirmMarkers
from molmo_ros.nodes.goal_on_its_way import GoalOnItsWay
from molmo_ros.nodes.messages import outcome_message
from molmo_ros.nodes.planner_action import WATCH_S
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros_interfaces.msg import HandOffArray
from molmo_ros_interfaces.srv import Confirm

# What waits now: an operator who comes late sees it, too.
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Confirmation:
    """Serves `~/confirm`, publishes `~/waiting_goals`, and draws buttons."""

    def __init__(self, node: Node) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, GoalOnItsWay] = {}
        self._logger = node.get_logger()
        self._announced = node.create_publisher(HandOffArray, "~/waiting_goals", _LATCHED)
        self._markers = ConfirmMarkers(node, self.decide)
        node.create_service(Confirm, "~/confirm", self._confirm)

    def wait(self, goal: GoalOnItsWay) -> None:
        """Returns when the operator has accepted the goal.

        Raises PointingError: REJECTED_BY_OPERATOR, CONFIRM_TIMEOUT, or why the goal was called back.
        """
        timeout_s = goal.parameters.confirm_timeout_s
        end_s = time.monotonic() + timeout_s
        goal.say("confirm")
        with self._lock:
            self._waiting[goal.goal_id] = goal
            self._announce()
        self._logger.info(f"{goal.answer.request.words!r}: goal {goal.goal_id} waits for ~/confirm")
        while not (goal.decided.wait(WATCH_S) or goal.why_stop() or time.monotonic() > end_s):
            pass
        with self._lock:  # from here on, ~/confirm says that it no longer waits
            del self._waiting[goal.goal_id]
            self._announce()
        stop = goal.why_stop()
        if stop is not None:
            raise PointingError(stop.code, stop.message)
        if not goal.decided.is_set():
            raise PointingError(
                Code.CONFIRM_TIMEOUT, f"nobody confirmed within {timeout_s:g} s (confirm_timeout_s)"
            )
        if not goal.accepted:
            raise PointingError(Code.REJECTED_BY_OPERATOR, "the operator rejected the goal")

    def decide(self, goal_id: str, accept: bool) -> Outcome:
        """The operator's word: OK, or INVALID_REQUEST when no such goal waits. The first word counts."""
        with self._lock:
            goal = self._waiting.get(goal_id)
            if goal is None or goal.decided.is_set():
                there = ", ".join(self._waiting) or "none"
                return Outcome(Code.INVALID_REQUEST, f"no goal {goal_id!r} waits for a word; waiting: {there}")
            goal.accepted = accept
            goal.decided.set()
        return Outcome()

    def _confirm(self, request: Confirm.Request, response: Confirm.Response) -> Confirm.Response:
        outcome = self.decide(request.goal_id, request.accept)
        response.outcome = outcome_message(outcome)
        return response

    def _announce(self) -> None:
        goals = [goal.message(Outcome()) for goal in self._waiting.values()]
        self._announced.publish(HandOffArray(goals=goals))
        self._markers.show(goals)
