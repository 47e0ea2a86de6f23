"""Scenes that several tests plan in."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.robot import load_robot


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
