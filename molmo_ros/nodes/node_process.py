"""A node as a process that moves something: it ends only after what moves has come to rest.

The signals are taken here and nowhere else, so that a motion is braked and its goal answered before the ROS context
goes away.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions


class EndableNode(Protocol):
    """A node that is added to its executor already, and has threads of its own."""

    def shut_down(self) -> None:
        """Stop what moves, answer open goals, end the threads; the executor still spins."""

    def close(self) -> None:
        """Destroy the node; nothing may spin it any more."""


def run_node(
    name: str,
    make: Callable[[Executor], EndableNode],
    refusals: tuple[type[Exception], ...],
    args: Sequence[str] | None = None,
) -> int:
    """Run until SIGINT or SIGTERM. Exit code 0, or 2 when `make` raised one of `refusals`: a configuration that
    cannot work."""
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    try:
        node = make(executor)
    except refusals as error:
        get_logger(name).fatal(" ".join(str(error).split()))
        rclpy.shutdown()
        return 2
    ended = threading.Event()
    spinning = threading.Thread(target=_spin, args=(name, executor, ended), name="executor", daemon=True)
    spinning.start()

    signal.sigwait(ending)

    node.shut_down()
    replied = threading.Event()
    executor.create_task(replied.set)  # runs after the answers, which are queued before it
    replied.wait(1.0)
    ended.set()
    executor.wake()
    executor.shutdown(timeout_sec=1.0)
    spinning.join(1.0)
    node.close()
    rclpy.shutdown()
    return 0


def _spin(name: str, executor: Executor, ended: threading.Event) -> None:
    """Serve until the end; a callback that raises is logged, and the others go on."""
    while not ended.is_set():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:  # noqa: BLE001 - the other callbacks go on
            if not ended.is_set():
                get_logger(name).error(f"a callback failed: {type(error).__name__}: {error}")
