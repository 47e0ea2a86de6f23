"""RoboPoint's tuples are read as fractions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.spoken_point import FRACTION
from molmo_ros.pointing.tuple_grammar import tuple_points

hundredths = st.integers(0, 100).map(lambda n: n / 100)
places = st.lists(st.tuples(hundredths, hundredths), max_size=8)


@given(places)
def test_a_list_of_tuples_is_read_in_its_order(points: list[tuple[float, float]]) -> None:
    answer = str(points)
    spoken = tuple_points(answer, FRACTION)
    assert [(p.x, p.y) for p in spoken] == [pytest.approx((100 * x, 100 * y)) for x, y in points]
    for point in spoken:
        assert float(answer[slice(*point.x_span)]) * 100 == pytest.approx(point.x)


@given(places, st.data())
def test_a_list_cut_off_anywhere_keeps_its_whole_tuples(
    points: list[tuple[float, float]], data: st.DataObject
) -> None:
    cut = str(points)[: data.draw(st.integers(0, len(str(points))))]
    assert len(tuple_points(cut, FRACTION)) == cut.count(")")


@pytest.mark.parametrize(
    "answer",
    ["(1.2, 0.5)", "(0.5, -0.1)", "(52, 31)", "0.5, 0.5", "(0.5 0.5)", "(0.1, 0.2, 0.3)", "[0.5, 0.5]"],
)
def test_what_is_no_tuple_of_two_fractions_is_refused(answer: str) -> None:
    assert tuple_points(answer, FRACTION) == []
