"""Points are read from whatever a model writes, whole or cut off."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.grammar import says_absent, spoken_points
from molmo_ros.training.questions import points_answer

percent = st.integers(0, 1000).map(lambda n: n / 10)
labels = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=20).filter(
    lambda s: s.strip() == s and '">' not in s and not s.endswith('"')
)


def xy(answer: str) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in spoken_points(answer)]


@given(st.lists(st.tuples(percent, percent), min_size=1, max_size=12), labels)
def test_what_molmo_writes_is_what_we_read(points: list[tuple[float, float]], label: str) -> None:
    answer = points_answer(points, label)
    assert xy(answer) == sorted(points)
    assert {point.label for point in spoken_points(answer)} == {label}


@given(st.lists(st.tuples(percent, percent), min_size=1, max_size=5), st.data())
def test_an_answer_cut_off_anywhere_keeps_its_whole_points(
    points: list[tuple[float, float]], data: st.DataObject
) -> None:
    answer = points_answer(points, "mug")
    cut = answer[: data.draw(st.integers(0, len(answer)))]
    kept = xy(cut)
    assert kept == sorted(points)[: len(kept)]
    assert len(kept) == len(re.findall(r'y[0-9]*="[0-9.]+"', cut))


@given(st.text(max_size=300))
def test_any_text_at_all_is_read_without_an_error(answer: str) -> None:
    for point in spoken_points(answer):
        assert 0 <= point.x <= 100 and 0 <= point.y <= 100
    assert not (says_absent(answer) and spoken_points(answer))


@given(st.lists(st.tuples(percent, percent), min_size=1, max_size=5))
def test_spans_point_at_the_numbers(points: list[tuple[float, float]]) -> None:
    answer = points_answer(points, "mug")
    for point in spoken_points(answer):
        assert float(answer[slice(*point.x_span)]) == point.x
        assert float(answer[slice(*point.y_span)]) == point.y


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        (' <point x="61.5" y="40.6" alt="mug">mug</point>', [(61.5, 40.6)]),
        (
            'Counting the <points x1="1.0" y1="2.0" x2="3" y2="4" alt="cups">cups</points> shows a total of 2.',
            [(1.0, 2.0), (3.0, 4.0)],
        ),
        (
            'A <point x="5.0" y="6.0" alt="a handle">handle</point>, a <point x="7.0" y="8.0" alt="rim">rim</point>.',
            [(5.0, 6.0), (7.0, 8.0)],
        ),
        ('<point x="101.0" y="5.0" alt="mug">mug</point>', []),
        ("Click(12.5, 80.0)", [(12.5, 80.0)]),
        ('<point x="6', []),
        ("There are none.", []),
    ],
)
def test_the_known_forms(answer: str, points: list[tuple[float, float]]) -> None:
    assert xy(answer) == points


def test_a_label_may_hold_quotes_and_angle_brackets() -> None:
    (point,) = spoken_points('<point x="1.0" y="2.0" alt="the "big" <red> mug">it</point>')
    assert point.label == 'the "big" <red> mug'


@pytest.mark.parametrize("answer", [" There are none.", "This isn't in the image.", "There is no mug."])
def test_absence_is_heard(answer: str) -> None:
    assert says_absent(answer)


@pytest.mark.parametrize(
    "answer", ["", "A table with a mug.", '<point x="1.0" y="2.0" alt="none">there are none</point>']
)
def test_other_answers_are_not_absence(answer: str) -> None:
    assert not says_absent(answer)
