"""A point in an image, with what the model said about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point2D:
    """One point the model gave, in the original image.

    `u`, `v`: pixels right and down, (0, 0) is the centre of the top-left pixel.
    `label`: the words the model put beside it (its alt text, or what was asked for).
    `confidence`: 0..1 from the model's own token probabilities, NaN when it has none.
    `sigma_px`: standard deviation of the position in pixels from the coordinate tokens, NaN when unknown.
    `index`: order in the answer, from 0.
    """

    u: float
    v: float
    label: str
    confidence: float
    sigma_px: float
    index: int
