"""What others do for the depth at a pixel: one pixel, a median, a plane by RANSAC. NaN where they have none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

HYPOTHESES = 40
INLIER_M = 0.006


def single_pixel(depth_m: np.ndarray, u: float, v: float) -> float:
    """The pixel's own depth."""
    return float(depth_m[round(v), round(u)])


def median_5x5(depth_m: np.ndarray, u: float, v: float) -> float:
    """Median of what has depth among 25 pixels."""
    return _median(_window(depth_m, u, v, 2)[0])


def ransac_plane(depth_m: np.ndarray, u: float, v: float) -> float:
    """The plane that most of 21x21 pixels lie on, where the pixel's ray meets it."""
    window, du, dv = _window(depth_m, u, v, 10)
    valid = np.isfinite(window)
    if valid.sum() < 8:
        return _median(window)
    z = window[valid].astype(float)
    design = np.column_stack([du[valid], dv[valid], np.ones(len(z))])
    triples = np.random.default_rng(0).integers(0, len(z), (HYPOTHESES, 3))
    volumes = np.linalg.det(design[triples])
    triples = triples[np.abs(volumes) > 1e-6]
    if len(triples) == 0:
        return _median(window)
    planes = np.linalg.solve(design[triples], (1.0 / z)[triples][..., None])[..., 0]
    inliers = np.abs(1.0 / np.maximum(planes @ design.T, 1e-3) - z) < INLIER_M
    best = inliers[inliers.sum(axis=1).argmax()]
    inverse_depth = np.linalg.lstsq(design[best], 1.0 / z[best], rcond=None)[0][2]
    return float(1.0 / inverse_depth) if inverse_depth > 0 else float("nan")


BASELINES: dict[str, Callable[[np.ndarray, float, float], float]] = {
    "single pixel": single_pixel,
    "median 5x5": median_5x5,
    "RANSAC plane 21x21": ransac_plane,
}


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _window(
    depth_m: np.ndarray, u: float, v: float, radius: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of the image about a pixel, and each of its pixels' distance from it to the right and down."""
    row, column = round(v), round(u)
    top, left = max(row - radius, 0), max(column - radius, 0)
    window = depth_m[top : row + radius + 1, left : column + radius + 1]
    rows, columns = np.indices(window.shape).astype(float)
    return window, columns + (left - u), rows + (top - v)
