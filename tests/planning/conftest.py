"""Scenes that several tests plan in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.robot import load_robot
from molmo_ros.sim.robot_cell import RobotCell
from molmo_ros.sim.scene import SceneRecipe
from molmo_ros.sim.worlds import FIRST


@pytest.fixture(scope="session")
def fr3_on_a_table() -> RoboplanScene:
    """Shared: set its obstacles before use."""
    return RoboplanScene(load_robot("fr3"))


@pytest.fixture
def fr3(fr3_on_a_table: RoboplanScene) -> RoboplanScene:
    fr3_on_a_table.release()
    fr3_on_a_table.set_opening(0.08)
    fr3_on_a_table.set_obstacles([Box.upright("table", (1.1, 1.6, 0.1), (0.72, 0.0, -0.05))])
    return fr3_on_a_table


@pytest.fixture
def ready(fr3: RoboplanScene) -> np.ndarray:
    return np.array(fr3.robot.ready_rad)


@pytest.fixture(scope="module")
def cell() -> Iterator[RobotCell]:
    ours = RobotCell((640, 480), SceneRecipe(world=FIRST))
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def planning() -> RoboplanScene:
    return RoboplanScene(load_robot("fr3"))
