"""Lifecycle transitions that may take long, without blocking the thread that serves everything else.

rclpy runs a transition inside the callback of its change_state service; loading a model there would keep
get_state, diagnostics and cancels waiting for minutes. Here change_state awaits the transition, which runs on a
thread of its own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.task import Future


class ConcurrentLifecycleNode(LifecycleNodeMixin, Node):
    """A lifecycle node whose transitions run one after the other on their own thread.

    Like rclpy's LifecycleNode it is configured by overriding on_configure and its like.
    """

    def __init__(self, name: str, **node_options: Any) -> None:
        Node.__init__(self, name, **node_options)
        # Reentrant, because change_state awaits its transition and must not keep get_state out meanwhile.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._transitions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._transitions_thread = threading.Thread(
            target=self._run_transitions, name="transitions", daemon=True
        )
        self._transitions_thread.start()
        # rclpy offers no other way in: its node makes this service and binds the blocking callback itself.
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._await_change_state

    def in_turn(self, act: Callable[[], None]) -> None:
        """Run something between transitions, on their thread."""
        self._transitions.put(act)

    def end_transitions(self, timeout_s: float) -> bool:
        """Take no more of them. Whether the one that runs ended in time."""
        self._transitions.put(None)
        self._transitions_thread.join(timeout_s)
        return not self._transitions_thread.is_alive()

    @property
    def state_label(self) -> str:
        """unconfigured, configuring, inactive, activating, active, ..."""
        return str(self._state_machine.current_state[1])

    async def _await_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        executor = self.executor
        changed: Future[ChangeState.Response] = Future(executor=executor)

        def change() -> None:
            try:
                changed.set_result(self._change_state(request, response))
            except Exception as error:  # noqa: BLE001 - raised in the service's callback
                changed.set_exception(error)
            if executor is not None:
                executor.wake()  # an idle executor does not notice a future completed elsewhere

        self.in_turn(change)
        result = await changed
        return result if result is not None else response

    def _run_transitions(self) -> None:
        while (act := self._transitions.get()) is not None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - the next transition may still be possible
                self.get_logger().error(f"a transition failed: {type(error).__name__}: {error}")
