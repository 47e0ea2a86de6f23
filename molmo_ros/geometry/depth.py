"""The depth of the surface at a pixel, from all of that surface that lies around it and nothing else.

One depth pixel may be a hole, a flying pixel between two surfaces, or noise; a mean or median over a window
mixes the thing with its background. Here the pixels that are joined to the point without a step in depth are
taken (the depth-connected component), and a gently bent surface is fitted to them that ignores outliers. A
plane in space is exactly linear in inverse depth over the undistorted image, so the fit is a small weighted
least-squares problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth_profile import D435, DepthProfile
from molmo_ros.outcome import Code, PointingError

# Neighbours on one surface differ by less than this, or by LINK_SIGMAS of the sensor's noise if that is more.
LINK_M = 0.006
LINK_SIGMAS = 5.4
# A component smaller than this, or than this share of the window, is a speck of flying pixels.
SPECK_PIXELS = 6
SPECK_SHARE = 0.03
# The surface must come at least this near to the point, in window radii: a point in a wide hole has no depth.
REACH = 0.6
PLANE_PIXELS = 12
# From so many pixels, and so thick, a component shows its curvature.
BENT_PIXELS = 40
BENT_THICKNESS_PX = 1.2
FIT_ROUNDS = 3
OUTLIER_SIGMAS = 2.5
# A component thinner than this many pixels (standard deviation across) gives no slope.
THINNEST_PX = 0.5
# Seeds tried: more specks than this around a point is noise, not a surface.
MOST_SEEDS = 40
# A fit that leaves the component's own depths (but for its outermost pixels) by more than LINK_M has been
# extrapolated too far; it is held to them.
DEPTH_PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True, eq=False)
class DepthSample:
    """The surface seen at a pixel.

    `depth_m` along the optical axis; `valid_ratio`: share of the window's pixels with a return; `spread_m`:
    robust standard deviation of the surface's pixels about the fit, along the optical axis; `sigma_m`:
    standard error of `depth_m` for an exact pixel; `normal_cam`: unit normal towards the camera, camera
    frame, NaN when the surface is too small to show one; `pixels_used`: pixels of the surface.
    """

    depth_m: float
    valid_ratio: float
    spread_m: float
    sigma_m: float
    normal_cam: np.ndarray
    pixels_used: int


def depth_at(
    depth_m: np.ndarray,
    camera: CameraModel,
    u: float,
    v: float,
    *,
    profile: DepthProfile = D435,
    radius_px: int | None = None,
) -> DepthSample:
    """Depth of the surface at pixel (u, v) of an HxW float32 depth image (metres, NaN = no return).

    `radius_px`: half the side of the square looked at; by default 1/64 of the image's width (10 at 640).

    Raises PointingError: INVALID_REQUEST for a point off the image, NO_DEPTH when no surface lies at the
    point, AMBIGUOUS_DEPTH when the surface is seen so edge-on that it could be at any depth.
    """
    if not camera.contains(u, v):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"point ({u:.1f}, {v:.1f}) is not on the {camera.width}x{camera.height} image",
        )
    radius = radius_px if radius_px is not None else max(5, round(camera.width / 64))
    column, row = min(max(round(u), 0), camera.width - 1), min(max(round(v), 0), camera.height - 1)
    left, top = max(column - radius, 0), max(row - radius, 0)
    window = depth_m[top : row + radius + 1, left : column + radius + 1]
    valid = np.isfinite(window) & (window > 0)
    valid_ratio = float(valid.mean())

    surface = _surface_at(window, valid, u - left, v - top, radius, profile, camera.fx)
    if surface is None:
        raise PointingError(
            Code.NO_DEPTH,
            f"no surface at pixel ({u:.0f}, {v:.0f}): {100 * valid_ratio:.0f} % of the {2 * radius + 1}x"
            f"{2 * radius + 1} px around it have depth, none of it joined up near the point; it may be "
            "shiny, dark, see-through, or nearer than the camera measures; try another view",
        )
    rows, columns = np.nonzero(surface)
    z = window[rows, columns].astype(float)
    from_point_px = np.hypot(columns + left - u, rows + top - v)
    nearness = np.exp(-0.5 * (from_point_px / (0.5 * radius)) ** 2)

    thickness_px = _thickness_px(columns, rows) if z.size >= PLANE_PIXELS else 0.0
    if thickness_px < THINNEST_PX:
        return _flat_sample(z, nearness, valid_ratio, profile, camera.fx)
    pixels = np.column_stack([columns + left, rows + top]).astype(float)
    xy = camera.normalised(np.vstack([[u, v], pixels]))
    if not np.isfinite(xy).all():
        raise PointingError(
            Code.BAD_CAMERA_INFO,
            f"the distortion polynomial folds over before pixel ({u:.0f}, {v:.0f}); point nearer to the "
            "image's centre or calibrate with the board shown in the corners too",
        )
    return _fitted_sample(xy[0], xy[1:], z, nearness, thickness_px, valid_ratio, profile, camera)


def _surface_at(
    window: np.ndarray,
    valid: np.ndarray,
    u: float,
    v: float,
    radius: int,
    profile: DepthProfile,
    focal_px: float,
) -> np.ndarray | None:
    """Mask of the depth-connected component nearest to (u, v) that is more than a speck, or None."""
    rows, columns = np.nonzero(valid)
    distance = np.hypot(columns - u, rows - v)
    by_distance = np.argsort(distance, kind="stable")
    smallest = max(SPECK_PIXELS, SPECK_SHARE * window.size)
    filled = np.where(valid, window, 0).astype(np.float32)
    # cv2.floodFill joins neighbours within a step of each other and never enters pixels its mask has set
    taken = np.pad((~valid).astype(np.uint8), 1, constant_values=1)
    inner = taken[1:-1, 1:-1]
    seeds = 0
    for index in by_distance:
        if distance[index] > REACH * radius or seeds == MOST_SEEDS:
            return None
        row, column = int(rows[index]), int(columns[index])
        if inner[row, column]:
            continue
        seeds += 1
        step = max(LINK_M, LINK_SIGMAS * float(profile.sigma_z_m(float(window[row, column]), focal_px)))
        mark = 1 + seeds
        size = cv2.floodFill(
            filled, taken, (column, row), 0, step, step, 4 | cv2.FLOODFILL_MASK_ONLY | (mark << 8)
        )[0]
        if size >= smallest:
            return inner == mark
    return None


def _thickness_px(columns: np.ndarray, rows: np.ndarray) -> float:
    """Standard deviation of a pixel set across its thinnest direction."""
    return float(np.sqrt(max(np.linalg.eigvalsh(np.cov(np.stack([columns, rows])))[0], 0.0)))


def _flat_sample(
    z: np.ndarray, nearness: np.ndarray, valid_ratio: float, profile: DepthProfile, focal_px: float
) -> DepthSample:
    """A surface too small to have a slope: its median, and no normal."""
    depth = _weighted_median(z, nearness)
    spread = 1.4826 * float(np.median(np.abs(z - depth)))
    sigma = max(float(profile.sigma_z_m(depth, focal_px)), spread)
    return DepthSample(depth, valid_ratio, spread, sigma, np.full(3, np.nan), z.size)


def _fitted_sample(
    at_xy: np.ndarray,
    xy: np.ndarray,
    z: np.ndarray,
    nearness: np.ndarray,
    thickness_px: float,
    valid_ratio: float,
    profile: DepthProfile,
    camera: CameraModel,
) -> DepthSample:
    """Depth from a bent surface through the pixels, the normal from a plane through them.

    Both are linear in inverse depth about the point: 1/z = a dx + b dy + c (+ three bends). A plane through a
    mug is millimetres wrong at the point and sure of it; bends cost some noise, which `sigma_m` owns up to.
    The plane's slope is the steadier one, and what a gripper meets.
    """
    reach = float(np.abs(xy - at_xy).max())
    dx, dy = ((xy - at_xy) / reach).T
    flat = np.column_stack([dx, dy, np.ones_like(dx)])
    plane = surface = _robust_fit(flat, 1.0 / z, nearness)
    if len(z) >= BENT_PIXELS and thickness_px >= BENT_THICKNESS_PX:
        surface = _robust_fit(np.column_stack([flat, dx * dx, dx * dy, dy * dy]), 1.0 / z, nearness)

    lowest, highest = np.percentile(z, DEPTH_PERCENTILES)
    a, b, c = plane.coefficients[0] / reach, plane.coefficients[1] / reach, plane.coefficients[2]
    inverse_depth = surface.coefficients[2]
    if c <= 0 or inverse_depth <= 0:
        raise PointingError(
            Code.AMBIGUOUS_DEPTH,
            f"the surface at the point is seen edge-on, from {lowest:.3f} to {highest:.3f} m away; "
            "point at a side that faces the camera more",
        )
    depth = float(np.clip(1.0 / inverse_depth, lowest - LINK_M, highest + LINK_M))
    spread = surface.sigma * depth**2
    sigma_pixel = max(float(profile.sigma_z_m(depth, camera.fx)), spread)
    # what neighbours share counts once; no fit is worse than the pixels it was made of
    shared = min(profile.pixels_per_sample, float(len(z)))
    sigma = sigma_pixel * min(1.0, float(np.sqrt((surface.lever**2).sum() * shared)))

    # n . P = 1 for the plane's points P = z (x, y, 1), so (a, b, c - a x0 - b y0) is along the normal, away
    # from us
    away = np.array([a, b, c - a * at_xy[0] - b * at_xy[1]])
    normal_cam = camera.R_cam_image @ (-away / np.linalg.norm(away))
    return DepthSample(depth, valid_ratio, spread, sigma, normal_cam, z.size)


@dataclass(frozen=True, eq=False)
class _Fit:
    """`sigma`: robust standard deviation of `error`; `lever`: each pixel's part in the value at the point."""

    coefficients: np.ndarray
    error: np.ndarray
    sigma: float
    lever: np.ndarray


def _robust_fit(design: np.ndarray, wanted: np.ndarray, nearness: np.ndarray) -> _Fit:
    """Weighted least squares, repeated without the pixels that lie far off it."""
    weight = nearness
    for _ in range(FIT_ROUNDS):
        weighted = design * weight[:, None]
        matrix = weighted.T @ design
        coefficients = np.linalg.solve(matrix, weighted.T @ wanted)
        error = design @ coefficients - wanted
        sigma = 1.4826 * float(np.median(np.abs(error))) + 1e-9
        weight = nearness * (np.abs(error) < OUTLIER_SIGMAS * sigma) + 1e-9
    at_point = np.zeros(design.shape[1])
    at_point[2] = 1.0
    return _Fit(coefficients, error, sigma, weighted @ np.linalg.solve(matrix, at_point))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])
