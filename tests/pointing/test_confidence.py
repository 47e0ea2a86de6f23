"""Confidence and spread follow from the probabilities of digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.confidence import NumberToken, coordinate, is_numeric


def digits(number: str, sure: float = 1.0) -> list[NumberToken]:
    """A number whose every digit has the probability `sure`; the rest goes evenly to the other digits."""
    rest = (1 - sure) / 9
    return [
        NumberToken(c, 1.0, ()) if c == "." else
        NumberToken(c, sure, tuple((d, rest) for d in "0123456789" if d != c and rest > 0))
        for c in number
    ]  # fmt: skip


numbers = st.integers(0, 999).map(lambda n: f"{n / 10:.1f}")


@given(numbers)
def test_certain_digits_are_certain(number: str) -> None:
    result = coordinate(digits(number))
    assert result.near == pytest.approx(1.0)
    assert result.sigma == pytest.approx(0.1 / math.sqrt(12))


@given(numbers, st.floats(0.2, 0.99))
def test_confidence_lies_between_zero_and_one_and_spread_is_positive(number: str, sure: float) -> None:
    result = coordinate(digits(number, sure))
    assert 0 <= result.near <= 1 + 1e-9
    assert 0 < result.sigma < 100


def test_doubt_in_the_first_digit_costs_more_than_in_the_last() -> None:
    def doubt_at(place: int) -> list[NumberToken]:
        tokens = digits("45.6")
        tokens[place] = digits("45.6", 0.7)[place]
        return tokens

    first, second, last = (coordinate(doubt_at(place)) for place in (0, 1, 3))
    assert first.near < second.near < last.near + 1e-12
    assert first.sigma > second.sigma > last.sigma
    assert last.near == pytest.approx(1.0)


def test_a_neighbouring_digit_is_no_loss() -> None:
    tokens = [*digits("4"), NumberToken("5", 0.5, (("6", 0.5),)), *digits(".5")]
    assert coordinate(tokens).near == pytest.approx(1.0)


def test_the_far_alternative_is_counted_against_it() -> None:
    tokens = [NumberToken("4", 0.6, (("9", 0.4),)), *digits("5.5")]
    result = coordinate(tokens)
    assert result.near == pytest.approx(0.6)
    assert result.sigma == pytest.approx(math.sqrt(0.4 * (49.5**2 + 100 / 12)), rel=0.01)


def test_a_number_may_be_one_token() -> None:
    one = coordinate([NumberToken("45", 0.8, (("90", 0.2),)), *digits(".5")])
    assert one.near == pytest.approx(0.8)


def test_an_alternative_that_spells_no_number_is_lost_confidence() -> None:
    tokens = [*digits("42."), NumberToken("5", 0.9, ((".", 0.1),))]
    assert coordinate(tokens).near == pytest.approx(0.9)


def test_what_spells_no_number_has_no_confidence() -> None:
    result = coordinate([NumberToken(".", 1.0, ())])
    assert math.isnan(result.near) and math.isnan(result.sigma)


@pytest.mark.parametrize("text", ["6", "63", ".", "6."])
def test_digits_and_points_are_numeric(text: str) -> None:
    assert is_numeric(text)


@pytest.mark.parametrize("text", ["", "a", ' "', "٣"])
def test_other_tokens_are_not_numeric(text: str) -> None:
    assert not is_numeric(text)
