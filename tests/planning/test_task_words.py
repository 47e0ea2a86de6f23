"""What words of a task mean by grammar and lists, and which are refused."""

from __future__ import annotations

import pytest

from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.task_words import EmptySpot, PlaceWords, read_task


@pytest.mark.parametrize(
    ("words", "thing"),
    [
        ("in the bowl", "the bowl"),
        ("Into  the Red bowl.", "the Red bowl"),
        ("on top of the green box", "the green box"),
        ("on the table cloth", "the table cloth"),
        ("the white plate", "the white plate"),
    ],
)
def test_the_model_is_asked_for_the_thing_alone(words: str, thing: str) -> None:
    assert PlaceWords().read(words) == thing


@pytest.mark.parametrize("words", ["on an empty spot", "On an  empty spot.", "a free spot"])
def test_an_empty_spot_is_known_by_its_words(words: str) -> None:
    assert PlaceWords().read(words) == EmptySpot()


@pytest.mark.parametrize("words", ["beside the bowl", "next to the mug", "inbox", "bowl", "in", "the"])
def test_words_that_begin_otherwise_are_refused_not_guessed(words: str) -> None:
    with pytest.raises(PointingError) as refused:
        PlaceWords().read(words)
    assert refused.value.outcome.code == Code.INVALID_REQUEST
    assert "begins with in" in refused.value.outcome.message
    assert "on an empty spot" in refused.value.outcome.message


def test_which_words_they_are_is_configuration() -> None:
    german = PlaceWords(prepositions=("in", "auf"), empty_spots=("irgendwohin",))
    assert german.read("auf the Teller") == "the Teller"
    assert german.read("irgendwohin") == EmptySpot()
    with pytest.raises(PointingError):
        german.read("on an empty spot")


@pytest.mark.parametrize(
    ("sentence", "task"),
    [
        ("pick the red cube and place it in the bowl", ("the red cube", "in the bowl")),
        ("Please pick up the mug, and then put it down on an empty spot.", ("the mug", "on an empty spot")),
        ("grab the salt and pepper mill and put it on the plate", ("the salt and pepper mill", "on the plate")),
        ("pick the yellow cube, place in the red bowl", ("the yellow cube", "in the red bowl")),
        ("take the can, then put it on the plate", ("the can", "on the plate")),
        ("lift the ball", ("the ball", "")),
        ("the red cube", None),
        ("pick", None),
    ],
)
def test_a_sentence_is_a_thing_and_a_place(sentence: str, task: tuple[str, str] | None) -> None:
    assert read_task(sentence) == task
