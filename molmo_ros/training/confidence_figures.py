"""How good a confidence is: does it come true as often as it says, and does it tell right from wrong?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in one tenth of the scale: how many, what they said, what came true."""

    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class ConfidenceFigures:
    """`calibration_error`: expected calibration error over ten bins of equal width (Guo et al. 2017).

    `auroc`: chance that a right answer is more confident than a wrong one. `misses_in_surer_half`: share of all
    misses among the more confident half of the answers. NaN where there is nothing to compare.
    """

    calibration_error: float
    auroc: float
    misses_in_surer_half: float
    bins: tuple[Bin, ...]


def confidence_figures(confidence_N: np.ndarray, right_N: np.ndarray) -> ConfidenceFigures:
    """Figures of N answers: confidence 0..1, and whether each came true.

    Raises:
        ValueError: no answers, or a confidence that is no probability.
    """
    confidence, right = np.asarray(confidence_N, float), np.asarray(right_N, bool)
    if not len(confidence) or not np.all((confidence >= 0) & (confidence <= 1)):
        raise ValueError("confidence figures need at least one answer, each with a confidence from 0 to 1")
    number = np.minimum((confidence * 10).astype(int), 9)
    bins = tuple(
        Bin(int(here.sum()), float(confidence[here].mean()), float(right[here].mean()))
        if here.any()
        else Bin(0, 0.0, 0.0)
        for here in (number == index for index in range(10))
    )
    error = sum(b.count * abs(b.confidence - b.right) for b in bins) / len(confidence)
    return ConfidenceFigures(error, _auroc(confidence, right), _misses_in_surer_half(confidence, right), bins)


def _auroc(confidence: np.ndarray, right: np.ndarray) -> float:
    """Area under the curve by ranks (Mann and Whitney); ties count half."""
    hits, misses = int(right.sum()), int((~right).sum())
    if not hits or not misses:
        return float("nan")
    _, inverse, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    rank_of_value = np.cumsum(counts) - (counts - 1) / 2
    return float((rank_of_value[inverse][right].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _misses_in_surer_half(confidence: np.ndarray, right: np.ndarray) -> float:
    """Answers as confident as the median one are shared out, so that a constant gets a half."""
    misses = int((~right).sum())
    if not misses:
        return float("nan")
    middle = np.median(confidence)
    surer, same = confidence > middle, confidence == middle
    share_of_same = (len(confidence) / 2 - surer.sum()) / max(same.sum(), 1)
    return float(((~right)[surer].sum() + share_of_same * (~right)[same].sum()) / misses)
