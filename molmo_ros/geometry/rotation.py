"""Rotations as 3x3 matrices, from and to the ways that messages and parameters write them.

SciPy has all of this, and takes a second of every node's start; hand-eye calibration, which needs more, uses it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def from_quaternion(quaternion_xyzw: npt.ArrayLike) -> np.ndarray:
    """Matrix of a quaternion in ROS's order (x, y, z, w), of any length but 0."""
    q = np.asarray(quaternion_xyzw, dtype=float)
    x, y, z, w = (float(value) for value in q / np.linalg.norm(q))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_xyzw(R: np.ndarray) -> np.ndarray:
    """Quaternion (x, y, z, w) of length 1, w >= 0; by the largest component first, for accuracy (Shepperd 1978)."""
    trace = float(np.trace(R))
    squares = np.array([*(1 + 2 * np.diag(R) - trace), 1 + trace])  # 4 x^2, 4 y^2, 4 z^2, 4 w^2
    largest = int(np.argmax(squares))
    sums = np.empty(4)
    if largest == 3:
        sums[:] = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1], squares[3]
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        sums[i], sums[j], sums[k] = squares[i], R[i, j] + R[j, i], R[i, k] + R[k, i]
        sums[3] = R[k, j] - R[j, k]
    q: np.ndarray = sums / np.linalg.norm(sums)
    return -q if q[3] < 0 else q


def from_rotation_vector(axis_angle_rad: npt.ArrayLike) -> np.ndarray:
    """Matrix that turns by the vector's length [rad] about its direction."""
    R: np.ndarray = cv2.Rodrigues(np.asarray(axis_angle_rad, dtype=float))[0]
    return R


def from_rpy(rpy_rad: npt.ArrayLike) -> np.ndarray:
    """Matrix of roll, pitch and yaw about the fixed axes x, y, z in this order (REP 103)."""
    roll, pitch, yaw = np.asarray(rpy_rad, dtype=float)
    R: np.ndarray = (
        from_rotation_vector([0.0, 0.0, yaw])
        @ from_rotation_vector([0.0, pitch, 0.0])
        @ from_rotation_vector([roll, 0.0, 0.0])
    )
    return R
