"""The process that a node lives in: its executors spin, a signal ends it, and open requests are answered first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import rclpy
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from molmo_ros.nodes.parameter_table import ParameterError

# A thread that has work waits at most so long for another's Python; the default is 5 ms, a fifth of a whole answer.
SWITCH_INTERVAL_S = 0.5e-3
# How long an executor that was told to end may still be in a callback.
EXECUTOR_ENDS_S = 0.3


class EndingNode(Protocol):
    """What a node must be able to do to end well."""

    def shut_down(self) -> bool:
        """Answer whoever waits and end the node's own threads, with the executors still spinning; whether all ended."""

    def close(self) -> None:
        """Destroy the node; nothing spins it any more."""


def serve_until_signal(
    name: str,
    args: Sequence[str] | None,
    threads: Sequence[str],
    make_node: Callable[[Sequence[Executor]], EndingNode],
    faults: tuple[type[Exception], ...] = (),
) -> int:
    """Run a node until SIGINT or SIGTERM, which end the process with code 0; returns 2 for a configuration that
    cannot work.

    `threads` names one executor each; `make_node` gets them in that order and adds its nodes. A ParameterError, an
    InvalidTopicNameException or one of `faults` that it raises is a configuration that cannot work, told in one line.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # The signals are taken here and nowhere else: requests are answered before the context goes away.
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    executors = [SingleThreadedExecutor() for _ in threads]
    try:
        node = make_node(executors)
    except (ParameterError, InvalidTopicNameException, *faults) as error:
        get_logger(name).fatal(" ".join(str(error).split()))
        rclpy.shutdown()
        return 2
    ended = threading.Event()
    spinning = [
        threading.Thread(target=spin_until, args=(name, executor, ended), name=thread, daemon=True)
        for executor, thread in zip(executors, threads, strict=True)
    ]
    for each in spinning:
        each.start()

    signal.sigwait(ending)

    all_ended = node.shut_down()
    ended.set()
    for executor, each in zip(executors, spinning, strict=True):
        executor.wake()
        executor.shutdown(timeout_sec=EXECUTOR_ENDS_S)
        each.join(EXECUTOR_ENDS_S)
    if all_ended and not any(each.is_alive() for each in spinning):
        node.close()
        rclpy.shutdown()
    # Nothing is left to be saved. A model that loads cannot be interrupted, and Python would wait for it; and to take
    # down its modules costs it more time than all of the above.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def let_replies_out(executor: Executor, timeout_s: float) -> None:
    """Wait until an executor has sent what was handed to it before."""
    sent = threading.Event()
    executor.create_task(sent.set)  # runs after the answers, which are queued before it
    sent.wait(timeout_s)


def spin_until(name: str, executor: Executor, ended: threading.Event) -> None:
    """Serve until the end; a callback that raises is logged, and the others go on."""
    while not ended.is_set():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:  # noqa: BLE001 - the other callbacks go on
            if not ended.is_set():
                get_logger(name).error(f"a callback failed: {type(error).__name__}: {error}")
