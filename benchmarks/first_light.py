"""How long from words to a goal on a live graph, where the time goes, and what the node costs while idle.

    tools/run python benchmarks/first_light.py [--quick] [--check] [--json FILE]

Starts launch/demo.launch.xml (simulator and pointing node, separate processes) on a domain of its own, asks
for things that stand on the table in several scenes, and prints each figure beside its goal. Times are
wall-clock of this machine under its present load.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from figures import Figure, parser, report
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions

from molmo_ros_interfaces.msg import SceneTruth
from molmo_ros_interfaces.srv import PointTo, ResetScene

ROOT = Path(__file__).resolve().parents[1]
RATE_HZ = 10.0
STAGES = ("frame_wait", "decode_image", "vision", "prefill", "decode", "geometry", "publish")
MODEL_STAGES = ("vision", "prefill", "decode")
UP_WITHIN_S = 300.0
REPLY_WITHIN_S = 60.0
MODEL_UNAVAILABLE = 503


@dataclass(frozen=True)
class Call:
    """One request: seconds until the reply, until the goal (None = no goal came), and of each stage."""

    reply_s: float
    goal_s: float | None
    code: int
    stages: dict[str, float]


class Client:
    """Talks to both nodes; its own executor runs in a thread."""

    def __init__(self) -> None:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("first_light_benchmark")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._point_to = self.node.create_client(PointTo, "/pointing_node/point_to")
        self._reset = self.node.create_client(ResetScene, "/tabletop_sim/reset_scene")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(SceneTruth, "/tabletop_sim/truth", self._hear_truth, latched)
        self.node.create_subscription(PoseStamped, "/pointing_node/goal_pose", self._hear_goal, 10)
        self._heard = threading.Condition()
        self._truths: list[SceneTruth] = []
        self._goals: dict[tuple[int, int], float] = {}
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _hear_truth(self, truth: SceneTruth) -> None:
        with self._heard:
            self._truths.append(truth)
            self._heard.notify_all()

    def _hear_goal(self, goal: PoseStamped) -> None:
        with self._heard:
            self._goals[goal.header.stamp.sec, goal.header.stamp.nanosec] = time.perf_counter()
            self._heard.notify_all()

    def _call(self, client: Any, request: Any) -> Any:
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(REPLY_WITHIN_S):
            raise TimeoutError(f"no reply from {client.srv_name} within {REPLY_WITHIN_S:g} s")
        return future.result()

    def _answers(self, request: PointTo.Request) -> bool:
        done = threading.Event()
        self._point_to.call_async(request).add_done_callback(lambda _: done.set())
        return done.wait(1.0)

    def wait_until_ready(self) -> None:
        """Until the model is loaded; raises with the node's own words when it cannot be."""
        end_s = time.monotonic() + UP_WITHIN_S
        for client in (self._point_to, self._reset):
            if not client.wait_for_service(end_s - time.monotonic()):
                raise TimeoutError(f"{client.srv_name} did not come up within {UP_WITHIN_S:g} s")
        # A service is seen before it sees its caller; until then replies get lost.
        while not self._answers(PointTo.Request()):
            if time.monotonic() > end_s:
                raise TimeoutError(f"/pointing_node does not answer within {UP_WITHIN_S:g} s")
        pause = threading.Event()
        while True:
            outcome = self._call(self._point_to, PointTo.Request(target="the table", dry_run=True)).outcome
            if outcome.code != MODEL_UNAVAILABLE:
                return
            if "still loading" not in outcome.message or time.monotonic() > end_s:
                raise RuntimeError(outcome.message)
            pause.wait(0.5)

    def show_scene(self, seed: int) -> list[str]:
        """Set the table anew; the names of what stands on it."""
        with self._heard:
            self._truths.clear()
        self._call(self._reset, ResetScene.Request(seed=seed))
        with self._heard:
            if not self._heard.wait_for(lambda: bool(self._truths), REPLY_WITHIN_S):
                raise TimeoutError("the simulator published no truth for its new scene")
            return list(self._truths[-1].labels)

    def point_to(self, target: str) -> Call:
        begin_s = time.perf_counter()
        reply = self._call(self._point_to, PointTo.Request(target=target))
        reply_s = time.perf_counter() - begin_s
        stamp = reply.targets.header.stamp
        key = (stamp.sec, stamp.nanosec)
        goal_s = None
        if reply.outcome.code == 0:
            with self._heard:
                if self._heard.wait_for(lambda: key in self._goals, 5.0):
                    goal_s = self._goals[key] - begin_s
        stages = {stage: _seconds(getattr(reply.durations, stage)) for stage in (*STAGES, "total")}
        return Call(reply_s, goal_s, reply.outcome.code, stages)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(5.0)
        rclpy.try_shutdown()


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
    with log.open("w") as out:
        launch = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield _descendant(launch, "pointing_node")
    finally:
        launch.send_signal(signal.SIGINT)
        try:
            launch.wait(20.0)
        except subprocess.TimeoutExpired:
            launch.kill()
            launch.wait()


def _descendant(process: subprocess.Popen[bytes], name: str) -> int:
    """Process id of the descendant whose command line holds the name."""
    end_s = time.monotonic() + UP_WITHIN_S
    pause = threading.Event()
    while process.poll() is None and time.monotonic() < end_s:
        family = {process.pid}
        for _ in range(4):
            family |= {pid for pid, parent in _parents().items() if parent in family}
        for pid in family - {process.pid}:
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


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, user and system (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory_mb(pid: int) -> float:
    """Largest resident set so far, in units of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no VmHWM")


def measure(client: Client, pid: int, calls: int, idle_s: float, say: Callable[[str], None]) -> list[Figure]:
    client.wait_until_ready()
    say("idle")
    before, begin_s = cpu_seconds(pid), time.monotonic()
    threading.Event().wait(idle_s)
    idle_percent = 100 * (cpu_seconds(pid) - before) / (time.monotonic() - begin_s)

    done: list[Call] = []
    seed = 9000
    while len(done) < calls:
        labels = client.show_scene(seed)
        seed += 1
        for label in labels[: calls - len(done)]:
            done.append(client.point_to(f"the {label}"))
            say(f"call {len(done)} of {calls}")
    say("")
    return [*figures(done), Figure("idle CPU of the node, /tf running", idle_percent, "% of a core", 2.0),
            Figure("peak memory of the node", peak_memory_mb(pid), "MB", 1200.0)]  # fmt: skip


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
            Figure("request to goal, p95", _percentile(to_goal_ms, 95), "ms"),
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
        Figure("all but model and frame wait, p95", _percentile(besides, 95), "ms"),
        Figure(
            f"wait for a frame at {RATE_HZ:g} Hz, p50", statistics.median(waits), "ms", 1e3 / RATE_HZ + 25.0
        ),
    ]


def _percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def _seconds(duration: Any) -> float:
    return float(duration.sec + duration.nanosec / 1e9)


def main() -> int:
    arguments = parser(__doc__, "12 calls instead of 50")
    arguments.add_argument(
        "--params", type=Path, metavar="FILE", help="parameters of the pointing node (YAML)"
    )
    options = arguments.parse_args()

    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    extra = [f"params_file:={options.params.resolve()}"] if options.params else []
    log = Path(f"/tmp/first_light_{os.getpid()}.log")

    def say(what: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{what}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    client = Client()
    try:
        with running_demo(extra, log) as pid:
            found = measure(client, pid, *((12, 5.0) if options.quick else (50, 15.0)), say)
    except (RuntimeError, TimeoutError) as error:
        print(f"{error}\nthe processes' own words: {log}", file=sys.stderr)
        return 2
    finally:
        client.close()
    log.unlink()
    return report(found, options)


if __name__ == "__main__":
    sys.exit(main())
