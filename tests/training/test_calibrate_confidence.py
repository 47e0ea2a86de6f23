"""Fitted curves make confidences come true."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.pointing.calibration import Calibration
from molmo_ros.training.calibrate_confidence import fit
from molmo_ros.training.confidence_figures import confidence_figures
from molmo_ros.training.evaluate import Asked


def answers(count: int, absent: bool, seed: int) -> list[Asked]:
    """Of a model that is far too sure: what it gives log odds of z comes true with log odds of z / 3 - 1."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(2, 2, count)
    said, true = 1 / (1 + np.exp(-log_odds)), rng.random(count) < 1 / (1 + np.exp(1 - log_odds / 3))
    return [
        Asked(0, "mug", True, bool(t), absent, float(s), bool(t), float("nan") if absent else 0.01, 0.0)
        for s, t in zip(said, true, strict=True)
    ]


@pytest.mark.parametrize("absent", [False, True])
def test_a_model_that_is_too_sure_is_put_right_on_answers_it_was_not_fitted_on(absent: bool) -> None:
    calibration = fit(answers(4000, absent, seed=1))
    fresh = answers(4000, absent, seed=2)
    came_true = np.asarray([a.came_true for a in fresh])
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
