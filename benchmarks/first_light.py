"""How long from words to a goal on a live graph, where the time goes, and what the node costs while idle.

    tools/run python benchmarks/first_light.py [--quick] [--check] [--json FILE]

Starts launch/demo.launch.xml (simulator and pointing node, separate processes) on a domain of its own, asks
for things that stand on the table in several scenes, and prints each figure beside its goal. Times are
wall-clock of this machine under its present load.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Figure, parser, report
from geometry_msgs.msg import PoseStamped
from graph import (
    MODEL_STAGES,
    REPLY_WITHIN_S,
    STAGES,
    UP_WITHIN_S,
    GraphClient,
    idle_percent,
    measured,
    memory_kb,
    percentile,
    process,
    seconds,
)
from rclpy.qos import DurabilityPolicy, QoSProfile

from molmo_ros_interfaces.msg import SceneTruth
from molmo_ros_interfaces.srv import PointTo, ResetScene

ROOT = Path(__file__).resolve().parents[1]
RATE_HZ = 10.0


@dataclass(frozen=True)
class Call:
    """One request: seconds until the reply, until the goal (None = no goal came), and of each stage."""

    reply_s: float
    goal_s: float | None
    code: int
    stages: dict[str, float]


class Client(GraphClient):
    """Talks to both nodes."""

    def __init__(self) -> None:
        super().__init__("first_light_benchmark")
        self._reset = self.node.create_client(ResetScene, "/tabletop_sim/reset_scene")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(SceneTruth, "/tabletop_sim/truth", self._hear_truth, latched)
        self.node.create_subscription(PoseStamped, "/pointing_node/goal_pose", self._hear_goal, 10)
        self._heard = threading.Condition()
        self._truths: list[SceneTruth] = []
        self._goals: dict[tuple[int, int], float] = {}

    def _hear_truth(self, truth: SceneTruth) -> None:
        with self._heard:
            self._truths.append(truth)
            self._heard.notify_all()

    def _hear_goal(self, goal: PoseStamped) -> None:
        with self._heard:
            self._goals[goal.header.stamp.sec, goal.header.stamp.nanosec] = time.perf_counter()
            self._heard.notify_all()

    def wait_for_both(self) -> None:
        """Until the simulator serves and the model is loaded."""
        if not self._reset.wait_for_service(UP_WITHIN_S):
            raise TimeoutError(f"{self._reset.srv_name} did not come up within {UP_WITHIN_S:g} s")
        self.wait_until_ready()

    def show_scene(self, seed: int) -> list[str]:
        """Set the table anew; the names of what stands on it."""
        with self._heard:
            self._truths.clear()
        self.call(self._reset, ResetScene.Request(seed=seed))
        with self._heard:
            if not self._heard.wait_for(lambda: bool(self._truths), REPLY_WITHIN_S):
                raise TimeoutError("the simulator published no truth for its new scene")
            return list(self._truths[-1].labels)

    def timed_call(self, target: str) -> Call:
        begin_s = time.perf_counter()
        reply, reply_s = self.call(self.point_to, PointTo.Request(target=target))
        stamp = reply.targets.header.stamp
        key = (stamp.sec, stamp.nanosec)
        goal_s = None
        if reply.outcome.code == 0:
            with self._heard:
                if self._heard.wait_for(lambda: key in self._goals, 5.0):
                    goal_s = self._goals[key] - begin_s
        stages = {stage: seconds(getattr(reply.durations, stage)) for stage in (*STAGES, "total")}
        return Call(reply_s, goal_s, reply.outcome.code, stages)


@contextmanager
def running_demo(extra: list[str], log: Path) -> Iterator[int]:
    """The demo's processes, ended in any case; yields the process id of the pointing node once it runs."""
    command = [
        sys.executable,
        str(ROOT / "tools" / "launch"),
        "demo.launch.xml",
        f"rate_hz:={RATE_HZ}",
        *extra,
    ]
    with process(command, log) as launch:
        yield _descendant(launch, "pointing_node")


def _descendant(launch: subprocess.Popen[bytes], name: str) -> int:
    """Process id of the descendant whose command line holds the name."""
    end_s = time.monotonic() + UP_WITHIN_S
    pause = threading.Event()
    while launch.poll() is None and time.monotonic() < end_s:
        family = {launch.pid}
        for _ in range(4):
            family |= {pid for pid, parent in _parents().items() if parent in family}
        for pid in family - {launch.pid}:
            if any(Path(word).name == name for word in _command_line(pid)):
                return pid
        pause.wait(0.1)
    raise RuntimeError(f"the launch file started no {name}")


def _parents() -> dict[int, int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return parents


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def measure(client: Client, pid: int, calls: int, idle_s: float, say: Callable[[str], None]) -> list[Figure]:
    client.wait_for_both()
    say("idle")
    idle = Figure("idle CPU of the node, /tf running", idle_percent(pid, idle_s), "% of a core", 2.0)

    done: list[Call] = []
    seed = 9000
    while len(done) < calls:
        labels = client.show_scene(seed)
        seed += 1
        for label in labels[: calls - len(done)]:
            done.append(client.timed_call(f"the {label}"))
            say(f"call {len(done)} of {calls}")
    say("")
    peak_mb = memory_kb(pid, "VmHWM") * 1024 / 1e6
    return [*figures(done), idle, Figure("peak memory of the node", peak_mb, "MB", 1200.0)]


def figures(calls: list[Call]) -> list[Figure]:
    """Milliseconds over all calls that reached the model."""
    served = [call for call in calls if call.stages["frame_wait"] > 0]
    if not served:
        raise RuntimeError(f"no call was served; outcomes: {sorted({call.code for call in calls})}")
    to_goal_ms = [1e3 * call.goal_s for call in served if call.goal_s is not None]
    found = [Figure("calls", len(calls), ""), Figure("calls that ended in a goal", len(to_goal_ms), "")]
    if to_goal_ms:
        found += [
            Figure("request to goal, p50", statistics.median(to_goal_ms), "ms"),
            Figure("request to goal, p95", percentile(to_goal_ms, 95), "ms"),
        ]
    found += [
        Figure(f"  {stage}, p50", statistics.median(1e3 * call.stages[stage] for call in served), "ms")
        for stage in STAGES
    ]
    between = [1e3 * (call.stages["total"] - sum(call.stages[stage] for stage in STAGES)) for call in served]
    way = [1e3 * (call.reply_s - call.stages["total"]) for call in served]
    besides = [
        1e3 * (call.reply_s - call.stages["frame_wait"] - sum(call.stages[stage] for stage in MODEL_STAGES))
        for call in served
    ]
    waits = [1e3 * call.stages["frame_wait"] for call in served]
    return [
        *found,
        Figure(
            "  between stages (tiling the image, reading the answer, queue), p50",
            statistics.median(between),
            "ms",
        ),
        Figure("  request and reply under way, p50", statistics.median(way), "ms"),
        Figure("all but model and frame wait, p50", statistics.median(besides), "ms", 25.0),
        Figure("all but model and frame wait, p95", percentile(besides, 95), "ms"),
        Figure(
            f"wait for a frame at {RATE_HZ:g} Hz, p50", statistics.median(waits), "ms", 1e3 / RATE_HZ + 25.0
        ),
    ]


def main() -> int:
    arguments = parser(__doc__, "12 calls instead of 50")
    arguments.add_argument(
        "--params", type=Path, metavar="FILE", help="parameters of the pointing node (YAML)"
    )
    options = arguments.parse_args()

    extra = [f"params_file:={options.params.resolve()}"] if options.params else []

    def say(what: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{what}")

    def measure_all(log: Path) -> list[Figure]:
        client = Client()
        try:
            with running_demo(extra, log) as pid:
                return measure(client, pid, *((12, 5.0) if options.quick else (50, 15.0)), say)
        finally:
            client.close()

    found = measured("first_light", measure_all)
    return 2 if found is None else report(found, options)


if __name__ == "__main__":
    sys.exit(main())
