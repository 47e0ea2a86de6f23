"""Where the hand must be to put down what it holds, and where that stands then. Base frame, metres."""

from __future__ import annotations

import numpy as np

from molmo_ros.planning.motion import HeldBox
from molmo_ros.planning.seen_thing import SeenThing

_TURNS_RAD = np.arange(8) * np.pi / 4


def foot_at(xy: np.ndarray, z: float) -> np.ndarray:
    """A place (3,) for the middle of a thing's foot."""
    return np.array([xy[0], xy[1], z])


def goals_over(foot: np.ndarray, thing: SeenThing, T_base_grasp: np.ndarray, table_z_m: float) -> list[np.ndarray]:
    """Tool poses (4x4) that put the thing's middle over the place, turned all ways; `T_base_grasp` is where the hand
    closed around the thing while it stood on the table."""
    above_foot = float(T_base_grasp[2, 3]) - table_z_m
    offset = thing.middle_base[:2] - T_base_grasp[:2, 3]
    goals = []
    for turn in _TURNS_RAD:
        c, s = np.cos(turn), np.sin(turn)
        Rz = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        T = np.eye(4)
        T[:3, :3] = Rz @ T_base_grasp[:3, :3]
        T[:2, 3] = foot[:2] - Rz[:2, :2] @ offset
        T[2, 3] = foot[2] + above_foot
        goals.append(T)
    return goals


def foot_under(T_base_tool: np.ndarray, T_base_grasp: np.ndarray, held: HeldBox, table_z_m: float) -> np.ndarray:
    """Where the foot of what the hand holds is now (3,)."""
    aside = T_base_tool[:3, :3] @ [held.centre_goal_m[0], held.centre_goal_m[1], 0.0]
    above_foot = float(T_base_grasp[2, 3]) - table_z_m
    return foot_at((T_base_tool[:3, 3] + aside)[:2], float(T_base_tool[2, 3]) - above_foot)
