"""Physics and pictures together: what moved is seen where it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from molmo_ros.planning.reach import plan_joints
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.sim import fr3
from molmo_ros.sim.robot_cell import RobotCell


@pytest.fixture(scope="module")
def cell() -> Iterator[RobotCell]:
    ours = RobotCell((320, 240))
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def scene() -> RoboplanScene:
    return RoboplanScene(fr3.robot())


def test_the_arm_ends_where_it_was_sent_and_frames_say_so(cell: RobotCell, scene: RoboplanScene) -> None:
    cell.reset(3)
    goal = np.array(fr3.robot().ready_rad)
    assert cell.follow(plan_joints(scene, cell.physics.joints()[0], goal), scene.limits).state == "reached"
    np.testing.assert_allclose(cell.physics.joints()[0], goal, atol=0.005)
    T = np.eye(4)
    chain = {child: (parent, T_pc) for parent, child, T_pc in cell.arm_transforms()}
    link = "fr3_hand_tcp"
    while link != "base_link":
        parent, T_parent_link = chain[link]
        T, link = T_parent_link @ T, parent
    np.testing.assert_allclose(scene.robot.goal_pose(T), scene.goal_pose(cell.physics.joints()[0]), atol=1e-6)


def test_the_wrist_camera_sees_the_things_where_they_are(cell: RobotCell, scene: RoboplanScene) -> None:
    state = cell.reset(3)
    goal = np.array(fr3.robot().ready_rad)
    cell.follow(plan_joints(scene, cell.physics.joints()[0], goal), scene.limits)
    seen = 0
    view, camera = cell.look("wrist", segmentation=True), cell.camera("wrist")
    assert view.ids is not None
    for thing in state.objects:
        rows, columns = np.nonzero(view.ids == thing.id)
        whole = len(rows) > 150 and rows.min() > 2 and columns.min() > 2 and rows.max() < 237
        if not whole or columns.max() > 317:
            continue
        ((u, v),) = camera.project(np.array([thing.centre_m]), (320, 240))
        assert abs(u - columns.mean()) < 12
        assert abs(v - rows.mean()) < 12
        seen += 1
    assert seen >= 1


def test_a_thing_that_was_moved_is_seen_where_it_is_now(cell: RobotCell) -> None:
    state = cell.reset(3)
    before = cell.look(segmentation=True)
    T = cell.physics.objects()[0]
    T[:3, 3] += [0.0, 0.12, 0.1]
    cell.physics.place(1, T)
    after = cell.look(segmentation=True)
    assert before.ids is not None
    assert after.ids is not None
    lifted = np.array(state.objects[0].centre_m) + [0.0, 0.12, 0.1]
    ((u, v),) = state.camera.project(lifted[None], (320, 240))
    rows, columns = np.nonzero(after.ids == 1)
    assert abs(u - columns.mean()) < 8
    assert abs(v - rows.mean()) < 8
    assert (before.ids != after.ids).any()


def test_without_motion_the_picture_is_that_of_the_scene(cell: RobotCell) -> None:
    cell.reset(8)
    still = cell.tabletop.render(segmentation=True).ids
    seen = cell.look(segmentation=True).ids
    assert still is not None
    assert seen is not None
    assert (still != seen).mean() < 0.003  # things settle by fractions of a millimetre


def test_what_creeps_is_seen_where_it_is_in_the_end(cell: RobotCell) -> None:
    cell.reset(3)
    T, before = cell.physics.objects()[0], cell.look().depth_m.copy()
    for _ in range(20_000):
        T[0, 3] += 5e-7  # each too little to be drawn anew
        cell.physics.place(1, T)
        cell.arm_transforms()
    crept = cell.look().depth_m
    assert np.nanmax(np.abs(crept - before)) > 0.005


def test_each_camera_keeps_its_own_picture_of_what_stands_still(cell: RobotCell) -> None:
    cell.reset(3)
    cell.look(), cell.look("wrist")
    for camera in ("camera", "wrist"):
        again = cell.look(camera)
        cell.reset(3)
        np.testing.assert_array_equal(again.depth_m, cell.look(camera).depth_m)
