"""Things of daily life: each has the feature that people tell it by."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.sim.objects import SIZES_PER_KIND, TIPPING, Shape, shape_of, shapes_of
from molmo_ros.sim.worlds import FIRST, WORKSHOP

NEW_KINDS = tuple(kind for kind in WORKSHOP.kinds if kind not in FIRST.kinds)
NEW_SHAPES = [
    shape_of(kind, variant, tipped)
    for kind in NEW_KINDS
    for variant in range(SIZES_PER_KIND)
    for tipped in ([False, True] if kind in TIPPING else [False])
]


def extents(shape: Shape) -> np.ndarray:
    vertices = shape.mesh.vertices_V3
    return np.asarray(vertices.max(axis=0) - vertices.min(axis=0))


@pytest.mark.parametrize("shape", NEW_SHAPES, ids=lambda s: s.name)
def test_it_rests_on_the_table_at_household_size_with_unit_normals(shape: Shape) -> None:
    parts = [shape.mesh, shape.accent] if shape.accent else [shape.mesh]
    vertices = np.concatenate([part.vertices_V3 for part in parts])
    assert vertices[:, 2].min() == pytest.approx(0.0, abs=1e-3)  # a box's tape goes around its foot
    assert shape.height_m == pytest.approx(vertices[:, 2].max())
    assert 0.01 < shape.height_m < 0.17
    assert 0.04 < 2 * shape.reach_m < 0.19
    assert shape.reach_m == pytest.approx(np.linalg.norm(vertices[:, :2], axis=1).max())
    for part in parts:
        np.testing.assert_allclose(np.linalg.norm(part.normals_V3, axis=1), 1.0, atol=1e-6)
        assert part.faces_F3.max() < len(part.vertices_V3)


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_it_comes_in_sizes_that_differ_by_a_fifth(kind: str) -> None:
    bulks = [shape.bulk_m for shape in shapes_of(kind)]
    assert max(bulks) / min(bulks) > 1.2
    assert len({round(bulk, 5) for bulk in bulks}) == SIZES_PER_KIND


def test_boxes_are_longer_than_wide_and_wider_than_high_and_taped_on_every_side() -> None:
    for shape in shapes_of("box"):
        long, wide, high = extents(shape)
        assert long > 1.3 * wide > 1.3 * 1.2 * high
        assert shape.accent
        tape = shape.accent.vertices_V3
        assert (tape.max(axis=0) > shape.mesh.vertices_V3.max(axis=0)).all()
        assert (tape.min(axis=0) < shape.mesh.vertices_V3.min(axis=0)).all()


def test_cups_are_hollow_have_no_handle_and_widen_upwards_and_plates_are_flat() -> None:
    for shape in shapes_of("cup"):
        v = shape.mesh.vertices_V3
        radial = np.linalg.norm(v[:, :2], axis=1)
        assert v[radial < 1e-6, 2].max() < 0.1 * shape.height_m
        assert (
            radial[v[:, 2] > 0.9 * shape.height_m].max() > 1.4 * radial[v[:, 2] < 0.05 * shape.height_m].max()
        )
        assert extents(shape)[0] == pytest.approx(extents(shape)[1], rel=0.01)
    for shape in shapes_of("plate"):
        assert shape.height_m < 0.3 * shape.radius_m


def test_cans_and_cartons_end_in_another_colour_on_top() -> None:
    for shape in shapes_of("can"):
        assert shape.accent
        lid = shape.accent.vertices_V3[:, 2].max()
        assert lid >= shape.mesh.vertices_V3[:, 2].max()
        assert np.linalg.norm(shape.accent.vertices_V3[:, :2], axis=1).max() < 0.8 * shape.radius_m
    for shape in shapes_of("carton"):
        v = shape.mesh.vertices_V3
        assert np.abs(v[v[:, 2] > 0.97 * shape.height_m][:, 0]).max() < 0.005  # the ridge
        assert shape.accent
        assert 0.7 * shape.height_m < shape.accent.vertices_V3[:, 2].mean() < shape.height_m


def test_bananas_bend() -> None:
    for shape in shapes_of("banana"):
        middle = shape.mesh.vertices_V3[:, :2].mean(axis=0)
        ends = np.array([shape.mesh.vertices_V3[i, :2] for i in (0, -1)]).mean(axis=0)
        assert np.linalg.norm(middle - ends) > 0.25 * shape.reach_m
        assert shape.half_m
        assert max(shape.half_m) > 2 * min(shape.half_m)


def test_lemons_are_long_with_nubs_and_screwdrivers_have_a_thin_steel_shaft() -> None:
    for shape in shapes_of("lemon"):
        long, wide, high = extents(shape)
        assert long > 1.4 * max(wide, high)
        v = shape.mesh.vertices_V3
        near_tip = np.abs(v[:, 0]) > 0.93 * long / 2
        assert 0 < np.abs(v[near_tip, 1]).max() < 0.2 * wide
    for shape in shapes_of("screwdriver"):
        assert shape.accent
        shaft = shape.accent.vertices_V3
        assert np.ptp(shaft[:, 1]) < 0.5 * extents(shape)[1]
        assert shaft[:, 0].max() > shape.mesh.vertices_V3[:, 0].max() + 0.05


def test_staplers_open_towards_one_end() -> None:
    for shape in shapes_of("stapler"):
        v = shape.mesh.vertices_V3
        heights = [
            np.ptp(v[here, 2]) for here in (v[:, 0] < -0.6 * shape.reach_m, v[:, 0] > 0.6 * shape.reach_m)
        ]
        assert heights[1] > 1.2 * heights[0]
