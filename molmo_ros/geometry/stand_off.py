"""Where a robot on wheels is to stand for a target: before it, at a distance, facing it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from molmo_ros.outcome import Code, PointingError

# From nearer than this, seen from above, there is no direction from the robot to the target.
_RIGHT_ABOVE_M = 0.01


def stand_off_pose(
    target_m: npt.ArrayLike, robot_m: npt.ArrayLike, stand_off_m: float
) -> np.ndarray:
    """Pose (4x4) of a robot that looks along its x at the target, `stand_off_m` before it (seen from above).

    `target_m`, `robot_m` (3,): where the target and the robot are, in a frame whose z is up; the pose is in the same
    frame, on the line between both, as high as the robot is. A robot that is nearer than that is sent backwards.
    Raises PointingError(UNREACHABLE) for a target right above the robot.
    """
    target, robot = np.asarray(target_m, dtype=float), np.asarray(robot_m, dtype=float)
    x, y = (target - robot)[:2]
    way_m = math.hypot(x, y)
    if not way_m > _RIGHT_ABOVE_M:
        raise PointingError(
            Code.UNREACHABLE, "the target is right above the robot: there is no way that leads before it"
        )
    c, s = x / way_m, y / way_m
    T = np.eye(4)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:3, 3] = target[0] - stand_off_m * c, target[1] - stand_off_m * s, robot[2]
    return T
