"""The command line of the evaluation: which models, on what, and what is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from molmo_ros.molmo.loading import CheckpointError
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.sim.worlds import FIRST
from molmo_ros.training import evaluate
from molmo_ros.training.draw_dataset import draw_dataset
from molmo_ros.training.evaluate import main, model_folder, parser, plot_of, pointers_of


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    return main()


def test_models_are_folders_or_names_of_bundled_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_folder("tabletop") == bundled_model_folder()
    assert model_folder(str(tmp_path)) == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tabletop").mkdir()
    assert model_folder("tabletop") == Path("tabletop")  # a folder that is there comes first
    assert parser().parse_args([]).model == [bundled_model_folder()]


def test_models_are_named_by_what_tells_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evaluate, "load_pointer", lambda folder, *_, **more: f"{folder} {more['format_name']}"
    )
    a, b = Path("runs/a"), Path("runs/b")
    assert list(pointers_of([a], ["none", "int8"])) == ["none", "int8"]
    assert list(pointers_of([a, b], ["none"])) == ["a", "b"]
    assert list(pointers_of([a, b], ["none", "int4"])) == ["a none", "a int4", "b none", "b int4"]
    assert list(pointers_of([a, Path("old/a")], ["none"])) == ["a", "2: a"]
    assert str(pointers_of([a, b], ["none"], ["molmo", "qwen3_vl"])) == str(
        {"a": f"{a} molmo", "b": f"{b} qwen3_vl"}
    )
    assert str(pointers_of([a, b], ["none"], ["molmo"])) == str({"a": f"{a} molmo", "b": f"{b} molmo"})
    with pytest.raises(CheckpointError, match="one for all or one for each"):
        pointers_of([a, b], ["none"], ["molmo"] * 3)


def test_a_model_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--model", tmp_path / "gone", "--scenes", "1") == 1
    assert "there is no folder" in capsys.readouterr().err


def test_a_data_set_is_evaluated_and_everything_asked_for_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_dataset(tmp_path / "set", FIRST, range(20, 22), render_size=(240, 180))
    lines = tmp_path / "set" / "questions.jsonl"
    count = len(lines.read_text().splitlines())
    lines.write_text("{\n" + lines.read_text())
    files = [tmp_path / name for name in ("figures.json", "worst.png", "plot.svg")]
    options: list[str | Path] = [
        "--json",
        files[0],
        "--worst",
        files[1],
        "--plot",
        files[2],
        "--quantization",
        "none",
        "int8",
    ]
    assert called(monkeypatch, "--data", tmp_path / "set") == 1
    assert "questions.jsonl:1: is not JSON" in capsys.readouterr().out.replace("\n", "")
    assert called(monkeypatch, "--data", tmp_path / "set", "--skip-bad", *options) == 0
    said = capsys.readouterr().out
    assert "1 questions left out" in said and "one target, hit" in said and "right: both" in said
    written = json.loads(files[0].read_text())
    assert set(written["models"]) == {"none", "int8"} and len(written["left_out"]) == 1
    assert all(len(model["asked"]) == count for model in written["models"].values())
    (pair,) = written["compared"]
    assert sum(pair[name] for name in ("only_first", "only_second", "both", "neither")) == count
    assert all(max(model["questions"].values()) <= count for model in written["models"].values())
    plots = [plot_of(files[2], name) for name in ("none", "int8")]
    assert [plot.name for plot in plots] == ["plot.none.svg", "plot.int8.svg"]
    assert all(plot.read_text().startswith("<svg") for plot in plots)
    mistakes = sum(not row["right"] for model in written["models"].values() for row in model["asked"])
    assert files[1].exists() == (mistakes > 0)


def test_simulated_tables_are_still_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--scenes", "1", "--json", tmp_path / "a.json") == 0
    assert "present_hit" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "a.json").read_text())["none"]) == {"summary", "asked"}
    with pytest.raises(SystemExit):
        called(monkeypatch, "--first-seed", "1000000")
