"""JSON answers are read point by point, fenced, cut off or nested."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.json_grammar import (
    is_empty_list,
    point_2d_points,
    point_yx_points,
    xy_object_points,
)
from molmo_ros.pointing.spoken_point import FRACTION, PER_MILLE, Extent, SpokenPoint

pixels = st.integers(0, 640)
labels = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda s: s.strip() == s)
SIZE = Extent(640, 640)


def xy(points: list[SpokenPoint]) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in points]


@given(st.lists(st.tuples(pixels, pixels, labels), max_size=6), st.booleans(), st.sampled_from([None, 1]))
def test_what_qwen_writes_is_what_we_read(
    things: list[tuple[int, int, str]], label_first: bool, indent: int | None
) -> None:
    def written(x: int, y: int, label: str) -> dict[str, Any]:
        return {"label": label, "point_2d": [x, y]} if label_first else {"point_2d": [x, y], "label": label}

    text = json.dumps([written(*thing) for thing in things], ensure_ascii=False, indent=indent)
    spoken = point_2d_points(f"Here they are:\n```json\n{text}\n```", SIZE)
    assert xy(spoken) == [(x * 100 / 640, y * 100 / 640) for x, y, _ in things]
    assert [point.label for point in spoken] == [label for _, _, label in things]


@given(st.lists(st.tuples(pixels, pixels, labels), min_size=1, max_size=4), st.data())
def test_an_answer_cut_off_anywhere_keeps_its_whole_points(
    things: list[tuple[int, int, str]], data: st.DataObject
) -> None:
    answer = json.dumps([{"point_2d": [x, y], "label": label} for x, y, label in things])
    cut = data.draw(st.integers(0, len(answer)))
    whole = [point for point in point_2d_points(answer, SIZE) if answer.index("]", point.y_span[1]) < cut]
    assert xy(point_2d_points(answer[:cut], SIZE)) == xy(whole)


def test_gemini_says_y_first() -> None:
    (point,) = point_yx_points('[{"point": [300, 512], "label": "mug"}]', PER_MILLE)
    assert (point.x, point.y, point.label) == (51.2, 30.0, "mug")


def test_moondream_names_x_and_y() -> None:
    assert xy(xy_object_points('{"points": [{"x": 0.5, "y": 0.25}, {"x": 1, "y": 1e-1}]}', FRACTION)) == [
        (50, 25),
        (100, 10),
    ]


@pytest.mark.parametrize(
    ("label", "heard"),
    [
        (r"the \"big\" & <red> mug", 'the "big" & <red> mug'),
        (r"\u7ea2\u8272 \ud83c\udf75", "红色 🍵"),
        ("{braces} [and] brackets", "{braces} [and] brackets"),
        (r"wrong \x escape", r"wrong \x escape"),
        (r"half \ud83c pair", "half \ufffd pair"),
        (r"a \"point_2d\": [9, 9] inside", 'a "point_2d": [9, 9] inside'),
    ],
)
def test_labels_may_hold_anything(label: str, heard: str) -> None:
    (point,) = point_2d_points(f'[{{"point_2d": [1, 2], "label": "{label}"}}]', SIZE)
    assert point.label == heard


def test_a_label_belongs_to_the_object_that_it_stands_in() -> None:
    answer = (
        '[{"label": "a"}, {"point_2d": [1, 2]}, {"label": "b", "point_2d": [3, 4]}, {"point_2d": [5, 6]}]'
    )
    assert [point.label for point in point_2d_points(answer, SIZE)] == ["", "b", ""]


def test_a_label_that_is_cut_off_is_not_given() -> None:
    (point,) = point_2d_points('[{"point_2d": [1, 2], "label": "the red m', SIZE)
    assert point.label == ""


@pytest.mark.parametrize("numbers", ["641, 5", "5, 641", "-1, 5", "1e9999, 5", "5, 1e3"])
def test_a_point_outside_the_scale_is_refused_and_its_neighbours_are_kept(numbers: str) -> None:
    answer = f'[{{"point_2d": [32, 64]}}, {{"point_2d": [{numbers}]}}, {{"point_2d": ["64", "32"]}}]'
    assert xy(point_2d_points(answer, SIZE)) == [(5, 10), (10, 5)]


@pytest.mark.parametrize(
    "answer",
    [
        '{"point": [1, 2]}',
        '{"bbox_2d": [1, 2, 3, 4]}',
        '{"point_2d": [1, 2, 3]}',
        '{"point_2d": [NaN, 2]}',
        "[1, 2]",
        "[" * 100_000,
    ],
)
def test_what_stands_under_another_key_is_not_read(answer: str) -> None:
    assert point_2d_points(answer, SIZE) == []


@pytest.mark.parametrize("answer", ["[]", "```json\n[]\n```", " [ ]\n", '{"points": []}', "{}"])
def test_json_with_nothing_in_it_is_empty(answer: str) -> None:
    assert is_empty_list(answer)


@pytest.mark.parametrize("answer", ["", "[", "[{}]", "[0]", "nothing: []"])
def test_other_answers_are_not_empty_lists(answer: str) -> None:
    assert not is_empty_list(answer)
