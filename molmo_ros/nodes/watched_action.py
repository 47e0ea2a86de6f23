"""An action of another node, called from a worker thread that may be told to stop meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.action.client import ClientGoalHandle
from rclpy.node import Node
from rclpy.task import Future

from molmo_ros.nodes.goal_client import GoalClient, cancel_if_taken
from molmo_ros.outcome import Code, PointingError

#: How often a wait looks whether it is to stop.
WATCH_S = 0.02
_ACCEPT_S = 5.0


class WatchedAction:
    """One goal at a time; the node's executor spins on another thread."""

    def __init__(self, node: Node, kind: type[Any], name: str, whose: str, absent: Code) -> None:
        """`whose`: what a person calls the server ("the planner"). `absent`: the outcome when it is not there."""
        self._kind, self._whose, self._absent = kind, whose, absent
        self._name = node.resolve_topic_name(name)
        self._client = GoalClient(node, kind, name)

    def call(
        self,
        goal: Any,
        stop: Callable[[], str],
        *,
        timeout_s: float,
        on_accepted: Callable[[], None] = lambda: None,
        lost: Callable[[], str] = lambda: "",
        can_cancel: bool = True,
    ) -> Any:
        """The result. When `stop` gives a reason the goal is cancelled, and its result, which says how that went, is
        waited for; one that cannot be cancelled is waited for to its end.

        `on_accepted` is called when the goal was taken; from then on `lost` says why no answer will come any more, or
        "". Raises PointingError: the outcome `absent` when there is no server or it is lost, CANCELLED before the goal
        was taken, TIMEOUT.
        """
        handle = self._accepted(goal, stop)
        on_accepted()
        result: Future[Any] = handle.get_result_async()
        ended = threading.Event()
        result.add_done_callback(lambda _: ended.set())
        end_s = time.monotonic() + timeout_s
        cancelled = False
        while not ended.wait(WATCH_S):
            if stop() and can_cancel and not cancelled:
                handle.cancel_goal_async()
                cancelled = True
            if lost():
                handle.cancel_goal_async()
                raise PointingError(self._absent, lost())
            if time.monotonic() > end_s:
                handle.cancel_goal_async()
                raise PointingError(Code.TIMEOUT, f"{self._name} did not end within {timeout_s:g} s")
        return result.result().result

    def _accepted(self, goal: Any, stop: Callable[[], str]) -> ClientGoalHandle:
        end_s = time.monotonic() + _ACCEPT_S
        while not self._client.server_is_ready():
            if stop():
                raise PointingError(Code.CANCELLED, stop())
            if time.monotonic() > end_s:
                raise PointingError(
                    self._absent, f"there is no action {self._name}; does {self._whose} run, and under this name?"
                )
            threading.Event().wait(WATCH_S)
        sent = self._client.send(goal)
        try:
            handle = sent.result(_ACCEPT_S)
        except TimeoutError as error:
            cancel_if_taken(sent)
            raise PointingError(self._absent, f"{self._name} did not answer within {_ACCEPT_S:g} s") from error
        if not handle.accepted:
            raise PointingError(self._absent, f"{self._name} rejected the goal")
        return handle

    def destroy(self) -> None:
        self._client.destroy()
