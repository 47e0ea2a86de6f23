"""Florence-2's location tokens become centres of boxes and outlines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.location_token_grammar import box_points, outline_points
from molmo_ros.pointing.spoken_point import SpokenPoint

bins = st.integers(0, 999)
boxes = st.lists(st.tuples(bins, bins, bins, bins), min_size=1, max_size=4)
labels = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=20).filter(
    lambda s: s.strip() == s
)


def tokens(*values: int) -> str:
    return "".join(f"<loc_{value}>" for value in values)


def xy(points: list[SpokenPoint]) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in points]


@given(boxes, labels)
def test_a_box_is_pointed_at_in_its_centre(corners: list[tuple[int, int, int, int]], label: str) -> None:
    answer = f"<s>{label}" + "".join(tokens(*box) for box in corners) + "</s>"
    spoken = box_points(answer)
    # The centre of bin b is (b + 0.5) / 1000 of the side.
    centres = [((left + right + 1) / 20, (top + bottom + 1) / 20) for left, top, right, bottom in corners]
    assert xy(spoken) == [pytest.approx(centre) for centre in centres]
    assert {point.label for point in spoken} == {label}


def test_several_phrases_have_a_label_each() -> None:
    answer = f"</s><s>red mug{tokens(1, 2, 3, 4)}{tokens(5, 6, 7, 8)}a & b{tokens(9, 10, 11, 12)}</s>"
    assert [point.label for point in box_points(answer)] == ["red mug", "red mug", "a & b"]


def test_an_outline_is_pointed_at_in_the_centre_of_its_box() -> None:
    (point,) = outline_points(f"mug{tokens(100, 100, 299, 100, 299, 399, 100, 399)}</s>")
    assert (point.x, point.y, point.label) == (20, 25, "mug")


def test_the_parts_of_an_outline_share_its_words() -> None:
    part = tokens(0, 0, 9, 0, 9, 9)
    assert [p.label for p in outline_points(f"mug<poly>{part}<sep>{part}</poly></s>")] == ["mug", "mug"]


@given(st.integers(0, 200))
def test_an_outline_that_may_lack_corners_is_left_out(cut: int) -> None:
    first, second = tokens(0, 0, 9, 0, 9, 9), tokens(10, 10, 19, 10, 19, 19, 10, 19)
    answer = f"mug{first}<sep>{second}</s>"
    first_ends, second_ends = answer.index("<sep>"), answer.index("</s>")
    # `<` may begin a location token or a special one; `<s` is a special one.
    expected = [(0.5, 0.5)] * (cut >= first_ends + 2) + [(1.5, 1.5)] * (cut >= second_ends + 2)
    assert xy(outline_points(answer[:cut])) == expected


@given(st.integers(0, 120))
def test_boxes_cut_off_keep_the_whole_ones(cut: int) -> None:
    answer = f"mug{tokens(0, 0, 9, 9)}{tokens(10, 10, 19, 19)}"
    ends = [len(f"mug{tokens(0, 0, 9, 9)}"), len(answer)]
    assert len(box_points(answer[:cut])) == sum(end <= cut for end in ends)


def test_a_bin_that_does_not_exist_refuses_its_box_alone() -> None:
    answer = f"mug{tokens(0, 0, 9, 9)}{tokens(0, 0, 1000, 9)}{tokens(90, 90, 99, 99)}"
    assert xy(box_points(answer)) == [(0.5, 0.5), (9.5, 9.5)]


@pytest.mark.parametrize(
    "answer", ["", "mug", "<loc_5>", "<loc_1><loc_2><loc_3>", "<loc_a><loc_1.5>", "</s>"]
)
def test_less_than_a_box_is_nothing(answer: str) -> None:
    assert box_points(answer) == [] and outline_points(answer + "</s>") == []
