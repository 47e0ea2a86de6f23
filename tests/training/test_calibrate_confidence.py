"""Fitted curves make confidences come true."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import square, write_set

from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.calibration import FILE_NAME, Calibration
from molmo_ros.training.calibrate_confidence import fit, main
from molmo_ros.training.confidence_figures import confidence_figures
from molmo_ros.training.dataset import Sample
from molmo_ros.training.evaluate_data import Answered
from molmo_ros.training.metrics import Score


def answers(count: int, absent: bool, seed: int) -> list[Answered]:
    """Of a model that is far too sure: what it gives log odds of z comes true with log odds of z / 3 - 1."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(2, 2, count)
    said, true = 1 / (1 + np.exp(-log_odds)), rng.random(count) < 1 / (1 + np.exp(1 - log_odds / 3))
    sample = Sample(Path(), 1, "a.png", "the mug", "point", None)
    sigma_share = float("nan") if absent else 0.01
    return [
        Answered(sample, (), absent, float(s), Score(bool(t), 0.0, 0.0, bool(t)), sigma_share=sigma_share)
        for s, t in zip(said, true, strict=True)
    ]


@pytest.mark.parametrize("absent", [False, True])
def test_a_model_that_is_too_sure_is_put_right_on_answers_it_was_not_fitted_on(absent: bool) -> None:
    calibration = fit(answers(4000, absent, seed=1))
    fresh = answers(4000, absent, seed=2)
    came_true = np.asarray([a.score.came_true for a in fresh])
    raw = np.asarray([a.confidence for a in fresh])
    fitted = [
        calibration.of_absence(a.confidence) if absent else calibration.of_point(a.confidence, a.sigma_share)
        for a in fresh
    ]
    before, after = confidence_figures(raw, came_true), confidence_figures(np.asarray(fitted), came_true)
    assert before.calibration_error > 0.2
    assert after.calibration_error < 0.03
    assert after.auroc == pytest.approx(before.auroc)


def test_without_answers_nothing_is_changed() -> None:
    assert fit([]) == Calibration()


def test_the_curves_of_a_data_set_are_stored_beside_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(bundled_model_folder(), tmp_path / "model"))
    (model / FILE_NAME).unlink()
    rows: tuple[dict[str, Any], ...] = (
        {"target": "the red mug", "points": [[15, 43]], "masks": ["masks/left.png"]},
        {"target": "the blue mug", "points": []},
    )
    data = write_set(tmp_path / "set", *rows, masks={"left.png": square(3, 10)})
    assert main(["--model", str(model), "--data", str(data)]) == 0
    assert "2 answers, raw: calibration error" in capsys.readouterr().out
    assert Calibration.from_folder(model) != Calibration()


def test_a_data_set_that_cannot_be_read_is_named_and_the_old_curves_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(bundled_model_folder(), tmp_path / "model"))
    before = (model / FILE_NAME).read_bytes()
    data = write_set(tmp_path / "set", {"target": "the red mug", "points": [[15, 430]]})
    assert main(["--model", str(model), "--data", str(data)]) == 1
    assert "questions.jsonl:1:" in capsys.readouterr().out
    assert (model / FILE_NAME).read_bytes() == before
