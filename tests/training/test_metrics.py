"""Answers are worth what the papers say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import SIZE, square
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.training.dataset import Sample
from molmo_ros.training.metrics import NEAR_SHARE, Score, score

LEFT, RIGHT = square(3, 10), square(30, 10)


def sample(task: str, points: Any = None, masks: int = 0, count: int | None = None) -> Sample:
    return Sample(Path(), 1, "a.png", "it", task, points, tuple(f"{i}.png" for i in range(masks)), count)


def judged(task: str, answer: list[tuple[float, float]], masks: list[np.ndarray], **known: Any) -> Score:
    return score(sample(task, masks=len(masks), **known), answer, masks, SIZE)


def test_one_target_is_hit_by_one_point_inside_its_mask() -> None:
    assert judged("point", [(5, 12)], [LEFT]).right
    assert not judged("point", [(20, 12)], [LEFT]).right
    two = judged("point", [(5, 12), (33, 12)], [LEFT])
    assert (two.right, two.precision, two.recall, two.came_true) == (False, 0.5, 1.0, True)
    assert judged("point", [(8.4, 15.4)], [LEFT]).right  # the pixel it falls in
    assert not judged("point", [(8.6, 15.4)], [LEFT]).right


def test_a_confidence_came_true_on_a_target_or_within_three_percent_of_its_middle() -> None:
    high = np.zeros((SIZE[1], SIZE[0]), bool)
    high[0:30, 5] = True  # one pixel wide, its middle at (5, 14.5)
    limit = NEAR_SHARE * SIZE[0]
    for place, came_true in (
        ((5, 2), True),
        ((5 + 0.9 * limit, 14.5), True),
        ((5 + 1.1 * limit, 14.5), False),
    ):
        assert judged("point", [place], [high]).came_true is came_true, place
    assert not judged("region", [(5 + 0.9 * limit, 14.5)], [high]).came_true
    assert judged("absent", [], []).came_true and not judged("absent", [(5, 2)], []).came_true
    assert not judged("point", [], [high]).came_true


def test_the_miss_is_measured_over_the_width() -> None:
    found = score(sample("point", ((50.0, 50.0),)), [(20 + 3, 15 + 4)], [], SIZE)
    assert found.miss_share == pytest.approx(5 / SIZE[0])
    assert math.isnan(judged("set", [(5, 12)], [LEFT, RIGHT]).miss_share)


def test_sets_have_precision_recall_and_f1_of_matched_points() -> None:
    both = judged("set", [(33, 12), (5, 12)], [LEFT, RIGHT])  # in any order
    assert (both.right, both.f1) == (True, 1.0)
    one = judged("set", [(5, 12)], [LEFT, RIGHT])
    assert (one.right, one.precision, one.recall) == (False, 1.0, 0.5)
    assert one.f1 == pytest.approx(2 / 3)
    twice = judged("set", [(5, 12), (6, 12)], [LEFT, RIGHT])  # a target is hit once
    assert (twice.precision, twice.recall) == (0.5, 0.5)
    more = judged("set", [(5, 12), (33, 12), (20, 28)], [LEFT, RIGHT])
    assert not more.right and more.recall == 1.0
    assert more.precision == pytest.approx(2 / 3)


def test_points_are_matched_by_least_total_distance() -> None:
    """The near point would take the left target greedily, and leave the other one's far away."""
    left, middle = square(0, 10), square(12, 10)
    answer = [(8.0, 12.0), (3.0, 12.0)]
    found = score(sample("set", ((7.5, 43.3), (37.5, 43.3)), masks=2), answer, [left, middle], SIZE)
    assert found.recall == 0.5


def test_without_masks_near_is_inside() -> None:
    points = ((50.0, 50.0),)
    limit = NEAR_SHARE * SIZE[0]
    assert score(sample("point", points), [(20 + 0.99 * limit, 15)], [], SIZE).right
    assert not score(sample("point", points), [(20 + 1.01 * limit, 15)], [], SIZE).right


def test_counting_is_right_by_number_and_measured_by_matches_too() -> None:
    right = judged("count", [(5, 12), (20, 28)], [LEFT, RIGHT], points=((15.0, 40.0), (80.0, 40.0)))
    assert (right.right, right.precision) == (True, 0.5)
    assert not judged("count", [(5, 12)], [LEFT, RIGHT]).right
    shared = LEFT | RIGHT  # one mask holds all, as in Point-Bench
    assert judged("count", [(5, 12), (33, 12)], [shared], count=2).right
    assert not judged("count", [(5, 12), (20, 28)], [shared], count=2).right
    assert not judged("count", [(5, 12)], [shared], count=2).right
    number = judged("count", [(1, 1), (2, 2), (3, 3)], [], count=3)
    assert number.right and math.isnan(number.precision)


def test_what_is_absent_wants_no_point() -> None:
    none, one = (score(sample("absent", ()), points, [], SIZE) for points in ([], [(1, 1)]))
    assert replace(none, miss_share=0.0) == Score(True, 1.0, 1.0, True, 0.0)
    assert replace(one, miss_share=0.0) == Score(False, 0.0, 0.0, False, 0.0)
    assert not judged("point", [], [LEFT]).right


def test_any_points_inside_a_region_are_right_and_some_are_a_share() -> None:
    assert judged("region", [(5, 12)], [LEFT]).right
    assert judged("region", [(5, 12), (33, 12)], [LEFT, RIGHT]).right
    some = judged("region", [(5, 12), (20, 28)], [LEFT])
    assert (some.right, some.precision) == (False, 0.5)


def test_points_outside_the_picture_and_empty_masks_are_misses() -> None:
    assert not judged("point", [(-5, 12)], [LEFT]).right
    assert not judged("point", [(39.6, 29.6)], [np.ones((SIZE[1], SIZE[0]), bool)]).right
    assert not judged("point", [(5, 12)], [np.zeros((SIZE[1], SIZE[0]), bool)]).right


places = st.lists(st.tuples(st.floats(0, 39), st.floats(0, 29)), min_size=1, max_size=5)


@given(places, st.sampled_from(["set", "count", "region", "point"]))
def test_figures_are_shares_and_only_a_full_answer_is_right(answer: list[Any], task: str) -> None:
    masks = [LEFT] if task == "point" else [LEFT, RIGHT]
    found = judged(task, answer, masks)
    assert 0 <= found.f1 <= 1 and 0 <= found.precision <= 1 and 0 <= found.recall <= 1
    if task in ("point", "set"):
        assert found.right == (found.f1 == 1.0)
