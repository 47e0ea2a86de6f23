"""What the node itself costs: time beyond the model, waiting for frames, idle CPU, memory; beside a naive node.

    tools/run python benchmarks/node.py [--quick] [--check] [--json FILE]

A camera process sends 1280x720 RGB-D at 30 Hz and /tf at 100 Hz with 8 transforms, the camera at the end of their
chain (benchmarks/node_camera.py). The node runs with a pointer that takes no time (benchmarks/node_subjects.py), and
somebody watches its annotated image. Overhead is what remains of a request's total when the wait for the frame and the
model are taken off: newest complete frame to published goal. Times are wall-clock of this machine under its present
load; on a loaded machine take the best of several runs.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figure, parser, report
from graph import (
    MODEL_STAGES,
    GraphClient,
    cpu_seconds,
    idle_percent,
    measured,
    memory_kb,
    percentile,
    process,
    seconds,
)
from sensor_msgs.msg import Image

from molmo_ros_interfaces.srv import PointTo

HERE = Path(__file__).resolve().parent
OWN_DEPTH = (
    ("depth_topic", "camera/depth_own/image_rect"),
    ("depth_info_topic", "camera/depth_own/camera_info"),
)


@dataclass(frozen=True)
class Effort:
    """How long each part is measured."""

    calls: int
    warm_calls: int
    idle_s: float
    growth_from: int
    growth_to: int


WHOLE, QUICK = Effort(300, 10, 20.0, 200, 2000), Effort(20, 5, 2.0, 20, 60)


class Client(GraphClient):
    """Calls whatever node is up, and may watch its annotated image."""

    def __init__(self) -> None:
        super().__init__("node_benchmark")
        self._watch: Any = None

    def watch(self, on: bool) -> None:
        """Be, or be no more, somebody who looks at the annotated image."""
        if on and self._watch is None:
            self._watch = self.node.create_subscription(
                Image, "/pointing_node/annotated_image", lambda _: None, 1, raw=True
            )
        if not on and self._watch is not None:
            self.node.destroy_subscription(self._watch)
            self._watch = None

    def ask(self) -> tuple[PointTo.Response, float]:
        """The reply, and the seconds it took."""
        return self.call(self.point_to, PointTo.Request(target="the thing"))

    def wait_until_gone(self) -> None:
        end_s = time.monotonic() + 20.0
        while self.point_to.service_is_ready() and time.monotonic() < end_s:
            threading.Event().wait(0.1)


def latencies(
    client: Client, pid: int, effort: Effort, name: str, goals_ms: tuple[float | None, float | None]
) -> list[Figure]:
    """Of calls one after the other."""
    overheads_ms, waits_ms, replies_ms = [], [], []
    refused: list[str] = []
    calls = effort.calls
    for _ in range(effort.warm_calls):
        client.ask()
    used_s = cpu_seconds(pid)
    for _ in range(calls):
        reply, spent_s = client.ask()
        if reply.outcome.code != 0:
            refused.append(reply.outcome.message)
            continue
        durations = reply.durations
        wait_s = seconds(durations.frame_wait)
        model_s = sum(seconds(getattr(durations, stage)) for stage in MODEL_STAGES)
        overheads_ms.append(1e3 * (seconds(durations.total) - wait_s - model_s))
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
        Figure(f"{name}: newest frame to published goal, p99", percentile(overheads_ms, 99), "ms", p99_goal),
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
            begin_kb = memory_kb(pid)
        client.ask()
    per_call_kb = (memory_kb(pid) - begin_kb) / (effort.growth_to - effort.growth_from)
    name = f"memory growth per request, {effort.growth_from} to {effort.growth_to}"
    return Figure(name, per_call_kb, "KB", 2.0)


def measure(client: Client, effort: Effort, log: Path) -> list[Figure]:
    profile = str(HERE.parent / "config" / "fastdds_large_images.xml")
    found: list[Figure] = []

    @contextmanager
    def subject(which: str, *parameters: tuple[str, str]) -> Iterator[int]:
        words = [word for name, value in parameters for word in ("-p", f"{name}:={value}")]
        client.wait_until_gone()
        with process([sys.executable, str(HERE / "node_subjects.py"), which, "--ros-args", *words], log) as node:
            client.wait_until_ready()
            yield node.pid

    camera = [sys.executable, str(HERE / "node_camera.py")]
    with process(camera, log, FASTRTPS_DEFAULT_PROFILES_FILE=profile):
        with subject("instant") as pid:
            found.append(Figure("idle CPU, on demand", idle_percent(pid, effort.idle_s), "% of a core", 1.0))
            client.watch(True)
            found += latencies(client, pid, effort, "aligned depth", (12.0, 40.0))
            client.watch(False)
            found.append(growth(client, pid, effort))
        with subject("instant", *OWN_DEPTH) as pid:
            client.watch(True)
            found += latencies(client, pid, effort, "registration", (30.0, None))
            client.watch(False)
        with subject("instant", ("streaming", "true")) as pid:
            found.append(Figure("idle CPU, streaming", idle_percent(pid, effort.idle_s), "% of a core", 20.0))
            found += latencies(client, pid, effort, "streaming", (None, None))
        with subject("naive") as pid:
            found.append(Figure("naive node: idle CPU", idle_percent(pid, effort.idle_s), "% of a core"))
            found += latencies(client, pid, effort, "naive node", (None, None))
    return found


def main() -> int:
    options = parser(
        __doc__, "20 calls each instead of 300, memory over 40 requests instead of 1800"
    ).parse_args()

    def measure_all(log: Path) -> list[Figure]:
        client = Client()
        try:
            return measure(client, QUICK if options.quick else WHOLE, log)
        finally:
            client.close()

    found = measured("node_benchmark", measure_all)
    return 2 if found is None else report(found, options)


if __name__ == "__main__":
    sys.exit(main())
