"""The outline of a thing seen from above: the smallest rectangle around it, or a circle where it is round.

Points near the outline are few and the worst of all: the sensor loses and invents pixels there. A side of the
rectangle is therefore the third outermost point plus half a pixel, and its direction that of least area. Most
round things (bottles, mugs, bowls) show only part of their outline; a circle through that part gives their
whole diameter and middle where a rectangle would fall short. Which of the two fits the outline better is
taken. Smallest rectangles touch along a side of the hull: Freeman & Shapira, CACM 1975; circle by three-point
hypotheses and a truncated cost: Fischler & Bolles, CACM 1981.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmo_ros.geometry.quantile import median

# The outline is the outermost points in each of so many sectors around the middle.
SECTORS = 36
POINTS_PER_SECTOR = 4
# The direction of the sides needs a finer outline.
FINE_SECTORS = 120
# How far in the point lies that counts as the side of a rectangle.
OUTERMOST = 3
HYPOTHESES = 60
CIRCLE_TOLERANCE_M = 0.003
# A circle needs this share of the outline; less is a corner or a curved side.
CIRCLE_SHARE = 0.5
# A round thing shows at least this much of its way around, in so many sectors, and only a handle sticks out.
LEAST_ARC = 0.5
ARC_SECTORS = 16
MOST_OVERHANG = 1.4
LARGEST_RADIUS_M = 0.2
SMALLEST_RADIUS_M = 0.004
REFINEMENTS = 4
# Misfits beyond this are equally bad: a handle, a neighbour.
WORST_MISFIT_M = 0.004
# The sides of a rectangle tell its direction, away from the corners and where they show so many points; by at
# most this much (radians) from that of least area.
SIDE_SHARE = 0.8
SIDE_POINTS = 5
LARGEST_TURN = 0.07
COARSE_RAD = np.radians(np.arange(0.0, 90.0, 6.0))
FINE_RAD = np.radians(np.arange(-5.0, 5.01, 0.5))


@dataclass(frozen=True, eq=False)
class Footprint:
    """Rectangle on a plane with axes x, y (metres): `centre` (2,), `width_m` <= `length_m`.

    `yaw_rad` in -pi/2 .. pi/2 is the direction of the shorter side, along which a gripper closes. `round`: it
    is the square around a circle, and its yaw says nothing.
    """

    centre: np.ndarray
    yaw_rad: float
    width_m: float
    length_m: float
    round: bool


def footprint_of(points_N2: np.ndarray, pixel_u_m: np.ndarray, pixel_v_m: np.ndarray) -> Footprint:
    """The footprint of points on a plane; `pixel_u_m`, `pixel_v_m` (2,): the steps there from pixel to pixel."""
    outline = _outermost(points_N2, points_N2.mean(axis=0), POINTS_PER_SECTOR)
    yaw, low, high = _smallest_rectangle(outline)
    fine_outline = _outermost(points_N2, (low + high) / 2 @ _axes(yaw), 1, FINE_SECTORS)
    yaw += _turn_of_sides(fine_outline @ _axes(yaw).T, low, high)
    (low,), (high,) = _extents(outline, np.array([yaw]))
    axes = _axes(yaw)
    margin = 0.5 * (np.abs(axes @ pixel_u_m) + np.abs(axes @ pixel_v_m))
    centre = (low + high) / 2 @ axes
    rim = _outermost(points_N2, centre, 1)
    circle = _circle(rim)
    if circle is not None:
        middle, radius = circle
        off_circle = np.abs(np.hypot(*(rim - middle).T) - radius)
        off_rectangle = _off_rectangle(rim @ axes.T, low, high)
        misfits = [np.minimum(off, WORST_MISFIT_M).mean() for off in (off_circle, off_rectangle)]
        on_circle = off_circle < CIRCLE_TOLERANCE_M
        if (
            on_circle.mean() > CIRCLE_SHARE
            and misfits[0] < 1.25 * misfits[1]
            and (high - low).max() < MOST_OVERHANG * 2.0 * radius
            and _share_around(rim[on_circle] - middle) > LEAST_ARC
        ):
            diameter = 2.0 * (radius + float(margin.mean()))
            return Footprint(middle, yaw, diameter, diameter, round=True)
    size = high - low + 2.0 * margin
    if size[0] > size[1]:
        yaw, size = yaw + np.pi / 2, size[::-1]
    yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2
    return Footprint(centre, float(yaw), float(size[0]), float(size[1]), round=False)


def _outermost(points: np.ndarray, middle: np.ndarray, count: int, sectors: int = SECTORS) -> np.ndarray:
    """The `count` points furthest out in each sector around the middle."""
    off = points - middle
    sector = ((np.arctan2(off[:, 1], off[:, 0]) / (2 * np.pi) + 0.5) * sectors).astype(int) % sectors
    order = np.lexsort((-np.hypot(off[:, 0], off[:, 1]), sector))
    starts = np.searchsorted(sector[order], sector[order], side="left")
    return points[order[np.arange(len(order)) - starts < count]]


def _axes(yaw_rad: float) -> np.ndarray:
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, s], [-s, c]])


def _smallest_rectangle(outline: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Yaw of least area, and its low and high corner along and across it."""
    yaws = COARSE_RAD
    for further in (FINE_RAD, None):
        low, high = _extents(outline, yaws)
        best = int(np.prod(high - low, axis=1).argmin())
        if further is not None:
            yaws = yaws[best] + further
    return float(yaws[best]), low[best], high[best]


def _extents(outline: np.ndarray, yaws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corners (Y, 2) for each yaw."""
    directions = np.stack([np.cos(yaws), np.sin(yaws)]), np.stack([-np.sin(yaws), np.cos(yaws)])
    along = np.stack([outline @ direction for direction in directions], axis=2)
    at = min(OUTERMOST, 1 + len(outline) // 8) - 1
    along.partition((at, len(outline) - 1 - at), axis=0)
    return along[at], along[-1 - at]


def _turn_of_sides(rim: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """How far the sides that the rim shows are turned from the axes: one slope fitted to all four."""
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
    off = (rim - middle) / half
    covariance = variance = 0.0
    for axis, turn in ((0, -1.0), (1, 1.0)):
        for sign in (-1.0, 1.0):
            beside = (sign * off[:, axis] > np.abs(off[:, 1 - axis])) & (
                np.abs(off[:, 1 - axis]) < SIDE_SHARE
            )
            along, across = rim[beside, 1 - axis], rim[beside, axis]
            straight = np.abs(across - median(across)) < CIRCLE_TOLERANCE_M if beside.any() else beside[:0]
            along, across = along[straight], across[straight]
            if len(along) >= SIDE_POINTS:
                along = along - along.mean()
                covariance += turn * float(along @ across)
                variance += float(along @ along)
    return float(np.clip(covariance / variance, -LARGEST_TURN, LARGEST_TURN)) if variance > 0 else 0.0


def _share_around(off_middle: np.ndarray) -> float:
    """Share of the directions around the origin in which there are points."""
    turn = np.arctan2(off_middle[:, 1], off_middle[:, 0]) / (2 * np.pi) + 0.5
    return len(np.unique((turn * ARC_SECTORS).astype(int) % ARC_SECTORS)) / ARC_SECTORS


def _off_rectangle(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Distance (N,) of points from the border of an axis-aligned rectangle."""
    beyond = np.abs(points - (low + high) / 2) - (high - low) / 2
    outside = np.hypot(*np.maximum(beyond, 0.0).T)
    off: np.ndarray = outside - np.minimum(beyond.max(axis=1), 0.0)
    return off


def _circle(rim: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Middle and radius of the circle that most of the rim lies on."""
    triples = rim[np.random.default_rng(0).integers(0, len(rim), (HYPOTHESES, 3))]
    chords = 2.0 * (triples[:, 1:] - triples[:, :1])
    squares = (triples[:, 1:] ** 2).sum(axis=2) - (triples[:, :1] ** 2).sum(axis=2)
    # Cramer's rule: twice as fast as a solver for so small systems
    (ax, ay), (bx, by), (a, b) = chords[:, 0].T, chords[:, 1].T, squares.T
    determinant = ax * by - ay * bx
    bent = np.abs(determinant) > 1e-9
    if not bent.any():
        return None
    middles = np.stack([a * by - ay * b, ax * b - a * bx], axis=1)[bent] / determinant[bent, None]
    radii = np.hypot(*(triples[bent, 0] - middles).T)
    middles, radii = middles[radii < LARGEST_RADIUS_M], radii[radii < LARGEST_RADIUS_M]
    if len(radii) == 0:
        return None
    off = np.hypot(rim[:, 0] - middles[:, :1], rim[:, 1] - middles[:, 1:]) - radii[:, None]
    best = int(np.minimum(np.abs(off) / CIRCLE_TOLERANCE_M, 1.0).sum(axis=1).argmin())
    middle, radius = middles[best], float(radii[best])
    for _ in range(REFINEMENTS):
        from_middle = rim - middle
        distance = np.maximum(np.hypot(*from_middle.T), 1e-6)
        off = distance - radius
        root_weight = np.maximum(1.0 - (off / (2 * CIRCLE_TOLERANCE_M)) ** 2, 0.0)
        jacobian = np.column_stack([from_middle / distance[:, None], np.ones(len(rim))])
        step = np.linalg.lstsq(jacobian * root_weight[:, None], off * root_weight, rcond=None)[0]
        middle, radius = middle + step[:2], radius + float(step[2])
    return (middle, radius) if SMALLEST_RADIUS_M < radius < LARGEST_RADIUS_M else None
