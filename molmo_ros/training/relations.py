"""Which of several things is the leftmost, the nearest, the largest, or left of another: only where it is plain.

A question whose answer a person would have to measure teaches nothing and judges nobody. So each relation asks
for a margin, and for the picture to agree with the world: the nearest cube is also lower in the picture than the
others, the largest one also looks larger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from molmo_ros.training.questions import Thing

#: Least distance to the next one: in percent of the picture's width and height, in metres, and as a ratio.
ASIDE_PERCENT, BELOW_PERCENT, NEARER_M, LARGER, LOOKS_LARGER = 4.0, 3.0, 0.04, 1.2, 1.15

SUPERLATIVES = ("leftmost", "rightmost", "nearest", "farthest", "largest", "smallest")
SIDES = ("left of", "right of")
RELATIONS = (*SUPERLATIVES, *SIDES)

#: Other words for the same.
SYNONYMS = {
    "nearest": ("nearest", "closest"),
    "farthest": ("farthest", "furthest"),
    "largest": ("largest", "biggest"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
}

_Plainly = Callable[[Thing, Thing], bool]


def _nearer(a: Thing, b: Thing) -> bool:
    return b.distance_m - a.distance_m >= NEARER_M and a.y - b.y >= BELOW_PERCENT


def _larger(a: Thing, b: Thing) -> bool:
    return a.bulk_m >= LARGER * b.bulk_m and a.pixels >= LOOKS_LARGER * b.pixels


def _further_left(a: Thing, b: Thing) -> bool:
    return b.x - a.x >= ASIDE_PERCENT


_PLAINLY: dict[str, _Plainly] = {
    "leftmost": _further_left,
    "rightmost": lambda a, b: _further_left(b, a),
    "nearest": _nearer,
    "farthest": lambda a, b: _nearer(b, a),
    "largest": _larger,
    "smallest": lambda a, b: _larger(b, a),
}


def standing_out(relation: str, things: Sequence[Thing], group: Sequence[int]) -> int | None:
    """The one of `group` (indices of things) that is plainly the leftmost, nearest, ... of them; None if none is."""
    plainly = _PLAINLY[relation]
    for index in group:
        others = [things[other] for other in group if other != index]
        if others and all(plainly(things[index], other) for other in others):
            return index
    return None


def beside(relation: str, things: Sequence[Thing], group: Sequence[int], anchor: int) -> int | None:
    """The only one of `group` on that side of the anchor; None if there is none, several, or one hardly aside."""
    if anchor in group or not all(abs(things[i].x - things[anchor].x) >= ASIDE_PERCENT for i in group):
        return None
    left = [i for i in group if things[i].x < things[anchor].x]
    right = [i for i in group if i not in left]
    there = left if relation == "left of" else right
    return there[0] if len(there) == 1 else None
