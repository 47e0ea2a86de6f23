"""Recording keeps to its bounds, and what a disk does is told and harms no answer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from recorded_answers import NODE, answer, rules_of

from molmo_ros.nodes import request_bag
from molmo_ros.nodes.request_recorder import MOST_WAITING, RequestRecorder


class Faults(list[str]):
    """What the recorder complained of."""


def recorder(folder: Path, faults: Faults, max_bytes: int = 10**9) -> RequestRecorder:
    return RequestRecorder(folder, max_bytes, NODE, rules_of(answer().request.parameters), faults.append)


def bags(folder: Path) -> list[Path]:
    return sorted((folder / "left_pointing_node").glob("request_*"))


def test_each_request_becomes_a_bag_named_by_time_and_outcome(tmp_path: Path) -> None:
    faults = Faults()
    ours = recorder(tmp_path, faults)
    for words in ("the mug", "the bowl"):
        ours.record(answer(words))
    assert ours.close(30)
    paths = bags(tmp_path)
    assert [request_bag.read_request(path).request.words for path in paths] == ["the mug", "the bowl"]
    assert all(path.name.endswith("_OK") for path in paths)
    says, values = ours.describe()
    assert says == f"recording into {tmp_path / 'left_pointing_node'}" and not faults
    assert (values["recorded"], values["not recorded"], values["waiting"]) == ("2", "0", "0")
    assert not any((tmp_path / "left_pointing_node" / ".unfinished").iterdir())


def test_the_oldest_go_first_when_room_runs_out_and_nothing_else_does(tmp_path: Path) -> None:
    faults = Faults()
    first = recorder(tmp_path, faults)
    first.record(answer("one"))
    assert first.close(30)
    (oldest,) = bags(tmp_path)
    size = sum(file.stat().st_size for file in oldest.iterdir())
    notes = tmp_path / "left_pointing_node" / "request_notes.txt"
    notes.write_text("mine")
    ours = recorder(tmp_path, faults, max_bytes=round(2.5 * size))
    for words in ("two", "three", "four"):
        ours.record(answer(words))
    assert ours.close(30)
    kept = [request_bag.read_request(path).request.words for path in bags(tmp_path) if path.is_dir()]
    assert kept == ["three", "four"] and notes.read_text() == "mine" and not faults


def test_a_disk_slower_than_the_requests_costs_recordings_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, write = threading.Event(), request_bag.write_request
    begun = threading.Event()

    def slow(*given: object) -> None:
        begun.set()
        assert gate.wait(60)
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(request_bag, "write_request", slow)
    faults = Faults()
    ours = recorder(tmp_path, faults)
    given = answer()
    ours.record(given)
    assert begun.wait(60)
    for _ in range(MOST_WAITING + 3):
        ours.record(given)  # returns, whatever the disk does
    assert faults == [f"the disk is slower than the requests ({ours.folder})"] and ours.fault == faults[0]
    gate.set()
    assert ours.close(60)
    assert len(bags(tmp_path)) == MOST_WAITING + 1
    assert ours.describe()[1]["not recorded"] == "3" and not ours.fault


def test_a_folder_that_cannot_be_written_is_named_and_recording_goes_on_when_it_can(tmp_path: Path) -> None:
    faults = Faults()
    (tmp_path / "left_pointing_node").write_text("in the way")
    ours = recorder(tmp_path, faults)
    ours.record(answer("lost"))
    ours.record(answer("lost, too"))
    assert ours.close(30)
    assert len(faults) == 1 and "cannot be recorded into" in faults[0] and ours.fault == faults[0]
    (tmp_path / "left_pointing_node").unlink()
    again = recorder(tmp_path, faults)
    again.record(answer("kept"))
    assert again.close(30)
    assert len(bags(tmp_path)) == 1 and not again.fault


def test_what_a_killed_node_left_unfinished_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "left_pointing_node" / ".unfinished" / "request_0"
    left.mkdir(parents=True)
    ours = recorder(tmp_path, Faults())
    assert ours.close(30)
    assert not left.exists()
