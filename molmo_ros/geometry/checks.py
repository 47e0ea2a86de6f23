"""What a goal must satisfy before anything may move there, and by how much it fails to.

A goal outside a limit is reported, never trimmed to it: a robot that goes somewhere near what it was told is
worse than one that stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molmo_ros.outcome import Code, Outcome, PointingError


@dataclass(frozen=True)
class Face:
    """One side of a polytope: inside are the points P (metres, base frame) with `normal . P <= offset_m`.

    `normal` points out of the polytope and need not be of length 1; `name` is what messages call it.
    """

    name: str
    normal: tuple[float, float, float]
    offset_m: float

    def __post_init__(self) -> None:
        length = float(np.linalg.norm(self.normal))
        if len(self.normal) != 3 or not (0 < length < math.inf and math.isfinite(self.offset_m)):
            raise PointingError(
                Code.INVALID_REQUEST,
                f"face '{self.name}' has normal {self.normal} and offset {self.offset_m} m; needs a direction "
                "and a finite distance",
            )

    def outside_m(self, position_base_m: np.ndarray) -> float:
        """How far (metres) a point lies outside this side, negative inside."""
        length = float(np.linalg.norm(self.normal))
        return (float(np.asarray(self.normal) @ position_base_m) - self.offset_m) / length


@dataclass(frozen=True)
class Limits:
    """What a goal must satisfy. Metres; base frame.

    `min_range_m`, `max_range_m`: depths the camera is trusted at. `workspace_min_m`, `workspace_max_m`:
    opposite corners (x, y, z) of an axis-aligned box; `workspace_faces`: sides of a convex polytope, all of
    which must hold as well. `min_height_m`: lowest z. `min_distance_m`, `max_distance_m`: from the base
    frame's origin. `max_sigma_m`: standard deviation of the position in its worst direction. `max_width_m`:
    of the thing along the closing direction, where one was measured. `sigma_px_if_unknown`: what to assume of
    the point in the image when the model gave no figure.

    Raises PointingError(INVALID_REQUEST) for limits that nothing can satisfy.
    """

    min_range_m: float = 0.1
    max_range_m: float = 4.0
    workspace_min_m: tuple[float, float, float] = (-math.inf, -math.inf, -math.inf)
    workspace_max_m: tuple[float, float, float] = (math.inf, math.inf, math.inf)
    workspace_faces: tuple[Face, ...] = ()
    min_height_m: float = -math.inf
    min_distance_m: float = 0.0
    max_distance_m: float = math.inf
    max_sigma_m: float = math.inf
    max_width_m: float = math.inf
    sigma_px_if_unknown: float = 4.0

    def __post_init__(self) -> None:
        for what, low, high in (
            ("range", self.min_range_m, self.max_range_m),
            ("distance", self.min_distance_m, self.max_distance_m),
        ):
            if not 0 <= low < high:
                raise _impossible(f"{what} limits {low} .. {high} m are empty or negative")
        for axis, low, high in zip("xyz", self.workspace_min_m, self.workspace_max_m, strict=True):
            if not low < high:
                raise _impossible(f"workspace limits of {axis}, {low} .. {high} m, are empty or not numbers")
        if not self.min_height_m < self.workspace_max_m[2]:
            raise _impossible(
                f"min_height_m {self.min_height_m} leaves an empty workspace below z = "
                f"{self.workspace_max_m[2]} m, or is not a number"
            )
        for name in ("max_sigma_m", "max_width_m"):
            if not getattr(self, name) > 0:
                raise _impossible(f"{name} is {getattr(self, name)} m, an empty limit; must be above 0")
        if not 0 <= self.sigma_px_if_unknown < math.inf:
            raise _impossible(
                f"sigma_px_if_unknown is {self.sigma_px_if_unknown}, must be a number of at least 0"
            )


ANYWHERE = Limits()


@dataclass(frozen=True)
class BrokenLimit:
    """`excess_m`: by how much `limit` (a field of `Limits`, or a face's name) is broken; inf when unknown."""

    code: Code
    limit: str
    excess_m: float
    message: str


def broken_limits(
    limits: Limits,
    position_base_m: npt.ArrayLike,
    *,
    depth_m: float | None = None,
    position_cov_m2: npt.ArrayLike | None = None,
    width_m: float = math.nan,
) -> tuple[BrokenLimit, ...]:
    """Every limit that a goal at `position_base_m` (3,) breaks, in the order in which they are checked.

    `depth_m`: its distance along the camera's optical axis, None when no camera saw it. `position_cov_m2`
    (3, 3): None is not checked, but a covariance that is not finite breaks `max_sigma_m`. `width_m`: NaN where
    none was measured, which is not checked.

    Raises PointingError(INVALID_REQUEST) for a position that is not three finite numbers.
    """
    position = np.asarray(position_base_m, dtype=float)
    if position.shape != (3,) or not np.isfinite(position).all():
        raise PointingError(
            Code.INVALID_REQUEST,
            f"position_base_m is {position.tolist()}, must be three finite numbers in metres",
        )
    broken = [
        *_out_of_range(limits, position, depth_m),
        *_outside_workspace(limits, position),
    ]
    if position_cov_m2 is not None and limits.max_sigma_m < math.inf:
        sigma = _largest_sigma_m(np.asarray(position_cov_m2, dtype=float))
        if not sigma <= limits.max_sigma_m:
            broken.append(
                BrokenLimit(
                    Code.UNCERTAIN,
                    "max_sigma_m",
                    sigma - limits.max_sigma_m,
                    f"the position is uncertain by {_mm(sigma)} (standard deviation in its worst direction), "
                    f"{_mm(sigma - limits.max_sigma_m)} more than max_sigma_m allows "
                    f"({_mm(limits.max_sigma_m)}); move the camera nearer or look from more places",
                )
            )
    if width_m > limits.max_width_m:
        broken.append(
            BrokenLimit(
                Code.TOO_WIDE,
                "max_width_m",
                width_m - limits.max_width_m,
                f"the thing is {_mm(width_m)} wide, {_mm(width_m - limits.max_width_m)} more than max_width_m "
                f"allows ({_mm(limits.max_width_m)}); point at a narrower part",
            )
        )
    return tuple(broken)


def check_goal(
    limits: Limits,
    position_base_m: npt.ArrayLike,
    *,
    depth_m: float | None = None,
    position_cov_m2: npt.ArrayLike | None = None,
    width_m: float = math.nan,
) -> Outcome:
    """OK, or the code of the first limit that is broken and, in words, all of them and by how much.

    Arguments as for `broken_limits`.
    """
    broken = broken_limits(
        limits, position_base_m, depth_m=depth_m, position_cov_m2=position_cov_m2, width_m=width_m
    )
    if not broken:
        return Outcome()
    return Outcome(broken[0].code, "; ".join(each.message for each in broken))


def _impossible(message: str) -> PointingError:
    return PointingError(Code.INVALID_REQUEST, message)


def _mm(metres: float) -> str:
    return f"{1e3 * metres:.1f} mm"


def _out_of_range(limits: Limits, position: np.ndarray, depth_m: float | None) -> list[BrokenLimit]:
    broken = []
    if depth_m is not None and not limits.min_range_m <= depth_m <= limits.max_range_m:
        near = depth_m < limits.min_range_m
        excess = limits.min_range_m - depth_m if near else depth_m - limits.max_range_m
        broken.append(
            BrokenLimit(
                Code.OUT_OF_RANGE,
                "min_range_m" if near else "max_range_m",
                excess,
                f"the point is {depth_m:.3f} m from the camera, {excess:.3f} m too {'near' if near else 'far'}: "
                f"allowed is {limits.min_range_m:g} to {limits.max_range_m:g} m; move the camera or change "
                "the range limits",
            )
        )
    distance = float(np.linalg.norm(position))
    if not limits.min_distance_m <= distance <= limits.max_distance_m:
        near = distance < limits.min_distance_m
        excess = limits.min_distance_m - distance if near else distance - limits.max_distance_m
        broken.append(
            BrokenLimit(
                Code.OUT_OF_RANGE,
                "min_distance_m" if near else "max_distance_m",
                excess,
                f"the goal is {distance:.3f} m from the base's origin, {excess:.3f} m too "
                f"{'near' if near else 'far'}: allowed is {limits.min_distance_m:g} to "
                f"{limits.max_distance_m:g} m",
            )
        )
    return broken


def _outside_workspace(limits: Limits, position: np.ndarray) -> list[BrokenLimit]:
    broken = []

    def outside(limit: str, excess: float, message: str) -> None:
        broken.append(BrokenLimit(Code.OUTSIDE_WORKSPACE, limit, excess, f"outside the workspace: {message}"))

    for axis, at, low, high in zip(
        "xyz", position, limits.workspace_min_m, limits.workspace_max_m, strict=True
    ):
        if at < low:
            outside(
                f"workspace_min_m.{axis}",
                low - at,
                f"{axis} = {at:.3f} m is {low - at:.3f} m below the minimum {low:g} m",
            )
        elif at > high:
            outside(
                f"workspace_max_m.{axis}",
                at - high,
                f"{axis} = {at:.3f} m is {at - high:.3f} m above the maximum {high:g} m",
            )
    for face in limits.workspace_faces:
        excess = face.outside_m(position)
        if excess > 0:
            outside(face.name, excess, f"the goal is {excess:.3f} m beyond the face '{face.name}'")
    if position[2] < limits.min_height_m:
        excess = limits.min_height_m - float(position[2])
        outside(
            "min_height_m",
            excess,
            f"the goal's height {position[2]:.3f} m is {excess:.3f} m below min_height_m "
            f"({limits.min_height_m:g} m)",
        )
    return broken


def _largest_sigma_m(cov_m2: np.ndarray) -> float:
    if cov_m2.shape != (3, 3) or not np.isfinite(cov_m2).all():
        return math.inf
    return math.sqrt(max(float(np.linalg.eigvalsh(cov_m2)[-1]), 0.0))
