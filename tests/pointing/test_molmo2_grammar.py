"""Molmo2's coords are read: pictures, videos, tracks, and the two legacy forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.molmo2_grammar import compact_points, molmo2_points
from molmo_ros.pointing.spoken_point import PER_MILLE, PERCENT, SpokenPoint

per_mille = st.integers(0, 1000)
places = st.lists(st.tuples(per_mille, per_mille), min_size=1, max_size=6)
labels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda s: s.strip() == s and "<" not in s
)


def xy(points: list[SpokenPoint]) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in points]


def one_picture(points: list[tuple[int, int]], label: str) -> str:
    """As AI2's formatter writes it: one group, object numbers from 1, three digits."""
    triples = " ".join(f"{n} {x:03d} {y:03d}" for n, (x, y) in enumerate(points, 1))
    return f'<points coords="1 {triples}">{label}</points>'


@given(places, labels)
def test_what_molmo2_writes_is_what_we_read(points: list[tuple[int, int]], label: str) -> None:
    spoken = molmo2_points(one_picture(points, label))
    assert xy(spoken) == [(x / 10, y / 10) for x, y in points]
    assert {point.label for point in spoken} == {label}
    assert [point.object_id for point in spoken] == list(range(1, len(points) + 1))
    assert {point.image for point in spoken} == {1} and {point.time_s for point in spoken} == {None}


@given(places)
def test_spans_point_at_the_numbers(points: list[tuple[int, int]]) -> None:
    answer = one_picture(points, "mug")
    for point in molmo2_points(answer):
        assert int(answer[slice(*point.x_span)]) == round(10 * point.x)
        assert int(answer[slice(*point.y_span)]) == round(10 * point.y)


@pytest.mark.parametrize("separator", [";", "\t", ":", ","])
def test_several_pictures_are_told_apart_whatever_stands_between_them(separator: str) -> None:
    answer = f'<points coords="1 1 555 169{separator}2 2 649 154 3 709 162">boats</points>'
    assert [(p.image, p.object_id, p.x) for p in molmo2_points(answer)] == [
        (1, 1, 55.5),
        (2, 2, 64.9),
        (2, 3, 70.9),
    ]


def test_tracks_have_times_and_keep_their_objects() -> None:
    answer = '<tracks coords="0.0 1 635 522;0.5 1 606 490 2 511 124">cars</tracks>'
    spoken = molmo2_points(answer)
    assert [(p.time_s, p.object_id) for p in spoken] == [(0.0, 1), (0.5, 1), (0.5, 2)]
    assert {p.image for p in spoken} == {None} and {p.label for p in spoken} == {"cars"}
    (whole_second,) = molmo2_points('<tracks coords="2 1 635 522">car</tracks>')
    assert (whole_second.time_s, whole_second.image) == (2.0, None)


def test_a_label_in_alt_may_hold_quotes_ampersands_and_brackets() -> None:
    (point,) = molmo2_points('<points alt="the "big" <a&b> mug" coords="1 1 100 200">it</points>')
    assert point.label == 'the "big" <a&b> mug'


def test_several_tags_stand_in_prose() -> None:
    answer = (
        'The handle is <points coords="1 1 100 200">handle</points> and the '
        'rim <points coords="1 1 300 400">rim</points>, seen in 2 of 3 pictures.'
    )
    assert [(p.x, p.y, p.label) for p in molmo2_points(answer)] == [(10, 20, "handle"), (30, 40, "rim")]


@given(places, st.data())
def test_an_answer_cut_off_anywhere_keeps_its_whole_points(
    points: list[tuple[int, int]], data: st.DataObject
) -> None:
    answer = one_picture(points, "mug")
    cut = data.draw(st.integers(0, len(answer)))
    whole = [point for point in molmo2_points(answer) if point.y_span[1] < cut]
    assert xy(molmo2_points(answer[:cut])) == xy(whole)


@pytest.mark.parametrize("bad", ["1001 400", "900 1001", "-5 400", "9000 10"])
def test_a_point_outside_the_scale_is_refused_and_its_neighbours_are_kept(bad: str) -> None:
    answer = f'<points coords="1 1 100 100 2 {bad} 3 300 300">cups</points>'
    assert xy(molmo2_points(answer)) == [(10, 10), (30, 30)]


@pytest.mark.parametrize(
    "answer",
    [
        '<points coords="1 1 90.0 40.0">percent</points>',
        '<point x="61.5" y="40.6" alt="mug">mug</point>',
        "(61.5, 40.6) 1 1 900 400",
        '<points coords="<POINT_3><POINT_20><POINT_7>1">mug</point>',
        '<points coords="">mug</points>',
        '<points alt="no coordinates">mug</points>',
        "There are none.",
    ],
)
def test_what_is_not_written_as_coords_is_not_read(answer: str) -> None:
    assert molmo2_points(answer) == []


def test_compact_forms_are_read_in_the_scale_that_is_named() -> None:
    assert xy(compact_points("<points cups\t-\t1 99.0 80.0 2 1.5 2.5/>", PERCENT)) == [(99, 80), (1.5, 2.5)]
    (point,) = compact_points("<points cups\t-\t1 990 800/>", PER_MILLE)
    assert (point.x, point.y, point.label, point.object_id) == (99, 80, "cups", 1)


def test_the_label_of_a_compact_form_is_its_second_field_where_there_is_one() -> None:
    (point,) = compact_points("<points cups\tthe red & blue cup\t1 990 800/>", PER_MILLE)
    assert point.label == "the red & blue cup"


def test_compact_forms_cut_off_keep_their_whole_points() -> None:
    answer = "<points cups\t-\t1 99.0 80.0 2 10.5 20.5/>"
    assert [len(compact_points(answer[:n], PERCENT)) for n in (16, 26, 27, len(answer) - 3, len(answer))] == [
        0, 0, 1, 1, 2,
    ]  # fmt: skip
    assert compact_points("<points cups\t-\t1 99.0 800.0/>", PERCENT) == []
