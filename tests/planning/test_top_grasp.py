"""Grasps from above over a height map: where both fingers fit, and what is between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo_ros.planning.top_grasp import Fingers, TopGrasp, top_grasps

STEP = 0.0007


def block(x: float, y: float, width: float, length: float, height: float, yaw: float = 0.0) -> np.ndarray:
    """Points of the top of a block, as seen from above."""
    u, v = np.meshgrid(np.arange(-width / 2, width / 2, STEP), np.arange(-length / 2, length / 2, STEP))
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([x + c * u - s * v, y + s * u + c * v, np.full_like(u, height)], axis=-1).reshape(-1, 3)


def table(*holes: np.ndarray) -> np.ndarray:
    """The table around what stands on it."""
    points = block(0.5, 0.0, 0.24, 0.24, 0.0)
    cells = {tuple(cell) for hole in holes for cell in np.floor(hole[:, :2] / 0.002).astype(int)}
    free = [tuple(cell) not in cells for cell in np.floor(points[:, :2] / 0.002).astype(int)]
    return points[free]


def ring(x: float, y: float, outer: float, inner: float, height: float) -> np.ndarray:
    points = block(x, y, 2 * outer, 2 * outer, height)
    r = np.hypot(points[:, 0] - x, points[:, 1] - y)
    return points[(r < outer) & (r > inner)]


def grasps_of(own: np.ndarray, *others: np.ndarray) -> tuple[TopGrasp, ...]:
    return top_grasps(np.concatenate([table(own, *others), own, *others]), own, 0.0)


@settings(max_examples=12)
@given(
    yaw=st.floats(-1.5, 1.5),
    x=st.floats(0.47, 0.53),
    y=st.floats(-0.03, 0.03),
    width=st.floats(0.02, 0.045),
    height=st.floats(0.02, 0.09),
)
def test_a_block_is_taken_across_its_shorter_side_at_its_middle(
    yaw: float, x: float, y: float, width: float, height: float
) -> None:
    best = grasps_of(block(x, y, width, 1.6 * width, height, yaw))[0]
    assert best.around_all
    np.testing.assert_allclose(best.T_base_grasp[:2, 3], [x, y], atol=0.004)
    across = abs(best.T_base_grasp[:2, 0] @ [np.cos(yaw), np.sin(yaw)])
    assert across > np.cos(np.radians(20))
    assert best.width_m == pytest.approx(width, abs=0.012)
    assert 0.004 < best.T_base_grasp[2, 3] < height
    np.testing.assert_allclose(best.T_base_grasp[:3, 2], [0, 0, -1])
    assert np.linalg.det(best.T_base_grasp[:3, :3]) == pytest.approx(1.0)


def test_the_fingers_open_wider_than_the_thing_and_within_what_they_can() -> None:
    for grasp in grasps_of(block(0.5, 0.0, 0.05, 0.05, 0.05)):
        assert grasp.width_m + 0.005 < grasp.opening_m <= Fingers().max_opening_m + 1e-9


def test_what_is_wider_than_the_gripper_all_round_is_taken_by_its_wall() -> None:
    grasps = grasps_of(ring(0.5, 0.0, 0.05, 0.044, 0.04))
    assert grasps
    for grasp in grasps:
        assert not grasp.around_all
        aside = np.hypot(*(grasp.T_base_grasp[:2, 3] - [0.5, 0.0]))
        assert aside == pytest.approx(0.047, abs=0.006)


def test_a_solid_thing_that_is_too_wide_is_taken_by_a_corner_at_best() -> None:
    assert not any(grasp.around_all for grasp in grasps_of(block(0.5, 0.0, 0.1, 0.1, 0.05)))


def test_a_neighbour_decides_the_direction() -> None:
    own = block(0.5, 0.0, 0.03, 0.03, 0.05)
    walls = [block(0.5 + side * 0.03, 0.0, 0.02, 0.2, 0.05) for side in (-1, 1)]
    best = grasps_of(own, *walls)[0]
    assert abs(best.T_base_grasp[1, 0]) > 0.95  # closes along y: along x there is no room
    boxed_in = [block(0.5, side * 0.03, 0.2, 0.02, 0.05) for side in (-1, 1)]
    assert grasps_of(own, *walls, *boxed_in) == ()


def test_a_flat_thing_gives_no_hold() -> None:
    assert grasps_of(block(0.5, 0.0, 0.03, 0.03, 0.004)) == ()


def test_flying_pixels_do_not_raise_the_fingers() -> None:
    own = block(0.5, 0.0, 0.04, 0.04, 0.05)
    rng = np.random.default_rng(0)
    flying = own[rng.integers(len(own), size=len(own) // 100)] + [0.0, 0.0, 0.05]
    everything = np.concatenate([table(own), own, flying])
    best = top_grasps(everything, own, 0.0)[0]
    assert best.T_base_grasp[2, 3] == pytest.approx(0.05 - Fingers().depth_m, abs=0.004)


def test_thicker_fingers_find_fewer_ways() -> None:
    own, wall = block(0.5, 0.0, 0.03, 0.03, 0.05), block(0.545, 0.0, 0.02, 0.2, 0.05)
    points = np.concatenate([table(own, wall), own, wall])
    thin = top_grasps(points, own, 0.0, replace(Fingers(), thickness_m=0.01))
    thick = top_grasps(points, own, 0.0, replace(Fingers(), thickness_m=0.03))
    assert len(thin) > len(thick)


def test_nothing_has_no_grasp() -> None:
    assert top_grasps(table(), np.empty((0, 3)), 0.0) == ()
