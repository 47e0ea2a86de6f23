"""Something to be done once, in a while, unless it is called off; by the steady clock, on the node's executor."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

_SOON_S = 1e-3


class OneShot:
    """Use on the executor's thread only."""

    def __init__(self, node: Node, do: Callable[[], object]) -> None:
        self._node, self._do = node, do
        self._timer: Timer | None = None

    def start(self, seconds: float) -> None:
        """Do it after that time, counted from now on if it was counted before."""
        self.call_off()
        self._timer = self._node.create_timer(
            max(seconds, _SOON_S),
            self._now,
            callback_group=MutuallyExclusiveCallbackGroup(),  # rclpy's groups never forget what was in them
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def is_due(self) -> bool:
        """Whether it will be done."""
        return self._timer is not None

    def call_off(self) -> None:
        """Do it no more; what it would have done is still known."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _now(self) -> None:
        self.call_off()
        self._do()
