"""What stands around on the table, as obstacles: seen from afar, without the arm and the thing it is after."""

from __future__ import annotations

import numpy as np

from molmo_ros.planning.obstacles import Voxels, voxels_from_points, without_target
from molmo_ros.planning.pick_robot import PickRobot
from molmo_ros.planning.seen_thing import OWN_MARGIN_M, SeenThing
from molmo_ros.planning.table_view import TableView


class Surroundings:
    """`around` is what motions must pass by; None before anything was seen."""

    def __init__(self, robot: PickRobot, voxel_m: float) -> None:
        self._robot, self._voxel_m = robot, voxel_m
        self._standing_N3 = self._obstacles_N3 = np.zeros((0, 3))
        self.around: Voxels | None = None

    def see(self, view: TableView) -> None:
        """All that stands there now, but for the arm; obstacles from the next `pass_by` on."""
        self._standing_N3 = beside_arm(self._robot, view.standing_points())

    def pass_by(self, thing: SeenThing | None) -> None:
        """All of it becomes obstacles, without the thing that is gone for."""
        points = self._standing_N3
        if thing is not None:
            points = without_target(points, thing.own_base_N3, OWN_MARGIN_M)
        self._make_obstacles(points)

    def forget_gone(self, view: TableView, thing: SeenThing) -> None:
        """The thing was lifted: what is its own by a nearer look, and what else of it is seen to be gone, is no
        obstacle any longer."""
        points = without_target(self._obstacles_N3, thing.own_base_N3, OWN_MARGIN_M)
        self._make_obstacles(points[~view.seen_through(points)])

    def _make_obstacles(self, points_base_N3: np.ndarray) -> None:
        self._obstacles_N3 = points_base_N3
        self.around = voxels_from_points(points_base_N3, self._voxel_m)


def beside_arm(robot: PickRobot, points_base_N3: np.ndarray) -> np.ndarray:
    """Those of the points (N, 3) that are not of the arm as it stands now."""
    beside: np.ndarray = points_base_N3[~robot.on_arm(points_base_N3)]
    return beside
