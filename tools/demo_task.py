"""The demo's last act, and its conversation: things are picked and placed by words, filmed, and told in a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from film import Film
from point_client import PointClient
from rich.console import Console

from molmo_ros.planning.task_words import read_task
from molmo_ros_interfaces.action import PickPlace
from molmo_ros_interfaces.srv import PointTo

#: Scene (a simulator seed), what is picked, and where it goes.
SCENE, PICK, PLACE = 34, "the yellow ball", "in the orange bowl"
HELP = (
    'Words point: the orange bowl. "pick the white cup and place it on an empty spot" (or "in the bowl") moves the '
    'arm. "scene 12" shows another table, "end" or Ctrl-C ends.'
)


def filmed_task(
    client: PointClient, film_file: Path, alive: Callable[[], bool], console: Console
) -> PickPlace.Result:
    """Pick and place in the demo's scene; the film is written whatever came of it."""
    film_file.unlink(missing_ok=True)
    client.reset_scene(SCENE, alive)
    film = Film(client.node)
    try:
        result = told_task(client, PICK, PLACE, alive, console, film)
    finally:
        film.end()
        film.save(film_file)
    return result


def told_task(
    client: PointClient,
    pick: str,
    place: str,
    alive: Callable[[], bool],
    console: Console,
    film: Film | None = None,
) -> PickPlace.Result:
    """Pick and place, its stages and its outcome printed."""
    began_s = time.monotonic()
    told: dict[str, float] = {}

    def on_stage(stage: str) -> None:
        told.setdefault(stage, time.monotonic() - began_s)
        if film:
            film.stage = f"pick {pick}, place {place}: {stage}"

    result = client.pick_place(pick, place, on_stage, alive=alive)
    stages = " > ".join(f"{stage} {at_s:.1f} s" for stage, at_s in told.items())
    console.print(f"pick {pick}, place {place or '(hold it)'}: {stages}", highlight=False, soft_wrap=True)
    console.print(f"pick and place: {outcome_line(result)}", highlight=False, soft_wrap=True)
    return result


def outcome_line(result: PickPlace.Result) -> str:
    """What came of it, in one line."""
    if result.outcome.code != 0:
        return f"not done, at {result.stage}: {result.outcome.message} [{result.outcome.code}]"
    tries = "at the first try" if result.tries == 1 else f"at try {result.tries}"
    at = result.placed_at
    where = f", put down at x {at.point.x:.3f} y {at.point.y:.3f} m" if at.header.frame_id else ", held"
    return f"OK {tries}, {1000 * result.width:.0f} mm wide{where}"


def converse(client: PointClient, alive: Callable[[], bool], console: Console) -> None:
    """Answer what the reader types, until the end of input."""
    console.print(HELP, highlight=False)
    while alive():
        try:
            words = " ".join(console.input("[bold]> [/]").split())
        except EOFError:
            return
        if words in ("end", "exit", "quit"):
            return
        first, _, rest = words.partition(" ")
        task = read_task(words)
        if first == "scene" and rest.isdecimal():
            console.print(", ".join(client.reset_scene(int(rest), alive).labels))
        elif task:
            told_task(client, *task, alive, console)
        elif words:
            console.print(answer_line(client.point_to(words, alive=alive)), highlight=False)


def answer_line(reply: PointTo.Response) -> str:
    """Where the thing is, or why it is nowhere."""
    if not reply.targets.targets:
        return f"{reply.outcome.message} [{reply.outcome.code}]"
    target = reply.targets.targets[0]
    at = target.pose.pose.pose.position
    said = "" if reply.outcome.code == 0 else f"; {reply.outcome.message}"
    return (
        f"pixel {target.u:.0f}, {target.v:.0f}; {target.pose.header.frame_id} x {at.x:.3f} y {at.y:.3f} z {at.z:.3f} "
        f"m; confidence {target.confidence:.2f}{said}"
    )


def has_reader() -> bool:
    """Whether somebody can type."""
    return sys.stdin is not None and sys.stdin.isatty()
