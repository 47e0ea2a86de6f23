"""Free table: on the table, in view, away from everything; its widest place is really wide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from molmo_ros.sim.free_space import CLEAR_M, emptiest_spot, free_table
from molmo_ros.sim.mujoco_model import TABLE_CENTRE_M, TABLE_HALF_M
from molmo_ros.sim.objects import shape_of
from molmo_ros.sim.scene import SceneObject, SceneRecipe, SceneState, draw_scene
from molmo_ros.sim.worlds import TABLETOP

SIZE = (160, 120)


def table_only(state: SceneState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth and ids of an empty table that has no edge, and the (x, y) of each pixel on it."""
    width, height = SIZE
    v, u = np.mgrid[0:height, 0:width]
    K, T = state.camera.K(SIZE), state.camera.T_base_camera
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1)
    down = rays @ T[2, :3]
    depth_m = np.where(down < -1e-3, -T[2, 3] / down, np.nan)
    points = (rays * depth_m[..., None]) @ T[:3, :3].T + T[:3, 3]
    return depth_m.astype(np.float32), np.zeros((height, width), np.int32), points[..., :2]


def thing(kind: str, x: float, y: float, yaw_rad: float = 0.0) -> SceneObject:
    shape = shape_of(kind, 5)
    extent = (2 * shape.radius_m, shape.height_m)
    return SceneObject(1, kind, "red", (1, 0, 0), 5, (x, y, shape.height_m / 2), yaw_rad, extent)


@pytest.mark.parametrize("seed", range(6))
def test_free_pixels_lie_on_the_table_away_from_the_footprints(seed: int) -> None:
    state = draw_scene(seed, SceneRecipe(world=TABLETOP))
    depth_m, ids, xy = table_only(state)
    free = free_table(state, depth_m, ids)
    assert 0.1 < free.mean() < 1
    within = np.abs(xy[free] - TABLE_CENTRE_M) < np.array(TABLE_HALF_M[:2])
    assert within.all()
    for o in state.objects:
        away_m = np.hypot(*(xy[free] - np.array(o.centre_m[:2])).T)
        nearest = o.shape.reach_m if o.shape.half_m is None else min(o.shape.half_m)
        assert away_m.min() > nearest + CLEAR_M - 1e-6


def test_a_long_thing_keeps_only_its_own_place() -> None:
    """Beside a lying screwdriver is free, in front of its tip is not; turned, it is the other way round."""
    state = draw_scene(3, SceneRecipe(objects=(2, 2), world=TABLETOP))
    depth_m, ids, xy = table_only(state)
    for yaw_rad, along in ((0.0, 0), (np.pi / 2, 1)):
        alone = replace(state, objects=(thing("screwdriver", 0.5, 0.0, yaw_rad),))
        free = free_table(alone, depth_m, ids)
        away = np.abs(xy - (0.5, 0.0))
        tip = (away[..., along] < 0.08) & (away[..., 1 - along] < 0.01)
        side = (away[..., along] < 0.08) & (away[..., 1 - along] > 0.04) & (away[..., 1 - along] < 0.06)
        assert tip.any() and side.any()
        assert not free[tip].any()
        assert free[side].all()


def test_what_covers_the_table_or_rises_above_it_is_not_free() -> None:
    state = draw_scene(3, SceneRecipe(objects=(2, 2), world=TABLETOP))
    depth_m, ids, _ = table_only(state)
    free = free_table(state, depth_m, ids)
    ids[:60] = 1
    depth_m[:, :80] -= 0.05
    covered = free_table(state, depth_m, ids)
    assert not covered[:60].any()
    assert not covered[:, :80].any()
    np.testing.assert_array_equal(covered[60:, 80:], free[60:, 80:])


def test_a_coarser_look_sees_every_so_many_th_pixel() -> None:
    state = draw_scene(5, SceneRecipe(world=TABLETOP))
    depth_m, ids, _ = table_only(state)
    np.testing.assert_array_equal(
        free_table(state, depth_m, ids, every=4), free_table(state, depth_m, ids)[::4, ::4]
    )


def test_the_emptiest_spot_is_the_middle_of_the_widest_place() -> None:
    free = np.zeros((60, 80), bool)
    free[5:20, 5:20] = True
    free[20:51, 40:71] = True
    assert emptiest_spot(free) == (55.0, 35.0)


def test_the_edge_of_the_picture_counts_as_taken_and_a_full_table_has_no_spot() -> None:
    u, v = emptiest_spot(np.ones((60, 80), bool)) or (0.0, 0.0)
    assert 28 <= u <= 51 and 28 <= v <= 31
    narrow = np.zeros((60, 80), bool)
    narrow[30] = True
    assert emptiest_spot(narrow) is None
    assert emptiest_spot(np.zeros((60, 80), bool)) is None
