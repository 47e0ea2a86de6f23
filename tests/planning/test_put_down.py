"""Where a thing comes to stand that the hand holds beside its middle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.planning.put_down import foot_under, goals_over
from molmo_ros.planning.seen_thing import SeenThing

metres = st.floats(-0.05, 0.05)


@given(metres, metres, st.floats(0.02, 0.15), st.floats(-np.pi, np.pi), st.floats(0.0, 0.8))
def test_in_every_goal_the_foot_of_the_thing_is_over_its_place(
    aside_x: float, aside_y: float, above_m: float, yaw: float, table_z_m: float
) -> None:
    c, s = np.cos(yaw), np.sin(yaw)
    T_base_grasp = np.array(
        [[c, s, 0, 0.4], [s, -c, 0, 0.1], [0, 0, -1, table_z_m + above_m], [0, 0, 0, 1.0]]
    )
    middle = np.array([0.4 + aside_x, 0.1 + aside_y, table_z_m + 0.06])
    thing = SeenThing(middle[None], middle, 0.06, 0.08)
    held = thing.held_at(T_base_grasp, table_z_m)
    place = np.array([0.5, -0.2, table_z_m + 0.05])
    goals = goals_over(place, thing, T_base_grasp, table_z_m)
    assert len(goals) == 8
    for goal in goals:
        np.testing.assert_allclose(foot_under(goal, T_base_grasp, held, table_z_m), place, atol=1e-9)
        assert goal[:3, 2] == pytest.approx([0.0, 0.0, -1.0])
    turns = {round(float(np.arctan2(goal[1, 0], goal[0, 0])) % (2 * np.pi), 6) for goal in goals}
    assert len(turns) >= 8
