"""The figures reward a confidence that comes true and punish one that says nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.training.confidence_figures import confidence_figures

RNG = np.random.default_rng(0)


def test_a_confidence_that_comes_true_has_no_error() -> None:
    confidence = RNG.random(200_000)
    figures = confidence_figures(confidence, RNG.random(200_000) < confidence)
    assert figures.calibration_error < 0.01
    assert figures.auroc == pytest.approx(5 / 6, abs=0.01)
    assert figures.misses_in_surer_half == pytest.approx(0.25, abs=0.01)


def test_a_constant_says_nothing_even_when_it_is_right_on_average() -> None:
    right = np.arange(1000) % 5 > 0
    figures = confidence_figures(np.full(1000, 0.8), right)
    assert figures.calibration_error == pytest.approx(0)
    assert figures.auroc == pytest.approx(0.5)
    assert figures.misses_in_surer_half == pytest.approx(0.5)


def test_too_much_confidence_is_an_error() -> None:
    figures = confidence_figures(np.full(100, 0.95), np.arange(100) < 60)
    assert figures.calibration_error == pytest.approx(0.35)


def test_perfect_order_and_perfectly_wrong_order() -> None:
    right = np.arange(100) >= 40
    rising = np.linspace(0, 1, 100)
    assert confidence_figures(rising, right).auroc == 1.0
    assert confidence_figures(rising, ~right).auroc == 0.0
    assert confidence_figures(rising, right).misses_in_surer_half == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_area_is_the_share_of_ordered_pairs(answers: list[tuple[float, bool]]) -> None:
    confidence, right = (np.asarray(column) for column in zip(*answers, strict=True))
    hits, misses = confidence[right.astype(bool)], confidence[~right.astype(bool)]
    figures = confidence_figures(confidence, right)
    if not len(hits) or not len(misses):
        assert math.isnan(figures.auroc)
        return
    pairs = (hits[:, None] > misses).mean() + 0.5 * (hits[:, None] == misses).mean()
    assert figures.auroc == pytest.approx(pairs)
    assert sum(b.count for b in figures.bins) == len(answers)


@pytest.mark.parametrize("confidence", [[], [1.5], [math.nan]])
def test_what_is_no_probability_is_refused(confidence: list[float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        confidence_figures(np.asarray(confidence), np.ones(len(confidence), bool))
