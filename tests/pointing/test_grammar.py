"""Points are read from whatever a model writes, whole or cut off."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.grammar import says_absent, spoken_points, stated_total, tagged_points
from molmo_ros.pointing.spoken_point import Extent
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
        ("<point x='7' y=' 8.0 ' alt=\"mug\">mug</point>", [(7.0, 8.0)]),
        ("Click(12.5, 80.0)", [(12.5, 80.0)]),
        ("It is at (12.5, 80.0).", [(12.5, 80.0)]),
        ('x1="12.0" y1="30.4" x2="55" y2="31.9"', [(12.0, 30.4), (55.0, 31.9)]),
        ("p=615,406", [(61.5, 40.6)]),
        ("1=615,406 2=020,1000 ", [(61.5, 40.6), (2.0, 100.0)]),
        ('<point p=615,406 alt="mug">mug</point>', [(61.5, 40.6)]),
        ('<point x="6', []),
        ("p=615,40", []),
        ("p=615,100", []),  # perhaps a 1000 cut short
        ("p=61,406", []),
        ("(12.55, 80.0) or (12, 80)", []),
        ('x1="12.0" y2="30.4"', []),
        ('<points coords="1 1 900 400">cups</points>', []),
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


@pytest.mark.parametrize(
    "label", ["salt & pepper", "l'été", "红色杯子 🍵", 'a "quoted" word', "&amp; <b>", "(3.0, 4.0)"]
)
def test_labels_are_taken_as_they_stand(label: str) -> None:
    answer = (
        f'A <point x="1.0" y="2.0" alt="{label}">it</point> and <point x="3.0" y="4.0" alt="b">b</point>.'
    )
    assert [point.label for point in spoken_points(answer)] == [label, "b"]


def test_without_alt_the_words_between_the_tags_are_the_label() -> None:
    (point,) = spoken_points('<point x="1.0" y="2.0">salt & "pepper"</point>')
    assert point.label == 'salt & "pepper"'


def test_a_label_that_is_cut_off_is_not_given() -> None:
    answer = '<point x="1.0" y="2.0" alt="the "big" mug">it</point>'
    end = answer.index(">it")
    assert {spoken_points(answer[:n])[0].label for n in range(answer.index(" alt"), end + 1)} == {""}
    assert spoken_points(answer[: end + 1])[0].label == 'the "big" mug'


@pytest.mark.parametrize("bad", ['x2="101.0" y2="5.0"', 'x2="5.0" y2="100.1"', 'x2="-1.0" y2="5.0"'])
def test_a_point_outside_the_picture_is_refused_and_its_neighbours_are_kept(bad: str) -> None:
    answer = f'<points x1="1.0" y1="2.0" {bad} x3="3.0" y3="4.0" alt="cups">cups</points>'
    assert xy(answer) == [(1.0, 2.0), (3.0, 4.0)]
    assert {point.label for point in spoken_points(answer)} == {"cups"}


def test_brackets_behind_a_tag_are_prose() -> None:
    assert xy('<point x="1.0" y="2.0" alt="mug">mug</point>, not the one at (3.0, 4.0).') == [(1.0, 2.0)]


def test_tags_may_be_read_in_another_scale() -> None:
    answer = '(1.0, 2.0) <points x1="64" y1="48" x2="641" y2="48" alt="cups">cups</points>'
    (point,) = tagged_points(answer, Extent(640, 480))
    assert (point.x, point.y, point.label) == (10, 10, "cups")
    assert tagged_points('<point p=615,406 alt="mug">mug</point>', Extent(640, 480)) == []


@pytest.mark.parametrize(
    ("answer", "total"),
    [
        ('Counting the <points x1="1.0" y1="2.0" alt="cups">cups</points> shows a total of 12.', 12),
        ('Counting the <point x="1.0" y="2.0" alt="cup">cup</point> shows a total of 1.', 1),
        ('Counting the <points coords="1 1 900 400">cups</points> shows a total of 3.', 3),
        ('There are 2 <points coords="1 1 900 400 2 911 800">cups</points>.', 2),
        ('Counting the <points x1="1.0" y1="2.0" alt="cups">cups</points> shows a total of 1', None),
        ('<points x1="1.0" y1="2.0" alt="total of 2.">cups</points>', None),
        ("There are 2 cups.", None),
    ],
)
def test_counting_answers_say_their_total(answer: str, total: int | None) -> None:
    assert stated_total(answer) == total


@pytest.mark.parametrize("label", ["there are none", "what is not in the image"])
def test_a_refused_point_is_not_absence_whatever_its_label(label: str) -> None:
    assert not says_absent(f'<point x="150.0" y="2.0" alt="{label}">{label}</point>')
