"""From a point in the image to a goal in the robot's base frame, with its error bar and its checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.checks import ANYWHERE, Limits, check_goal
from molmo_ros.geometry.depth import DepthSample, depth_at
from molmo_ros.geometry.depth_profile import D435, DepthProfile
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.grasp import GraspPlan, plan_grasp
from molmo_ros.geometry.gripper_room import Gripper
from molmo_ros.geometry.object_region import object_region
from molmo_ros.geometry.pose import Approach, check_rigid, tool_rotation
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.geometry.surfaces import SAME_DEPTH_M, SPECK_PIXELS
from molmo_ros.geometry.uncertainty import EXACTLY_MOUNTED, ExtrinsicError, mounting_cov_cam, position_cov_cam
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.pointing.point import Point2D

NO_GRASP_ASKED = Outcome(Code.NO_DEPTH, "no grasp was looked for: it needs a gripper and a support plane")
# Another surface that may be meant lies within this share of the image's width of the point.
RIVAL_REACH = 1 / 20
# Outcomes that another place of the same thing may not have: they are decided anew when a target moves.
_OF_LIMITS = (Code.OK, Code.OUT_OF_RANGE, Code.OUTSIDE_WORKSPACE, Code.UNCERTAIN, Code.TOO_WIDE)


def _unknown(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan)


@dataclass(frozen=True, eq=False)
class Located:
    """A point in space. What could not be found out is NaN (None for `depth`), and `outcome` says why.

    `position_base_m` (3,); `position_cov_m2` (3, 3) of it; `normal_base` (3,) unit, out of the surface;
    `T_base_target` (4, 4): origin at the point, z = approach direction of the tool, x = closing direction of
    the gripper (that of the best grasp where one was found). `width_m` of the thing along it, NaN without a
    grasp. A goal may be used only when `outcome.ok`.

    `grasp`: the thing's extent and the ways to take it, None when none was looked for or none could be found,
    of which `grasp_outcome` says why. Whether the point itself is a good goal does not depend on it.
    """

    outcome: Outcome
    depth: DepthSample | None = None
    position_base_m: np.ndarray = field(default_factory=lambda: _unknown(3))
    position_cov_m2: np.ndarray = field(default_factory=lambda: _unknown(3, 3))
    normal_base: np.ndarray = field(default_factory=lambda: _unknown(3))
    T_base_target: np.ndarray = field(default_factory=lambda: _unknown(4, 4))
    width_m: float = math.nan
    grasp: GraspPlan | None = None
    grasp_outcome: Outcome = NO_GRASP_ASKED


def locate(
    frame: Frame,
    point: Point2D,
    T_base_camera: np.ndarray,
    *,
    profile: DepthProfile = D435,
    limits: Limits = ANYWHERE,
    approach: Approach = "top_down",
    extrinsic: ExtrinsicError = EXACTLY_MOUNTED,
    radius_px: int | None = None,
    support: SupportPlane | None = None,
    gripper: Gripper | None = None,
) -> Located:
    """Where in the base frame the thing at `point` is, and how a tool would come to it.

    `T_base_camera` (4, 4) is the pose of `frame.frame_id` in the base frame at the frame's stamp. `approach`:
    "top_down" comes along the base frame's -z, "surface_normal" against the surface's normal. `support`: the
    plane that things stand on, camera frame, once per frame from `fit_support_plane` or `SupportPlaneTracker`;
    with it a point that fell just beside a thing means the thing. With a `gripper` as well, grasps are looked
    for.

    Whatever concerns this one point comes back as `outcome` (NO_DEPTH, AMBIGUOUS_DEPTH, OUT_OF_RANGE,
    OUTSIDE_WORKSPACE, UNCERTAIN, TOO_WIDE, INVALID_REQUEST for a point off the image, BAD_CAMERA_INFO beyond
    the lens's region), so that the other points of an answer can still be used. Raises
    PointingError(TF_UNAVAILABLE) for a transform that is not rigid, INVALID_REQUEST for an unknown approach.
    """
    check_rigid("T_base_camera", T_base_camera)
    if approach not in get_args(Approach):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"approach '{approach}' is unknown; valid are {', '.join(get_args(Approach))}",
        )
    if frame.depth_m is None:
        return Located(Outcome(Code.NO_DEPTH, "the frame has no depth image; give the node a depth topic"))
    sigma_px = point.sigma_px if math.isfinite(point.sigma_px) else limits.sigma_px_if_unknown
    try:
        depth = depth_at(
            frame.depth_m,
            frame.camera,
            point.u,
            point.v,
            profile=profile,
            radius_px=radius_px,
            sigma_px=sigma_px,
            support=support,
        )
    except PointingError as error:
        return Located(error.outcome)

    R_base_camera = T_base_camera[:3, :3]
    position_cam = frame.camera.deproject([[depth.u, depth.v]], [depth.depth_m])[0]
    cov_cam = _position_cov_cam(frame.camera, depth, position_cam, sigma_px, extrinsic)
    position = R_base_camera @ position_cam + T_base_camera[:3, 3]
    normal = R_base_camera @ depth.normal_cam
    located = Located(
        outcome=_ambiguity(frame, depth, approach, support, profile),
        depth=depth,
        position_base_m=position,
        position_cov_m2=R_base_camera @ cov_cam @ R_base_camera.T,
        normal_base=normal,
        T_base_target=_tool_pose(position, normal, approach),
    )
    if support is not None and gripper is not None:
        located = _with_grasp(located, frame, T_base_camera, support, gripper, approach, profile, extrinsic)
    return checked(located, limits)


def checked(located: Located, limits: Limits) -> Located:
    """The same point with the outcome that `limits` give it; one that was not found stays as it is."""
    if located.outcome.code not in _OF_LIMITS or located.depth is None:
        return located
    outcome = check_goal(
        limits,
        located.position_base_m,
        depth_m=located.depth.depth_m,
        position_cov_m2=located.position_cov_m2,
        width_m=located.width_m,
    )
    return replace(located, outcome=outcome)


def _position_cov_cam(
    camera: CameraModel,
    depth: DepthSample,
    position_cam: np.ndarray,
    sigma_px: float,
    extrinsic: ExtrinsicError,
) -> np.ndarray:
    """From everything that may have been meant where the pixel is uncertain, else from the surface's slope."""
    if not np.isfinite(depth.pointing_cov_cam).all():
        return position_cov_cam(
            camera,
            depth.u,
            depth.v,
            depth.depth_m,
            depth.normal_cam,
            sigma_px=sigma_px,
            sigma_z_m=depth.sigma_m,
            extrinsic=extrinsic,
        )
    ray = camera.rays([[depth.u, depth.v]])[0]
    along_ray = depth.sigma_m**2 * np.outer(ray, ray)
    return depth.pointing_cov_cam + along_ray + mounting_cov_cam(position_cam, extrinsic)


def _ambiguity(
    frame: Frame, depth: DepthSample, approach: Approach, support: SupportPlane | None, profile: DepthProfile
) -> Outcome:
    if depth.ambiguous and not (support is not None and _is_of_one_thing(frame, depth, support, profile)):
        return Outcome(
            Code.AMBIGUOUS_DEPTH,
            f"two things may be meant, one {depth.depth_m:.3f} m and one {depth.rival_depth_m:.3f} m away; "
            "point further inside the one, or move the camera nearer",
        )
    if approach == "surface_normal" and not np.isfinite(depth.normal_cam).all():
        return Outcome(
            Code.AMBIGUOUS_DEPTH,
            f"the surface at the point shows {depth.pixels_used} pixels, too few for its normal; "
            "use approach 'top_down' or come nearer",
        )
    return Outcome()


def _is_of_one_thing(frame: Frame, depth: DepthSample, support: SupportPlane, profile: DepthProfile) -> bool:
    """Whether what may be meant instead is another part of the same thing, like the far wall of a mug.

    Then it is clear what is meant, and how far apart its parts are is in the covariance.
    """
    assert frame.depth_m is not None
    try:
        region = object_region(frame.depth_m, frame.camera, support, depth, profile=profile)
    except PointingError:
        return False
    along = region.points_cam @ frame.camera.R_cam_image[:, 2]
    rivals = region.points_cam[np.abs(along - depth.rival_depth_m) < SAME_DEPTH_M]
    if len(rivals) == 0:
        return False
    off_px = np.linalg.norm(frame.camera.project(rivals) - (depth.u, depth.v), axis=1)
    return int(np.count_nonzero(off_px < RIVAL_REACH * frame.camera.width)) >= SPECK_PIXELS


def _tool_pose(position_base_m: np.ndarray, normal_base: np.ndarray, approach: Approach) -> np.ndarray:
    T_base_target = np.eye(4)
    T_base_target[:3, 3] = position_base_m
    if approach == "top_down":
        T_base_target[:3, :3] = tool_rotation(np.array([0.0, 0.0, -1.0]))
    elif np.isfinite(normal_base).all():
        T_base_target[:3, :3] = tool_rotation(-normal_base)
    else:
        T_base_target[:3, :3] = np.nan
    return T_base_target


def _with_grasp(
    located: Located,
    frame: Frame,
    T_base_camera: np.ndarray,
    support: SupportPlane,
    gripper: Gripper,
    approach: Approach,
    profile: DepthProfile,
    extrinsic: ExtrinsicError,
) -> Located:
    assert frame.depth_m is not None and located.depth is not None
    try:
        grasp = plan_grasp(
            frame.depth_m,
            frame.camera,
            T_base_camera,
            support,
            located.depth,
            gripper=gripper,
            approach=approach,
            profile=profile,
            extrinsic=extrinsic,
        )
    except PointingError as error:
        return replace(located, grasp_outcome=error.outcome)
    best = grasp.grasps[0]
    T_base_target = best.T_base_grasp.copy()
    T_base_target[:3, 3] = located.position_base_m
    return replace(
        located, T_base_target=T_base_target, width_m=best.width_m, grasp=grasp, grasp_outcome=grasp.outcome
    )
