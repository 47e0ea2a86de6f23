"""Targets are cleaned or refused before a model sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.prompts import MAX_TARGET_CHARACTERS, clean_target, label_of, pointing_prompt


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        ("the red mug", "the red mug"),
        ("  The\tRed \n mug. ", "the red mug"),
        ("Point to the red mug!", "the red mug"),
        ("please point at a mug", "a mug"),
        ("mug\u200b", "mug"),
    ],
)
def test_targets_become_plain_words(said: str, cleaned: str) -> None:
    assert clean_target(said) == cleaned


@pytest.mark.parametrize("said", ["", "   ", "\n\t", "...", "point to ", "\u200b"])
def test_an_empty_target_is_refused_by_name(said: str) -> None:
    with pytest.raises(PointingError) as caught:
        clean_target(said)
    assert caught.value.outcome.code == Code.EMPTY_TARGET


def test_a_target_that_is_too_long_is_refused_with_both_lengths() -> None:
    with pytest.raises(PointingError, match=r"10000 characters.*256") as caught:
        clean_target("x" * 10_000)
    assert caught.value.outcome.code == Code.TARGET_TOO_LONG


@given(st.text(max_size=MAX_TARGET_CHARACTERS))
def test_cleaning_twice_is_cleaning_once(said: str) -> None:
    try:
        once = clean_target(said)
    except PointingError:
        return
    assert (
        clean_target(once[:MAX_TARGET_CHARACTERS]) == once[:MAX_TARGET_CHARACTERS].rstrip(" .!?")
        or "point" in once
    )


@pytest.mark.parametrize(
    ("target", "prompt"),
    [
        ("red mug", "Point to the red mug."),
        ("the red mug", "Point to the red mug."),
        ("a red mug", "Point to a red mug."),
        ("all the mugs", "Point to all the mugs."),
        ("theatre seat", "Point to the theatre seat."),
    ],
)
def test_prompts_have_one_article(target: str, prompt: str) -> None:
    assert pointing_prompt(target) == prompt


@pytest.mark.parametrize(
    ("target", "label"),
    [
        ("the red mug", "red mug"),
        ("red mug", "red mug"),
        ("all the mugs", "mugs"),
        ("theatre seat", "theatre seat"),
    ],
)
def test_a_label_has_no_article(target: str, label: str) -> None:
    assert label_of(target) == label
