"""What the engine is told about a pointing answer: what is bound to follow, and when it holds enough."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_PAIR = re.compile(r"""\sx(\d*)="\d+(?:\.\d+)?" y\1="\d+(?:\.\d+)?\"""")
_SINGLE = re.compile(r"""<point\s+x="\d+(?:\.\d+)?" y="\d+(?:\.\d+)?\"""")
_ALL_PAIRS = re.compile(r"""<points(?:\s+x(\d+)="\d+(?:\.\d+)?" y\1="\d+(?:\.\d+)?")+\s+alt""")
_NONE = re.compile(r"\s*There are none\.\s*")

#: The end of an answer, and what Molmo's grammar says next. Coordinates have one decimal and mostly two digits
#: before it. Where the grammar leaves a choice (another point, or the label) nothing is said.
_BOUND = (
    (re.compile(r"\A\Z"), ' <point x="'),
    (re.compile(r"<\Z"), 'point x="'),
    (re.compile(r"<point\Z"), ' x="'),
    (re.compile(r"<points\Z"), ' x1="'),
    (re.compile(r'[xy]\d*="\d\d\Z'), "."),
    (re.compile(r'x(\d*)="\d+\.\d\Z'), r'" y\1="'),
    (re.compile(r'x(\d*)="\d+\.\d"\Z'), r' y\1="'),
    (re.compile(r'y\d+="\d+\.\d\Z'), '"'),
    (re.compile(r"There\Z"), " are none."),
)


def bound_to_follow(answer: str) -> str:
    """What follows this beginning of an answer if it keeps to Molmo's grammar; "" where it has a choice."""
    for ending, following in _BOUND:
        if match := ending.search(answer):
            return match.expand(following)
    return ""


def holds_enough(answer: str, max_points: int = 0) -> bool:
    """Whether no coordinate that is wanted can follow: `max_points` of them (0 = all in the first tag) are whole.

    The label behind the coordinates is not waited for.
    """
    if max_points and sum(1 for _ in _PAIR.finditer(answer)) >= max_points:
        return True
    return bool(_SINGLE.search(answer) or _ALL_PAIRS.search(answer) or _NONE.fullmatch(answer))


class PointController:
    """A `molmo.engine.Controller` for plain pointing, whose answers are one tag or "There are none."

    Args:
        tokenizer: of the model.
        max_points: end after this many points, 0 = after all of the first tag.
        foresees: feed bound tokens in chunks; the answer is the same without, only later.
        stops_early: end when the points are known; otherwise at the answer's own end.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_points: int = 0,
        *,
        foresees: bool = True,
        stops_early: bool = True,
    ) -> None:
        self.tokenizer, self.max_points = tokenizer, max_points
        self.foresees, self.stops_early = foresees, stops_early

    def foresee(self, answer: Sequence[int]) -> Sequence[int]:
        """See `molmo.engine.Controller.foresee`."""
        if not self.foresees:
            return ()
        text = self._text(answer)
        following = bound_to_follow(text)
        if not following:
            return ()
        whole = self.tokenizer.encode(text + following, add_special_tokens=False)
        # Another split of what has been said would have to be unsaid.
        return whole[len(answer) :] if whole[: len(answer)] == list(answer) else ()

    def is_complete(self, answer: Sequence[int]) -> bool:
        """See `molmo.engine.Controller.is_complete`."""
        return self.stops_early and holds_enough(self._text(answer), self.max_points)

    def _text(self, answer: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(answer)))
