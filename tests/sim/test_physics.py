"""The table with weight: things rest, the arm holds itself, follows and grips; touches are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.reach import ReachOptions, ReachPlan, plan_joints, plan_reach
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.sim import fr3
from molmo_ros.sim.following import Follower
from molmo_ros.sim.objects import KINDS, shape_of
from molmo_ros.sim.physics import TICK_S, TablePhysics, unwanted
from molmo_ros.sim.scene import SceneObject, SceneState, draw_scene
from molmo_ros.sim.solids import mass_kg

TABLE = Box.upright("table", (1.36, 1.7, 0.04), (0.40, 0.0, -0.0205))


def with_things(*things: tuple[str, int, float, float]) -> SceneState:
    """A scene of (kind, variant, x, y)."""
    objects = []
    for number, (kind, variant, x, y) in enumerate(things, start=1):
        shape = shape_of(kind, variant)
        size = (2 * shape.radius_m, shape.height_m)
        centre = (x, y, shape.height_m / 2)
        objects.append(SceneObject(number, kind, "red", (0.8, 0.1, 0.1), variant, centre, 0.3, size))
    return replace(draw_scene(1), objects=tuple(objects))


@pytest.fixture(scope="module")
def scene() -> RoboplanScene:
    planning = RoboplanScene(fr3.robot())
    planning.set_obstacles([TABLE])
    return planning


def follow(physics: TablePhysics, scene: RoboplanScene, plan: ReachPlan, *parts: str) -> None:
    for name, part in plan.parts():
        if name in parts:
            follower = Follower(part, scene.limits, physics.time_s)
            while not (result := follower.judge(physics.joints()[0], physics.time_s)).ended:
                physics.command(*follower.wanted(physics.time_s))
                physics.advance(TICK_S)
            assert result.state == "reached", result


def top_down(x: float, y: float, z: float) -> np.ndarray:
    return np.array([[0.0, 1, 0, x], [1, 0, 0, y], [0, 0, -1, z], [0, 0, 0, 1]])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_rests_where_it_stands_and_is_light_enough_to_lift(kind: str) -> None:
    for variant in (0, 5):
        physics = TablePhysics(with_things((kind, variant, 0.5, 0.0)))
        physics.advance(1.0)
        (T,) = physics.objects()
        if kind != "ball":  # which may roll a little
            np.testing.assert_allclose(T[:2, 3], [0.5, 0.0], atol=0.002)
            assert T[2, 2] > np.cos(np.radians(1.0))
        assert abs(T[2, 3]) < 0.003
        assert 0.02 < mass_kg(shape_of(kind, variant)) < 0.3
        assert physics.touches == []


def test_the_arm_holds_its_posture_against_gravity() -> None:
    physics = TablePhysics(with_things(("cube", 2, 0.5, 0.0)))
    before, _ = physics.joints()
    physics.advance(2.0)
    after, speed = physics.joints()
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert np.abs(speed).max() < 1e-3


def test_a_fast_motion_is_followed_within_a_degree(scene: RoboplanScene) -> None:
    physics = TablePhysics(with_things(("cube", 2, 0.5, 0.3)))
    start = physics.joints()[0]
    goal = start + [0.9, 0.4, 0.3, 0.4, -0.4, 0.5, 0.6]
    motion = plan_joints(scene, start, goal)
    worst = 0.0
    for time_s in np.arange(0.0, motion.duration_s, TICK_S):
        physics.command(*motion.at(time_s + TICK_S / 2))
        physics.advance(TICK_S)
        worst = max(worst, float(np.abs(physics.joints()[0] - motion.at(time_s + TICK_S)[0]).max()))
    assert worst < np.radians(1.0)


def test_a_cube_is_grasped_lifted_and_its_width_measured_without_touching_anything_else(
    scene: RoboplanScene,
) -> None:
    state = with_things(("cube", 2, 0.5, 0.1), ("bottle", 2, 0.5, -0.2))
    physics = TablePhysics(state)
    cube = state.objects[0]
    goal = top_down(0.5, 0.1, cube.size_m[1] - 0.025)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    centre = np.eye(4)
    centre[:3, 3] = goal[:3, 3]
    plan = plan_reach(
        scene, physics.joints()[0], [centre @ turn @ np.linalg.inv(centre) @ goal], ReachOptions()
    )
    follow(physics, scene, plan, "move", "approach")
    physics.grip(0.0)
    physics.advance(0.6)
    side_m = shape_of("cube", 2).half_m or (np.ptp(shape_of("cube", 2).mesh.vertices_V3[:, 0]) / 2,) * 2
    assert physics.opening_m() == pytest.approx(2 * side_m[0], abs=0.003)
    follow(physics, scene, plan, "retreat")
    assert physics.objects()[0][2, 3] > 0.08
    assert physics.objects()[1][2, 3] < 0.003
    assert {touch.other for touch in physics.touches} == {"1"}
    assert unwanted(physics.touches, "1") == []
    assert len(unwanted(physics.touches, "2")) == len(physics.touches)


def test_what_the_fingers_hold_does_not_creep_out_of_them(scene: RoboplanScene) -> None:
    physics = TablePhysics(with_things(("ball", 2, 0.5, 0.1)))
    ball = shape_of("ball", 2)
    x, y = physics.objects()[0][:2, 3]
    goal = top_down(x, y, ball.height_m / 2)
    plan = plan_reach(scene, physics.joints()[0], [goal], ReachOptions())
    follow(physics, scene, plan, "move", "approach")
    physics.grip(0.0)
    physics.advance(0.6)
    follow(physics, scene, plan, "retreat")
    physics.advance(0.5)
    before = physics.objects()[0]
    assert before[2, 3] > 0.05
    physics.advance(10.0)
    np.testing.assert_allclose(physics.objects()[0][:3, 3], before[:3, 3], atol=1e-3)


def test_fingers_that_close_on_nothing_meet() -> None:
    physics = TablePhysics(with_things(("cube", 2, 0.6, 0.3)))
    physics.grip(0.0)
    physics.advance(0.6)
    assert physics.opening_m() < 0.002
    physics.grip(0.05)
    physics.advance(0.6)
    assert physics.opening_m() == pytest.approx(0.05, abs=0.002)


def test_a_bowl_is_hollow() -> None:
    physics = TablePhysics(with_things(("bowl", 5, 0.5, 0.0), ("ball", 0, 0.5, 0.3)))
    inside = np.eye(4)
    inside[:3, 3] = [0.5, 0.0, 0.05]
    physics.place(2, inside)
    physics.advance(1.5)
    bowl, ball = physics.objects()
    np.testing.assert_allclose(ball[:2, 3], bowl[:2, 3], atol=0.03)
    assert ball[2, 3] < 0.02


def test_a_blow_is_noted_with_link_thing_and_force(scene: RoboplanScene) -> None:
    physics = TablePhysics(with_things(("bottle", 3, 0.5, 0.0)))
    x = fr3.robot()
    assert x.name == "fr3"
    start = physics.joints()[0]
    down = scene.solve_ik(top_down(0.5, -0.15, 0.06), start)
    across = scene.solve_ik(top_down(0.5, 0.15, 0.06), down if down is not None else start)
    assert down is not None
    assert across is not None
    for goal in (down, across):
        motion = plan_joints(scene, physics.joints()[0], goal, ReachOptions(speed_scale=0.3))
        for time_s in np.arange(0.0, motion.duration_s + 0.2, TICK_S):
            physics.command(*motion.at(time_s))
            physics.advance(TICK_S)
    blows = [touch for touch in physics.touches if touch.other == "1"]
    assert blows
    assert max(blow.force_n for blow in blows) > 0.5
    assert all(blow.link.startswith("fr3_") for blow in blows)


def test_the_same_commands_give_the_same_motion() -> None:
    ends = []
    for _ in range(2):
        physics = TablePhysics(draw_scene(4))
        physics.command(physics.joints()[0] + 0.1, np.zeros(7))
        physics.advance(0.5)
        ends.append((physics.joints()[0], np.array(physics.objects())))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_what_has_come_to_rest_moves_again_when_it_is_pushed_dropped_or_fallen_upon() -> None:
    physics = TablePhysics(with_things(("cube", 2, 0.5, 0.1), ("cube", 2, 0.5, -0.2)))
    physics.advance(1.5)
    at_rest = physics.objects()
    physics.push(1, np.array([0.6, 0.0, 0.0]))
    physics.advance(0.5)
    assert physics.objects()[0][0, 3] > at_rest[0][0, 3] + 0.01
    physics.advance(1.5)
    above = at_rest[1].copy()
    above[:3, 3] += [0.015, 0.0, 0.15]
    physics.place(1, above)
    physics.advance(0.5)
    fallen, fallen_upon = physics.objects()
    assert fallen[2, 3] < 0.08
    assert np.abs(fallen_upon[:3, 3] - at_rest[1][:3, 3]).max() > 1e-5
