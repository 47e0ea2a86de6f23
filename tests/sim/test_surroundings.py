"""Cameras and light stay within the ranges of their world, and use them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.sim.scene import ASPECT
from molmo_ros.sim.surroundings import draw_camera, draw_light, draw_room
from molmo_ros.sim.worlds import FIRST, TABLETOP, World

seeds = st.integers(0, 2**32)
worlds = st.sampled_from([FIRST, TABLETOP])


def elevation_deg(T_base_camera: np.ndarray) -> float:
    return float(np.degrees(np.arcsin(-T_base_camera[2, 2])))


@given(seeds, worlds, st.booleans())
def test_cameras_look_at_the_table_from_where_their_world_says(
    seed: int, world: World, held_out: bool
) -> None:
    camera = draw_camera(np.random.default_rng(seed), world.camera, held_out)
    T, within = camera.T_base_camera, world.camera
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    assert within.elevation_deg[0] - 0.01 < elevation_deg(T) < within.elevation_deg[1] + 0.01
    assert within.fovy_deg[0] <= np.degrees(camera.fovy_rad) <= within.fovy_deg[1]
    away_m = (T[2, 3] - 0.02) / -T[2, 2]
    assert within.away_m[0] - 1e-9 <= away_m <= within.away_m[1] + 1e-9
    half_height_m = away_m * np.tan(camera.fovy_rad / 2)
    assert half_height_m <= within.half_height_m[1] + 1e-9
    if world is FIRST:
        assert T[2, 1] < 0  # the image's down points down; straight overhead it lies level


def test_tabletop_cameras_are_50_to_90_degrees_wide_and_stand_anywhere_up_to_overhead() -> None:
    cameras = [draw_camera(np.random.default_rng(seed), TABLETOP.camera) for seed in range(400)]
    wide_deg = [np.degrees(2 * np.arctan(ASPECT * np.tan(c.fovy_rad / 2))) for c in cameras]
    assert 49.9 < min(wide_deg) < 54
    assert 86 < max(wide_deg) < 90.1
    up_deg = [elevation_deg(c.T_base_camera) for c in cameras]
    assert 24.9 < min(up_deg) < 28
    assert 87 < max(up_deg) <= 90


@given(seeds, worlds)
def test_light_is_as_bright_as_its_world_says_and_falls_from_above(seed: int, world: World) -> None:
    light = draw_light(np.random.default_rng(seed), world.light)
    total = light.ambient + 0.85 * light.key + 0.75 * light.fill + 0.7 * light.head
    assert world.light.total[0] - 1e-9 <= total <= world.light.total[1] + 1e-9
    for direction in (light.key_direction, light.fill_direction):
        assert np.linalg.norm(direction) == pytest.approx(1.0)
        assert direction[2] < -0.4


def test_rooms_wear_the_textures_they_are_given() -> None:
    seen = {draw_room(np.random.default_rng(seed), (3, 17, 40)).texture for seed in range(40)}
    assert seen == {3, 17, 40}
