"""Questions have true answers in Molmo's format."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.grammar import says_absent, spoken_points
from molmo_ros.sim.colours import COLOUR_NAMES
from molmo_ros.sim.objects import KINDS
from molmo_ros.training.questions import (
    Question,
    Thing,
    ask_about,
    ask_absent,
    ask_by_colour,
    ask_by_kind,
    every_wording,
    plural,
    points_answer,
)

things = st.lists(
    st.builds(
        Thing, st.sampled_from(COLOUR_NAMES), st.sampled_from(KINDS), st.floats(0, 100), st.floats(0, 100)
    ),
    min_size=1,
    max_size=8,
)
seeds = st.integers(0, 2**32)


def answered(question: Question, all_things: list[Thing]) -> None:
    """The answer's points are those of the targets, sorted as Molmo sorts them."""
    true = sorted((round(all_things[i].x, 1), round(all_things[i].y, 1)) for i in question.targets)
    assert [(p.x, p.y) for p in spoken_points(question.answer)] == true
    assert question.label in question.text


@given(things, seeds)
def test_a_question_about_a_thing_is_answered_by_all_of_its_words(all_things: list[Thing], seed: int) -> None:
    question = ask_about(all_things, 0, np.random.default_rng(seed))
    answered(question, all_things)
    assert 0 in question.targets
    assert {all_things[i].label for i in question.targets} == {all_things[0].label}


@given(things, seeds)
def test_questions_by_kind_and_colour_find_every_such_thing(all_things: list[Thing], seed: int) -> None:
    rng = np.random.default_rng(seed)
    by_kind = ask_by_kind(all_things, all_things[0].kind, rng)
    by_colour = ask_by_colour(all_things, all_things[0].colour, rng)
    answered(by_kind, all_things)
    answered(by_colour, all_things)
    assert len(by_kind.targets) == sum(t.kind == all_things[0].kind for t in all_things)
    assert len(by_colour.targets) == sum(t.colour == all_things[0].colour for t in all_things)


@given(things, seeds)
def test_absent_things_are_absent(all_things: list[Thing], seed: int) -> None:
    question = ask_absent(all_things, COLOUR_NAMES, KINDS, np.random.default_rng(seed))
    assert says_absent(question.answer)
    assert question.label not in {t.label for t in all_things}


def test_the_formats_are_molmos_own() -> None:
    assert (
        points_answer([(63.54, 44.5)], "red cube")
        == ' <point x="63.5" y="44.5" alt="red cube">red cube</point>'
    )
    assert points_answer([(9.0, 1.0), (2.0, 30.26)], "red cubes") == (
        ' <points x1="2.0" y1="30.3" x2="9.0" y2="1.0" alt="red cubes">red cubes</points>'
    )
    assert points_answer([], "red cube") == " There are none."


def test_plurals_are_english() -> None:
    assert [plural(word) for word in ("cube", "box", "glass")] == ["cubes", "boxes", "glasses"]


def test_the_tokenizer_learns_from_every_colour_and_kind() -> None:
    words = " ".join(every_wording(COLOUR_NAMES, KINDS))
    assert all(name in words for name in (*COLOUR_NAMES, *KINDS, "There are none."))
