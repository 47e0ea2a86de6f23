"""The plane that things stand on: table, floor or shelf, found in a depth image by RANSAC and kept from frame
to frame.

A plane in space is linear in inverse depth: 1/z = g . ray for every ray (x, y, 1), with g along the plane's
normal. A stereo camera's inverse depth is equally noisy everywhere, so inliers are counted there, in units of
the sensor's own noise. RANSAC: Fischler & Bolles, CACM 1981; truncated-cost scoring (MSAC): Torr & Zisserman,
CVIU 2000. Of all planes in view only those that agree with what is known beforehand are looked at: which way
is up, and perhaps where the surface should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth_image import check_depth_m
from molmo_ros.geometry.depth_profile import D435, DepthProfile
from molmo_ros.geometry.pose import check_rigid, inverse
from molmo_ros.outcome import Code, PointingError

# Depth is looked at on a grid of about this many points, whatever the image's size.
GRID_POINTS = 3500
# Hypotheses, and the points they are scored on: one in six triples hits a plane that fills 55 % of the view,
# one in forty a plane that fills 30 %; 200 triples miss the latter once in 150 frames.
HYPOTHESES = 200
SCORED_POINTS = 500
# An inlier is within this many standard deviations of the sensor's noise, and never needs to be nearer than
# LEAST_INLIER_M: tables are not flat.
INLIER_SIGMAS = 3.0
LEAST_INLIER_M = 0.003
REFINEMENTS = 4
# A plane that fewer of the points lie on, or fewer points at all, is no support.
LEAST_SHARE = 0.12
LEAST_POINTS = 60
# Rays that meet the plane at less than this angle (sine) on average see it edge-on: its height is anything.
EDGE_ON_SINE = 0.05


@dataclass(frozen=True, eq=False)
class SupportPlane:
    """All points P (metres, camera frame) with `normal_cam . P = offset_m`.

    `normal_cam` (3,) is the unit normal towards the camera's side, which is up for a table. `spread_m`:
    robust standard deviation of the inliers along the optical axis; `inlier_ratio`: their share of all depth.
    """

    normal_cam: np.ndarray
    offset_m: float
    spread_m: float
    inlier_ratio: float

    def height_m(self, points_cam_N3: npt.ArrayLike) -> np.ndarray:
        """Heights (N,) of points above the plane, negative below it."""
        return np.asarray(points_cam_N3, dtype=float) @ self.normal_cam - self.offset_m

    def moved(self, T_to_from: np.ndarray) -> SupportPlane:
        """The same plane in another frame, given the transform from this one's frame to that."""
        check_rigid("T_to_from", T_to_from)
        normal = T_to_from[:3, :3] @ self.normal_cam
        offset = self.offset_m + float(normal @ T_to_from[:3, 3])
        return SupportPlane(normal, offset, self.spread_m, self.inlier_ratio)


@dataclass(frozen=True, eq=False)
class PlanePrior:
    """What is known of the plane before looking.

    `up_cam` (3,) is its normal as expected, camera frame, within `max_tilt_rad`. With `offset_m` the plane is
    also expected at `up_cam . P = offset_m`, within `max_offset_m` (measured where the camera sees it).
    """

    up_cam: np.ndarray
    max_tilt_rad: float = 0.20
    offset_m: float | None = None
    max_offset_m: float = 0.05

    def __post_init__(self) -> None:
        up = np.asarray(self.up_cam, dtype=float)
        if up.shape != (3,) or not np.isfinite(up).all() or np.linalg.norm(up) < 1e-6:
            raise PointingError(Code.INVALID_REQUEST, f"up_cam {self.up_cam} is not a direction")
        if not 0 < self.max_tilt_rad < np.pi / 2:
            raise PointingError(
                Code.INVALID_REQUEST, f"max_tilt_rad is {self.max_tilt_rad}, must be in 0 .. pi/2"
            )
        if self.offset_m is not None and not (np.isfinite(self.offset_m) and self.max_offset_m > 0):
            raise PointingError(
                Code.INVALID_REQUEST,
                f"offset_m {self.offset_m} +- max_offset_m {self.max_offset_m} is not a range",
            )
        object.__setattr__(self, "up_cam", up / np.linalg.norm(up))

    @classmethod
    def from_gravity(cls, T_base_camera: np.ndarray, max_tilt_rad: float = 0.20) -> PlanePrior:
        """Any level plane: z of the base frame is up."""
        check_rigid("T_base_camera", T_base_camera)
        return cls(T_base_camera[2, :3], max_tilt_rad)

    @classmethod
    def from_frame(
        cls,
        T_base_camera: np.ndarray,
        T_base_support: np.ndarray,
        max_tilt_rad: float = 0.10,
        max_offset_m: float = 0.05,
    ) -> PlanePrior:
        """The x-y plane of a given frame (a table's, say), give or take."""
        check_rigid("T_base_camera", T_base_camera)
        check_rigid("T_base_support", T_base_support)
        T_camera_support = inverse(T_base_camera) @ T_base_support
        up = T_camera_support[:3, 2]
        return cls(up, max_tilt_rad, float(up @ T_camera_support[:3, 3]), max_offset_m)


def fit_support_plane(
    depth_m: np.ndarray,
    camera: CameraModel,
    prior: PlanePrior,
    *,
    profile: DepthProfile = D435,
    seed: int = 0,
) -> SupportPlane:
    """The plane that most of the depth image (HxW float32 metres, NaN = no return) lies on, near the prior.

    The same image, prior and seed give the same plane. Raises PointingError: BAD_IMAGE for what is no depth
    image of this camera, NO_DEPTH when no such plane is in view, AMBIGUOUS_DEPTH when it is seen edge-on.
    """
    return _searched(_Samples.of(depth_m, camera, profile), prior, np.random.default_rng(seed))


class SupportPlaneTracker:
    """Follows one support plane through a stream of frames, told where the camera is.

    Each frame starts from the plane of the last, which costs less than a search; a search is made when too
    little lies on it. While something stands before the plane the last one is kept, for `hold_s`, unless what
    is seen lies behind it and so refutes it.
    """

    STILL_THERE = 0.7
    REFUTING_SHARE = 0.2

    def __init__(self, *, profile: DepthProfile = D435, hold_s: float = 2.0) -> None:
        self._profile = profile
        self._hold_ns = round(hold_s * 1e9)
        self._last: SupportPlane | None = None
        self._last_share_behind = 0.0
        self._last_ns = 0

    def update(
        self,
        depth_m: np.ndarray,
        camera: CameraModel,
        T_fixed_camera: np.ndarray,
        stamp_ns: int,
        prior: PlanePrior | None = None,
    ) -> SupportPlane:
        """The plane in this frame's camera frame.

        `T_fixed_camera` is the camera's pose at `stamp_ns` in a frame that the support does not move in;
        `prior` is by default that this frame's z is up.

        Raises what `fit_support_plane` raises once there is no plane to hold on to, and
        PointingError(TF_UNAVAILABLE) for a transform that is not rigid.
        """
        prior = prior or PlanePrior.from_gravity(T_fixed_camera)
        samples = _Samples.of(depth_m, camera, self._profile)
        last = self._last.moved(inverse(T_fixed_camera)) if self._last is not None else None
        plane = _followed(last, samples, prior)
        if plane is None or last is None or plane.inlier_ratio < self.STILL_THERE * last.inlier_ratio:
            try:
                plane = _searched(samples, prior, np.random.default_rng(0))
            except PointingError:
                if last is None or stamp_ns - self._last_ns > self._hold_ns:
                    raise
                plane = None
        if last is not None and (plane is None or _differ(plane, last, samples)):
            # another plane, or none: is the old one hidden, or gone?
            hidden = samples.share_behind(last) < self._last_share_behind + self.REFUTING_SHARE
            if hidden and stamp_ns - self._last_ns <= self._hold_ns:
                return last
            if plane is None:
                raise _none_found(prior)
        assert plane is not None
        self._last = plane.moved(T_fixed_camera)
        self._last_ns, self._last_share_behind = stamp_ns, samples.share_behind(plane)
        return plane


@dataclass(frozen=True, eq=False)
class _Samples:
    """Depth on a grid: rays (N, 3) from `origin_cam`, inverse depths and how near a plane's must come."""

    rays_N3: np.ndarray
    inverse_depth_N: np.ndarray
    tolerance_N: np.ndarray
    origin_cam: np.ndarray

    @classmethod
    def of(cls, depth_m: np.ndarray, camera: CameraModel, profile: DepthProfile) -> _Samples:
        check_depth_m(depth_m, camera)
        stride = max(1, round(np.sqrt(depth_m.size / GRID_POINTS)))
        z = depth_m[stride // 2 :: stride, stride // 2 :: stride].ravel().astype(float)
        rays = _grid_rays(camera, stride)
        seen = np.isfinite(z) & (z > 0)
        seen &= np.isfinite(rays[:, 0])
        if seen.sum() < LEAST_POINTS:
            raise PointingError(
                Code.NO_DEPTH,
                f"no support plane: only {seen.sum()} of {len(z)} points looked at have depth, needs "
                f"{LEAST_POINTS}; check the depth camera",
            )
        z, rays = z[seen], rays[seen]
        sigma_z = np.asarray(profile.sigma_z_m(z, camera.fx))
        tolerance = np.maximum(INLIER_SIGMAS * sigma_z, LEAST_INLIER_M) / z**2
        return cls(rays, 1.0 / z, tolerance, camera.ray_origin_cam)

    def misses(self, gradient: np.ndarray) -> np.ndarray:
        """How far (N,) the samples are from a plane, in units of the tolerance; negative is behind it."""
        return (self.inverse_depth_N - self.rays_N3 @ gradient) / self.tolerance_N

    def points_cam(self, chosen: np.ndarray) -> np.ndarray:
        return self.rays_N3[chosen] / self.inverse_depth_N[chosen, None] + self.origin_cam

    def share_behind(self, plane: SupportPlane) -> float:
        """Share of the samples that lie beyond a plane, where it would have hidden them."""
        return float((self.misses(_gradient(plane, self.origin_cam)) < -1).mean())


@lru_cache(maxsize=4)
def _grid_rays(camera: CameraModel, stride: int) -> np.ndarray:
    rows, columns = np.mgrid[stride // 2 : camera.height : stride, stride // 2 : camera.width : stride]
    return camera.rays(np.column_stack([columns.ravel(), rows.ravel()]))


def _gradient(plane: SupportPlane, origin_cam: np.ndarray) -> np.ndarray:
    """g of 1/z = g . ray."""
    return plane.normal_cam / (plane.offset_m - float(plane.normal_cam @ origin_cam))


def _searched(samples: _Samples, prior: PlanePrior, rng: np.random.Generator) -> SupportPlane:
    gradient = _best_hypothesis(samples, prior, rng)
    plane = None if gradient is None else _followed_gradient(gradient, samples, prior)
    if plane is None:
        raise _none_found(prior)
    return plane


def _followed(last: SupportPlane | None, samples: _Samples, prior: PlanePrior) -> SupportPlane | None:
    """The plane that the samples show near the last one, or None."""
    if last is None or last.height_m(samples.origin_cam) <= 0:
        return None
    return _followed_gradient(_gradient(last, samples.origin_cam), samples, prior)


def _best_hypothesis(samples: _Samples, prior: PlanePrior, rng: np.random.Generator) -> np.ndarray | None:
    """The plane through three samples that agrees with the prior and has the lowest truncated cost."""
    count = len(samples.inverse_depth_N)
    triples = rng.integers(0, count, (HYPOTHESES, 3))
    corners = samples.rays_N3[triples]
    volume = np.abs(np.linalg.det(corners))
    triples, corners = triples[volume > 1e-6], corners[volume > 1e-6]
    if len(triples) == 0:
        return None
    gradients = np.linalg.solve(corners, samples.inverse_depth_N[triples][..., None])[..., 0]
    length = np.linalg.norm(gradients, axis=1)
    upright = gradients @ prior.up_cam < -np.cos(prior.max_tilt_rad) * length
    if prior.offset_m is not None:
        middles = (corners / samples.inverse_depth_N[triples][..., None]).mean(axis=1) + samples.origin_cam
        upright &= np.abs(middles @ prior.up_cam - prior.offset_m) < prior.max_offset_m
    gradients = gradients[upright]
    if len(gradients) == 0:
        return None
    scored = rng.integers(0, count, min(SCORED_POINTS, count))
    predicted = gradients @ samples.rays_N3[scored].T
    miss = (predicted - samples.inverse_depth_N[scored]) / samples.tolerance_N[scored]
    best: np.ndarray = gradients[np.minimum(miss * miss, 1.0).sum(axis=1).argmin()]
    return best


def _followed_gradient(gradient: np.ndarray, samples: _Samples, prior: PlanePrior) -> SupportPlane | None:
    """The plane refined on all samples near it (Tukey's biweight), or None when it is none any more."""
    inverse_noise = 1.0 / samples.tolerance_N
    for _ in range(REFINEMENTS):
        miss = samples.misses(gradient)
        weight = np.square(np.maximum(1.0 - miss * miss, 0.0)) * inverse_noise**2
        weighted = samples.rays_N3 * weight[:, None]
        matrix = weighted.T @ samples.rays_N3
        if np.count_nonzero(weight) < LEAST_POINTS or np.linalg.cond(matrix) > 1e12:
            return None
        gradient = np.linalg.solve(matrix, weighted.T @ samples.inverse_depth_N)
    miss = samples.misses(gradient)
    inliers = np.abs(miss) < 1
    share = float(inliers.mean())
    length = float(np.linalg.norm(gradient))
    if share < LEAST_SHARE or inliers.sum() < LEAST_POINTS:
        return None
    normal = -gradient / length
    if normal @ prior.up_cam < np.cos(prior.max_tilt_rad):
        return None
    points = samples.points_cam(inliers)
    if prior.offset_m is not None:
        off = float((points @ prior.up_cam).mean()) - prior.offset_m
        if abs(off) > prior.max_offset_m:
            return None
    rays = samples.rays_N3[inliers]
    sine = float(np.median(np.abs(rays @ normal) / np.linalg.norm(rays, axis=1)))
    if sine < EDGE_ON_SINE:
        raise PointingError(
            Code.AMBIGUOUS_DEPTH,
            f"the support plane is seen edge-on (at {np.degrees(np.arcsin(sine)):.1f} degrees), so heights "
            "above it mean nothing; raise the camera",
        )
    away = 1.0 / samples.inverse_depth_N[inliers]
    errors = (miss * samples.tolerance_N)[inliers] * away**2
    spread = 1.4826 * float(np.median(np.abs(errors)))
    offset = -1.0 / length + float(normal @ samples.origin_cam)
    return SupportPlane(normal, offset, spread, share)


def _differ(plane: SupportPlane, last: SupportPlane, samples: _Samples) -> bool:
    """Whether two planes are far apart where the samples are: they are not one table seen twice."""
    nearest = samples.points_cam(np.abs(samples.misses(_gradient(plane, samples.origin_cam))) < 1)
    return bool(np.median(np.abs(last.height_m(nearest))) > 0.02)


def _none_found(prior: PlanePrior) -> PointingError:
    where = (
        ""
        if prior.offset_m is None
        else f" within {prior.max_offset_m:g} m of where it should be ({prior.offset_m:.3f} m along up)"
    )
    return PointingError(
        Code.NO_DEPTH,
        f"no support plane in view within {np.degrees(prior.max_tilt_rad):.0f} degrees of level{where}: less "
        f"than {100 * LEAST_SHARE:.0f} % of the depth image lies on one; look at the table, or correct what "
        "is known of it",
    )
