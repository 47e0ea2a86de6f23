"""The depth of the surface at a pixel, from all of that surface that lies around it and nothing else.

One depth pixel may be a hole, a flying pixel between two surfaces, or noise; a mean or median over a window
mixes the thing with its background. Here the pixels that are joined to the point without a step in depth are
taken (`surfaces.py`), and a gently bent surface is fitted to them that ignores outliers. A plane in space is
exactly linear in inverse depth over the undistorted image, so the fit is a small weighted least-squares
problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth_image import check_depth_m
from molmo_ros.geometry.depth_profile import D435, DepthProfile
from molmo_ros.geometry.quantile import median, quantile
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.geometry.surfaces import (
    LINK_M,
    LINK_SIGMAS,
    SPECK_PIXELS,
    SPECK_SHARE,
    Choice,
    Surroundings,
    choose,
    look_around,
)
from molmo_ros.outcome import Code, PointingError

# Pointing is taken to err by at most this share of the image's width when surfaces are chosen (8 px at 640);
# a pointer less sure than that gives no reason to look for the thing elsewhere.
LARGEST_SIGMA = 1 / 80
PLANE_PIXELS = 12
# From so many pixels, and so thick, a component shows its curvature.
BENT_PIXELS = 40
BENT_THICKNESS_PX = 1.2
FIT_ROUNDS = 3
OUTLIER_SIGMAS = 2.5
# A component thinner than this many pixels (standard deviation across) gives no slope.
THINNEST_PX = 0.5
# A fit that leaves the component's own depths (but for its outermost pixels) by more than LINK_M has been
# extrapolated too far; it is held to them.
DEPTH_QUANTILES = (0.02, 0.98)
# A surface whose rays meet it at less than this angle (sine; 3 degrees) is seen edge-on.
EDGE_ON_SINE = 0.05
# Pixels this many standard deviations off the surface are not it.
OFF_SIGMAS = 3.0
# A thin surface with this share of nearer and of farther neighbours is a step of one seen edge-on.
STAIR_SHARE = 0.25
# The grid of pixels cannot weigh places with a finer pointing than this; its result is scaled.
LEAST_SIGMA_PX = 0.5
# Side of the square in which a pixel without return finds what lies behind.
HOLE_REACH = 9


@dataclass(frozen=True, eq=False)
class DepthSample:
    """The surface seen at a pixel.

    `u`, `v`: the pixel that was measured, the one asked for unless that fell beside a thing; `pixel`: row and
    column of the surface's own pixel nearest to it. `depth_m` along
    the optical axis; `valid_ratio`: share of the pixels around with a return; `spread_m`: robust standard
    deviation of the surface's pixels about the fit, along the optical axis; `sigma_m`: standard error of
    `depth_m` for an exact pixel; `normal_cam`: unit normal towards the camera, camera frame, NaN when the
    surface is too small to show one; `pixels_used`: pixels of the surface. `rival_depth_m`: depth of another
    surface that may as well be meant, NaN when there is none. `pointing_cov_cam`: covariance (3x3, m^2,
    camera frame) of where the thing is because the pixel is uncertain, from all that may have been meant;
    NaN when `sigma_px` was 0.
    """

    u: float
    v: float
    pixel: tuple[int, int]
    depth_m: float
    valid_ratio: float
    spread_m: float
    sigma_m: float
    normal_cam: np.ndarray
    pixels_used: int
    rival_depth_m: float
    pointing_cov_cam: np.ndarray

    @property
    def ambiguous(self) -> bool:
        """Whether two surfaces may be meant, and which of them cannot be told."""
        return bool(np.isfinite(self.rival_depth_m))


def depth_at(
    depth_m: np.ndarray,
    camera: CameraModel,
    u: float,
    v: float,
    *,
    profile: DepthProfile = D435,
    radius_px: int | None = None,
    sigma_px: float = 0.0,
    support: SupportPlane | None = None,
) -> DepthSample:
    """Depth of the surface at pixel (u, v) of an HxW float32 depth image (metres, NaN = no return).

    `radius_px`: half the side of the square that the surface is fitted in; by default 1/64 of the image's
    width (10 at 640). `sigma_px`: standard deviation of the point per image axis; with it other surfaces
    nearby are weighed, and with `support` (camera frame) a point beside a thing is taken to mean the thing.

    Raises PointingError: INVALID_REQUEST for a point off the image or a `sigma_px` or `radius_px` that is
    none, BAD_IMAGE for what is no depth image of this camera, NO_DEPTH when no surface lies at the point,
    AMBIGUOUS_DEPTH when it is seen edge-on or too small to be measured, BAD_CAMERA_INFO beyond the lens's
    monotonic region.
    """
    radius = radius_px if radius_px is not None else max(5, round(camera.width / 64))
    _check_request(depth_m, camera, u, v, sigma_px, radius)
    around = look_around(
        depth_m,
        camera,
        u,
        v,
        sigma_px=min(sigma_px, LARGEST_SIGMA * camera.width),
        radius_px=radius,
        smallest_px=max(SPECK_PIXELS, SPECK_SHARE * (2 * radius + 1) ** 2),
        profile=profile,
        support=support,
    )
    return _measured(around, choose(around), camera, profile, radius, sigma_px)


def _check_request(
    depth_m: np.ndarray, camera: CameraModel, u: float, v: float, sigma_px: float, radius_px: int
) -> None:
    check_depth_m(depth_m, camera)
    if not camera.contains(u, v):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"point ({u:.1f}, {v:.1f}) is not on the {camera.width}x{camera.height} image",
        )
    if not 0 <= sigma_px < np.inf:
        raise PointingError(Code.INVALID_REQUEST, f"sigma_px is {sigma_px}, must be a number of at least 0")
    if radius_px < 2:
        raise PointingError(Code.INVALID_REQUEST, f"radius_px is {radius_px}, must be at least 2")


def _measured(
    around: Surroundings,
    choice: Choice,
    camera: CameraModel,
    profile: DepthProfile,
    radius_px: int,
    sigma_px: float,
) -> DepthSample:
    """The sample of the chosen surface at the chosen pixel."""
    near = around.within(choice.u, choice.v, radius_px)
    rows, columns = np.nonzero(choice.surface & near)
    z = around.depth_m[rows, columns]
    from_point_px = np.hypot(columns + around.left - choice.u, rows + around.top - choice.v)
    nearness = np.exp(-0.5 * (from_point_px / (0.5 * radius_px)) ** 2)
    thickness_px = _thickness_px(columns, rows) if z.size >= PLANE_PIXELS else 0.0
    if thickness_px < THINNEST_PX:
        surface = _flat_surface(z, nearness, profile, camera.fx)
        _refuse_a_stair(around, choice.surface, surface)
    else:
        at_xy = camera.normalised([[choice.u, choice.v]])[0]
        xy = around.xy[rows, columns]
        if not (np.isfinite(xy).all() and np.isfinite(at_xy).all()):
            raise PointingError(
                Code.BAD_CAMERA_INFO,
                f"the distortion polynomial folds over before pixel ({choice.u:.0f}, {choice.v:.0f}); point "
                "nearer to the image's centre or calibrate with the board shown in the corners too",
            )
        surface = _fitted_surface(at_xy, xy, z, nearness, thickness_px, profile, camera)
    asked = around.within(around.u, around.v, radius_px)
    return DepthSample(
        u=choice.u,
        v=choice.v,
        pixel=choice.pixel,
        depth_m=surface.depth_m,
        valid_ratio=float(np.isfinite(around.depth_m[asked]).mean()),
        spread_m=surface.spread_m,
        sigma_m=surface.sigma_m,
        normal_cam=surface.normal_cam,
        pixels_used=z.size,
        rival_depth_m=choice.rival_depth_m,
        pointing_cov_cam=_pointing_cov_cam(around, choice, surface, camera, sigma_px),
    )


@dataclass(frozen=True, eq=False)
class _Surface:
    """A surface about a pixel: depth and errors there, unit normal, and its plane 1/z = `gradient` . (x, y, 1).

    `noise_m`: standard deviation of one of its pixels.
    """

    depth_m: float
    spread_m: float
    sigma_m: float
    noise_m: float
    normal_cam: np.ndarray
    gradient: np.ndarray


def _thickness_px(columns: np.ndarray, rows: np.ndarray) -> float:
    """Standard deviation of a pixel set across its thinnest direction."""
    across, down = columns - columns.mean(), rows - rows.mean()
    a, b, d = float(across @ across), float(across @ down), float(down @ down)
    least = (a + d) / 2 - np.hypot((a - d) / 2, b)  # the smaller eigenvalue of their scatter
    return float(np.sqrt(max(least / (len(rows) - 1), 0.0)))


def _flat_surface(z: np.ndarray, nearness: np.ndarray, profile: DepthProfile, focal_px: float) -> _Surface:
    """A surface too small to have a slope: its median, and no normal."""
    depth = _weighted_median(z, nearness)
    spread = 1.4826 * median(np.abs(z - depth))
    sigma = max(float(profile.sigma_z_m(depth, focal_px)), spread)
    return _Surface(depth, spread, sigma, sigma, np.full(3, np.nan), np.array([0.0, 0.0, 1.0 / depth]))


def _refuse_a_stair(around: Surroundings, thin: np.ndarray, surface: _Surface) -> None:
    """A row of pixels between a nearer and a farther one is no thread but a step of a surface seen edge-on."""
    beside = (cv2.dilate(thin.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~thin
    z = around.depth_m[beside & np.isfinite(around.depth_m)]
    step = max(LINK_M, LINK_SIGMAS * surface.noise_m)
    nearer, farther = float((z < surface.depth_m - step).sum()), float((z > surface.depth_m + step).sum())
    if min(nearer, farther) > STAIR_SHARE * np.count_nonzero(beside):
        raise PointingError(
            Code.AMBIGUOUS_DEPTH,
            f"the surface at the point, some {surface.depth_m:.3f} m away, is seen edge-on; point at a side that "
            "faces the camera more",
        )


def _fitted_surface(
    at_xy: np.ndarray,
    xy: np.ndarray,
    z: np.ndarray,
    nearness: np.ndarray,
    thickness_px: float,
    profile: DepthProfile,
    camera: CameraModel,
) -> _Surface:
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

    lowest, highest = (quantile(z, share) for share in DEPTH_QUANTILES)
    a, b, c = plane.coefficients[0] / reach, plane.coefficients[1] / reach, plane.coefficients[2]
    # n . P = 1 for the plane's points P = z (x, y, 1), so this is along the normal, away from us
    gradient = np.array([a, b, c - a * at_xy[0] - b * at_xy[1]])
    ray = np.array([*at_xy, 1.0])
    sine = float(gradient @ ray / (np.linalg.norm(gradient) * np.linalg.norm(ray)))
    inverse_depth = surface.coefficients[2]
    if sine < EDGE_ON_SINE or inverse_depth <= 0:
        raise PointingError(
            Code.AMBIGUOUS_DEPTH,
            f"the surface at the point is seen edge-on, from {lowest:.3f} to {highest:.3f} m away; "
            "point at a side that faces the camera more",
        )
    depth = float(np.clip(1.0 / inverse_depth, lowest - LINK_M, highest + LINK_M))
    spread = surface.sigma * depth**2
    noise = max(float(profile.sigma_z_m(depth, camera.fx)), spread)
    # what neighbours share counts once; no fit is worse than the pixels it was made of
    shared = min(profile.pixels_per_sample, float(len(z)))
    sigma = noise * min(1.0, float(np.sqrt((surface.lever**2).sum() * shared)))
    normal_cam = camera.R_cam_image @ (-gradient / np.linalg.norm(gradient))
    return _Surface(depth, spread, sigma, noise, normal_cam, gradient)


def _pointing_cov_cam(
    around: Surroundings, choice: Choice, surface: _Surface, camera: CameraModel, sigma_px: float
) -> np.ndarray:
    """Second moment (3x3) of the places that may have been meant about the one that was answered.

    Every plausible pixel counts as the point makes it likely. A pixel of the chosen surface within its noise
    is put onto the surface; the noise itself is in `sigma_m`. What gives no return may have been meant too: it
    is mostly the side of a thing that one eye of the camera does not see, down to what lies behind it.
    """
    if sigma_px == 0:
        return np.full((3, 3), np.nan)
    weighed_px = max(around.sigma_px, LEAST_SIGMA_PX)
    depth_m = np.nan_to_num(around.depth_m)
    behind = cv2.dilate(depth_m, np.ones((HOLE_REACH, HOLE_REACH), np.uint8))
    hole = (depth_m == 0) & (behind > 0)
    weight = np.where(choice.plausible | hole, around.nearness(weighed_px), 0.0)
    likely = (weight > 1e-4 * weight.max()) & np.isfinite(around.xy[..., 0])
    rays = np.column_stack([around.xy[likely], np.ones(np.count_nonzero(likely))])
    z = np.where(hole, behind, depth_m)[likely]
    on_plane = 1.0 / np.maximum(rays @ surface.gradient, 1e-6)
    within_noise = choice.surface[likely] & (np.abs(z - on_plane) < OFF_SIGMAS * surface.noise_m)
    points = rays * np.where(within_noise, on_plane, z)[:, None]
    answer = np.array([*camera.normalised([[choice.u, choice.v]])[0], 1.0]) * surface.depth_m
    off = (points - answer) @ camera.R_cam_image.T
    cov: np.ndarray = (off * weight[likely][:, None]).T @ off / weight[likely].sum()
    across = camera.R_cam_image[:, :2]
    within_pixel = (surface.depth_m / camera.fx) ** 2 / 12 * across @ across.T
    cut_off = 1.0 - weight.sum() / around.nearness(weighed_px).sum()
    return cov * (1.0 + cut_off) * (sigma_px / weighed_px) ** 2 + within_pixel


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
        sigma = 1.4826 * median(np.abs(error)) + 1e-9
        weight = nearness * (np.abs(error) < OUTLIER_SIGMAS * sigma) + 1e-9
    at_point = np.zeros(design.shape[1])
    at_point[2] = 1.0
    return _Fit(coefficients, error, sigma, weighted @ np.linalg.solve(matrix, at_point))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])
