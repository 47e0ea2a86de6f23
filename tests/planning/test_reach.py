"""Plans to goals: free, within limits, explained when there is none, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.obstacles import Box, voxels_from_points
from molmo_ros.planning.reach import ReachOptions, ReachPlan, plan_back, plan_joints, plan_reach
from molmo_ros.planning.roboplan_scene import PADDING_M, RoboplanScene, SearchCaps
from molmo_ros.planning.robot import load_robot
from molmo_ros.planning.trajectory import limit_violation

TABLE = Box.upright("table", (1.1, 1.6, 0.1), (0.72, 0.0, -0.05))


def top_down(x: float, y: float, z: float, yaw_rad: float = 0.0) -> np.ndarray:
    """A goal from above: z (approach) down, x (closing) turned by the yaw from the base's y."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[-s, c, 0, x], [c, s, 0, y], [0, 0, -1, z], [0, 0, 0, 1.0]])


def refused(scene: RoboplanScene, start: np.ndarray, *goals: np.ndarray, **options: float) -> PointingError:
    with pytest.raises(PointingError) as caught:
        plan_reach(scene, start, goals, ReachOptions(**options))  # type: ignore[arg-type]
    return caught.value


def without_padding(box: Box) -> Box:
    """The box that a scene takes for the given one."""
    x, y, z = (edge - 2 * PADDING_M for edge in box.size_m)
    return replace(box, size_m=(x, y, z))


def assert_sound(scene: RoboplanScene, start: np.ndarray, plan: ReachPlan, boxes: Sequence[Box] = ()) -> None:
    """Continuous, within limits, free at its samples, and at a tenth of their spacing too. There, of `boxes` as they
    are: that samples may pass a box by less than lies between them is why the planner takes each for larger."""
    last = start
    for _, part in plan.parts():
        np.testing.assert_allclose(part.positions[0], last, atol=1e-6)
        np.testing.assert_allclose(part.velocities[[0, -1]], 0, atol=1e-6)
        assert limit_violation(part, scene.limits) == ""
        assert not any(scene.collides(joints) for joints in part.positions)
        last = part.positions[-1]
    if boxes:
        scene.set_obstacles([without_padding(box) for box in boxes])
    for _, part in plan.parts():
        for time_s in np.arange(0.0, part.duration_s, 0.001):
            assert not scene.collides(part.at(float(time_s))[0])


def test_a_plan_reaches_the_goal_from_above_and_leaves_the_same_way(
    fr3: RoboplanScene, ready: np.ndarray
) -> None:
    goal = top_down(0.5, 0.15, 0.05, 0.4)
    plan = plan_reach(fr3, ready, [goal])
    assert_sound(fr3, ready, plan)
    assert plan.approach is not None
    assert plan.retreat is not None
    at_goal = fr3.goal_pose(plan.approach.positions[-1])
    np.testing.assert_allclose(at_goal[:3, 3], goal[:3, 3], atol=0.002)
    assert abs(at_goal[:3, 0] @ goal[:3, 0]) > 0.999  # either way round
    for part in (plan.move, plan.retreat):
        above = fr3.goal_pose(part.positions[-1])
        np.testing.assert_allclose(above[:3, 3], goal[:3, 3] + [0, 0, 0.1], atol=0.002)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
@example(seed=1390)  # passes a box by less than its padding between two samples
def test_plans_among_random_boxes_are_sound_or_explained(fr3_on_a_table: RoboplanScene, seed: int) -> None:
    scene = fr3_on_a_table
    rng = np.random.default_rng(seed)
    ready = np.array(scene.robot.ready_rad)
    x, y = rng.uniform(0.35, 0.65), rng.uniform(-0.35, 0.35)
    boxes = [TABLE]
    for i in range(6):
        at = rng.uniform([0.25, -0.5], [0.8, 0.5])
        if np.hypot(*(at - [x, y])) > 0.13 and np.hypot(*(at - [0.31, 0.0])) > 0.2:
            height = rng.uniform(0.05, 0.35)
            boxes.append(Box.upright(f"box {i}", (0.08, 0.06, height), (*at, height / 2), rng.uniform(0, 3)))
    scene.set_obstacles(boxes)
    try:
        plan = plan_reach(scene, ready, [top_down(x, y, rng.uniform(0.03, 0.12), rng.uniform(-1.5, 1.5))])
    except PointingError as error:
        why = error.outcome
    else:
        assert_sound(scene, ready, plan, boxes)
        return
    assert why.code in (Code.BLOCKED, Code.PLANNING_FAILED, Code.UNREACHABLE)
    assert why.message


def test_the_same_seed_gives_the_same_plan_whatever_was_planned_between(
    fr3: RoboplanScene, ready: np.ndarray
) -> None:
    fr3.set_obstacles([TABLE, Box.upright("wall", (0.3, 0.02, 0.4), (0.5, 0.0, 0.2))])
    goal, options = top_down(0.5, 0.25, 0.05), ReachOptions(seed=5)
    start = plan_reach(fr3, ready, [top_down(0.5, -0.25, 0.05)]).move.positions[-1]
    first = plan_reach(fr3, start, [goal], options)
    plan_reach(fr3, ready, [top_down(0.4, 0.3, 0.1)])
    again = plan_reach(fr3, start, [goal], options)
    for (_, one), (_, other) in zip(first.parts(), again.parts(), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.times_s, other.times_s)


def test_speed_scale_slows_every_part(fr3: RoboplanScene, ready: np.ndarray) -> None:
    goal = top_down(0.5, 0.15, 0.05)
    for scale in (1.0, 0.5, 0.1):
        for _, part in plan_reach(fr3, ready, [goal], ReachOptions(speed_scale=scale)).parts():
            assert (np.abs(part.velocities) / fr3.limits.velocity).max() <= scale * (1 + 1e-6)
            assert (np.abs(part.accelerations) / fr3.limits.acceleration).max() <= scale * (1 + 1e-6)


def test_without_offsets_there_is_only_the_motion_to_the_goal(fr3: RoboplanScene, ready: np.ndarray) -> None:
    goal = top_down(0.5, 0.15, 0.2)
    plan = plan_reach(fr3, ready, [goal], ReachOptions(approach_m=0.0, retreat_m=0.0))
    assert [name for name, _ in plan.parts()] == ["move"]
    np.testing.assert_allclose(fr3.goal_pose(plan.move.positions[-1])[:3, 3], goal[:3, 3], atol=0.0011)


def test_a_retreat_may_be_longer_than_the_approach(fr3: RoboplanScene, ready: np.ndarray) -> None:
    goal = top_down(0.5, 0.15, 0.05)
    plan = plan_reach(fr3, ready, [goal], ReachOptions(approach_m=0.05, retreat_m=0.2))
    assert_sound(fr3, ready, plan)
    assert plan.retreat is not None
    end = fr3.goal_pose(plan.retreat.positions[-1])[:3, 3]
    np.testing.assert_allclose(end, goal[:3, 3] + [0, 0, 0.2], atol=0.003)


def test_the_first_goal_that_can_be_reached_is_taken(fr3: RoboplanScene, ready: np.ndarray) -> None:
    far, near = top_down(1.6, 0.0, 0.1), top_down(0.5, 0.1, 0.1)
    assert plan_reach(fr3, ready, [near, far]).goal_index == 0
    assert plan_reach(fr3, ready, [far, near]).goal_index == 1


def test_beyond_reach_is_unreachable(fr3: RoboplanScene, ready: np.ndarray) -> None:
    error = refused(fr3, ready, top_down(1.5, 0.0, 0.1))
    assert error.outcome.code == Code.UNREACHABLE
    assert "1.5" in error.outcome.message


@pytest.mark.parametrize(
    ("obstacle", "at"),
    [
        (Box.upright("crate", (0.2, 0.2, 0.3), (0.5, 0.1, 0.15)), 0.1),  # the goal is inside it
        (Box.upright("lid", (0.3, 0.3, 0.02), (0.5, 0.1, 0.2)), 0.05),  # it lies over the goal
        (Box.upright("slab", (0.3, 0.3, 0.02), (0.5, 0.1, 0.055)), 0.04),  # only the approach meets it
    ],
)
def test_a_blocked_goal_says_what_blocks_it(
    fr3: RoboplanScene, ready: np.ndarray, obstacle: Box, at: float
) -> None:
    fr3.set_obstacles([TABLE, obstacle])
    error = refused(fr3, ready, top_down(0.5, 0.1, at))
    assert error.outcome.code == Code.BLOCKED
    assert obstacle.name in error.outcome.message


def test_a_goal_below_the_table_is_blocked_by_the_table(fr3: RoboplanScene, ready: np.ndarray) -> None:
    error = refused(fr3, ready, top_down(0.5, 0.1, -0.03))
    assert error.outcome.code == Code.BLOCKED
    assert "table" in error.outcome.message


def test_what_the_camera_saw_blocks_too(fr3: RoboplanScene, ready: np.ndarray) -> None:
    heap = np.random.default_rng(0).uniform([0.45, 0.05, 0.0], [0.55, 0.15, 0.2], (20000, 3))
    fr3.set_obstacles([TABLE], voxels_from_points(heap, 0.015))
    error = refused(fr3, ready, top_down(0.5, 0.1, 0.1))
    assert error.outcome.code == Code.BLOCKED
    assert "camera sees" in error.outcome.message
    assert_sound(fr3, ready, plan_reach(fr3, ready, [top_down(0.5, -0.15, 0.1)]))


def test_a_start_in_collision_says_with_what(fr3: RoboplanScene, ready: np.ndarray) -> None:
    fr3.set_obstacles([TABLE, Box.upright("crate", (0.2, 0.2, 0.8), (0.3, 0.0, 0.5))])
    error = refused(fr3, ready, top_down(0.5, 0.1, 0.1))
    assert error.outcome.code == Code.START_IN_COLLISION
    assert "crate" in error.outcome.message


def test_a_joint_outside_its_limits_at_the_start_is_named(fr3: RoboplanScene, ready: np.ndarray) -> None:
    start = ready.copy()
    start[3] = 0.3
    error = refused(fr3, start, top_down(0.5, 0.1, 0.1))
    assert error.outcome.code == Code.PLANNING_FAILED
    assert "fr3_joint4" in error.outcome.message


def test_a_search_that_ends_without_a_way_says_where_it_ended(ready: np.ndarray) -> None:
    scene = RoboplanScene(load_robot("fr3"), SearchCaps(max_nodes=3))
    scene.set_obstacles([TABLE, Box.upright("wall", (0.4, 0.02, 0.6), (0.55, 0.0, 0.3))])
    start = ready.copy()
    start[0] = -0.9
    error = refused(scene, start, top_down(0.5, 0.25, 0.05), attempts=4)
    assert error.outcome.code == Code.PLANNING_FAILED
    assert "3 nodes" in error.outcome.message


def test_out_of_time_and_cancelled_are_told_apart(fr3: RoboplanScene, ready: np.ndarray) -> None:
    goal = top_down(0.5, 0.1, 0.1)
    assert refused(fr3, ready, goal, budget_s=0.0).outcome.code == Code.TIMEOUT
    with pytest.raises(PointingError) as caught:
        plan_reach(fr3, ready, [goal], cancelled=lambda: True)
    assert caught.value.outcome.code == Code.CANCELLED


@pytest.mark.parametrize(
    "goal",
    [np.full((4, 4), np.nan), np.eye(3), 2 * np.eye(4), np.diag([1.0, 1.0, -1.0, 1.0])],
    ids=["nan", "3x3", "scaled", "mirrored"],
)
def test_what_is_no_pose_is_refused(fr3: RoboplanScene, ready: np.ndarray, goal: np.ndarray) -> None:
    assert refused(fr3, ready, goal).outcome.code == Code.INVALID_REQUEST


def test_bad_requests_are_refused(fr3: RoboplanScene, ready: np.ndarray) -> None:
    assert refused(fr3, ready).outcome.code == Code.INVALID_REQUEST
    assert refused(fr3, ready[:5], top_down(0.5, 0, 0.1)).outcome.code == Code.INVALID_REQUEST
    assert refused(fr3, ready * np.nan, top_down(0.5, 0, 0.1)).outcome.code == Code.INVALID_REQUEST
    for bad in (
        {"speed_scale": 0.0},
        {"speed_scale": 1.5},
        {"approach_m": -0.1},
        {"retreat_m": float("nan")},
    ):
        with pytest.raises(PointingError):
            ReachOptions(**bad)  # type: ignore[arg-type]


def test_a_motion_to_a_posture_is_checked(fr3: RoboplanScene, ready: np.ndarray) -> None:
    aside = ready.copy()
    aside[0] = 1.0
    motion = plan_joints(fr3, ready, aside)
    np.testing.assert_allclose(motion.positions[[0, -1]], [ready, aside], atol=1e-6)
    assert fr3.first_collision(motion.positions) is None
    with pytest.raises(PointingError, match="not possible"):
        plan_joints(fr3, ready, ready + [9, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("off_rad", [0.0, 1e-5, 5e-4, 2e-3])
def test_an_arm_that_is_there_already_has_a_plan(fr3: RoboplanScene, ready: np.ndarray, off_rad: float) -> None:
    motion = plan_joints(fr3, ready, ready + off_rad, ReachOptions(speed_scale=0.5))
    np.testing.assert_allclose(motion.positions[[0, -1]], [ready, ready + off_rad], atol=1e-6)
    assert limit_violation(motion, fr3.limits) == ""


def test_the_way_back_is_the_way_in_and_is_checked_anew(fr3: RoboplanScene, ready: np.ndarray) -> None:
    fr3.set_obstacles([TABLE])
    way_in = plan_reach(fr3, ready, [top_down(0.5, 0.1, 0.03)]).approach
    assert way_in is not None
    back = plan_back(fr3, way_in.positions[-1], way_in)
    np.testing.assert_allclose(back.positions, way_in.positions[::-1])
    with pytest.raises(PointingError, match="does not stand at the end") as elsewhere:
        plan_back(fr3, ready, way_in)
    assert elsewhere.value.outcome.code == Code.PLANNING_FAILED
    with pytest.raises(PointingError, match="no way back"):
        plan_back(fr3, ready, None)


def test_the_way_back_may_begin_in_contact_but_not_go_into_it(fr3: RoboplanScene, ready: np.ndarray) -> None:
    fr3.set_obstacles([TABLE])
    way_in = plan_reach(fr3, ready, [top_down(0.5, 0.1, 0.03)]).approach
    assert way_in is not None
    held = Box.upright("held", (0.02, 0.02, 0.02), (0.5, 0.1, 0.03))
    fr3.set_obstacles([TABLE, held])
    plan_back(fr3, way_in.positions[-1], way_in)
    lid = Box.upright("lid", (0.3, 0.3, 0.02), (0.5, 0.1, 0.28))
    fr3.set_obstacles([TABLE, lid])
    with pytest.raises(PointingError, match="lid") as caught:
        plan_back(fr3, way_in.positions[-1], way_in)
    assert caught.value.outcome.code == Code.BLOCKED


@pytest.mark.parametrize(
    ("name", "goal"), [("ur5", top_down(0.5, 0.1, 0.05)), ("so101", top_down(0.2, 0.05, 0.03))]
)
def test_other_robots_plan_too(name: str, goal: np.ndarray) -> None:
    scene = RoboplanScene(load_robot(name))
    scene.set_obstacles([Box.upright("table", (0.6, 1.0, 0.1), (0.42, 0.0, -0.05))])
    start = np.array(scene.robot.ready_rad)
    plan = plan_reach(scene, start, [goal], ReachOptions(approach_m=0.04, retreat_m=0.04))
    assert_sound(scene, start, plan)
    assert plan.approach is not None
    np.testing.assert_allclose(scene.goal_pose(plan.approach.positions[-1])[:3, 3], goal[:3, 3], atol=0.003)
