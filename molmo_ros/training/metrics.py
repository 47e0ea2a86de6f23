"""How good an answer is, measured as the papers do it.

Points are matched to targets so that the sum of distances is least (Hungarian method), and a match counts when
the point lies inside its target's mask; precision, recall and F1 follow (Molmo, Deitke et al. 2024,
arXiv:2409.17146, evaluation on PixMo-Points). An answer to a question with one target is right when it is one
point inside the mask; to one about a region, when all its points are inside (Point-Bench, Cheng et al. 2025,
arXiv:2505.09990), of which the share inside is the other figure (Where2Place, Yuan et al. 2024,
arXiv:2406.10721).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from molmo_ros.pointing.confidence import NEAR_PERCENT
from molmo_ros.training.dataset import Sample

#: A point within this share of the picture's width of the true one is near it; without a mask, inside.
NEAR_SHARE = NEAR_PERCENT / 100


@dataclass(frozen=True)
class Score:
    """Of one answer. `right`: what the task asks for was met in full. `came_true`: what the first point's confidence
    claims, that it lies in some target or within 3 % of the picture's width of its middle (of a region: in it); or,
    without a point, that nothing was there. `miss_share`: distance of the only point from the only true one, over
    the picture's width; NaN where that is not defined."""

    right: bool
    precision: float
    recall: float
    came_true: bool
    miss_share: float = float("nan")

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def score(
    sample: Sample,
    points_uv: Sequence[tuple[float, float]],
    masks: Sequence[np.ndarray],
    size: tuple[int, int],
) -> Score:
    """What an answer is worth.

    Args:
        sample: the question.
        points_uv: what was answered, in pixels; empty for "there are none".
        masks: HxW bool for each of the question's masks.
        size: the picture's (width, height).
    """
    if sample.task == "absent":
        none = not points_uv
        return Score(none, float(none), float(none), none)
    if not points_uv:
        return Score(False, 0.0, 0.0, False)
    places = _places(sample, masks, size)
    if sample.task == "region" or _one_mask_for_all(sample):
        return _score_in_union(sample, points_uv, masks, places, size)
    if not places:  # only their number is known
        counted = len(points_uv) == sample.count
        return Score(counted, float("nan"), float("nan"), counted)
    inside = np.array([[_inside(p, masks, places, t, size) for t in range(len(places))] for p in points_uv])
    answered, true = _matched(np.asarray(points_uv), np.asarray(places))
    hits = int(inside[answered, true].sum())
    precision, recall = hits / len(points_uv), hits / len(places)
    exact = hits == len(places) == len(points_uv)
    right = len(points_uv) == (sample.count or len(places)) if sample.task == "count" else exact
    miss_share = float("nan")
    if len(places) == 1:
        miss_share = float(np.hypot(*np.subtract(points_uv[0], places[0])) / size[0])
    came_true = bool(inside[0].any()) or any(_near(points_uv[0], place, size) for place in places)
    return Score(right, precision, recall, came_true, miss_share)


def _one_mask_for_all(sample: Sample) -> bool:
    """A count whose targets share one mask."""
    return sample.task == "count" and len(sample.masks) == 1 and (sample.count or 1) > 1


def _score_in_union(
    sample: Sample,
    points_uv: Sequence[tuple[float, float]],
    masks: Sequence[np.ndarray],
    places: Sequence[tuple[float, float]],
    size: tuple[int, int],
) -> Score:
    inside = [any(_inside(p, masks, places, t, size) for t in range(len(places))) for p in points_uv]
    right = all(inside)
    recall = float(any(inside))
    if sample.task == "count":
        right = right and len(points_uv) == sample.count
        recall = min(sum(inside) / (sample.count or 1), 1.0)
    return Score(right, sum(inside) / len(inside), recall, inside[0])


def _places(sample: Sample, masks: Sequence[np.ndarray], size: tuple[int, int]) -> list[tuple[float, float]]:
    """Pixels of the true points; the middles of the masks where no points are given."""
    if sample.points is not None and (len(sample.points) == len(masks) or not masks):
        return [(x / 100 * size[0], y / 100 * size[1]) for x, y in sample.points]
    middles = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        middles.append((float(columns.mean()), float(rows.mean())) if len(rows) else (-1e9, -1e9))
    return middles


def _inside(
    point_uv: tuple[float, float],
    masks: Sequence[np.ndarray],
    places: Sequence[tuple[float, float]],
    target: int,
    size: tuple[int, int],
) -> bool:
    if not masks:
        return _near(point_uv, places[target], size)
    column, row = (round(value) for value in point_uv)
    return 0 <= column < size[0] and 0 <= row < size[1] and bool(masks[target][row, column])


def _near(point_uv: tuple[float, float], place_uv: tuple[float, float], size: tuple[int, int]) -> bool:
    return float(np.hypot(*np.subtract(point_uv, place_uv))) <= NEAR_SHARE * size[0]


def _matched(points_N2: np.ndarray, places_M2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance = np.linalg.norm(points_N2[:, None] - places_M2[None], axis=-1)
    answered, true = linear_sum_assignment(distance)
    return np.asarray(answered), np.asarray(true)
