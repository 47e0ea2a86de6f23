"""Who answers "point to the red mug": what every kind of pointer takes and gives. Without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from molmo_ros.pointing.point import Point2D


@dataclass(frozen=True)
class ModelDurations:
    """Seconds the model spent: image side (tiling included), first pass over the prompt, then token by token
    (reading the answer included). Of a picture that was looked at before, only the question counts."""

    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Pointing:
    """What a model said.

    `absent`: it said the thing is not there, and `points` is empty. `absence`: probability, 0..1, that it is
    not there, NaN when the model gives none.
    """

    points: tuple[Point2D, ...]
    answer: str
    absent: bool
    durations: ModelDurations
    absence: float = float("nan")


@dataclass(frozen=True)
class Reply:
    """An answer in words. `confidence`: mean probability of its tokens, 0..1; NaN when the model gives none."""

    answer: str
    confidence: float
    durations: ModelDurations


#: Hears how far an answer is: "prefill" or "decode", how many tokens it has, and the points so far. Of those u, v
#: and label are as they will be; confidence is a first guess, sigma_px unknown.
OnProgress = Callable[[str, int, tuple[Point2D, ...]], None]


class Pointer(Protocol):
    """Anything that finds things in pictures."""

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        """Points at every `target` in an RGB picture (uint8).

        Args:
            image_HW3: the picture.
            target: what to find, such as "the red mug".
            max_points: at most this many points, 0 = all.
            should_stop: asked at every layer of the model; True ends the work.

        Raises:
            PointingError: EMPTY_TARGET, TARGET_TOO_LONG, BAD_IMAGE, UNPARSEABLE, CANCELLED, OUT_OF_MEMORY.
        """
        ...


@runtime_checkable
class AskablePointer(Pointer, Protocol):
    """A pointer that also answers in words."""

    def ask(
        self, image_HW3: np.ndarray, question: str, *, should_stop: Callable[[], bool] = lambda: False
    ) -> Reply:
        """Answers any question about an RGB picture (uint8) in the model's own words.

        Raises:
            PointingError: BAD_IMAGE, CANCELLED, OUT_OF_MEMORY, INVALID_REQUEST for a question that is too long.
        """
        ...


@runtime_checkable
class LookingPointer(AskablePointer, Protocol):
    """A pointer that reads a picture once and answers many questions about it. A look has
    `nbytes`, `vision_s` and `prefill_s`."""

    def look(self, image_HW3: np.ndarray, *, should_stop: Callable[[], bool] = lambda: False) -> Any: ...

    def point_in(
        self,
        look: Any,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: OnProgress | None = None,
    ) -> Pointing: ...

    def ask_in(
        self,
        look: Any,
        question: str,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: OnProgress | None = None,
    ) -> Reply: ...
