"""What a training tells: means over the steps between two lines, and what validation found."""

from __future__ import annotations

import json
from pathlib import Path

from molmo_ros.training.schedule import read_config
from molmo_ros.training.training_log import LINE_EVERY, TrainingLog

CONFIG = Path(__file__).parents[2] / "config" / "training" / "tabletop.yaml"


def test_a_line_holds_the_means_of_the_steps_since_the_last_one(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, read_config(CONFIG)[1], "a title", first_step=0) as log:
        for step in range(1, 2 * LINE_EVERY + 1):
            log.step(step, "words", {"words": float(step)})
        log.validation(2 * LINE_EVERY, {"hit": 0.5, "absent": 0.25})
    first, second, found = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (first["step"], first["lesson"], first["words"]) == (LINE_EVERY, "words", (1 + LINE_EVERY) / 2)
    assert second["words"] == first["words"] + LINE_EVERY
    assert found == {"step": 2 * LINE_EVERY, "hit": 0.5, "absent": 0.25}
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_run_that_goes_on_writes_behind_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        with TrainingLog(tmp_path, read_config(CONFIG)[1], "", first_step=0) as log:
            log.validation(1, {"hit": 1.0})
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
