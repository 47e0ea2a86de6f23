"""How sure the model was, read off the probabilities of the tokens it chose.

A coordinate is spoken digit by digit. Wherever the model could have said another digit, the number would have
come out somewhere else: another first digit means another decade, another decimal a neighbour. Summing over
these branches gives a distribution over the coordinate, from which come its spread and the chance that the
truth lies near. A branch that is likely and wide is worth asking the model how it would have gone on: behind
"60.1" there may be a "59.9" that begins with another digit and lies beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

_NUMERIC = re.compile(r"[0-9]*\.?[0-9]*")

#: A point counts as right when it lies within this many percent of the image's side.
NEAR_PERCENT = 3.0

#: Branches at least this likely are followed.
WORTH_FOLLOWING = 0.05


class Alternative(NamedTuple):
    """What could have stood at a token's place: its text, its probability there, its id."""

    text: str
    probability: float
    token_id: int = -1


@dataclass(frozen=True)
class NumberToken:
    """One token of a spoken number: what was said, with its probability, and the numeric alternatives."""

    text: str
    probability: float
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Branch:
    """A beginning of a number that was not said.

    `place`: how many of the spoken tokens stand before it; `token_id`: the first that differs; `prefix`: the
    number's text up to and with it; `mass`: its probability; `low`, `high`: the numbers that begin so.
    """

    place: int
    token_id: int
    prefix: str
    mass: float
    low: float
    high: float

    @property
    def is_worth_following(self) -> bool:
        return self.mass >= WORTH_FOLLOWING and self.high - self.low > 1


@dataclass(frozen=True)
class Coordinate:
    """Distribution of one coordinate: `near` = probability within `NEAR_PERCENT`, `sigma` = spread in percent."""

    near: float
    sigma: float


def is_numeric(text: str) -> bool:
    """Whether a token can be part of a number ("63", ".", "5.", not "")."""
    return bool(text) and _NUMERIC.fullmatch(text) is not None


def branches(tokens: Sequence[NumberToken]) -> list[Branch]:
    """All beginnings that the model might have said instead; those that would spell no number are left out."""
    whole_digits = len("".join(token.text for token in tokens).split(".")[0])
    found, reached, prefix = [], 1.0, ""
    for place, token in enumerate(tokens):
        for other in token.alternatives:
            begun = prefix + other.text
            if begun.count(".") <= 1:
                mass = reached * other.probability
                found.append(Branch(place, other.token_id, begun, mass, *_range_of(begun, whole_digits)))
        reached *= token.probability
        prefix += token.text
    return found


def coordinate(
    tokens: Sequence[NumberToken],
    followed: Mapping[Branch, Sequence[Alternative]] = MappingProxyType({}),
    near_percent: float = NEAR_PERCENT,
    edge: float = 100.0,
) -> Coordinate:
    """Distribution of the number that `tokens` spell, over what the model might have said instead.

    `followed` says of some branches what the model would have said next. What would have followed the others is
    taken as evenly spread. What would spell no number counts as neither near nor far, but is missing from
    `near`. `edge` is the number that means the far side of the image: 100 for percent. NaN when the tokens spell
    no number (a tokenizer that joins digits with other signs).
    """
    said = "".join(token.text for token in tokens)
    if not any(c.isdigit() for c in said):
        return Coordinate(near=math.nan, sigma=math.nan)
    value, whole_digits = float(said), len(said.split(".")[0])
    reach, rounded_to = near_percent * edge / 100, 10.0 ** -len(said.partition(".")[2])
    spoken = math.prod(token.probability for token in tokens)
    near, square, mass = spoken, 0.0, spoken
    for branch in branches(tokens):
        parts = [(branch.low, branch.high, branch.mass)]
        if branch in followed:
            parts = [
                (*_range_of(branch.prefix + after.text, whole_digits), branch.mass * after.probability)
                for after in followed[branch]
                if (branch.prefix + after.text).count(".") <= 1
            ]
        for low, high, weight in parts:
            near += weight * _share_within(low, high, value - reach, value + reach)
            square += weight * ((high - value) ** 3 - (low - value) ** 3) / (3 * (high - low))
            mass += weight
    sigma = math.sqrt(square / mass + rounded_to**2 / 12) if mass > 0 else math.nan
    return Coordinate(near=near, sigma=sigma * 100 / edge)


def _range_of(prefix: str, whole_digits: int) -> tuple[float, float]:
    """The numbers that begin with `prefix`, if they have as many digits before the point as the spoken one."""
    whole, point, decimals = prefix.partition(".")
    if point:
        step = 10.0 ** -len(decimals)
        low = float(f"{whole or '0'}.{decimals or '0'}")
        return low, low + step
    step = 10.0 ** max(whole_digits - len(whole), 0)
    low = float(whole or "0") * step
    return low, low + step


def _share_within(low: float, high: float, least: float, most: float) -> float:
    return max(0.0, min(high, most) - max(low, least)) / (high - low)
