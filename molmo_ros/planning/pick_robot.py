"""What a pick and place needs of a robot: eyes, somebody who points, checked motions and fingers.

Two robots have it: `sim.cell_arm.CellArm`, in simulated time and without ROS, and `nodes.graph_robot.GraphRobot`,
over the topics and actions of a ROS graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from molmo_ros.planning.motion import Motion
from molmo_ros.planning.table_view import Sight
from molmo_ros.pointing.point import Point2D

#: The camera that stands and the one on the hand.
FAR, NEAR = "camera", "wrist"


@dataclass(frozen=True, eq=False)
class Pointed:
    """A look, and where in it the words point (nowhere: no points)."""

    sight: Sight
    points: tuple[Point2D, ...]


class PickRobot(Protocol):
    """Every method may raise PointingError with the outcome of the whole task."""

    def point(self, words: str, camera: str) -> Pointed:
        """Ask the model about a picture of `FAR` or `NEAR`, and look at its answer."""

    def look(self, camera: str) -> Sight:
        """A frame of now, from `FAR` or `NEAR`."""

    def joints(self) -> np.ndarray:
        """Measured positions of the arm's joints (D,)."""

    def tool(self) -> np.ndarray:
        """Where the goal's frame is now (4x4, base frame)."""

    def on_arm(self, points_base_N3: np.ndarray) -> np.ndarray:
        """Which points (N,) are of the arm itself, as it stands now."""

    def plan(self, motion: Motion) -> None:
        """Raises PointingError when there is no plan; nothing moves."""

    def move(self, motion: Motion) -> None:
        """Plan, check and go, to the end or until stopped; raises PointingError when it did not get there."""

    def grip(self, opening_m: float) -> float:
        """Fingers to this distance, or to what is between them; returns how far apart they ended."""
