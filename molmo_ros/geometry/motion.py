"""Targets on a moving base: where they are now, when the picture was taken a while ago.

The base frame has moved since; a fixed frame (odom) has not. A target goes from the base at the picture's
stamp through the fixed frame to the base now, and is as much less sure as the odometry between the two may
have drifted. What the base's way was in between is not known here: a loop that ends where it began has drifted
too, so who knows the way's length says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from molmo_ros.geometry.checks import ANYWHERE, Limits
from molmo_ros.geometry.locate import Located, checked
from molmo_ros.geometry.pose import check_rigid, inverse
from molmo_ros.geometry.uncertainty import ExtrinsicError, mounting_cov_cam
from molmo_ros.outcome import Code, PointingError


@dataclass(frozen=True)
class MotionError:
    """How far odometry drifts, as standard deviations per axis.

    `translation_per_m`: metres per metre of way; `rotation_per_rad` and `rotation_rad_per_m`: radians per
    radian turned and per metre of way. The defaults are those of a wheeled base on a hard floor that nobody
    has measured.
    """

    translation_per_m: float = 0.03
    rotation_per_rad: float = 0.03
    rotation_rad_per_m: float = 0.02

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise PointingError(
                    Code.INVALID_REQUEST, f"motion error's {name} is {value}, must be a number of at least 0"
                )

    def of(self, way_m: float, turn_rad: float) -> ExtrinsicError:
        """Standard deviations after a way and a turn (both as lengths, at least 0)."""
        return ExtrinsicError(
            self.translation_per_m * way_m, self.rotation_per_rad * turn_rad + self.rotation_rad_per_m * way_m
        )


def carried(
    located: Located,
    T_fixed_base_then: np.ndarray,
    T_fixed_base_now: np.ndarray,
    error: MotionError,
    *,
    limits: Limits = ANYWHERE,
    way_m: float | None = None,
    turn_rad: float | None = None,
) -> Located:
    """`located`, found in the base frame of then, in the base frame of now, and checked again there.

    Both poses (4x4) are of the base in the fixed frame, at the picture's stamp and now. `way_m`, `turn_rad`:
    lengths of the way and of all turns between, by default the straight way and the turn from one pose to the
    other. A point that was not found stays so.

    Raises PointingError: TF_UNAVAILABLE for a pose that is not rigid, INVALID_REQUEST for a way or turn that
    is no length.
    """
    check_rigid("T_fixed_base_then", T_fixed_base_then)
    check_rigid("T_fixed_base_now", T_fixed_base_now)
    T_now_then = inverse(T_fixed_base_now) @ T_fixed_base_then
    R = T_now_then[:3, :3]
    turned = math.acos(float(np.clip((np.trace(R) - 1) / 2, -1.0, 1.0)))
    for name, length in (("way_m", way_m), ("turn_rad", turn_rad)):
        if length is not None and not 0 <= length < math.inf:
            raise PointingError(Code.INVALID_REQUEST, f"{name} is {length}, must be a length of at least 0")
    drift = error.of(
        float(np.linalg.norm(T_now_then[:3, 3])) if way_m is None else way_m,
        turned if turn_rad is None else turn_rad,
    )
    if not np.isfinite(located.position_base_m).all():
        return located

    position = R @ located.position_base_m + T_now_then[:3, 3]
    grasp = located.grasp
    if grasp is not None:
        grasp = grasp.moved(T_now_then)
        grasp = replace(
            grasp, position_cov_m2=grasp.position_cov_m2 + mounting_cov_cam(grasp.top_base_m, drift)
        )
    moved = replace(
        located,
        position_base_m=position,
        position_cov_m2=R @ located.position_cov_m2 @ R.T + mounting_cov_cam(position, drift),
        normal_base=R @ located.normal_base,
        T_base_target=T_now_then @ located.T_base_target,
        grasp=grasp,
    )
    return checked(moved, limits)
