"""Numbers of an answer are found in its tokens, with what else could have stood there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch

from molmo_ros.pointing.answer_tokens import AnswerTokens, Digits

WORDS = [' x="', '="4', *"0123456789", ".", '"', "45", "<end>"]


class Words:
    """A tokenizer of a few words, one of them special."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        said = [WORDS[token] for token in token_ids]
        return "".join(word for word in said if not (skip_special_tokens and word == "<end>"))


TOKENIZER = cast(Any, Words())
DIGITS = Digits(TOKENIZER, len(WORDS))


def answer(*words: str, doubt: tuple[int, str, float] | None = None, keeps: bool = False) -> AnswerTokens:
    """Every word nearly certain, but for one that could have been another."""
    ids, rows = [WORDS.index(word) for word in words], []
    for index, token in enumerate(ids):
        probabilities = torch.full((len(WORDS),), 1e-9)
        probabilities[token] = 1.0
        if doubt and doubt[0] == index:
            probabilities[WORDS.index(doubt[1])], probabilities[token] = doubt[2], 1 - doubt[2]
        rows.append(probabilities.log())
    return AnswerTokens(ids, rows, TOKENIZER, DIGITS, keeps)


def test_a_number_is_spelt_by_its_tokens_with_their_alternatives() -> None:
    tokens = answer(' x="', "4", "5", ".", "2", '"', doubt=(2, "9", 0.25))
    assert tokens.text == ' x="45.2"'
    number = tokens.number((4, 8))
    assert [(index, token.text) for index, token in number] == [(1, "4"), (2, "5"), (3, "."), (4, "2")]
    assert number[1][1].probability == pytest.approx(0.75)
    (other,) = number[1][1].alternatives
    assert (other.text, WORDS[other.token_id]) == ("9", "9") and other.probability == pytest.approx(0.25)
    assert not number[0][1].alternatives


def test_several_digits_may_be_one_token() -> None:
    tokens = answer(' x="', "45", ".", "2")
    assert [token.text for _, token in tokens.number((4, 8))] == ["45", ".", "2"]


def test_a_number_that_shares_a_token_with_other_signs_has_no_known_doubt() -> None:
    tokens = answer('="4', "5", ".", "2")
    assert tokens.text[2:6] == "45.2"
    assert tokens.number((2, 6)) == []


def test_special_tokens_are_left_out_of_the_text_unless_they_are_kept() -> None:
    assert answer("4", "<end>", "5").text == "45"
    assert answer("4", "<end>", "5", keeps=True).text == "4<end>5"
    assert [index for index, _ in answer("4", "<end>", "5").number((0, 2))] == [0, 2]


def test_the_probability_of_what_was_said_is_told() -> None:
    assert answer("4", "5", doubt=(1, "6", 0.1)).probability(1) == pytest.approx(0.9)
