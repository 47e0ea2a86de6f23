"""From a running node to its bags and back: what was recorded is run again, and differs when the model does."""

from __future__ import annotations

import resource
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from ros_graph import DEPTH_M, OPTICAL, Behaviour, Caller, Camera, Graph, wait_until
from scripted_pointing_node import ScriptedPointer, load

from molmo_ros import cli
from molmo_ros.nodes import replay as replay_module
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.replay import Replayed, Tolerance, replay
from molmo_ros.nodes.request_bag import RecordedRequest, read_request, request_bags
from molmo_ros.outcome import Code
from molmo_ros.pointing.protocol import Pointing

pytestmark = pytest.mark.ros


def started(graph: Graph, folder: Path, name: str, *ros_args: str) -> tuple[subprocess.Popen[str], Caller]:
    log = folder / f"{name}.txt"
    process = graph.start_scripted_node(
        log, "-r", f"__node:={name}", "-p", f"record:={folder / 'bags'}", *ros_args
    )
    caller = Caller(graph.node(f"{name}_caller"), f"/{name}")
    assert caller.is_up(process), log.read_text()
    return process, caller


def recorded(folder: Path, count: int) -> list[RecordedRequest]:
    """So many requests with words of a thing, once they are written; those of the node's coming up are left out."""

    def read() -> list[RecordedRequest]:
        paths = request_bags(folder / "bags") if any((folder / "bags").rglob("metadata.yaml")) else []
        found = [read_request(path) for path in paths]
        return [each for each in found if each.request.words not in ("", "the thing")]

    assert wait_until(lambda: len(read()) == count), [each.request.words for each in read()]
    return read()


def test_requests_are_recorded_with_what_was_seen_and_replay_to_the_same_answers(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    _, caller = started(graph, tmp_path, "recording", "-p", "frame_timeout_s:=1.0")
    behaviour.color_value = 77
    replies = {words: caller.point_to(words) for words in ("a mug", "three things", "nothing")}
    held = caller.point_to("a held mug", frame_token=replies["a mug"].frame_token)
    question = caller.question("how bright?")
    behaviour.color = False
    unseen = caller.point_to("a lost mug")
    assert (held.outcome.code, unseen.outcome.code) == (Code.OK, Code.NO_FRAME)
    by_words = {each.request.words: each for each in recorded(tmp_path, 6)}
    for words, reply in {**replies, "a held mug": held, "a lost mug": unseen}.items():
        each = by_words[words]
        assert int(each.outcome.code) == reply.outcome.code and each.words == reply.answer
        then = [(t.u, t.v, t.position_m[2]) for t in each.targets]
        said = [(t.u, t.v, t.pose.pose.pose.position.z) for t in reply.targets.targets]
        assert np.array_equal(then, said, equal_nan=True)
    assert by_words["how bright?"].words == question.answer == "brightness 77"
    assert by_words["a lost mug"].raw is None
    raw = by_words["a held mug"].raw
    assert raw is not None and raw.frame_id == OPTICAL and raw.T_still_camera[2, 3] == 1.0
    assert raw.stamp_ns in behaviour.stamps_sent
    results = list(replay(by_words.values(), load=load))
    assert [each.difference for each in results if each.again] == [""] * 5
    assert [each.difference for each in results if not each.again] == ["there was no frame"]
    assert all(each.moved_px == 0 for each in results if each.recorded.targets)


class Shifted(ScriptedPointer):
    """Points elsewhere than the one that was recorded."""

    def point_in(self, look: Any, target: str, **how: Any) -> Pointing:
        said = super().point_in(look, target, **how)
        moved = tuple(
            type(p)(p.u + 3, p.v, p.label, p.confidence, p.sigma_px, p.index) for p in said.points
        )
        return Pointing(moved, said.answer, said.absent, said.durations)


def test_what_changed_is_named_and_decides_the_exit_code(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    _, caller = started(graph, tmp_path, "changing")
    assert caller.point_to("a mug").outcome.code == Code.OK
    (request,) = recorded(tmp_path, 1)

    def again(changes: dict[str, Any] | None = None, pixels: float = 0.5, shifted: bool = False) -> Replayed:
        loader: Callable[..., Any] = (lambda *_: Shifted()) if shifted else load
        (result,) = replay([request], changes, Tolerance(pixels, 0.001), loader)
        return result

    assert again().same
    moved = again(shifted=True)
    assert not moved.same and moved.moved_px == pytest.approx(3.0)
    assert moved.moved_m == pytest.approx(3 / 150 * DEPTH_M, abs=1e-3)
    assert "moved 3.0 px" in moved.difference and "mm in space" in moved.difference
    assert "px" not in again(pixels=5, shifted=True).difference
    refused = again({"min_confidence": 0.95})
    assert refused.difference == "was OK, is LOW_CONFIDENCE"
    assert again({"depth_max_m": 0.5}).difference == "was OK, is OUT_OF_RANGE"  # for the camera's own value

    changes = tmp_path / "changes.yaml"
    changes.write_text("/**: {ros__parameters: {min_confidence: 0.95}}")
    command = ["replay", str(request.path)]

    def fake(requests: Any, changes: Any, tolerance: Any) -> Any:
        return replay(requests, changes, tolerance, load)

    monkeypatch.setattr(replay_module, "replay", fake)
    assert cli.main(command) == 0
    assert "1 of 1 answers are the same" in capsys.readouterr().out
    assert cli.main([*command, "--params", str(changes)]) == 1
    out = capsys.readouterr().out
    assert "0 of 1 answers are the same" in out and "was OK, is LOW_CONFIDENCE" in out
    assert cli.main(["replay", str(tmp_path / "nowhere")]) == 2
    assert "there is no bag at" in capsys.readouterr().err
    changes.write_text("/**: {ros__parameters: {min_confidance: 0.95}}")
    assert cli.main([*command, "--params", str(changes)]) == 2
    assert "is min_confidence meant" in capsys.readouterr().err


def test_a_request_that_ran_out_of_time_is_recorded_and_counted_too(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    from builtin_interfaces.msg import Duration

    _, caller = started(graph, tmp_path, "hurried")
    reply = caller.point_to("wait 30", timeout=Duration(sec=1))
    assert reply.outcome.code == Code.TIMEOUT
    (request,) = recorded(tmp_path, 1)
    assert request.outcome.code == Code.TIMEOUT and request.raw is None and request.total_s >= 1.0
    values = Diagnostics(graph, "hurried").wait("requests", lambda status: bool(status.values))
    assert values["TIMEOUT"] == "1"


class Diagnostics:
    """The newest status of each of a node's parts."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.name = name
        self._status: dict[str, DiagnosticStatus] = {}
        self._heard = threading.Condition()
        node = graph.node(f"{name}_diagnostics")
        node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 10)

    def _hear(self, message: DiagnosticArray) -> None:
        with self._heard:
            self._status |= {status.name: status for status in message.status}
            self._heard.notify_all()

    def wait(self, part: str, condition: Callable[[DiagnosticStatus], bool]) -> dict[str, str]:
        name = f"{self.name}: {part}"
        with self._heard:
            assert self._heard.wait_for(
                lambda: name in self._status and condition(self._status[name]), 30
            ), self._status.get(name)
            return {value.key: value.value for value in self._status[name].values}


def test_a_full_disk_is_named_and_the_node_answers_on(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    """The kernel refuses to write beyond a size, as it does on a full disk."""
    process, caller = started(graph, tmp_path, "full")
    said = Diagnostics(graph, "full")
    assert said.wait("recording", lambda status: status.level == DiagnosticStatus.OK)["not recorded"] == "0"
    limit = psutil.Process(process.pid)
    before = limit.rlimit(psutil.RLIMIT_FSIZE)
    limit.rlimit(psutil.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    assert caller.point_to("a mug").outcome.code == Code.OK
    said.wait("recording", lambda status: status.level == DiagnosticStatus.ERROR)
    assert caller.point_to("another mug").outcome.code == Code.OK
    said.wait("recording", lambda status: KeyValue(key="not recorded", value="2") in status.values)
    limit.rlimit(psutil.RLIMIT_FSIZE, before)
    assert caller.point_to("a third mug").outcome.code == Code.OK
    said.wait("recording", lambda status: status.level == DiagnosticStatus.OK)
    (request,) = recorded(tmp_path, 1)
    assert request.request.words == "a third mug"
    log = (tmp_path / "full.txt").read_text()
    assert log.count("cannot be recorded into") == 1 and "File too large" in log
    assert process.poll() is None


def test_a_node_that_ends_has_written_what_waits_or_says_that_no_time_was_left(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    process, caller = started(graph, tmp_path, "ending")
    assert caller.point_to("a mug").outcome.code == Code.OK
    assert [each.request.words for each in recorded(tmp_path, 1)] == ["a mug"]
    assert caller.point_to("a bowl").outcome.code == Code.OK
    process.terminate()
    assert process.wait(10) == 0
    said = "the last requests are not recorded" in (tmp_path / "ending.txt").read_text()
    assert {each.request.words for each in recorded(tmp_path, 1 if said else 2)} >= {"a mug"}


def test_recording_is_switched_by_deactivate_set_activate(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    _, caller = started(graph, tmp_path, "switched")
    assert "deactivate it" in caller.set_parameter("record", "")
    assert caller.change_state("deactivate")
    assert caller.set_parameter("record", "") == ""
    assert caller.change_state("activate")
    assert caller.point_to("a mug").outcome.code == Code.OK
    assert caller.change_state("deactivate")
    assert caller.set_parameter("record", str(tmp_path / "bags")) == ""
    assert caller.change_state("activate")
    assert caller.point_to("a bowl").outcome.code == Code.OK
    (request,) = recorded(tmp_path, 1)
    assert request.request.words == "a bowl"
    assert isinstance(request.request.parameters, PointingParameters)
