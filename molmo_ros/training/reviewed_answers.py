"""What operators said of a node's answers, as questions for a data set.

An answer counts when a person stood for it, in one of two ways:

- a review: a TargetArray on `~/reviewed_targets` with the answer's stamp and query, whose targets are the truth:
  the same ones where the answer was right, others where it was not, none where there is nothing of the kind.
- clicks: points on the annotated picture (pixels) after the answer came and before the next one. They are the
  truth, each on one of the things asked for.

A review outdoes clicks, and a later review an earlier one. What nobody stood for is left out. Times are stamps of the
pictures, in nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from molmo_ros.outcome import PointingError
from molmo_ros.pointing.prompts import clean_target
from molmo_ros.training.dataset import DatasetWriter

#: Where a pointing node answers, and where people judge, below its name; rqt_image_view names the last one itself.
TARGETS, REVIEWS, CLICKS = "targets", "reviewed_targets", "annotated_image_mouse_left"

#: Points nearer than this to those of the answer are the answer's own, in pixels.
SAME_PX = 0.5

Uv = tuple[float, float]


@dataclass(frozen=True)
class Reviewed:
    """The truth about one question. `points_uv` in pixels of the picture with that stamp; `verdict`: "confirmed",
    "corrected", or "seen" where no answer is known (reviews of answers without a point)."""

    stamp_ns: int
    query: str
    points_uv: tuple[Uv, ...]
    verdict: str


@dataclass
class _Answer:
    points_uv: tuple[Uv, ...]
    clicks: list[Uv] = field(default_factory=list)


class Reviews:
    """Hears answers, reviews and clicks in the order in which they came."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, str], _Answer] = {}
        self._latest: _Answer | None = None
        self._reviews: dict[tuple[int, str], tuple[Uv, ...]] = {}
        self.strays = 0

    def answer(self, stamp_ns: int, query: str, points_uv: tuple[Uv, ...]) -> None:
        """What the node said on `~/targets`."""
        self._latest = self._answers.setdefault((stamp_ns, query), _Answer(points_uv))

    def review(self, stamp_ns: int, query: str, points_uv: tuple[Uv, ...]) -> None:
        """What a person said on `~/reviewed_targets`."""
        self._reviews[stamp_ns, query] = points_uv

    def click(self, u: float, v: float) -> None:
        """Where a person clicked in the annotated picture; counted in `strays` when there was no answer yet."""
        if self._latest is None:
            self.strays += 1
        else:
            self._latest.clicks.append((u, v))

    def unreviewed(self) -> list[tuple[int, str, tuple[Uv, ...]]]:
        """Answers that nobody stood for."""
        return [
            (*key, answer.points_uv)
            for key, answer in self._answers.items()
            if key not in self._reviews and not answer.clicks
        ]

    def reviewed(self) -> list[Reviewed]:
        """The truth so far, in the order of the stamps."""
        truth = {key: tuple(answer.clicks) for key, answer in self._answers.items() if answer.clicks}
        truth |= self._reviews
        return [Reviewed(*key, points, self._verdict(key, points)) for key, points in sorted(truth.items())]

    def _verdict(self, key: tuple[int, str], points: tuple[Uv, ...]) -> str:
        answer = self._answers.get(key)
        if answer is None:
            return "seen"
        return "confirmed" if _same(answer.points_uv, points) else "corrected"


def _same(a: tuple[Uv, ...], b: tuple[Uv, ...]) -> bool:
    return len(a) == len(b) and all(
        math.dist(p, q) < SAME_PX for p, q in zip(sorted(a), sorted(b), strict=True)
    )


def write_reviewed(
    writer: DatasetWriter, reviewed: Reviewed, read_picture: Callable[[int], np.ndarray | None]
) -> str | None:
    """Add one reviewed answer to a data set; why not, if that cannot be.

    `read_picture` gives HxWx3 uint8 RGB of the picture with a stamp, None if there is none.
    """
    try:
        target = clean_target(reviewed.query)
        picture = read_picture(reviewed.stamp_ns)
    except PointingError as error:
        return error.outcome.message
    if picture is None:
        return "its picture is not there"
    height, width = picture.shape[:2]
    for u, v in reviewed.points_uv:
        if not (0 <= u <= width - 1 and 0 <= v <= height - 1):
            return f"({u:g}, {v:g}) lies outside of the picture of {width} x {height}"
    name = f"{reviewed.stamp_ns}.png"
    image = (
        f"images/{name}" if (writer.folder / "images" / name).exists() else writer.add_image(name, picture)
    )
    points = [[round(100 * u / width, 3), round(100 * v / height, 3)] for u, v in reviewed.points_uv]
    writer.add(image, target, points=points, tag=reviewed.verdict, source=f"stamp {reviewed.stamp_ns}")
    return None
