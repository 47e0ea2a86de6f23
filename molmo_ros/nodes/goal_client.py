"""An action's client for threads that wait, beside the executor's that spins.

rclpy's own client must be made and given goals on the executor's thread. It registers itself with the executor before
it is complete. And `send_goal_async` keeps the reply under one future, then replaces that by another (rclpy 9.1), or
sends before it keeps any (7.1): a reply that the executor hears in between is lost, and the goal runs with nobody
following it. Asking for results and cancelling has the latter flaw in 7.1 alone, where it remains.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.executors import Executor
from rclpy.node import Node

# A spinning executor is at most one callback away.
_MADE_WITHIN_S = 20.0


class GoalClient:
    """One action as its caller sees it; call from any thread but the executor's."""

    def __init__(self, node: Node, kind: type[Any], name: str, executor: Executor | None = None) -> None:
        """`executor` spins the node on another thread; None where nothing spins it yet."""
        self._node = node
        made: Future[ActionClient] = Future()
        if executor is None:
            made.set_result(ActionClient(node, kind, name))
        else:
            executor.create_task(_into, made, lambda: ActionClient(node, kind, name))
        self._client = made.result(_MADE_WITHIN_S)

    def server_is_ready(self) -> bool:
        return bool(self._client.server_is_ready())

    def wait_for_server(self, timeout_s: float) -> bool:
        return bool(self._client.wait_for_server(timeout_s))

    def send(self, goal: Any, on_feedback: Callable[[Any], None] | None = None) -> Future[ClientGoalHandle]:
        """The goal's handle, once the server has taken or rejected it. `on_feedback` runs on the executor's thread."""
        executor = self._node.executor
        if executor is None:
            raise RuntimeError("a goal was sent by a node that no executor spins")
        replied: Future[ClientGoalHandle] = Future()

        def send() -> None:
            try:
                sent = self._client.send_goal_async(goal, feedback_callback=on_feedback)
            except Exception as error:  # noqa: BLE001 - raised where the reply is waited for
                replied.set_exception(error)
            else:
                sent.add_done_callback(lambda reply: _into(replied, reply.result))

        executor.create_task(send)
        return replied

    def destroy(self) -> None:
        self._client.destroy()


def cancel_if_taken(replied: Future[ClientGoalHandle]) -> None:
    """For a goal that is no longer waited for: a server that takes it after all must not go on with it."""

    def cancel(reply: Future[ClientGoalHandle]) -> None:
        if reply.exception() is None and reply.result().accepted:
            reply.result().cancel_goal_async()

    replied.add_done_callback(cancel)


def _into(future: Future[Any], what: Callable[[], Any]) -> None:
    """What it returns or raises becomes the future's."""
    try:
        future.set_result(what())
    except Exception as error:  # noqa: BLE001 - raised where it was asked for
        future.set_exception(error)
