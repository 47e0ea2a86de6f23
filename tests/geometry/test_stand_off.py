"""Where a robot stands for a target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.geometry.stand_off import stand_off_pose
from molmo_ros.outcome import Code, PointingError

coordinate = st.floats(-20.0, 20.0)


def test_it_stands_before_the_target_on_its_own_side_and_faces_it() -> None:
    T = stand_off_pose([3.0, 1.0, 0.8], [0.0, 1.0, 0.0], 0.7)
    assert pytest.approx(np.array([[1, 0, 0, 2.3], [0, 1, 0, 1.0], [0, 0, 1, 0], [0, 0, 0, 1.0]])) == T


def test_a_robot_that_is_too_near_is_sent_backwards() -> None:
    T = stand_off_pose([0.2, 0.0, 0.5], [0.0, 0.0, 0.0], 0.7)
    assert T[:3, 3] == pytest.approx([-0.5, 0.0, 0.0])
    assert T[:3, 0] == pytest.approx([1.0, 0.0, 0.0])


@given(coordinate, coordinate, coordinate, coordinate, st.floats(0.0, 5.0))
def test_wherever_both_are(x: float, y: float, robot_x: float, robot_y: float, stand_off: float) -> None:
    if np.hypot(x - robot_x, y - robot_y) < 0.02:
        return
    T = stand_off_pose([x, y, 1.0], [robot_x, robot_y, 0.25], stand_off)
    assert T[2, 3] == 0.25
    assert np.hypot(T[0, 3] - x, T[1, 3] - y) == pytest.approx(stand_off, abs=1e-9)
    assert T[:3, :3].T @ T[:3, :3] == pytest.approx(np.eye(3))
    assert T[:3, 2] == pytest.approx([0.0, 0.0, 1.0])
    if stand_off > 1e-6:  # the target is straight ahead
        ahead = np.linalg.inv(T) @ [x, y, 0.25, 1.0]
        assert ahead[:2] == pytest.approx([stand_off, 0.0], abs=1e-6)


def test_a_target_right_above_leaves_no_way() -> None:
    with pytest.raises(PointingError, match="right above") as caught:
        stand_off_pose([1.0, 2.0, 1.5], [1.0, 2.0, 0.0], 0.7)
    assert caught.value.outcome.code == Code.UNREACHABLE
