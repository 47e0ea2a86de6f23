"""Rigid transforms as 4x4 matrices (`T_base_camera` takes camera points to the base frame) and tool
orientations.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from molmo_ros.geometry.rotation import from_quaternion, from_rotation_vector
from molmo_ros.outcome import Code, PointingError

RIGID_TOLERANCE = 1e-4

# How a tool comes to its goal: from above, or against the surface it is to touch.
Approach = Literal["top_down", "surface_normal"]

# The goal convention: z = approach direction of the tool, x = closing direction of the gripper. Straight
# down, the fingers close along the base's y axis: sideways for a robot that reaches forward, its wrist
# untwisted.
R_BASE_TOPDOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


def transform(translation_m: npt.ArrayLike, quaternion_xyzw: npt.ArrayLike) -> np.ndarray:
    """4x4 transform from a translation and a quaternion in ROS's order (x, y, z, w).

    Raises PointingError(TF_UNAVAILABLE) for numbers that are no transform.
    """
    translation = np.asarray(translation_m, dtype=float)
    quaternion = np.asarray(quaternion_xyzw, dtype=float)
    length = float(np.linalg.norm(quaternion))
    if not np.isfinite(translation).all() or not np.isfinite(length) or abs(length - 1) > 0.01:
        raise PointingError(
            Code.TF_UNAVAILABLE,
            f"not a transform: translation {translation.tolist()}, quaternion {quaternion.tolist()} (must be "
            "finite and of length 1)",
        )
    T = np.eye(4)
    T[:3, :3] = from_quaternion(quaternion)
    T[:3, 3] = translation
    return T


def inverse(T: np.ndarray) -> np.ndarray:
    """The transform the other way."""
    back = np.eye(4)
    back[:3, :3] = T[:3, :3].T
    back[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return back


def check_rigid(name: str, T: np.ndarray) -> None:
    """Raise PointingError(TF_UNAVAILABLE) naming the transform unless it is a finite rigid 4x4 one."""
    T = np.asarray(T)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise PointingError(Code.TF_UNAVAILABLE, f"{name} is not a finite 4x4 matrix")
    R = T[:3, :3]
    off = max(float(np.abs(R @ R.T - np.eye(3)).max()), float(np.abs(T[3] - [0, 0, 0, 1]).max()))
    if off > RIGID_TOLERANCE or np.linalg.det(R) < 0:
        raise PointingError(
            Code.TF_UNAVAILABLE, f"{name} is not rigid (off by {off:.2g}): scaled or mirrored"
        )


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of two vectors (3,); numpy's own is made for arrays of them and takes ten times as long."""
    return np.array(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]], dtype=float
    )


def tool_rotation(approach_base: np.ndarray) -> np.ndarray:
    """Orientation (3x3, base frame) of a tool whose z points along `approach_base`.

    It is the straight-down orientation turned by the smallest rotation that gets there, so x changes as
    little as the approach does and nowhere jumps, except for approaches from straight below.
    """
    z = np.asarray(approach_base, dtype=float) / np.linalg.norm(approach_base)
    down = R_BASE_TOPDOWN[:, 2]
    axis = cross(down, z)
    sine, cosine = float(np.linalg.norm(axis)), float(down @ z)
    if sine < 1e-9:
        turn = np.eye(3) if cosine > 0 else np.diag([-1.0, 1.0, -1.0])
    else:
        turn = from_rotation_vector(axis / sine * np.arctan2(sine, cosine))
    return turn @ R_BASE_TOPDOWN
