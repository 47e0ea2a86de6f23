"""One robot among obstacles: kinematics, contacts, limits, filtering."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.obstacles import Box, Voxels, voxels_from_points
from molmo_ros.planning.roboplan_scene import STEP_S, RoboplanScene
from molmo_ros.planning.robot import load_robot
from molmo_ros.planning.trajectory import limit_violation

DOWN = np.array([[0.0, 1.0, 0.0, 0.45], [1.0, 0.0, 0.0, 0.1], [0.0, 0.0, -1.0, 0.3], [0.0, 0.0, 0.0, 1.0]])


def cloud(low: tuple[float, float, float], high: tuple[float, float, float]) -> Voxels:
    return voxels_from_points(np.random.default_rng(3).uniform(low, high, (20000, 3)), 0.015)


def test_ik_ends_where_it_was_asked_to(fr3: RoboplanScene, ready: np.ndarray) -> None:
    joints = fr3.solve_ik(DOWN, ready)
    assert joints is not None
    reached = fr3.goal_pose(joints)
    np.testing.assert_allclose(reached[:3, 3], DOWN[:3, 3], atol=0.0011)
    np.testing.assert_allclose(reached[:3, :3], DOWN[:3, :3], atol=0.0015)
    assert fr3.outside_limits(joints) == ""


def test_obstacles_stand_where_they_were_put_and_not_where_they_were(
    fr3: RoboplanScene, ready: np.ndarray
) -> None:
    x, y, z = fr3.goal_pose(ready)[:3, 3]
    at_hand = Box.upright("crate", (0.1, 0.1, 0.1), (x, y, z))
    assert not fr3.collides(ready)
    fr3.set_obstacles([at_hand])
    assert fr3.collides(ready)
    fr3.set_obstacles([Box.upright("crate", (0.1, 0.1, 0.1), (x, y + 0.5, z))])
    assert not fr3.collides(ready)
    fr3.set_obstacles([])
    assert not fr3.collides(ready)


def test_contacts_name_link_and_obstacle(fr3: RoboplanScene, ready: np.ndarray) -> None:
    x, y, z = fr3.goal_pose(ready)[:3, 3]
    fr3.set_obstacles(
        [
            Box.upright("crate", (0.3, 0.3, 0.02), (x, y, z)),
            Box.upright("shelf", (0.1, 0.1, 0.1), (x, 1.0, z)),
        ]
    )
    (said,) = fr3.contacts(ready)
    assert said.endswith("touches crate")
    assert "finger" in said


def test_a_cloud_is_an_obstacle_and_its_place_is_told(fr3: RoboplanScene, ready: np.ndarray) -> None:
    x, y, z = fr3.goal_pose(ready)[:3, 3]
    fr3.set_obstacles([], cloud((x - 0.06, y - 0.06, z - 0.03), (x + 0.06, y + 0.06, z + 0.03)))
    assert fr3.collides(ready)
    (said,) = fr3.contacts(ready)
    assert f"({x:.1f}" in said


def test_an_arm_folded_into_itself_says_so(fr3: RoboplanScene) -> None:
    folded = np.zeros(7)  # the hand against the forearm, beyond what joint 6 allows
    assert fr3.collides(folded)
    assert fr3.contacts(folded) == ["the arm touches itself"]


def test_the_base_and_allowed_links_may_touch_a_box(ready: np.ndarray, fr3: RoboplanScene) -> None:
    under = Box.upright("plate", (1.0, 1.0, 0.02), (0.0, 0.0, 0.0))
    fr3.set_obstacles([under])
    assert not fr3.collides(ready)
    x, y, z = fr3.goal_pose(ready)[:3, 3]
    touching = ("fr3_leftfinger", "fr3_rightfinger", "fr3_hand")
    fr3.set_obstacles([Box.upright("crate", (0.1, 0.1, 0.1), (x, y, z), may_touch=touching)])
    assert not fr3.collides(ready)
    with pytest.raises(ValueError, match="no such link"):
        fr3.set_obstacles([Box.upright("crate", (0.1, 0.1, 0.1), (x, y, z), may_touch=("nose",))])
    fr3.set_obstacles([])


def test_the_fingers_width_counts(fr3: RoboplanScene, ready: np.ndarray) -> None:
    T = fr3.goal_pose(ready)
    beside = T[:3, 3] + 0.04 * T[:3, 0]  # where an open finger is, and a closed one is not
    fr3.set_obstacles([Box.upright("post", (0.01, 0.01, 0.02), tuple(beside))])
    fr3.set_opening(0.08)
    assert fr3.collides(ready)
    fr3.set_opening(0.01)
    assert not fr3.collides(ready)


def test_a_collision_between_two_samples_is_found(fr3: RoboplanScene, ready: np.ndarray) -> None:
    swing = np.stack([ready, ready])
    swing[0, 0], swing[1, 0] = -0.6, 0.6
    assert fr3.first_collision(swing) is None
    x, y, z = fr3.goal_pose(ready)[:3, 3]
    fr3.set_obstacles([Box.upright("post", (0.02, 0.02, 0.3), (x, y, z))])
    hit = fr3.first_collision(swing)
    assert hit is not None
    assert -0.6 < hit[0] < 0.0  # on this side of it


def test_a_hair_outside_is_pulled_inside_and_more_is_refused(fr3: RoboplanScene, ready: np.ndarray) -> None:
    joints = ready.copy()
    joints[3] = fr3.limits.upper[3] + 0.003
    inside = fr3.pulled_inside(joints)
    assert fr3.outside_limits(inside) == ""
    joints[3] = fr3.limits.upper[3] + 0.1
    with pytest.raises(PointingError, match="fr3_joint4") as refused:
        fr3.pulled_inside(joints)
    assert refused.value.outcome.code == Code.PLANNING_FAILED


def test_points_on_the_robot_are_told_from_points_beside_it(fr3: RoboplanScene, ready: np.ndarray) -> None:
    T = fr3.goal_pose(ready)
    finger = T[:3, 3] + 0.045 * T[:3, 0]
    points = np.array([finger, finger + [0.0, 0.0, -0.3], [np.nan] * 3, T[:3, 3]])
    np.testing.assert_array_equal(fr3.on_robot(ready, points, 0.02), [True, False, False, False])
    assert fr3.on_robot(ready, np.empty((0, 3)), 0.02).shape == (0,)


@pytest.mark.parametrize("speed_scale", [1.0, 0.1])
def test_a_straight_line_is_straight_and_slow_enough(
    fr3: RoboplanScene, ready: np.ndarray, speed_scale: float
) -> None:
    start = fr3.goal_pose(ready)
    end = start.copy()
    end[2, 3] -= 0.15
    line = fr3.straight(ready, [start, end], 0.15, speed_scale)
    assert line is not None
    np.testing.assert_allclose(line.positions[0], ready, atol=1e-3)
    tips = np.array([fr3.goal_pose(joints)[:3, 3] for joints in line.positions])
    assert np.abs(tips[:, :2] - start[:2, 3]).max() < 0.002
    np.testing.assert_allclose(tips[-1], end[:3, 3], atol=0.002)
    speed_m_s = np.linalg.norm(np.diff(tips, axis=0), axis=1) / np.diff(line.times_s)
    assert speed_m_s.max() < 1.05 * 0.15 * speed_scale
    assert speed_m_s.max() > 0.9 * 0.15 * speed_scale
    assert np.diff(line.times_s).max() < 1.001 * STEP_S
    assert limit_violation(line, fr3.limits) == ""


def test_a_tool_that_turns_on_its_line_turns_slowly_enough(fr3: RoboplanScene, ready: np.ndarray) -> None:
    start = fr3.goal_pose(ready)
    end = start.copy()
    end[2, 3] -= 0.02
    c, s = np.cos(0.6), np.sin(0.6)
    end[:3, :3] = start[:3, :3] @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    line = fr3.straight(ready, [start, end], 0.1, 1.0)
    assert line is not None
    R = np.array([fr3.goal_pose(joints)[:3, :3] for joints in line.positions])
    traces = np.einsum("nij,nij->n", R[:-1], R[1:])
    turning = np.arccos(np.clip((traces - 1) / 2, -1.0, 1.0)) / np.diff(line.times_s)
    assert 0.3 < turning.max() < 1.05 * 4 * 0.1


def test_a_line_out_of_reach_is_none(fr3: RoboplanScene, ready: np.ndarray) -> None:
    start = fr3.goal_pose(ready)
    end = start.copy()
    end[0, 3] += 1.0
    assert fr3.straight(ready, [start, end], 0.15, 1.0) is None


@pytest.mark.parametrize("name", ["ur5", "so101"])
def test_other_robots_have_limits_and_a_free_posture(name: str) -> None:
    scene = RoboplanScene(load_robot(name))
    assert scene.outside_limits(np.array(scene.robot.ready_rad)) == ""
    assert not scene.collides(np.array(scene.robot.ready_rad))
    assert (scene.limits.acceleration == 5.0).all()


def test_what_the_hand_holds_moves_with_it_and_must_not_touch(fr3: RoboplanScene, ready: np.ndarray) -> None:
    x, y, z = fr3.goal_pose(ready)[:3, 3]
    T_goal_box = np.eye(4)
    T_goal_box[2, 3] = 0.1  # hanging below the finger tips
    fr3.hold((0.04, 0.04, 0.16), T_goal_box)
    assert not fr3.collides(ready)
    fr3.set_obstacles([Box.upright("shelf", (0.1, 0.1, 0.02), (x, y, z - 0.15))])
    assert fr3.collides(ready)
    assert fr3.contacts(ready) == ["what the hand holds touches something"]
    aside = ready.copy()
    aside[0] = 1.2
    assert not fr3.collides(aside)
    fr3.release()
    assert not fr3.collides(ready)


def test_a_hand_that_touches_what_the_camera_sees_is_said_to_though_it_holds_something(
    fr3: RoboplanScene, ready: np.ndarray
) -> None:
    T_goal_box = np.eye(4)
    T_goal_box[2, 3] = 0.1
    fr3.hold((0.04, 0.04, 0.16), T_goal_box)
    tip, forward = fr3.goal_pose(ready)[:3, 3], fr3.goal_pose(ready)[:3, 2]
    fr3.set_obstacles(voxels=Voxels((tip + 0.12 * forward)[None], 0.015))
    assert fr3.contacts(ready) == ["what the hand holds touches something"]
    x, y, z = tip - 0.08 * forward
    fr3.set_obstacles(voxels=cloud((x - 0.06, y - 0.06, z - 0.02), (x + 0.06, y + 0.06, z + 0.02)))
    (contact,) = fr3.contacts(ready)
    assert "touches what the camera sees" in contact
