"""Callers and cameras that die, as processes do: the node goes on, and keeps nothing of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Behaviour, Caller, Camera, Graph, wait_until

from molmo_ros.outcome import Code

pytestmark = pytest.mark.ros
HERE = Path(__file__).parent
# DDS notices after 20 s (lease duration) that a participant has died, and lets go of what was kept for it.
FORGOTTEN_WITHIN_S = 60.0


class Waiting:
    """What the node's diagnostics say about its queue, and its process about what it holds."""

    def __init__(self, graph: Graph, process: subprocess.Popen[str], name: str) -> None:
        self._name, self._pid = f"{name}: node", process.pid
        self._said = ""
        graph.node(f"{name}_watcher").create_subscription(DiagnosticArray, "/diagnostics", self._hear, 10)

    def _hear(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == self._name:
                self._said = next(value.value for value in status.values if value.key == "waiting")

    def is_empty(self) -> bool:
        return self._said == "0"

    def threads_and_files(self) -> tuple[int, int]:
        place = Path(f"/proc/{self._pid}")
        return len(list((place / "task").iterdir())), len(list((place / "fd").iterdir()))


@pytest.mark.parametrize("way", ["service", "action"])
def test_a_caller_that_is_killed_leaves_nothing_behind(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path, way: str
) -> None:
    log, name = tmp_path / "log.txt", f"left_by_{way}"
    process, caller = graph.started(log, name, "-p", "max_queue:=1")
    waiting = Waiting(graph, process, name)
    assert caller.point_to("the thing").outcome.code == Code.OK
    goal = caller.goal("the thing")
    assert goal.end()[1].outcome.code == Code.OK
    assert wait_until(waiting.is_empty)
    threads, files = waiting.threads_and_files()
    for _ in range(3):
        behaviour.color = False
        mortal = graph.start(
            *[sys.executable, str(HERE / "caller_process.py"), way, f"/{name}", "wait 2"],
            log=tmp_path / "mortal.txt",
        )
        assert wait_until(lambda: camera.subscribers == 3, 60.0), (tmp_path / "mortal.txt").read_text()
        behaviour.color = True
        assert wait_until(lambda: camera.subscribers == 0)  # the model has it
        mortal.kill()
        mortal.wait()
        answer = caller.point_to("the thing")
        assert answer.outcome.code == Code.OK, answer.outcome
    assert wait_until(waiting.is_empty)
    assert wait_until(
        lambda: waiting.threads_and_files()[0] <= threads and waiting.threads_and_files()[1] <= files,
        FORGOTTEN_WITHIN_S,
    ), (threads, files, waiting.threads_and_files())
    assert process.poll() is None
    assert "Traceback" not in log.read_text() and "a callback failed" not in log.read_text()


@pytest.mark.parametrize(
    ("way", "how", "words"),
    [
        ("service", signal.SIGINT, "wait 15"),  # less than DDS's 20 s: it says good-bye
        ("action", signal.SIGINT, "wait 15"),
        ("service", signal.SIGKILL, "wait 26"),  # of which DDS tells after 20 s
    ],
)
def test_the_goal_of_a_caller_that_has_left_is_not_published(
    graph: Graph,
    camera: Camera,
    behaviour: Behaviour,
    tmp_path: Path,
    way: str,
    how: signal.Signals,
    words: str,
) -> None:
    log, name = tmp_path / "log.txt", f"deserted_by_{way}_{how.name.lower()}"
    _, caller = graph.started(log, name)
    assert caller.point_to("the thing").outcome.code == Code.OK
    assert wait_until(lambda: len(caller.goals) == 1)
    assert caller.node.destroy_client(caller.client)  # else one caller would be left
    assert wait_until(lambda: camera.subscribers == 0)
    behaviour.color = False
    leaver = graph.start(
        *[sys.executable, str(HERE / "caller_process.py"), way, f"/{name}", words],
        log=tmp_path / "leaver.txt",
    )
    assert wait_until(lambda: camera.subscribers == 3, 60.0), (tmp_path / "leaver.txt").read_text()
    behaviour.color = True
    assert wait_until(lambda: camera.subscribers == 0)  # the model has it
    leaver.send_signal(how)
    leaver.wait(20)
    assert wait_until(lambda: "the caller has left" in log.read_text(), FORGOTTEN_WITHIN_S), log.read_text()
    assert len(caller.goals) == 1


def start_camera(graph: Graph, log: Path, namespace: str, *silent: str) -> subprocess.Popen[str]:
    process = graph.start(
        *[sys.executable, str(HERE / "camera_process.py"), *silent],
        *["--ros-args", "-r", f"__ns:={namespace}"],
        log=log,
    )
    node = graph.node(f"watcher_of_{process.pid}")
    assert wait_until(lambda: node.count_publishers(f"{namespace}/camera/color/image_raw") > 0, 60.0)
    graph.drop(node)
    return process


def subscribed(caller: Caller, namespace: str) -> int:
    return int(caller.node.count_subscribers(f"{namespace}/camera/color/image_raw"))


def test_a_camera_that_dies_while_a_request_waits_for_its_depth_is_named(
    graph: Graph, tmp_path: Path
) -> None:
    space = "/mortal"
    graph.start_scripted_node(tmp_path / "log.txt", "-r", f"__ns:={space}", "-p", "frame_timeout_s:=3.0")
    caller = Caller(graph.node("mortal_camera_caller"), f"{space}/pointing_node")
    assert caller.is_up(), (tmp_path / "log.txt").read_text()
    dying = start_camera(graph, tmp_path / "camera.txt", space, "depth=no")
    pending = caller.ask("the thing")
    assert wait_until(lambda: subscribed(caller, space) == 1)
    dying.kill()
    dying.wait()
    outcome = pending.get().outcome
    # Which of the three it is depends on how much of a frame had come before the end.
    assert outcome.code in (Code.NO_DEPTH, Code.NO_FRAME, Code.NO_CAMERA_INFO), outcome
    assert f"on {space}/camera/" in outcome.message
    assert wait_until(lambda: subscribed(caller, space) == 0)
    assert not caller.goals
    start_camera(graph, tmp_path / "second.txt", space)
    assert wait_until(lambda: caller.point_to("the thing").outcome.code == Code.OK)
    assert caller.wait_for(lambda: bool(caller.goals)) and len(caller.goals) == 1


def test_a_camera_that_dies_while_the_model_works_has_given_its_frame(graph: Graph, tmp_path: Path) -> None:
    space = "/late"
    graph.start_scripted_node(tmp_path / "log.txt", "-r", f"__ns:={space}", "-p", "frame_timeout_s:=2.0")
    caller = Caller(graph.node("late_camera_caller"), f"{space}/pointing_node")
    assert caller.is_up(), (tmp_path / "log.txt").read_text()
    dying = start_camera(graph, tmp_path / "camera.txt", space)
    assert wait_until(lambda: caller.point_to("the thing").outcome.code == Code.OK)
    goal = caller.goal("wait 1")
    assert goal.wait_for_feedback(lambda said: said.tokens > 0)
    dying.kill()
    dying.wait()
    assert goal.end()[1].outcome.code == Code.OK
    outcome = caller.point_to("the thing").outcome
    assert outcome.code == Code.NO_FRAME, outcome
