"""The main job, end to end, as `make demo` runs it: real processes, real DDS, the bundled model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

pytest.importorskip("rclpy")

pytestmark = [pytest.mark.ros, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = "91"


def start() -> subprocess.Popen[str]:
    """The demo on a domain of its own, leading a session so that a terminal's Ctrl-C can be imitated."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "demo.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"ROS_DOMAIN_ID": DOMAIN, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


def left_behind() -> list[str]:
    """Command lines of nodes that still run in the demo's domain."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        nodes = ("pointing_node", "tabletop_sim", "planner_node", "pick_place_node", "tools/launch")
        is_node = any(name in command for name in nodes)
        if is_node and f"ROS_DOMAIN_ID={DOMAIN}".encode() in environment:
            found.append(command)
    return found


def test_the_demo_answers_every_call_moves_a_thing_films_it_and_leaves_nothing_behind() -> None:
    picture, film = ROOT / "out" / "demo.png", ROOT / "out" / "demo.gif"
    for file in (picture, film):
        file.unlink(missing_ok=True)
    demo = start()
    output, _ = demo.communicate(timeout=300)
    assert "PointTo over ROS 2" in output and "base_link x, y, z" in output
    assert demo.returncode == 0, output
    assert "not the outcome that belongs here" not in output
    with Image.open(picture) as drawn:
        assert drawn.size[0] >= 640
    assert "pick and place: OK" in output
    stages = next(line for line in output.splitlines() if line.startswith("pick the"))
    assert all(stage in stages for stage in ("point", "approach", "lift", "verify", "place", "verify_place"))
    with Image.open(film) as moving:
        frames = [np.asarray(frame.convert("L"), int) for frame in ImageSequence.Iterator(moving)]
    assert len(frames) >= 20
    changed = [(np.abs(later - before) > 25).mean() for before, later in pairwise(frames)]
    assert sum(share > 0.002 for share in changed) >= 10, "the film shows nothing that moves"
    assert film.stat().st_size < 8_000_000
    assert left_behind() == []


def test_ctrl_c_ends_the_demo_and_everything_it_started() -> None:
    launched = ROOT / "out" / "demo.log"
    launched.unlink(missing_ok=True)
    demo = start()
    pause = threading.Event()
    while demo.poll() is None and not (launched.exists() and "pointing_node" in launched.read_text()):
        pause.wait(0.1)
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    assert left_behind() == []
