"""The answers that were most surely wrong, side by side on one sheet, for a person to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from molmo_ros.pointing.annotate import annotate
from molmo_ros.pointing.point import Point2D
from molmo_ros.training.evaluate_data import Answered

#: Size of each picture on the sheet.
TILE_PX = (400, 300)

_TRUE = (60, 220, 90)


def worst_cases(answers: Sequence[Answered], most: int = 24) -> list[Answered]:
    """Wrong answers, the surest first; what has no confidence comes last."""
    wrong = [a for a in answers if not a.score.right]
    return sorted(wrong, key=lambda a: -1.0 if math.isnan(a.confidence) else a.confidence, reverse=True)[
        :most
    ]


def contact_sheet(
    answers: Mapping[str, Sequence[Answered]], most: int = 24, across: int = 4
) -> np.ndarray | None:
    """HxWx3 uint8: each picture with what was answered, and green outlines or crosses where the truth is.

    `answers`: of each model, by its name; `most` cases of each are shown. None when there is nothing to show.
    """
    several = len(answers) > 1
    tiles = [
        _tile(answered, f"{name}: " if several else "")
        for name, of_model in answers.items()
        for answered in worst_cases(of_model, most)
    ]
    if not tiles:
        return None
    across = min(across, len(tiles))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % across)
    rows = [np.concatenate(tiles[i : i + across], axis=1) for i in range(0, len(tiles), across)]
    return np.concatenate(rows)


def _tile(answered: Answered, model: str) -> np.ndarray:
    sample = answered.sample
    picture = np.array(sample.read_image())
    height, width = picture.shape[:2]
    thick = max(1, round(width / 400))
    for mask in sample.read_masks((width, height)):
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outline, -1, _TRUE, thick)
    if not sample.masks:
        for x, y in sample.points or ():
            at = round(x / 100 * width), round(y / 100 * height)
            cv2.drawMarker(picture, at, _TRUE, cv2.MARKER_CROSS, 14 * thick, thick)
    scale = min(TILE_PX[0] / width, (TILE_PX[1] - 24) / height)
    small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    points = [
        Point2D(u * scale, v * scale, "", answered.confidence if n == 0 else math.nan, math.nan, n)
        for n, (u, v) in enumerate(answered.points_uv)
    ]
    drawn = annotate(small, points)
    tile = Image.new("RGB", TILE_PX, (20, 22, 26))
    tile.paste(Image.fromarray(drawn), ((TILE_PX[0] - drawn.shape[1]) // 2, 24))
    ImageDraw.Draw(tile).text(
        (6, 4), model + _caption(answered), fill=(255, 255, 255), font=ImageFont.load_default(12)
    )
    return np.asarray(tile)


def _caption(answered: Answered) -> str:
    """The question, where it stands, and what was said."""
    sample = answered.sample
    said = answered.outcome or (
        "there are none" if answered.absent else f"{len(answered.points_uv)} point(s)"
    )
    sure = "" if math.isnan(answered.confidence) else f", {answered.confidence:.0%} sure"
    return f"{sample.target[:34]} (line {sample.line}): {said}{sure}"
