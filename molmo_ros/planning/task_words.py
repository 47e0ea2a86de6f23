"""What the words of a task mean, as far as grammar and configuration say it; the rest is the model's.

Words for a place are read by lists, never guessed: a preposition that is not on the list, such as "beside", is
refused, since the model would point at the thing itself and not beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from molmo_ros.outcome import Code, PointingError

PREPOSITIONS = ("in", "into", "inside", "on", "onto", "upon", "on top of")
EMPTY_SPOTS = ("on an empty spot", "an empty spot", "on a free spot", "a free spot", "somewhere empty")
_ARTICLES = ("the", "a", "an")
_TASK = re.compile(
    r"(?:please )?(?:pick|grab|take|lift)(?: up)? (?P<pick>.+?)"
    r"(?:(?:,? and|,|;)(?: then)? (?:place|put|set|drop)(?: it| them)?(?: down)? (?P<place>.+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class EmptySpot:
    """Somewhere on the table where nothing stands."""


@dataclass(frozen=True)
class PlaceWords:
    """Which words come before the thing that is placed on (`prepositions`), and which mean an empty spot."""

    prepositions: tuple[str, ...] = PREPOSITIONS
    empty_spots: tuple[str, ...] = EMPTY_SPOTS

    def read(self, words: str) -> str | EmptySpot:
        """The thing to place on, in the words that the model is asked with ("in the bowl": "the bowl").

        Raises PointingError(INVALID_REQUEST) for words that do not begin as places do.
        """
        plain = _plain(words)
        if plain.lower() in (_plain(spot).lower() for spot in self.empty_spots):
            return EmptySpot()
        for preposition in sorted(self.prepositions, key=len, reverse=True):
            before, thing = plain[: len(preposition)], plain[len(preposition) :]
            if before.lower() == preposition.lower() and thing.startswith(" "):
                return thing.strip()
        if plain.split(" ")[0].lower() in _ARTICLES and " " in plain:
            return plain
        begins = ", ".join((*self.prepositions, *_ARTICLES))
        whole = f", or is {' or '.join(map(repr, self.empty_spots))}" if self.empty_spots else ""
        raise PointingError(
            Code.INVALID_REQUEST, f"the place {words!r} is not understood: it begins with {begins}{whole}"
        )


def read_task(sentence: str) -> tuple[str, str] | None:
    """The thing and the place of "pick the red cube and place it in the bowl"; the place is "" when none is said,
    and None is no such sentence."""
    found = _TASK.fullmatch(_plain(sentence))
    return (found["pick"], found["place"] or "") if found else None


def _plain(words: str) -> str:
    return " ".join(words.split()).rstrip(".!")
