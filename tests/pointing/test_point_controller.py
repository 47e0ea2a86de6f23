"""The grammar says what is bound to follow, and when an answer holds enough."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.molmo import MolmoProcessor
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.grammar import spoken_points
from molmo_ros.pointing.point_controller import PointController, bound_to_follow, holds_enough
from molmo_ros.training.questions import ABSENT_ANSWER, points_answer

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"

two_digits = st.integers(100, 999).map(lambda n: n / 10)
percent = st.integers(0, 1000).map(lambda n: n / 10)
points = st.lists(st.tuples(percent, percent), min_size=1, max_size=5, unique=True)


@given(st.tuples(two_digits, two_digits))
def test_what_is_bound_to_follow_a_single_point_does(xy: tuple[float, float]) -> None:
    answer = points_answer([xy], "red mug")
    end = answer.index(" alt")
    for length in [0, *range(len(" <point"), end)]:
        following = bound_to_follow(answer[:length])
        assert answer[length:].startswith(following), answer[:length]


@given(st.lists(st.tuples(two_digits, two_digits), min_size=2, max_size=5))
def test_what_is_bound_to_follow_in_several_points_does(xy: list[tuple[float, float]]) -> None:
    answer = points_answer(xy, "red mugs")
    for length in range(len(" <points"), answer.index(" alt")):
        assert answer[length:].startswith(bound_to_follow(answer[:length])), answer[:length]


def test_most_of_a_point_is_bound() -> None:
    answer = points_answer([(61.5, 40.6)], "red mug")
    end = answer.index(" alt")
    length, chosen = 0, 0
    while length < end:
        if following := bound_to_follow(answer[:length]):
            length += len(following)
        else:
            length, chosen = length + 1, chosen + 1
    assert chosen == 7  # three digits of x, three of y, and the quote that shows that y has ended


@pytest.mark.parametrize(
    "answer", ["The mug is", ' <point x="61.5" y="40.6" alt="mug">mug</point>', ' <points x1="1']
)
def test_nothing_is_bound_where_the_model_has_a_choice(answer: str) -> None:
    assert bound_to_follow(answer) == ""


@given(points, st.sampled_from(["red mug", "cups", 'a "big" <cup>']))
def test_enough_is_held_exactly_when_all_points_are_whole(xy: list[tuple[float, float]], label: str) -> None:
    answer = points_answer(xy, label)
    ends = [length for length in range(len(answer) + 1) if holds_enough(answer[:length])]
    assert ends, answer
    assert [(p.x, p.y) for p in spoken_points(answer[: ends[0]])] == sorted(xy)
    assert ends[0] <= answer.index(" alt") + len(" alt")


@given(points, st.integers(1, 5))
def test_no_more_points_than_wanted_are_waited_for(xy: list[tuple[float, float]], wanted: int) -> None:
    answer = points_answer(xy, "cups")
    first = next(length for length in range(len(answer) + 1) if holds_enough(answer[:length], wanted))
    assert [(p.x, p.y) for p in spoken_points(answer[:first])] == sorted(xy)[:wanted]


def test_the_absent_answer_is_enough_only_when_it_is_whole() -> None:
    assert [n for n in range(len(ABSENT_ANSWER) + 1) if holds_enough(ABSENT_ANSWER[:n])] == [
        len(ABSENT_ANSWER)
    ]
    assert not holds_enough(" There are none.. but")


@cache
def tokenizers() -> list[MolmoProcessor]:
    folders = [bundled_model_folder(), *(GOLDENS / family / "checkpoint" for family in ("D", "O", "E"))]
    return [MolmoProcessor.from_pretrained(folder) for folder in folders]


@pytest.mark.parametrize("index", range(4))
@given(xy=points)
def test_foreseen_tokens_are_the_answers_own(index: int, xy: list[tuple[float, float]]) -> None:
    tokenizer = tokenizers()[index].tokenizer
    controller = PointController(tokenizer)
    answer = tokenizer.encode(points_answer(xy, "red mug"), add_special_tokens=False)
    spoken, passes = 0, 0
    while not controller.is_complete(answer[:spoken]):
        foreseen = list(controller.foresee(answer[:spoken]))
        right = 0
        while right < len(foreseen) and foreseen[right] == answer[spoken + right]:
            right += 1
        spoken, passes = spoken + right + 1, passes + 1
        assert passes <= len(answer)
    found = [(p.x, p.y) for p in spoken_points(tokenizer.decode(answer[:spoken]))]
    assert found[: len(xy)] == sorted(xy)


def test_foresight_and_early_stop_can_be_turned_off() -> None:
    tokenizer = tokenizers()[0].tokenizer
    whole = tokenizer.encode(points_answer([(1.0, 2.0)], "mug"), add_special_tokens=False)
    assert PointController(tokenizer).foresee([]) and PointController(tokenizer).is_complete(whole)
    assert not PointController(tokenizer, foresees=False).foresee([])
    assert not PointController(tokenizer, stops_early=False).is_complete(whole)
