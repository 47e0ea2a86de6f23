"""A caller of nodes in other processes, and what those processes cost: shared by the benchmarks of a live graph."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from figures import Figure
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from molmo_ros_interfaces.srv import PointTo

MODEL_STAGES = ("vision", "prefill", "decode")
STAGES = ("frame_wait", "decode_image", *MODEL_STAGES, "geometry", "publish")
UP_WITHIN_S = 300.0
REPLY_WITHIN_S = 60.0
MODEL_UNAVAILABLE = 503


class GraphClient:
    """Calls the node that is up as /pointing_node; its own executor runs in a thread."""

    def __init__(self, name: str) -> None:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(name)
        self.point_to = self.node.create_client(PointTo, "/pointing_node/point_to")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def call(self, client: Any, request: Any, timeout_s: float = REPLY_WITHIN_S) -> tuple[Any, float]:
        """The reply, and the seconds it took; raises TimeoutError."""
        done = threading.Event()
        begin_s = time.perf_counter()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            raise TimeoutError(f"no reply from {client.srv_name} within {timeout_s:g} s")
        return future.result(), time.perf_counter() - begin_s

    def wait_until_ready(self) -> None:
        """Until the node's model is loaded; raises RuntimeError with the node's own words when it cannot be."""
        end_s = time.monotonic() + UP_WITHIN_S
        said = "nothing"
        while time.monotonic() < end_s:
            if not self.point_to.wait_for_service(1.0):
                continue
            try:
                # A service is seen before it sees its caller; until then replies get lost.
                outcome = self.call(self.point_to, PointTo.Request(target="the table", dry_run=True), 4.0)[0].outcome
            except TimeoutError:
                continue
            if outcome.code != MODEL_UNAVAILABLE:
                return
            said = outcome.message
            if "still loading" not in said:
                break
            threading.Event().wait(0.2)
        raise RuntimeError(f"/pointing_node is not ready; it says: {said}")

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(5.0)
        rclpy.try_shutdown()


@contextmanager
def process(command: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose words go to the log, ended in any case."""
    with log.open("a") as out:
        started = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        try:
            started.wait(20.0)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def measured(name: str, measure: Callable[[Path], list[Figure]]) -> list[Figure] | None:
    """What `measure`, given a log for its processes, finds on a graph of its own; None, said why, when it cannot."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    log = Path(tempfile.gettempdir()) / f"{name}_{os.getpid()}.log"
    try:
        found = measure(log)
    except (RuntimeError, TimeoutError) as error:
        print(f"{error}\nthe processes' own words: {log}", file=sys.stderr)
        return None
    log.unlink()
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, user and system (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_percent(pid: int, seconds: float) -> float:
    """Of one core, over this time."""
    before, begin_s = cpu_seconds(pid), time.monotonic()
    threading.Event().wait(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - begin_s)


def memory_kb(pid: int, what: str = "VmRSS") -> int:
    """Resident set now, or with "VmHWM" the largest so far, in units of 1024 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no {what}")


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def seconds(duration: Any) -> float:
    """Of a builtin_interfaces/Duration."""
    return float(duration.sec + duration.nanosec / 1e9)
