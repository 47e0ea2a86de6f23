"""Points drawn into a picture that a person likes to look at."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from molmo_ros.pointing.point import Point2D

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

# Okabe & Ito's palette: told apart by colour-blind eyes, bright enough on photographs.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 200, 140),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
REFUSED: Colour = (170, 170, 170)
WHITE: Colour = (255, 255, 255)
INK: Colour = (20, 22, 26)
_SHIFT = 4  # OpenCV draws with 1/16 px


def annotate(
    image_HW3: np.ndarray,
    points: Sequence[Point2D],
    *,
    notes: Sequence[str] = (),
    chosen: int | None = None,
    refused: Collection[int] = (),
    banner: str = "",
) -> np.ndarray:
    """A copy of an HxWx3 uint8 RGB image with a ring and a label for every point.

    `notes`: one more piece of text per point, such as its distance. `chosen`: position in `points` of the one
    that became the goal; it gets a second ring. `refused`: positions of those that failed a check, drawn
    grey. `banner`: a line along the bottom, such as the question and its outcome. The circle of three
    standard deviations is drawn thinly where the model gave them. Points that are not numbers are left out.
    """
    picture = np.array(image_HW3, copy=True)
    height, width = picture.shape[:2]
    scale = max(max(height, width) / 640.0, 0.35)
    visible = [n for n, point in enumerate(points) if math.isfinite(point.u) and math.isfinite(point.v)]
    for n in visible:
        _ring(picture, points[n], _colour(n, refused), scale, chosen == n)

    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas, "RGBA")
    font = ImageFont.load_default(size=max(9.0, 13.5 * scale))
    floor = height
    if banner:
        floor = height - _banner(draw, banner, font, width, height, scale)
    taken: list[Box] = [_around(points[n], 11 * scale) for n in visible]
    for n in visible:
        note = notes[n] if n < len(notes) else ""
        taken.append(_label(draw, points[n], note, _colour(n, refused), font, scale, (width, floor), taken))
    return np.asarray(canvas).copy()


def _colour(n: int, refused: Collection[int]) -> Colour:
    return REFUSED if n in refused else PALETTE[n % len(PALETTE)]


def _ring(picture: np.ndarray, point: Point2D, colour: Colour, scale: float, chosen: bool) -> None:
    radius = 8.0 * scale
    _circle(picture, point, radius, WHITE, 4.2 * scale)
    _circle(picture, point, radius, colour, 2.4 * scale)
    if chosen:
        _circle(picture, point, radius + 5.0 * scale, WHITE, 3.4 * scale)
        _circle(picture, point, radius + 5.0 * scale, colour, 1.8 * scale)
    if math.isfinite(point.sigma_px) and 3 * point.sigma_px > radius:
        _circle(picture, point, 3 * point.sigma_px, colour, 1.0 * scale)
    _circle(picture, point, 2.6 * scale, WHITE, -1)
    _circle(picture, point, 1.7 * scale, colour, -1)


def _circle(picture: np.ndarray, point: Point2D, radius: float, colour: Colour, thickness: float) -> None:
    limit = 8 * max(picture.shape)  # far outside the picture nothing shows, and OpenCV's integers end
    centre = (
        round(min(max(point.u, -limit), limit) * 2**_SHIFT),
        round(min(max(point.v, -limit), limit) * 2**_SHIFT),
    )
    width = -1 if thickness < 0 else max(1, round(thickness))
    cv2.circle(picture, centre, round(min(radius, limit) * 2**_SHIFT), colour, width, cv2.LINE_AA, _SHIFT)


def _label(
    draw: ImageDraw.ImageDraw,
    point: Point2D,
    note: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    scale: float,
    size: tuple[int, int],
    taken: Sequence[Box],
) -> Box:
    """Write the label where it covers least of the others, always inside the picture; the box it took."""
    sure = f"{100 * point.confidence:.0f} %" if math.isfinite(point.confidence) else ""
    text = "  ".join(part for part in (_shortened(point.label), sure, note) if part) or f"{point.index + 1}"
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = 4.0 * scale
    stripe = 4.0 * scale
    width, height = right - left + 2 * pad + stripe, bottom - top + 2 * pad
    gap = 15.0 * scale
    corners = [
        (point.u + gap, point.v - height / 2),
        (point.u - gap - width, point.v - height / 2),
        (point.u - width / 2, point.v - gap - height),
        (point.u - width / 2, point.v + gap),
        (point.u + gap, point.v - gap - height),
        (point.u + gap, point.v + gap),
        (point.u - gap - width, point.v - gap - height),
        (point.u - gap - width, point.v + gap),
    ]
    inside = [
        (min(max(x, 0.0), max(size[0] - width, 0.0)), min(max(y, 0.0), max(size[1] - height, 0.0)))
        for x, y in corners
    ]
    x, y = min(
        inside, key=lambda at: sum(_overlap((at[0], at[1], at[0] + width, at[1] + height), b) for b in taken)
    )
    draw.rounded_rectangle((x, y, x + width, y + height), radius=3 * scale, fill=(*INK, 205))
    draw.rounded_rectangle((x, y, x + stripe, y + height), radius=1.5 * scale, fill=(*colour, 255))
    draw.text((x + stripe + pad - left, y + pad - top), text, font=font, fill=(*WHITE, 255))
    return (x, y, x + width, y + height)


def _banner(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
    height: int,
    scale: float,
) -> int:
    """A line of text along the bottom, cut to the width; the height it took."""
    pad = 6.0 * scale
    line = " ".join(text.split())
    while line and draw.textlength(line, font=font) > width - 2 * pad:
        line = line[:-2].rstrip("…") + "…" if len(line) > 2 else ""
    _, top, _, bottom = draw.textbbox((0, 0), "Ag", font=font)
    tall = round(bottom - top + 2 * pad)
    draw.rectangle((0, height - tall, width, height), fill=(*INK, 205))
    draw.text((pad, height - tall + pad - top), line, font=font, fill=(*WHITE, 255))
    return tall


def _shortened(label: str, longest: int = 40) -> str:
    label = " ".join(label.split())
    return label if len(label) <= longest else label[: longest - 1].rstrip() + "…"


def _around(point: Point2D, radius: float) -> Box:
    return (point.u - radius, point.v - radius, point.u + radius, point.v + radius)


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
