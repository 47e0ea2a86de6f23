"""Whether a parallel gripper fits around a thing: how far it must open, and what stands in its fingers' way.

Coordinates of one closing: x along the closing direction and y across it, both from the footprint's middle,
and the level along the approach, up. A finger sweeps the band |y| <= half its width between its tip's level
and the thing's top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmo_ros.outcome import Code, Outcome, PointingError

# Room is looked for this far; what is further away is never in the way.
FURTHEST_ROOM_M = 0.10
# A single flying pixel is no obstacle and no side of a thing: the third point counts.
COUNTING_POINT = 3
# Points within this of a finger are in its way, as nothing is measured better than that.
SAFETY_M = 0.003
# Points that fill a finger of unit size: thickness from the thing on, width about its middle, level from the tip up.
_UNIT_BOX = np.array([[x, y, z] for y in (-0.5, 0.0, 0.5) for x in (0.1, 0.5, 1.0) for z in (0.1, 0.5, 1.0)])
_OTHER_SIDE = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper. Metres.

    `max_opening_m` between the fingers; `finger_depth_m`: how far below a thing's top the tips go;
    `finger_width_m` across the closing direction, `finger_thickness_m` along it; `tip_clearance_m`: what the
    tips keep from the support.
    """

    max_opening_m: float = 0.08
    finger_depth_m: float = 0.03
    finger_width_m: float = 0.02
    finger_thickness_m: float = 0.012
    tip_clearance_m: float = 0.008

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < 1:
                raise PointingError(Code.INVALID_REQUEST, f"gripper's {name} is {value}, must be in 0 .. 1 m")


DEFAULT_GRIPPER = Gripper()


@dataclass(frozen=True)
class GripperRoom:
    """`opening_m` that the fingers need to pass the thing, `room_m` beyond that on the -x and the +x side (as
    far as looked, FURTHEST_ROOM_M), and the share of each finger's space that the camera cannot see.
    """

    opening_m: float
    room_m: tuple[float, float]
    hidden: tuple[float, float]

    def turned(self) -> GripperRoom:
        """The same after half a turn of the gripper."""
        return GripperRoom(self.opening_m, self.room_m[::-1], self.hidden[::-1])

    def outcome(self, gripper: Gripper) -> Outcome:
        """OK, TOO_WIDE or BLOCKED, naming what is short and by how much."""
        if self.opening_m > gripper.max_opening_m:
            return Outcome(
                Code.TOO_WIDE,
                f"the gripper would have to open {1e3 * self.opening_m:.0f} mm, "
                f"{1e3 * (self.opening_m - gripper.max_opening_m):.0f} mm more than its "
                f"{1e3 * gripper.max_opening_m:.0f} mm; point at a narrower part",
            )
        needed = gripper.finger_thickness_m + SAFETY_M
        for side, room in zip(("-x", "+x"), self.room_m, strict=True):
            if room < needed:
                return Outcome(
                    Code.BLOCKED,
                    f"a finger ({1e3 * needed:.0f} mm with margin) does not fit on the {side} side, where "
                    f"{1e3 * room:.0f} mm are free, {1e3 * (needed - room):.0f} mm too little; clear the "
                    "space beside it",
                )
        return Outcome()


def finger_boxes(
    gripper: Gripper, opening_m: float, tip_level_m: float, top_level_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points (27, 3; x, y, level) that fill the space of the finger on the -x and on the +x side."""
    size = np.array([gripper.finger_thickness_m, gripper.finger_width_m, top_level_m - tip_level_m])
    box = _UNIT_BOX * size + np.array([opening_m / 2, 0.0, tip_level_m])
    return box * _OTHER_SIDE, box


def opening_needed_m(own_N3: np.ndarray, gripper: Gripper, tip_level_m: float, margin_m: float) -> float:
    """How far the fingers must open about x = 0 to pass the thing's own points (x, y, level)."""
    swept = _swept(own_N3, gripper, tip_level_m)
    if len(swept) == 0:
        return 2.0 * margin_m
    at = min(COUNTING_POINT, len(swept)) - 1
    furthest = -np.partition(-np.abs(swept[:, 0]), at)[at]
    return 2.0 * (float(furthest) + margin_m)


def free_room_m(
    others_M3: np.ndarray, gripper: Gripper, opening_m: float, tip_level_m: float
) -> tuple[float, float]:
    """What is free beyond the opening on the -x and on the +x side before other things (x, y, level) come."""
    swept = _swept(others_M3, gripper, tip_level_m)
    sides = []
    for sign in (-1.0, 1.0):
        beyond = sign * swept[:, 0]
        beyond = beyond[beyond > 0] - opening_m / 2
        at = COUNTING_POINT - 1
        nearest = np.partition(beyond, at)[at] if len(beyond) > at else FURTHEST_ROOM_M
        sides.append(float(np.clip(nearest, 0.0, FURTHEST_ROOM_M)))
    return sides[0], sides[1]


def _swept(points_N3: np.ndarray, gripper: Gripper, tip_level_m: float) -> np.ndarray:
    """Points that are in the fingers' band and above their tips."""
    in_band = np.abs(points_N3[:, 1]) < gripper.finger_width_m / 2 + SAFETY_M
    return points_N3[in_band & (points_N3[:, 2] > tip_level_m)]
