"""What the node itself costs: time beyond the model, waiting for frames, idle CPU, memory; beside a naive node.

    tools/run python benchmarks/node.py [--quick] [--check] [--json FILE]

A camera process sends 1280x720 RGB-D at 30 Hz and /tf at 100 Hz with 8 transforms, the camera at the end of their
chain (benchmarks/node_camera.py). The node runs with a pointer that takes no time (benchmarks/node_subjects.py), and
somebody watches its annotated image. Overhead is what remains of a request's total when the wait for the frame and the
model are taken off: newest complete frame to published goal. Times are wall-clock of this machine under its present
load; on a loaded machine take the best of several runs.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from figures import Figure, parser, report
from first_light import _percentile, _seconds, cpu_seconds
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from molmo_ros_interfaces.srv import PointTo

HERE = Path(__file__).resolve().parent
UP_WITHIN_S = 120.0
REPLY_WITHIN_S = 30.0
WARM_CALLS = 10
OWN_DEPTH = (
    ("depth_topic", "camera/depth_own/image_rect"),
    ("depth_info_topic", "camera/depth_own/camera_info"),
)


@dataclass(frozen=True)
class Effort:
    """How long each part is measured."""

    calls: int
    idle_s: float
    growth_from: int
    growth_to: int


WHOLE, QUICK = Effort(300, 20.0, 200, 2000), Effort(30, 3.0, 40, 90)


class Client:
    """Calls whatever node is up as /pointing_node, and watches its annotated image."""

    def __init__(self) -> None:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("node_benchmark")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._point_to = self.node.create_client(PointTo, "/pointing_node/point_to")
        self._watch: Any = None
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def watch(self, on: bool) -> None:
        """Be, or be no more, somebody who looks at the annotated image."""
        if on and self._watch is None:
            self._watch = self.node.create_subscription(
                Image, "/pointing_node/annotated_image", lambda _: None, 1, raw=True
            )
        if not on and self._watch is not None:
            self.node.destroy_subscription(self._watch)
            self._watch = None

    def call(self, timeout_s: float = REPLY_WITHIN_S) -> tuple[PointTo.Response, float]:
        """The reply, and the seconds it took; raises TimeoutError."""
        done = threading.Event()
        begin_s = time.perf_counter()
        future = self._point_to.call_async(PointTo.Request(target="the thing"))
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            raise TimeoutError(f"no reply within {timeout_s:g} s")
        return future.result(), time.perf_counter() - begin_s

    def wait_until_ready(self) -> None:
        end_s = time.monotonic() + UP_WITHIN_S
        said = "nothing"
        while time.monotonic() < end_s:
            if not self._point_to.wait_for_service(1.0):
                continue
            try:
                outcome = self.call(4.0)[0].outcome
            except TimeoutError:
                continue
            if outcome.code == 0:
                return
            said = outcome.message
        raise RuntimeError(f"the node is not ready after {UP_WITHIN_S:g} s; it says: {said}")

    def wait_until_gone(self) -> None:
        end_s = time.monotonic() + 20.0
        while self._point_to.service_is_ready() and time.monotonic() < end_s:
            threading.Event().wait(0.1)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(5.0)
        rclpy.try_shutdown()


@contextmanager
def running(
    script: str, *arguments: str, log: Path, environment: dict[str, str] | None = None
) -> Iterator[int]:
    """A process, ended in any case; yields its id."""
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def idle_percent(pid: int, seconds: float) -> float:
    """Of one core."""
    before, begin_s = cpu_seconds(pid), time.monotonic()
    threading.Event().wait(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - begin_s)


def latencies(
    client: Client, pid: int, calls: int, name: str, goals_ms: tuple[float | None, float | None]
) -> list[Figure]:
    """Of calls one after the other."""
    overheads_ms, waits_ms, replies_ms = [], [], []
    refused: list[str] = []
    for _ in range(WARM_CALLS):
        client.call()
    used_s = cpu_seconds(pid)
    for _ in range(calls):
        reply, spent_s = client.call()
        if reply.outcome.code != 0:
            refused.append(reply.outcome.message)
            continue
        durations = reply.durations
        wait_s = _seconds(durations.frame_wait)
        model_s = sum(_seconds(getattr(durations, stage)) for stage in ("vision", "prefill", "decode"))
        overheads_ms.append(1e3 * (_seconds(durations.total) - wait_s - model_s))
        waits_ms.append(1e3 * wait_s)
        replies_ms.append(1e3 * (spent_s - wait_s - model_s))
    used_s = cpu_seconds(pid) - used_s
    if len(refused) > calls / 2:
        raise RuntimeError(f"{len(refused)} of {calls} calls were refused, such as: {refused[0]}")
    p50_goal, p99_goal = goals_ms
    return [
        Figure(f"{name}: calls refused", len(refused), "", None if p50_goal is None else 0),
        Figure(f"{name}: processor time per call, all threads", 1e3 * used_s / calls, "ms"),
        Figure(
            f"{name}: newest frame to published goal, p50", statistics.median(overheads_ms), "ms", p50_goal
        ),
        Figure(f"{name}: newest frame to published goal, p99", _percentile(overheads_ms, 99), "ms", p99_goal),
        Figure(
            f"{name}: the same with the service's way there and back, p50",
            statistics.median(replies_ms),
            "ms",
        ),
        Figure(
            f"{name}: wait for a frame, p50", statistics.median(waits_ms), "ms", 50.0 if p50_goal else None
        ),
    ]


def growth(client: Client, pid: int, effort: Effort) -> Figure:
    begin_kb = 0
    for count in range(effort.growth_to):
        if count == effort.growth_from:
            begin_kb = resident_kb(pid)
        client.call()
    per_call_kb = (resident_kb(pid) - begin_kb) / (effort.growth_to - effort.growth_from)
    name = f"memory growth per request, {effort.growth_from} to {effort.growth_to}"
    return Figure(name, per_call_kb, "KB", 2.0)


def measure(client: Client, effort: Effort, log: Path) -> list[Figure]:
    profile = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(HERE.parent / "config" / "fastdds_large_images.xml")}
    found: list[Figure] = []

    @contextmanager
    def subject(which: str, *parameters: tuple[str, str]) -> Iterator[int]:
        words = [word for name, value in parameters for word in ("-p", f"{name}:={value}")]
        client.wait_until_gone()
        with running("node_subjects.py", which, "--ros-args", *words, log=log) as pid:
            client.wait_until_ready()
            yield pid

    with running("node_camera.py", log=log, environment=profile):
        with subject("instant") as pid:
            found.append(Figure("idle CPU, on demand", idle_percent(pid, effort.idle_s), "% of a core", 1.0))
            client.watch(True)
            found += latencies(client, pid, effort.calls, "aligned depth", (12.0, 40.0))
            client.watch(False)
            found.append(growth(client, pid, effort))
        with subject("instant", *OWN_DEPTH) as pid:
            client.watch(True)
            found += latencies(client, pid, effort.calls, "registration", (30.0, None))
            client.watch(False)
        with subject("instant", ("streaming", "true")) as pid:
            found.append(Figure("idle CPU, streaming", idle_percent(pid, effort.idle_s), "% of a core", 20.0))
            found += latencies(client, pid, effort.calls, "streaming", (None, None))
        with subject("naive") as pid:
            found.append(Figure("naive node: idle CPU", idle_percent(pid, effort.idle_s), "% of a core"))
            found += latencies(client, pid, effort.calls, "naive node", (None, None))
    return found


def main() -> int:
    options = parser(
        __doc__, "30 calls each instead of 300, memory over 50 requests instead of 1800"
    ).parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    log = Path(tempfile.gettempdir()) / f"node_benchmark_{os.getpid()}.log"
    client = Client()
    try:
        found = measure(client, QUICK if options.quick else WHOLE, log)
    except (RuntimeError, TimeoutError) as error:
        print(f"{error}\nthe processes' own words: {log}", file=sys.stderr)
        return 2
    finally:
        client.close()
    log.unlink()
    return report(found, options)


if __name__ == "__main__":
    sys.exit(main())
