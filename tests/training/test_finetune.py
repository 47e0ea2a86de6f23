"""The command that fine-tunes: from a data set to a folder that points, through kills and full disks."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from data_sets import square, write_set

from molmo_ros.molmo.loading import load_checkpoint
from molmo_ros.training.finetune import main

BASE = Path(__file__).parents[1] / "data" / "goldens" / "D" / "checkpoint"
ROWS: tuple[dict[str, Any], ...] = (
    {"target": "the mug", "points": [[15, 43]], "masks": ["masks/left.png"]},
    {"target": "all the cups", "points": [[15, 43], [82, 43]]},
    {"target": "the dog", "points": []},
    {"target": "an empty spot", "masks": ["masks/left.png"]},
)


def data(folder: Path, *more: dict[str, Any] | str) -> Path:
    return write_set(folder, *ROWS, *more, masks={"left.png": square(3, 10)})


def config(folder: Path, sets: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "data": [{"folder": str(sets), "pictures_per_step": 1}], "method": "full", "steps": 6, "warmup_steps": 1,
        "learning_rates": {"language": 1e-3, "connector": 1e-3, "vision": 1e-3}, "precision": "float32",
        "device": "cpu", "workers": 0, "threads": 1, "validate_every_steps": 2,
    }  # fmt: skip
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings | changes))
    return path


def run(config: Path, folder: Path, *more: str, base: Path = BASE) -> int:
    return main(["--config", str(config), "--run", str(folder), "--model", str(base), *more])


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(folder / "checkpoint", "cpu")[0].state_dict())


def test_a_data_set_without_masks_teaches(tmp_path: Path) -> None:
    sets = write_set(tmp_path / "set", *ROWS[1:3])
    assert run(config(tmp_path, sets), tmp_path / "run") == 0
    entries = log(tmp_path / "run")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    before = dict(load_checkpoint(BASE, "cpu")[0].state_dict())
    assert any(not value.equal(before[name]) for name, value in weights(tmp_path / "run").items())


def test_what_does_best_on_the_validation_set_is_kept(tmp_path: Path) -> None:
    """The more is learnt of what the validation set denies, the worse it judges: its best is not the last."""
    taught = write_set(tmp_path / "taught", {"target": "the mug", "points": [[15, 43]]})
    denied = write_set(tmp_path / "denied", {"target": "the mug", "points": []})
    fast = {"language": 0.01, "connector": 0.01, "vision": 0.01}
    settings = config(tmp_path, taught, validation=str(denied), learning_rates=fast, steps=12)
    assert run(settings, tmp_path / "run") == 0
    judged = {entry["step"]: entry["validation"] for entry in log(tmp_path / "run") if "validation" in entry}
    assert sorted(judged) == [0, 2, 4, 6, 8, 10, 12]
    best = min(value for step, value in judged.items() if step)
    assert judged[12] > best
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["best"] == best and state["step"] == 12
    kept = weights(tmp_path / "run")
    assert any((kept[name] - value).abs().max() > 0.01 for name, value in state["weights"].items())


@pytest.mark.parametrize("save_as", ["merged", "adapter"])
def test_a_lora_is_saved_as_it_is_asked_for(save_as: str, tmp_path: Path) -> None:
    settings = config(tmp_path, data(tmp_path / "set"), method="lora", save_as=save_as, lora={"rank": 2})
    assert run(settings, tmp_path / "run") == 0
    assert (tmp_path / "run" / "checkpoint" / "adapter_config.json").exists() == (save_as == "adapter")
    assert load_checkpoint(tmp_path / "run" / "checkpoint", "cpu")


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    sets = data(tmp_path / "set")
    settings = config(tmp_path, sets, save_every_minutes=0.0)
    assert run(settings, tmp_path / "whole") == 0
    command = [sys.executable, "-m", "molmo_ros.training.finetune", "--config", str(settings)]
    command += ["--run", str(tmp_path / "cut"), "--model", str(BASE)]
    for lines in (1, 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            path = tmp_path / "cut" / "log.jsonl"
            if path.exists() and len(path.read_text().splitlines()) >= lines:
                process.send_signal(signal.SIGKILL)
                break
            os.sched_yield()
        process.wait()
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(value.equal(cut[name]) for name, value in whole.items())


def test_a_full_disk_ends_the_run_with_one_line_and_keeps_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = data(tmp_path / "set")
    assert run(config(tmp_path, sets), tmp_path / "run") == 0
    state, before = (tmp_path / "run" / "state.pt").read_bytes(), weights(tmp_path / "run")
    torch.save(
        torch.load(tmp_path / "run" / "state.pt", weights_only=True) | {"step": 3},
        tmp_path / "run" / "state.pt",
    )
    halved = (tmp_path / "run" / "state.pt").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(state) // 8, limit[1]))
    try:
        code = run(config(tmp_path, sets), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 1
    assert "could not be written" in capsys.readouterr().out
    assert (tmp_path / "run" / "state.pt").read_bytes() == halved
    assert all(value.equal(before[name]) for name, value in weights(tmp_path / "run").items())
    assert run(config(tmp_path, sets), tmp_path / "run") == 0


def test_bad_lines_are_named_and_left_out_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = data(
        tmp_path / "set", "{", {"target": "cups", "count": 4}, {"image": "images/gone.png", "target": "x"}
    )
    settings = config(tmp_path, sets, steps=1)
    assert run(settings, tmp_path / "run") == 1
    assert "questions.jsonl:5: is not JSON" in capsys.readouterr().out
    assert run(settings, tmp_path / "run", "--skip-bad") == 0
    said = capsys.readouterr().out
    assert all(f"questions.jsonl:{line}: " in said for line in (5, 6, 7))
    assert "3 questions of" in said and "4 are used" in said


@pytest.mark.parametrize(
    ("changes", "base", "says"),
    [
        ({"steps": 0}, BASE, "steps must be at least 1"),
        ({}, BASE.parent / "gone", "there is no folder"),
        ({"data": [{"folder": "gone", "pictures_per_step": 1}]}, BASE, "not found"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    changes: dict[str, Any], base: Path, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config(tmp_path, data(tmp_path / "set"), **changes), tmp_path / "run", base=base) == 1
    said = capsys.readouterr().out
    assert says in said and len(said.strip().splitlines()) == 1
