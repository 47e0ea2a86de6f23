"""From a point in the image to a goal in the robot's base frame, with its error bar and its checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from molmo_ros.geometry.depth import DepthSample, depth_at
from molmo_ros.geometry.depth_profile import D435, DepthProfile
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.pose import check_rigid, tool_rotation
from molmo_ros.geometry.uncertainty import EXACTLY_MOUNTED, ExtrinsicError, position_cov_cam
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.pointing.point import Point2D

Approach = Literal["top_down", "surface_normal"]


@dataclass(frozen=True)
class Limits:
    """What a goal must satisfy; a goal outside is reported, never trimmed.

    `min_range_m`, `max_range_m`: depths the camera is trusted at. `workspace_min_m`, `workspace_max_m`:
    opposite corners (x, y, z) of an axis-aligned box in the base frame. `sigma_px_if_unknown`: what to assume
    of the point in the image when the model gave no figure.
    """

    min_range_m: float = 0.1
    max_range_m: float = 4.0
    workspace_min_m: tuple[float, float, float] = (-math.inf, -math.inf, -math.inf)
    workspace_max_m: tuple[float, float, float] = (math.inf, math.inf, math.inf)
    sigma_px_if_unknown: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_range_m < self.max_range_m:
            raise PointingError(
                Code.INVALID_REQUEST,
                f"range limits {self.min_range_m} .. {self.max_range_m} m are empty or negative",
            )
        for axis, low, high in zip("xyz", self.workspace_min_m, self.workspace_max_m, strict=True):
            if not low < high:
                raise PointingError(
                    Code.INVALID_REQUEST,
                    f"workspace limits of {axis}, {low} .. {high} m, are empty or not numbers",
                )


ANYWHERE = Limits()


def _unknown(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan)


@dataclass(frozen=True, eq=False)
class Located:
    """A point in space. What could not be found out is NaN (None for `depth`), and `outcome` says why.

    `position_base_m` (3,); `position_cov_m2` (3, 3) of it; `normal_base` (3,) unit, out of the surface;
    `T_base_target` (4, 4): origin at the point, z = approach direction of the tool, x = closing direction of
    the gripper. A goal may be used only when `outcome.ok`.
    """

    outcome: Outcome
    depth: DepthSample | None = None
    position_base_m: np.ndarray = field(default_factory=lambda: _unknown(3))
    position_cov_m2: np.ndarray = field(default_factory=lambda: _unknown(3, 3))
    normal_base: np.ndarray = field(default_factory=lambda: _unknown(3))
    T_base_target: np.ndarray = field(default_factory=lambda: _unknown(4, 4))


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
) -> Located:
    """Where in the base frame the thing at `point` is, and how a tool would come to it.

    `T_base_camera` (4, 4) is the pose of `frame.frame_id` in the base frame at the frame's stamp. `approach`:
    "top_down" comes along the base frame's -z, "surface_normal" against the surface's normal.

    Whatever concerns this one point comes back as `outcome` (NO_DEPTH, AMBIGUOUS_DEPTH, OUT_OF_RANGE,
    OUTSIDE_WORKSPACE, INVALID_REQUEST for a point off the image, BAD_CAMERA_INFO beyond the lens's region),
    so that the other points of an answer can still be used. Raises PointingError(TF_UNAVAILABLE) for a
    transform that is not rigid, INVALID_REQUEST for an unknown approach.
    """
    check_rigid("T_base_camera", T_base_camera)
    if approach not in get_args(Approach):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"approach '{approach}' is unknown; valid are {', '.join(get_args(Approach))}",
        )
    if frame.depth_m is None:
        return Located(Outcome(Code.NO_DEPTH, "the frame has no depth image; give the node a depth topic"))
    try:
        depth = depth_at(frame.depth_m, frame.camera, point.u, point.v, profile=profile, radius_px=radius_px)
    except PointingError as error:
        return Located(error.outcome)

    R_base_camera = T_base_camera[:3, :3]
    position_cam = frame.camera.deproject([[point.u, point.v]], [depth.depth_m])[0]
    position = R_base_camera @ position_cam + T_base_camera[:3, 3]
    sigma_px = point.sigma_px if math.isfinite(point.sigma_px) else limits.sigma_px_if_unknown
    cov_cam = position_cov_cam(
        frame.camera, point.u, point.v, depth.depth_m, depth.normal_cam,
        sigma_px=sigma_px, sigma_z_m=depth.sigma_m, extrinsic=extrinsic,
    )  # fmt: skip
    normal = R_base_camera @ depth.normal_cam
    T_base_target = np.eye(4)
    T_base_target[:3, 3] = position
    outcome = _range_outcome(depth.depth_m, limits)
    if outcome.ok:
        outcome = _workspace_outcome(position, limits)
    if approach == "top_down":
        T_base_target[:3, :3] = tool_rotation(np.array([0.0, 0.0, -1.0]))
    elif np.isfinite(normal).all():
        T_base_target[:3, :3] = tool_rotation(-normal)
    else:
        T_base_target[:3, :3] = np.nan
        if outcome.ok:
            outcome = Outcome(
                Code.AMBIGUOUS_DEPTH,
                f"the surface at the point shows {depth.pixels_used} pixels, too few for its normal; "
                "use approach 'top_down' or come nearer",
            )
    return Located(outcome, depth, position, R_base_camera @ cov_cam @ R_base_camera.T, normal, T_base_target)


def _range_outcome(depth_m: float, limits: Limits) -> Outcome:
    if limits.min_range_m <= depth_m <= limits.max_range_m:
        return Outcome()
    return Outcome(
        Code.OUT_OF_RANGE,
        f"the point is {depth_m:.3f} m from the camera, allowed is {limits.min_range_m:g} to "
        f"{limits.max_range_m:g} m; move the camera or change the range limits",
    )


def _workspace_outcome(position_base_m: np.ndarray, limits: Limits) -> Outcome:
    """Names every limit of the box that is broken, and by how much."""
    broken = []
    for axis, at, low, high in zip(
        "xyz", position_base_m, limits.workspace_min_m, limits.workspace_max_m, strict=True
    ):
        if at < low:
            broken.append(f"{axis} = {at:.3f} m is {low - at:.3f} m below the minimum {low:g} m")
        elif at > high:
            broken.append(f"{axis} = {at:.3f} m is {at - high:.3f} m above the maximum {high:g} m")
    if not broken:
        return Outcome()
    return Outcome(Code.OUTSIDE_WORKSPACE, f"outside the workspace: {'; '.join(broken)}")
