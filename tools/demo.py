"""The main job, to be seen: a simulated table and arm, pointing and planning on a real ROS graph, asked for things.

`make demo` runs this. It starts launch/demo.launch.xml, asks for things in several scenes over the PointTo
service, prints one table, writes out/demo.png, has a thing picked and placed by words, films that (out/demo.gif), and
ends with exit code 0 only when every call was answered with the right kind of outcome and the thing was moved. What
the simulator knows is read for the reader's last column alone.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
from builtin_interfaces.msg import Duration
from demo_task import converse, filmed_task, has_reader
from PIL import Image
from point_client import GraphError, PointClient
from process_group import die_with
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from molmo_ros_interfaces.msg import SceneTruth
from molmo_ros_interfaces.srv import PointTo

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out"
TABLE_WIDTH = 124
NOT_FOUND, MODEL_UNAVAILABLE = 100, 503

#: Scenes (simulator seeds, none of them trained on) and what is asked for in them; True = it is there.
SCENES: dict[int, tuple[tuple[str, bool], ...]] = {
    39: (("the green mug", True), ("the yellow bowl", True), ("the white bottle", False)),
    51: (("the white banana", True), ("the pink screwdriver", True)),
    34: (("the white cup", True), ("the orange bowl", True)),
}


@dataclass(frozen=True)
class Row:
    """One call, as the table shows it."""

    scene: int
    words: str
    expected_there: bool
    reply: PointTo.Response
    truth_mm: float

    @property
    def as_expected(self) -> bool:
        code = self.reply.outcome.code
        return bool(code == 0 if self.expected_there else code == NOT_FOUND)


class Launched:
    """The launch file, running in a process group of its own."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w")
        self.process = subprocess.Popen(
            [str(ROOT / "tools" / "launch"), "demo.launch.xml"],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """As Ctrl-C would; the runner ends its processes, and is ended itself when it takes too long."""
        for number, grace_s in ((signal.SIGINT, 15.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            if not self.alive():
                break
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                continue
        self._log.close()


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--live", action="store_true", help="stay up for questions of your own (tools/ask)")
    chosen = parser.parse_args()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    # Also SIGINT: a shell that starts us in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    OUT.mkdir(exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    began_s = time.monotonic()
    launched = Launched(OUT / "demo.log")
    client: PointClient | None = None
    try:
        client = PointClient()
        client.follow_scene()
        rows, pictures, first_s = ask_everything(client, launched, console)
        print_table(rows, console)
        console.print(f"first answer {first_s - began_s:.1f} s after the start", highlight=False)
        if pictures:
            save_picture(pictures, OUT / "demo.png")
            console.print(f"picture: [bold]{(OUT / 'demo.png').relative_to(ROOT)}[/]   log: out/demo.log")
        wrong = [row for row in rows if not row.as_expected]
        for row in wrong:
            console.print(f"[red]scene {row.scene}, {row.words!r}: not the outcome that belongs here[/]")
        film = OUT / "demo.gif"
        moved = filmed_task(client, film, launched.alive, console)
        console.print(f"film: [bold]{film.relative_to(ROOT)}[/]")
        if chosen.live:
            stay_up(client, launched, console)
        return 1 if wrong or moved.outcome.code else 0
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except GraphError as error:
        console.print(f"[red]demo: {error}[/] (log: out/demo.log)")
        return 2
    finally:
        launched.stop()
        if client:
            client.close()


def ask_everything(
    client: PointClient, launched: Launched, console: Console
) -> tuple[list[Row], list[np.ndarray], float]:
    """The answers, their pictures, and when the first answer came (time.monotonic())."""
    rows: list[Row] = []
    pictures: list[np.ndarray] = []
    first_s = float("inf")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting simulator, arm and pointing node")
        client.wait_for_graph(90.0, launched.alive)
        for scene, questions in SCENES.items():
            progress.update(task, description=f"scene {scene}")
            truth = client.reset_scene(scene, launched.alive)
            for words, there in questions:
                progress.update(task, description=f"scene {scene}: {words}")
                reply = ask_when_loaded(client, words, launched)
                first_s = min(first_s, time.monotonic())
                rows.append(Row(scene, words, there, reply, distance_to_truth_mm(reply, truth, words)))
                if reply.outcome.code == 0:
                    client.wait_for("picture", lambda: client.picture is not None, 5.0, launched.alive)
                    assert client.picture is not None
                    pictures.append(client.picture)
    return rows, pictures, first_s


def ask_when_loaded(client: PointClient, words: str, launched: Launched) -> PointTo.Response:
    """Ask; while the node says that its model is still loading, ask again twice a second."""
    while True:
        reply = client.point_to(words, 60.0, launched.alive)
        if reply.outcome.code != MODEL_UNAVAILABLE or "still loading" not in reply.outcome.message:
            return reply
        again_s = time.monotonic() + 0.5
        client.wait_for("model", lambda: time.monotonic() >= again_s, 60.0, launched.alive)  # noqa: B023


def distance_to_truth_mm(reply: PointTo.Response, truth: SceneTruth, words: str) -> float:
    """From the goal to the middle of the thing of these words, NaN when there is no such thing or no goal."""
    label = words.removeprefix("the ")
    if reply.outcome.code != 0 or label not in truth.labels:
        return float("nan")
    at = reply.targets.targets[0].pose.pose.pose.position
    true = truth.positions[list(truth.labels).index(label)]
    return 1000 * float(np.linalg.norm([at.x - true.x, at.y - true.y, at.z - true.z]))


def print_table(rows: list[Row], console: Console) -> None:
    columns = (
        "scene",
        "words",
        "pixel",
        "sure",
        "base_link x, y, z [m]",
        "outcome",
        "frame + model + rest [ms]",
    )
    table = Table(*columns, "to middle* [mm]", title="PointTo over ROS 2")
    for row in rows:
        reply = row.reply
        pixel = place = sure = ""
        if reply.targets.targets:
            target = reply.targets.targets[0]
            at = target.pose.pose.pose.position
            pixel = f"{target.u:.0f}, {target.v:.0f}"
            place = f"{at.x:+.3f}, {at.y:+.3f}, {at.z:+.3f}"
            sure = f"{target.confidence:.2f}"
        outcome = "OK" if reply.outcome.code == 0 else reply.outcome.message
        truth = "" if np.isnan(row.truth_mm) else f"{row.truth_mm:.0f}"
        mark = "" if row.as_expected else " [red]!"
        table.add_row(str(row.scene), row.words, pixel, sure, place, outcome + mark, split_ms(reply), truth)
    console.print(table)
    console.print(
        "* from the goal, which lies on the thing's surface, to its middle as the simulator knows it"
    )


def split_ms(reply: PointTo.Response) -> str:
    d = reply.durations
    ms = {name: 1000 * _seconds(getattr(d, name)) for name in d.get_fields_and_field_types()}
    model = ms["vision"] + ms["prefill"] + ms["decode"]
    return f"{ms['frame_wait']:.0f} + {model:.0f} + {ms['total'] - ms['frame_wait'] - model:.0f}"


def _seconds(duration: Duration) -> float:
    return float(duration.sec + 1e-9 * duration.nanosec)


def save_picture(pictures: list[np.ndarray], path: Path, columns: int = 2) -> None:
    """The annotated pictures side by side."""
    height, width = pictures[0].shape[:2]
    count = -(-len(pictures) // columns)
    gap = 6
    sheet = np.full((count * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        y, x = row * (height + gap), column * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    Image.fromarray(sheet).save(path)


def stay_up(client: PointClient, launched: Launched, console: Console) -> None:
    """Until Ctrl-C, or the reader has had enough."""
    live = OUT / "live_domain"
    live.write_text(os.environ["ROS_DOMAIN_ID"])
    console.print('Up. Type here, or ask from another terminal: [bold]tools/ask "the orange bowl"[/]; Ctrl-C ends it.')
    try:
        if has_reader():
            converse(client, launched.alive, console)
        else:
            launched.process.wait()
    finally:
        live.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
