"""Relations hold only where they are plain to see."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.training.questions import Thing
from molmo_ros.training.relations import (
    ASIDE_PERCENT,
    LARGER,
    RELATIONS,
    SUPERLATIVES,
    SYNONYMS,
    beside,
    standing_out,
)

#: Left, near and large; in the middle; right, far and small.
NEAR = Thing("red", "cube", 20, 80, bulk_m=0.06, distance_m=0.6, pixels=900)
MIDDLE = Thing("blue", "cube", 50, 50, bulk_m=0.045, distance_m=0.8, pixels=400)
FAR = Thing("green", "cube", 80, 20, bulk_m=0.03, distance_m=1.0, pixels=150)
THREE = [MIDDLE, FAR, NEAR]

things = st.lists(
    st.builds(
        Thing,
        st.just("red"),
        st.just("cube"),
        st.floats(0, 100),
        st.floats(0, 100),
        st.floats(0.03, 0.1),
        st.floats(0.4, 1.2),
        st.integers(20, 3000),
    ),
    min_size=2,
    max_size=8,
)


@pytest.mark.parametrize(
    ("relation", "thing"),
    [
        ("leftmost", NEAR),
        ("rightmost", FAR),
        ("nearest", NEAR),
        ("farthest", FAR),
        ("largest", NEAR),
        ("smallest", FAR),
    ],
)
def test_each_superlative_finds_its_thing(relation: str, thing: Thing) -> None:
    index = standing_out(relation, THREE, [0, 1, 2])
    assert index is not None and THREE[index] is thing


def test_only_the_group_is_compared() -> None:
    assert standing_out("leftmost", THREE, [0, 1]) == 0
    assert standing_out("largest", THREE, [0, 1]) == 0
    assert standing_out("leftmost", THREE, [1]) is None  # alone, it is the leftmost of nothing


@given(things, st.sampled_from(SUPERLATIVES))
def test_what_stands_out_keeps_its_margin_in_picture_and_world(
    all_things: list[Thing], relation: str
) -> None:
    index = standing_out(relation, all_things, range(len(all_things)))
    if index is None:
        return
    it, others = all_things[index], [t for i, t in enumerate(all_things) if i != index]
    for other in others:
        match relation:
            case "leftmost":
                assert it.x <= other.x - ASIDE_PERCENT
            case "rightmost":
                assert it.x >= other.x + ASIDE_PERCENT
            case "nearest":
                assert it.distance_m < other.distance_m and it.y > other.y
            case "farthest":
                assert it.distance_m > other.distance_m and it.y < other.y
            case "largest":
                assert it.bulk_m >= LARGER * other.bulk_m and it.pixels > other.pixels
            case "smallest":
                assert other.bulk_m >= LARGER * it.bulk_m and it.pixels < other.pixels


@given(things)
def test_in_a_mirror_the_leftmost_is_the_rightmost(all_things: list[Thing]) -> None:
    mirrored = [replace(t, x=100 - t.x) for t in all_things]
    group = range(len(all_things))
    for relation, other in (("leftmost", "rightmost"), ("nearest", "nearest"), ("largest", "largest")):
        there, back = standing_out(relation, all_things, group), standing_out(other, mirrored, group)
        if there is None or back is None:  # rounding at the very margin
            continue
        assert there == back


def test_beside_needs_exactly_one_on_that_side() -> None:
    mug = Thing("white", "mug", 35, 50)
    table = [*THREE, mug]
    assert beside("left of", table, [0, 1, 2], anchor=3) == 2
    assert beside("right of", table, [0, 1, 2], anchor=3) is None  # two of them
    assert beside("right of", table, [1, 2], anchor=3) == 1
    assert beside("left of", table, [0, 1], anchor=3) is None
    assert beside("left of", table, [2, 3], anchor=3) is None  # it is not beside itself


def test_what_is_hardly_aside_is_not_beside() -> None:
    mug = Thing("white", "mug", NEAR.x + ASIDE_PERCENT - 0.1, 50)
    assert beside("left of", [NEAR, FAR, mug], [0, 1], anchor=2) is None
    assert beside("left of", [NEAR, FAR, replace(mug, x=mug.x + 0.2)], [0, 1], anchor=2) == 0


def test_synonyms_belong_to_relations() -> None:
    assert set(SYNONYMS) <= set(RELATIONS)
    assert len(set(RELATIONS)) == 8
