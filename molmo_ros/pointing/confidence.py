"""How sure the model was, read off the probabilities of the tokens it chose.

A coordinate is spoken digit by digit. Wherever the model could have said another digit, the number would have
come out somewhere else: another first digit means another decade, another decimal a neighbour. Summing over
these alternatives gives a distribution over the coordinate, from which come its spread and the chance that
the truth lies near.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_NUMERIC = re.compile(r"[0-9]*\.?[0-9]*")

#: A point counts as right when it lies within this many percent of the image's side.
NEAR_PERCENT = 3.0


@dataclass(frozen=True)
class NumberToken:
    """One token of a spoken number: what was said, with its probability, and the numeric alternatives."""

    text: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Coordinate:
    """Distribution of one coordinate: `near` = probability within `NEAR_PERCENT`, `sigma` = spread in percent."""

    near: float
    sigma: float


def is_numeric(text: str) -> bool:
    """Whether a token can be part of a number ("63", ".", "5.", not "")."""
    return bool(text) and _NUMERIC.fullmatch(text) is not None


def coordinate(tokens: Sequence[NumberToken], near_percent: float = NEAR_PERCENT) -> Coordinate:
    """Distribution of the number that `tokens` spell, over what the model might have said instead.

    An alternative that would spell no number counts as neither near nor far, but is missing from `near`.
    What would have followed an alternative was never asked of the model; it is taken as evenly spread.
    NaN when the tokens spell no number (a tokenizer that joins digits with other signs).
    """
    said = "".join(token.text for token in tokens)
    if not any(c.isdigit() for c in said):
        return Coordinate(near=math.nan, sigma=math.nan)
    value = float(said)
    whole_digits = len(said.split(".")[0])
    near, square, mass = 0.0, 0.0, 0.0
    reached, prefix = 1.0, ""
    for token in tokens:
        for text, probability in token.alternatives:
            if (prefix + text).count(".") > 1:
                continue
            low, high = _range_of(prefix + text, whole_digits)
            weight = reached * probability
            near += weight * _share_within(low, high, value - near_percent, value + near_percent)
            square += weight * ((high - value) ** 3 - (low - value) ** 3) / (3 * (high - low))
            mass += weight
        reached *= token.probability
        prefix += token.text
    near, mass = near + reached, mass + reached
    return Coordinate(near=near, sigma=math.sqrt(square / mass + 0.1**2 / 12) if mass > 0 else math.nan)


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
