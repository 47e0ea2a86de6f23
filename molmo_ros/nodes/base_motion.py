"""Where a moving base is now, in a frame that stands still: to carry a target from the image's stamp to the goal's.

Molmo may think for seconds; meanwhile a mobile base drives on. The camera's pose at the image's stamp is taken in
`fixed_frame`, and this brings it into `target_frame` as it is when the goal is made.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from rclpy.clock import Clock
from rclpy.executors import Executor
from rclpy.node import Node

from molmo_ros.nodes.one_shot import OneShot
from molmo_ros.nodes.transforms import TransformWindow
from molmo_ros.outcome import Code, Outcome, PointingError


@dataclass(frozen=True, eq=False)
class BaseNow:
    """`T_target_fixed` (4x4) at `stamp_ns`."""

    T_target_fixed: np.ndarray
    stamp_ns: int


class BaseMotion:
    """Serves any number of questions; only `request` may be called from another thread than the sensors'."""

    def __init__(
        self,
        node: Node,
        executor: Executor,
        clock: Clock,
        transforms: TransformWindow,
        target_frame: str,
        fixed_frame: str,
        tf_timeout_s: float,
    ) -> None:
        self._node = node
        self._executor = executor
        self._clock = clock
        self._transforms = transforms
        self._target_frame = target_frame.lstrip("/")
        self._fixed_frame = fixed_frame.lstrip("/")
        self._tf_timeout_s = tf_timeout_s

    def request(self) -> Future[BaseNow]:
        """The base at a time not before this call; the future raises PointingError(TF_UNAVAILABLE) after
        tf_timeout_s."""
        answer: Future[BaseNow] = Future()
        self._executor.create_task(self._begin, answer)
        return answer

    def _begin(self, answer: Future[BaseNow]) -> None:
        asked_ns = self._clock.now().nanoseconds
        refusal: Outcome | None = None

        def end(result: BaseNow | Exception) -> None:
            self._transforms.close(answer)
            timer.call_off()
            if not answer.set_running_or_notify_cancel():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def attempt() -> None:
            nonlocal refusal
            if answer.done():
                return
            try:
                now = self._base_at(asked_ns)
            except PointingError as error:
                refusal = error.outcome
            except Exception as error:  # noqa: BLE001 - a fault of ours ends one request, not the thread
                end(error)
            else:
                end(now)

        def give_up() -> None:
            if not answer.done():
                why = refusal.message if refusal else "nothing was heard on /tf"
                end(
                    PointingError(
                        Code.TF_UNAVAILABLE,
                        f"TF does not say where the base is in {self._fixed_frame} now: {why}",
                    )
                )

        timer = OneShot(self._node, give_up)
        timer.start(self._tf_timeout_s)
        self._transforms.open(answer, attempt)
        attempt()

    def _base_at(self, asked_ns: int) -> BaseNow:
        """Raises PointingError while TF does not reach to `asked_ns`."""
        newest_ns = self._transforms.newest_ns(self._target_frame, self._fixed_frame)
        stamp_ns = max(newest_ns, asked_ns)
        T = self._transforms.matrix_at(self._target_frame, self._fixed_frame, stamp_ns)
        return BaseNow(T, stamp_ns)
