"""Revolved, swept and rounded meshes: watertight where they should be, true to size, normals outward."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.sim.meshes import (
    Mesh,
    arc_profile,
    extruded,
    moved,
    revolved,
    rounded_box,
    rounded_profile,
    swept_tube,
    turned,
)


def volume(mesh: Mesh) -> float:
    """Signed volume by the divergence theorem; positive when the triangles face outward."""
    a, b, c = (mesh.vertices_V3[mesh.faces_F3[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_a_revolved_half_circle_is_a_ball_with_radial_normals() -> None:
    ball = revolved(*arc_profile((0.0, 0.0), 0.03, -np.pi / 2, np.pi / 2, steps=24), around=48)
    np.testing.assert_allclose(np.linalg.norm(ball.vertices_V3, axis=1), 0.03, atol=1e-12)
    np.testing.assert_allclose(ball.normals_V3, ball.vertices_V3 / 0.03, atol=1e-9)
    assert volume(ball) == pytest.approx(4 / 3 * np.pi * 0.03**3, rel=0.02)


@given(st.floats(0.01, 0.05), st.floats(0.02, 0.15))
def test_a_revolved_rectangle_is_a_cylinder_of_that_size(radius: float, height: float) -> None:
    profile = rounded_profile([(0, 0, 0), (radius, 0, 0), (radius, height, 0), (0, height, 0)])
    cylinder = revolved(*profile, around=64)
    assert volume(cylinder) == pytest.approx(np.pi * radius**2 * height, rel=0.01)
    np.testing.assert_allclose(cylinder.vertices_V3.max(axis=0), [radius, radius, height], atol=1e-9)


def test_fillets_stay_inside_the_corner_and_keep_unit_normals() -> None:
    points, normals = rounded_profile([(0, 0, 0), (0.03, 0, 0.005), (0.03, 0.1, 0.005), (0, 0.1, 0)])
    assert points[:, 0].max() <= 0.03 + 1e-12
    assert points[:, 1].min() >= -1e-12
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-12)
    # The bottom looks down, the side looks outward, the top looks up.
    np.testing.assert_allclose(normals[0], [0, -1], atol=1e-12)
    np.testing.assert_allclose(normals[-1], [0, 1], atol=1e-12)


@given(st.tuples(*[st.floats(0.02, 0.1)] * 3))
def test_a_rounded_box_has_its_size_and_stands_on_the_table(size_m: tuple[float, float, float]) -> None:
    box = rounded_box(size_m, edge_m=0.1 * min(size_m))
    low, high = box.vertices_V3.min(axis=0), box.vertices_V3.max(axis=0)
    np.testing.assert_allclose(high - low, size_m, rtol=1e-9)
    assert low[2] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(np.linalg.norm(box.normals_V3, axis=1), 1.0, atol=1e-9)
    assert 0.95 * np.prod(size_m) < volume(box) < np.prod(size_m)


def test_a_swept_tube_keeps_its_radius_around_the_path() -> None:
    turn = np.linspace(0, np.pi, 40)
    path = np.stack([0.05 * np.cos(turn), 0 * turn, 0.05 * np.sin(turn)], axis=1)
    tube = swept_tube(path, radius_m=0.005)
    distance = np.linalg.norm(tube.vertices_V3[:, None] - path[None], axis=-1).min(axis=1)
    np.testing.assert_allclose(distance, 0.005, rtol=0.01)


def test_a_tube_may_taper() -> None:
    path = np.stack([np.linspace(0, 0.1, 20), np.zeros(20), np.zeros(20)], axis=1)
    tube = swept_tube(path, np.linspace(0.004, 0.010, 20))
    radius = np.linalg.norm(tube.vertices_V3[:, 1:], axis=1)
    np.testing.assert_allclose(radius, 0.004 + 0.06 * tube.vertices_V3[:, 0], atol=1e-9)


@given(st.floats(0.01, 0.05), st.floats(0.01, 0.1))
def test_an_extruded_outline_is_a_closed_prism(size: float, height: float) -> None:
    ell = size * np.array([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])
    prism = extruded(ell, height, seen_from=(0.5 * size, 0.5 * size))
    assert volume(prism) == pytest.approx(3 * size**2 * height, rel=1e-9)
    assert (prism.vertices_V3[:, 2].min(), prism.vertices_V3[:, 2].max()) == (0.0, height)
    edges = np.abs(prism.normals_V3).max(axis=1)
    np.testing.assert_allclose(edges, 1.0)  # every face looks along an axis


@given(st.floats(-3, 3), st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]))
def test_turning_and_moving_keep_a_mesh_rigid(angle_rad: float, axis: tuple[float, float, float]) -> None:
    box = rounded_box((0.03, 0.05, 0.08), edge_m=0.004)
    placed = moved(turned(box, axis, angle_rad), (0.1, -0.2, 0.3))
    assert volume(placed) == pytest.approx(volume(box), rel=1e-9)
    back = turned(moved(placed, (-0.1, 0.2, -0.3)), axis, -angle_rad)
    np.testing.assert_allclose(back.vertices_V3, box.vertices_V3, atol=1e-12)
    np.testing.assert_allclose(back.normals_V3, box.normals_V3, atol=1e-12)


def test_turning_is_right_handed() -> None:
    x = Mesh(np.array([[1.0, 0, 0]]), np.array([[1.0, 0, 0]]), np.zeros((0, 3), np.int32))
    np.testing.assert_allclose(turned(x, (0, 0, 1), np.pi / 2).vertices_V3, [[0, 1, 0]], atol=1e-12)
