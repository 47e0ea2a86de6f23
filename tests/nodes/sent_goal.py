"""A goal of an action that tells of stages, as its caller sees it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from rclpy.action.client import ClientGoalHandle

from molmo_ros.nodes.goal_client import GoalClient


class SentGoal:
    """Its feedback, and how it ended."""

    def __init__(self, client: GoalClient, goal: Any) -> None:
        self.stages: list[str] = []
        self._changed = threading.Condition()
        self._handle: Any = None
        self._result: Any = None
        client.send(goal, self._hear).add_done_callback(self._accepted)

    def __repr__(self) -> str:
        return f"SentGoal(stages={self.stages}, result={self._result})"

    def _hear(self, message: Any) -> None:
        with self._changed:
            self.stages.append(message.feedback.stage)
            self._changed.notify_all()

    def _accepted(self, replied: Future[ClientGoalHandle]) -> None:
        with self._changed:
            self._handle = replied.result()
            self._changed.notify_all()
        self._handle.get_result_async().add_done_callback(self._ended)

    def _ended(self, future: Any) -> None:
        with self._changed:
            self._result = future.result().result
            self._changed.notify_all()

    def reaches(self, stage: str, timeout_s: float = 90.0) -> bool:
        """Whether it tells of a stage before it ends."""
        with self._changed:
            self._changed.wait_for(lambda: stage in self.stages or self._result is not None, timeout_s)
            return stage in self.stages

    def cancel(self) -> None:
        self._handle.cancel_goal_async()

    @property
    def goal_id(self) -> str:
        return bytes(self._handle.goal_id.uuid).hex()

    def ends(self, timeout_s: float = 60.0) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._result is not None, timeout_s)

    def result(self, timeout_s: float = 180.0) -> Any:
        assert self.ends(timeout_s), f"no result in time; stages so far: {self.stages}"
        return self._result
