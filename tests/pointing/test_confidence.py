"""Confidence and spread follow from the probabilities of digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.confidence import Alternative, NumberToken, branches, coordinate, is_numeric


def digits(number: str, sure: float = 1.0) -> list[NumberToken]:
    """A number whose every digit has the probability `sure`; the rest goes evenly to the other digits."""
    rest = (1 - sure) / 9
    return [
        NumberToken(c, 1.0, ()) if c == "." else
        NumberToken(c, sure, tuple(Alternative(d, rest) for d in "0123456789" if d != c and rest > 0))
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
    tokens = [*digits("4"), NumberToken("5", 0.5, (Alternative("6", 0.5),)), *digits(".5")]
    assert coordinate(tokens).near == pytest.approx(1.0)


def test_the_far_alternative_is_counted_against_it() -> None:
    tokens = [NumberToken("4", 0.6, (Alternative("9", 0.4),)), *digits("5.5")]
    result = coordinate(tokens)
    assert result.near == pytest.approx(0.6)
    assert result.sigma == pytest.approx(math.sqrt(0.4 * (49.5**2 + 100 / 12)), rel=0.01)


def test_a_likely_branch_that_was_followed_counts_where_it_would_have_led() -> None:
    tokens = [NumberToken("6", 0.6, (Alternative("5", 0.4),)), *digits("0.1")]
    (branch,) = (b for b in branches(tokens) if b.is_worth_following)
    assert (branch.low, branch.high, branch.mass) == (50.0, 60.0, 0.4)
    unknown = coordinate(tokens)
    beside = coordinate(tokens, {branch: (Alternative("9", 1.0),)})
    away = coordinate(tokens, {branch: (Alternative("0", 1.0),)})
    assert unknown.near == pytest.approx(0.6 + 0.4 * 0.29)
    assert beside.near == pytest.approx(1.0)
    assert away.near == pytest.approx(0.6)
    assert beside.sigma < unknown.sigma < away.sigma


def test_a_followed_branch_may_end_before_the_point() -> None:
    tokens = [NumberToken("6", 0.6, (Alternative("5", 0.4),)), *digits("0.1")]
    (branch,) = (b for b in branches(tokens) if b.is_worth_following)
    shorter = coordinate(tokens, {branch: (Alternative(".", 1.0),)})
    assert shorter.near == pytest.approx(0.6)
    assert shorter.sigma == pytest.approx(math.sqrt(0.4 * (54.6**2 + 1 / 12)), rel=0.01)


@pytest.mark.parametrize(
    ("probability", "text", "worth"), [(0.04, "5", False), (0.06, "5", True), (0.5, "52", False)]
)
def test_only_likely_and_wide_branches_are_followed(probability: float, text: str, worth: bool) -> None:
    tokens = [NumberToken("6", 1 - probability, (Alternative(text, probability),)), *digits("0.1")]
    (branch,) = branches(tokens)
    assert branch.is_worth_following == worth


def test_a_number_may_be_one_token() -> None:
    one = coordinate([NumberToken("45", 0.8, (Alternative("90", 0.2),)), *digits(".5")])
    assert one.near == pytest.approx(0.8)


def test_an_alternative_that_spells_no_number_is_lost_confidence() -> None:
    tokens = [*digits("42."), NumberToken("5", 0.9, (Alternative(".", 0.1),))]
    assert coordinate(tokens).near == pytest.approx(0.9)


@pytest.mark.parametrize(("spoken", "edge"), [("45.5", 100.0), ("455", 1000.0), ("0.455", 1.0)])
def test_the_same_doubt_means_the_same_in_every_scale(spoken: str, edge: float) -> None:
    tokens = digits(spoken)
    doubted = spoken.index("4")
    far, near = ([*tokens], [*tokens])
    far[doubted] = NumberToken("4", 0.6, (Alternative("9", 0.4),))
    near[-1] = NumberToken("5", 0.6, (Alternative("6", 0.4),))
    assert coordinate(far, edge=edge).near == pytest.approx(0.6)
    assert coordinate(far, edge=edge).sigma == pytest.approx(
        math.sqrt(0.4 * (49.5**2 + 100 / 12) + 0.1**2 / 12)
    )
    assert coordinate(near, edge=edge).near == pytest.approx(1.0)
    assert coordinate(tokens, edge=edge).sigma == pytest.approx(0.1 / math.sqrt(12))


def test_what_spells_no_number_has_no_confidence() -> None:
    result = coordinate([NumberToken(".", 1.0, ())])
    assert math.isnan(result.near) and math.isnan(result.sigma)


@pytest.mark.parametrize("text", ["6", "63", ".", "6."])
def test_digits_and_points_are_numeric(text: str) -> None:
    assert is_numeric(text)


@pytest.mark.parametrize("text", ["", "a", ' "', "٣"])
def test_other_tokens_are_not_numeric(text: str) -> None:
    assert not is_numeric(text)
