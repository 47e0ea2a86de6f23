"""How a parallel gripper takes hold of a thing: where, turned how, opened how far, and by which way.

The thing is looked at along the approach: from above, or against the surface at the point. The smallest
rectangle around its top slab gives the middle and the closing direction; a gripper closes along the shorter
side. What is the same to the gripper is listed: half a turn always, the other side of a thing that is narrow
both ways, any direction for a round one. Axes of a grasp: z = approach, x = closing direction, origin between
the finger tips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import get_args

import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth import DepthSample
from molmo_ros.geometry.depth_profile import D435, DepthProfile
from molmo_ros.geometry.footprint import Footprint, footprint_of
from molmo_ros.geometry.gripper_room import (
    DEFAULT_GRIPPER,
    Gripper,
    GripperRoom,
    finger_boxes,
    free_room_m,
    opening_needed_m,
)
from molmo_ros.geometry.object_region import ObjectRegion, object_region
from molmo_ros.geometry.pose import Approach, check_rigid, inverse, tool_rotation
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.geometry.uncertainty import EXACTLY_MOUNTED, ExtrinsicError, mounting_cov_cam
from molmo_ros.outcome import Code, Outcome, PointingError

# The rectangle is that of what lies within this of the top.
SLAB_M = 0.009
# The top is this many points down from the highest, which is a flying pixel.
TOP_POINT = 10
NEAR_TOP_SIGMAS = 3.0
SMALLEST_SLAB = 12
# Nothing further away from the middle is in a gripper's way.
FURTHEST_M = 0.25
# Less of the thing between the fingers than this is no hold.
LEAST_HOLD_M = 0.004
# A round thing is tried from so many sides.
ROUND_DIRECTIONS = 8
# Room beyond this makes no closing better than another.
AMPLE_ROOM_M = 0.04
# Levels seen more grazing than this (sine) count as seen so: a pixel covers no more there.
GRAZING = 0.2
# What lies this many standard deviations before a place hides it.
HIDING_SIGMAS = 3.0
_NORMAL = NormalDist()


@dataclass(frozen=True, eq=False)
class Grasp:
    """One way to close the gripper: `T_base_grasp` (4x4), the thing's `width_m` along the closing direction,
    and what the fingers meet.
    """

    T_base_grasp: np.ndarray
    width_m: float
    room: GripperRoom
    outcome: Outcome

    @property
    def yaw_rad(self) -> float:
        """Direction of closing in the base's x-y plane, from x, in -pi/2 .. pi/2."""
        x, y, _ = self.T_base_grasp[:3, 0]
        return float((np.arctan2(y, x) + np.pi / 2) % np.pi - np.pi / 2)

    @property
    def opening_m(self) -> float:
        """How far the fingers must be open to pass the thing on their way down."""
        return self.room.opening_m

    def poses(self, *, approach_m: float = 0.10, retreat_m: float = 0.10) -> GraspPoses:
        """Before, at and after this grasp; see `grasp_poses`."""
        return grasp_poses(self.T_base_grasp, approach_m=approach_m, retreat_m=retreat_m)


@dataclass(frozen=True, eq=False)
class GraspPlan:
    """The thing's extent and the ways to take it, best first.

    `footprint` of its top slab, seen along the approach, in the plane z = 0 of `T_base_plan` (4x4), whose z
    points against the approach; `top_base_m` (3,): the footprint's middle on the thing's top; `height_m` above
    the support; `position_cov_m2` (3x3, base frame) of the middle. Half a turn of a grasp is listed as a grasp
    of its own. A grasp may be used only when its `outcome.ok`; the plan's own is that of the best one, or says
    why the extent cannot be trusted.
    """

    footprint: Footprint
    T_base_plan: np.ndarray
    top_base_m: np.ndarray
    height_m: float
    position_cov_m2: np.ndarray
    grasps: tuple[Grasp, ...]
    outcome: Outcome

    @property
    def usable(self) -> tuple[Grasp, ...]:
        """The grasps that may be tried, best first; none when the plan as a whole cannot be trusted."""
        return tuple(grasp for grasp in self.grasps if grasp.outcome.ok) if self.outcome.ok else ()

    def moved(self, T_to_from: np.ndarray) -> GraspPlan:
        """The same plan in another base frame, given the transform from this one's frame to that."""
        check_rigid("T_to_from", T_to_from)
        R, t = T_to_from[:3, :3], T_to_from[:3, 3]
        return replace(
            self,
            T_base_plan=T_to_from @ self.T_base_plan,
            top_base_m=R @ self.top_base_m + t,
            position_cov_m2=R @ self.position_cov_m2 @ R.T,
            grasps=tuple(
                replace(grasp, T_base_grasp=T_to_from @ grasp.T_base_grasp) for grasp in self.grasps
            ),
        )


@dataclass(frozen=True, eq=False)
class GraspPoses:
    """The way of a grasp, 4x4 poses in the base frame: before it, at it, and lifted after it."""

    approach: np.ndarray
    grasp: np.ndarray
    retreat: np.ndarray


def grasp_poses(T_base_grasp: np.ndarray, *, approach_m: float = 0.10, retreat_m: float = 0.10) -> GraspPoses:
    """Come `approach_m` along the approach, leave `retreat_m` straight up (z of the base frame).

    Raises PointingError: TF_UNAVAILABLE for a pose that is not rigid, INVALID_REQUEST for negative offsets.
    """
    check_rigid("T_base_grasp", T_base_grasp)
    if not (0 <= approach_m < np.inf and 0 <= retreat_m < np.inf):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"approach_m {approach_m} and retreat_m {retreat_m} must be numbers of at least 0",
        )
    before, after = T_base_grasp.copy(), T_base_grasp.copy()
    before[:3, 3] -= approach_m * T_base_grasp[:3, 2]
    after[2, 3] += retreat_m
    return GraspPoses(before, T_base_grasp, after)


def plan_grasp(
    depth_m: np.ndarray,
    camera: CameraModel,
    T_base_camera: np.ndarray,
    support: SupportPlane,
    sample: DepthSample,
    *,
    gripper: Gripper = DEFAULT_GRIPPER,
    approach: Approach = "top_down",
    profile: DepthProfile = D435,
    extrinsic: ExtrinsicError = EXACTLY_MOUNTED,
) -> GraspPlan:
    """How to take the thing whose surface `sample` (of `depth_at`, in the same depth image) is.

    `support` in the camera frame. `approach`: "top_down" comes against the support's normal, "surface_normal"
    against the surface's at the sample.

    Raises PointingError: NO_DEPTH when nothing with an extent stands at the point, AMBIGUOUS_DEPTH when the
    surface's normal is wanted and unknown, TF_UNAVAILABLE for a transform that is not rigid, BAD_IMAGE,
    INVALID_REQUEST for an unknown approach.
    """
    check_rigid("T_base_camera", T_base_camera)
    view = _View(T_base_camera, _R_camera_plan(T_base_camera, support, sample, approach), camera)
    region = object_region(depth_m, camera, support, sample, profile=profile)
    own, others = view.plan(region.points_cam), view.plan(region.surroundings_cam)
    sigma_z_m = float(profile.sigma_z_m(sample.depth_m, camera.fx))
    noise_m = min(sample.spread_m, 1.5 * sigma_z_m)
    top_level = _top_of(own[:, 2], noise_m)
    slab = own[own[:, 2] > min(top_level - SLAB_M, _highest(own[:, 2], SMALLEST_SLAB))]
    steps = view.pixel_steps(np.median(slab, axis=0))
    footprint = footprint_of(slab[:, :2], *steps)
    middle = np.array([*footprint.centre, top_level])
    tip_level = _tip_level(view, middle, support, gripper)
    margin_m = 0.5 * float(np.linalg.norm(steps, axis=1).max())

    own = own[own[:, 2] > tip_level]
    near = np.abs(others[:, :2] - middle[:2]).max(axis=1, initial=0.0) < FURTHEST_M
    others = others[near & (others[:, 2] > tip_level)]
    yaws = _closings(footprint)
    frames = [_closing_frame(yaw, middle) for yaw in yaws]
    openings = [opening_needed_m(_in_frame(T, own), gripper, tip_level, margin_m) for T in frames]
    boxes = [
        [_from_frame(T, box) for box in finger_boxes(gripper, opening, tip_level, top_level)]
        for T, opening in zip(frames, openings, strict=True)
    ]
    hidden = view.hidden_shares(np.array(boxes), depth_m, sigma_z_m)
    closings = [
        (
            yaw,
            GripperRoom(
                opening, free_room_m(_in_frame(T, others), gripper, opening, tip_level), (left, right)
            ),
        )
        for yaw, T, opening, (left, right) in zip(yaws, frames, openings, hidden.tolist(), strict=True)
    ]
    grasps = _grasps(view, middle, tip_level, footprint, closings, gripper)
    plan_cov = np.diag([*(np.square(steps).sum(axis=0)), sigma_z_m**2])
    R_base_plan = T_base_camera[:3, :3] @ view.R_camera_plan
    top_base = view.base(middle[None])[0]
    top_cam = (inverse(T_base_camera) @ [*top_base, 1.0])[:3]
    R_base_camera = T_base_camera[:3, :3]
    T_base_plan = np.eye(4)
    T_base_plan[:3, :3] = R_base_plan
    mounting = R_base_camera @ mounting_cov_cam(top_cam, extrinsic) @ R_base_camera.T
    return GraspPlan(
        footprint=footprint,
        T_base_plan=T_base_plan,
        top_base_m=top_base,
        height_m=_top_of(region.height_m, noise_m),
        position_cov_m2=R_base_plan @ plan_cov @ R_base_plan.T + mounting,
        grasps=grasps,
        outcome=_outcome(region, top_level - tip_level, grasps),
    )


@dataclass(frozen=True, eq=False)
class _View:
    """The scene in plan coordinates (x, y, level): `R_camera_plan` has their axes, level against the approach,
    and the origin is the base frame's.
    """

    T_base_camera: np.ndarray
    R_camera_plan: np.ndarray
    camera: CameraModel

    def plan(self, points_cam_N3: np.ndarray) -> np.ndarray:
        shift = self.T_base_camera[:3, :3].T @ self.T_base_camera[:3, 3]
        coordinates: np.ndarray = (points_cam_N3 + shift) @ self.R_camera_plan
        return coordinates

    def base(self, plan_N3: np.ndarray) -> np.ndarray:
        points: np.ndarray = plan_N3 @ (self.T_base_camera[:3, :3] @ self.R_camera_plan).T
        return points

    def camera_points(self, plan_N3: np.ndarray) -> np.ndarray:
        points: np.ndarray = (self.base(plan_N3) - self.T_base_camera[:3, 3]) @ self.T_base_camera[:3, :3]
        return points

    def pixel_steps(self, plan_3: np.ndarray) -> np.ndarray:
        """Steps (2, 2; in x, y) at a level from one pixel to the next, to the right and down."""
        point = self.camera_points(plan_3[None])[0] - self.camera.ray_origin_cam
        up = self.R_camera_plan[:, 2]
        pixel_rays = self.camera.R_cam_image[:, :2] / [self.camera.fx, self.camera.fy]
        steps = point[2] * (
            pixel_rays.T - np.outer(up @ pixel_rays, point) / min(up @ point, -GRAZING * point[2])
        )
        coordinates: np.ndarray = steps @ self.R_camera_plan[:, :2]
        return coordinates

    def hidden_shares(self, plan_CSN3: np.ndarray, depth_m: np.ndarray, sigma_z_m: float) -> np.ndarray:
        """Share (C, S) of each set of N points that lies behind something, off the image, or where there is no
        return.
        """
        points = self.camera_points(plan_CSN3.reshape(-1, 3))
        uv = self.camera.project(points)
        on_image = np.isfinite(uv).all(axis=1)
        pixels = np.rint(np.where(on_image[:, None], uv, -1)).astype(int)
        on_image &= ((pixels >= 0) & (pixels < [self.camera.width, self.camera.height])).all(axis=1)
        seen = np.zeros(len(points), bool)
        measured = depth_m[pixels[on_image, 1], pixels[on_image, 0]]
        beyond = measured > points[on_image, 2] - HIDING_SIGMAS * sigma_z_m
        seen[on_image] = beyond & np.isfinite(measured)
        shares: np.ndarray = 1.0 - seen.reshape(plan_CSN3.shape[:3]).mean(axis=2)
        return shares


def _highest(levels: np.ndarray, rank: int) -> float:
    """The level that `rank` others are above, or the lowest."""
    at = len(levels) - 1 - min(rank, len(levels) - 1)
    return float(np.partition(levels, at)[at])


def _top_of(levels: np.ndarray, noise_m: float) -> float:
    """Level of the top: a few points down from the highest, less what noise raises so high a point by.

    Of the points near the top a known share is higher, and so high is that quantile of the noise.
    """
    high = _highest(levels, TOP_POINT)
    rank = min(TOP_POINT, len(levels) - 1)
    near = int(np.count_nonzero(levels > high - NEAR_TOP_SIGMAS * noise_m))
    share = (rank + 0.5) / max(near, 2 * rank + 1)
    return high - noise_m * _NORMAL.inv_cdf(1.0 - share)


def _R_camera_plan(
    T_base_camera: np.ndarray, support: SupportPlane, sample: DepthSample, approach: Approach
) -> np.ndarray:
    """Axes (columns) of the plan: x the closing direction of an untwisted wrist, z against the approach."""
    if approach not in get_args(Approach):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"approach '{approach}' is unknown; valid are {', '.join(get_args(Approach))}",
        )
    up = support.normal_cam if approach == "top_down" else sample.normal_cam
    if not np.isfinite(up).all():
        raise PointingError(
            Code.AMBIGUOUS_DEPTH,
            f"the surface at the point shows {sample.pixels_used} pixels, too few for its normal; "
            "use approach 'top_down' or come nearer",
        )
    R_base_camera = T_base_camera[:3, :3]
    tool = tool_rotation(-R_base_camera @ up)
    R_base_plan = np.column_stack([tool[:, 0], -tool[:, 1], -tool[:, 2]])
    return R_base_camera.T @ R_base_plan


def _tip_level(view: _View, middle: np.ndarray, support: SupportPlane, gripper: Gripper) -> float:
    """Level of the tips: as deep as the fingers go, but clear of the support."""
    top_height = float(support.height_m(view.camera_points(middle[None]))[0])
    rises = float(support.normal_cam @ view.R_camera_plan[:, 2])  # height gained per level
    low_side = np.sqrt(max(1.0 - rises * rises, 0.0)) * gripper.finger_width_m / 2
    deepest = gripper.finger_depth_m
    if rises > 0.1:
        deepest = min(deepest, (top_height - gripper.tip_clearance_m - low_side) / rises)
    return float(middle[2] - deepest)


def _closings(footprint: Footprint) -> list[float]:
    """Yaws of the closing direction that are worth a look, in the plan."""
    if footprint.round:
        return [k * np.pi / ROUND_DIRECTIONS for k in range(ROUND_DIRECTIONS)]
    return [footprint.yaw_rad, footprint.yaw_rad + np.pi / 2]


def _closing_frame(yaw_rad: float, middle: np.ndarray) -> np.ndarray:
    """4x4 pose in the plan of a closing: x along it, z up, origin at the footprint's middle on level 0."""
    T = np.eye(4)
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:2, 3] = middle[:2]
    return T


def _in_frame(T: np.ndarray, points_N3: np.ndarray) -> np.ndarray:
    inside: np.ndarray = (points_N3 - T[:3, 3]) @ T[:3, :3]
    return inside


def _from_frame(T: np.ndarray, points_N3: np.ndarray) -> np.ndarray:
    outside: np.ndarray = points_N3 @ T[:3, :3].T + T[:3, 3]
    return outside


def _grasps(
    view: _View,
    middle: np.ndarray,
    tip_level: float,
    footprint: Footprint,
    closings: list[tuple[float, GripperRoom]],
    gripper: Gripper,
) -> tuple[Grasp, ...]:
    """All closings both ways round, best first: those that fit, then narrow, roomy, and with little wrist."""
    grasps, ranks = [], []
    R_base_plan = view.T_base_camera[:3, :3] @ view.R_camera_plan
    for n, (yaw, room) in enumerate(closings):
        width = footprint.length_m if n == 1 and not footprint.round else footprint.width_m
        outcome = room.outcome(gripper)
        for half_turn in (0.0, np.pi):
            T_plan = _closing_frame(yaw + half_turn, middle)
            T_base_grasp = np.eye(4)
            T_base_grasp[:3, :3] = R_base_plan @ T_plan[:3, :3] @ np.diag([1.0, -1.0, -1.0])
            T_base_grasp[:3, 3] = view.base(np.array([[*middle[:2], tip_level]]))[0]
            if half_turn:
                room = room.turned()
            wrist = abs((yaw + half_turn + np.pi) % (2 * np.pi) - np.pi)
            grasps.append(Grasp(T_base_grasp, width, room, outcome))
            ranks.append((not outcome.ok, width, -min(*room.room_m, AMPLE_ROOM_M), wrist))
    order = sorted(range(len(grasps)), key=ranks.__getitem__)
    return tuple(grasps[n] for n in order)


def _outcome(region: ObjectRegion, hold_m: float, grasps: tuple[Grasp, ...]) -> Outcome:
    if region.cut_off:
        return Outcome(
            Code.AMBIGUOUS_DEPTH,
            "the thing reaches out of what is seen, so its width and middle are unknown; turn the camera "
            "towards it or move it away",
        )
    if hold_m < LEAST_HOLD_M:
        return Outcome(
            Code.BLOCKED,
            f"the thing is too flat: the fingers would hold {1e3 * hold_m:.0f} mm of it, needed are "
            f"{1e3 * LEAST_HOLD_M:.0f} mm; lower tip_clearance_m if the fingers may touch the support",
        )
    return grasps[0].outcome
