"""Questions of the tabletop world: true answers in Molmo's format, nothing asked that turns on what is hidden."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.grammar import says_absent, spoken_points, stated_total
from molmo_ros.sim.worlds import TABLETOP
from molmo_ros.training.questions import Question, Thing
from molmo_ros.training.relations import RELATIONS
from molmo_ros.training.tabletop_questions import (
    MOST_POINTS,
    SHARES,
    UNNAMED,
    Seen,
    ask,
    draw_question,
    every_wording,
)
from molmo_ros.training.tokenizer import train_tokenizer

TASKS = (*SHARES, *RELATIONS, "absent")

colours = st.sampled_from(TABLETOP.colours[:4])
named = st.builds(
    Thing,
    colours,
    st.sampled_from(TABLETOP.kinds[:5]),
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0.03, 0.1),
    st.floats(0.4, 1.2),
    st.integers(20, 3000),
)
unnamed = st.builds(
    Thing, st.sampled_from(["red", ""]), st.just(UNNAMED), st.floats(0, 100), st.floats(0, 100)
)
pictures = st.builds(
    Seen,
    st.lists(st.one_of(named, named, named, unnamed), max_size=10).map(tuple),
    st.lists(st.tuples(colours, st.sampled_from(TABLETOP.kinds[:6])), max_size=2).map(tuple),
    st.one_of(st.none(), st.tuples(st.floats(0, 100), st.floats(0, 100))),
)
seeds = st.integers(0, 2**32)


def check(question: Question, seen: Seen) -> None:
    """The answer is true, in Molmo's words, and does not turn on hidden things."""
    spoken = [(p.x, p.y) for p in spoken_points(question.answer)]
    assert spoken == sorted((round(x, 1), round(y, 1)) for x, y in question.points)
    assert question.label in question.text
    assert len(spoken) <= MOST_POINTS
    assert all(point.label == question.label for point in spoken_points(question.answer))
    if question.task == "free":
        assert question.points == (seen.free_spot,)
        return
    assert says_absent(question.answer) == (not question.targets)
    assert [(seen.things[i].x, seen.things[i].y) for i in question.targets] == list(question.points)
    group = seen.group(question.colour, question.kind)
    if question.task in RELATIONS:
        assert len(question.targets) == 1 and set(question.targets) <= set(group)
    else:
        assert set(question.targets) == set(group)
    if question.task == "count":
        assert stated_total(question.answer) == (len(group) or None)
    assert not any(
        question.colour in (None, colour) and question.kind in (None, kind) for colour, kind in seen.hidden
    )


@given(pictures, seeds)
def test_drawn_questions_have_true_answers(seen: Seen, seed: int) -> None:
    check(draw_question(seen, TABLETOP, np.random.default_rng(seed)), seen)


@given(pictures, st.sampled_from(TASKS), seeds)
def test_every_sort_of_question_has_true_answers_or_is_not_asked(seen: Seen, task: str, seed: int) -> None:
    question = ask(seen, TABLETOP, task, np.random.default_rng(seed))
    if question is None:
        return
    check(question, seen)
    if task in (*RELATIONS, "count", "free", "absent", "several"):
        assert question.task == task
    assert (task == "absent") <= (not question.targets)


@given(pictures, seeds)
def test_a_mirrored_picture_is_answered_in_the_mirror(seen: Seen, seed: int) -> None:
    mirrored = seen.mirrored()
    check(draw_question(mirrored, TABLETOP, np.random.default_rng(seed)), mirrored)
    assert [t.label for t in mirrored.things] == [t.label for t in seen.things]
    assert all(a.x + b.x == pytest.approx(100) for a, b in zip(seen.things, mirrored.things, strict=True))


def table() -> Seen:
    """Three mugs, two of them red, a green bottle, and a star that nobody has a word for."""
    things = (
        Thing("red", "mug", 20, 70, 0.07, 0.6, 500),
        Thing("red", "mug", 60, 40, 0.07, 0.9, 300),
        Thing("blue", "mug", 80, 75, 0.09, 0.6, 900),
        Thing("green", "bottle", 40, 55, 0.08, 0.75, 400),
        Thing("red", UNNAMED, 50, 20, 0.04, 1.1, 100),
    )
    return Seen(things, (), (12.34, 45.67))


def texts(task: str, seen: Seen, count: int = 60) -> dict[str, str]:
    questions = [ask(seen, TABLETOP, task, np.random.default_rng(seed)) for seed in range(count)]
    return {q.text: q.answer for q in questions if q is not None}


def test_counting_gives_molmos_sentence() -> None:
    answers = texts("count", table())
    assert answers["How many mugs are there?"] == (
        ' Counting the <points x1="20.0" y1="70.0" x2="60.0" y2="40.0" x3="80.0" y3="75.0" alt="mugs">mugs</points>'
        " shows a total of 3."
    )
    assert " There are none." in answers.values()


def test_relations_are_asked_in_their_words() -> None:
    assert texts("largest", table())["Point to the largest mug."].startswith(' <point x="80.0" y="75.0"')
    assert "Point to the leftmost mug." in texts("leftmost", table())
    beside = texts("left of", table(), 200)
    assert any("left of the green bottle" in text or "left of the bottle" in text for text in beside)


def test_a_colour_means_things_without_a_name_too() -> None:
    answers = {q: a for q, a in texts("colour", table()).items() if "red things" in q or "red objects" in q}
    assert answers
    assert all(len(spoken_points(answer)) == 3 for answer in answers.values())


def test_free_space_is_one_point_and_a_full_table_is_not_asked_for_it() -> None:
    answers = texts("free", table())
    assert answers["Point to an empty spot on the table."] == (
        ' <point x="12.3" y="45.7" alt="empty spot on the table">empty spot on the table</point>'
    )
    assert ask(Seen(table().things), TABLETOP, "free", np.random.default_rng(0)) is None


def test_some_points_stand_in_a_sentence() -> None:
    answers = {q: a for q, a in texts("point", table(), 400).items() if q.startswith("point_qa: ")}
    assert answers
    for answer in answers.values():
        assert answer.startswith(" The <point ") and answer.endswith("</point> is here.")


def test_no_sort_of_question_is_missing_and_shares_are_about_as_set() -> None:
    rng = np.random.default_rng(0)
    tasks = Counter(draw_question(table(), TABLETOP, rng, 0.25).task for _ in range(4000))
    assert set(tasks) >= {"point", "several", "count", "free", "absent", "leftmost", "left of", "largest"}
    assert tasks["absent"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert tasks["free"] / 3000 == pytest.approx(SHARES["free"], abs=0.02)
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_absences_name_kinds_colours_and_near_misses() -> None:
    asked = [ask(table(), TABLETOP, "absent", np.random.default_rng(seed)) for seed in range(300)]
    questions = [q for q in asked if q is not None]
    assert any(q.colour is None for q in questions)
    assert any(q.kind is None for q in questions)
    crossed = [
        q for q in questions if q.label.removesuffix("s") in ("green mug", "red bottle", "blue bottle")
    ]
    assert len(crossed) > 60


def test_the_words_of_the_world_are_single_tokens() -> None:
    tokenizer = train_tokenizer(every_wording(TABLETOP), 640)
    for word in (
        *TABLETOP.kinds,
        *TABLETOP.colours,
        "leftmost",
        "nearest",
        "bananas",
        "Counting",
        "total",
        "spot",
    ):
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1, word
