"""A pair of numbers becomes a place in percent, or nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.spoken_point import (
    FRACTION,
    NUMBER,
    PER_MILLE,
    PERCENT,
    Extent,
    SpokenPoint,
    spoken_point,
)


def spoken(text: str, extent: Extent) -> SpokenPoint | None:
    match = re.fullmatch(f"({NUMBER}) ({NUMBER})", text)
    assert match
    return spoken_point(match, 1, 2, extent)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_per_mille_become_percent_without_a_rounding_error(x: int, y: int) -> None:
    point = spoken(f"{x} {y}", PER_MILLE)
    assert point and (point.x, point.y) == (x / 10, y / 10)


@given(st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 6)))
def test_fractions_become_percent(x: float) -> None:
    point = spoken(f"{x:.6f} 1", FRACTION)
    assert point and point.x == pytest.approx(100 * x) and point.y == 100


@pytest.mark.parametrize("text", ["100.1 5", "5 100.1", "-0.1 5", "5 -3", "999999999 1"])
def test_a_number_outside_its_scale_is_refused_and_not_moved_to_the_edge(text: str) -> None:
    assert spoken(text, PERCENT) is None


@pytest.mark.parametrize("text", ["0 0", "-0 0.0", "100 100.0"])
def test_the_edges_belong_to_the_picture(text: str) -> None:
    point = spoken(text, PERCENT)
    assert point and {point.x, point.y} <= {0.0, 100.0}
    assert "-" not in f"{point.x} {point.y}"


def test_spans_are_those_of_the_two_numbers() -> None:
    point = spoken("12.5 7", PERCENT)
    assert point and (point.x_span, point.y_span) == ((0, 4), (5, 6))
