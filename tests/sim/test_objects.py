"""The things on the table: household sizes, each in its own shape."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.sim.objects import KINDS, SIZES_PER_KIND, TIPPING, Shape, all_shapes, shape_of, shapes_of


def test_every_kind_comes_in_several_different_sizes() -> None:
    for kind in KINDS:
        sizes = {(round(s.radius_m, 5), round(s.height_m, 5)) for s in shapes_of(kind)}
        assert len(sizes) == SIZES_PER_KIND


@pytest.mark.parametrize("shape", all_shapes(), ids=lambda s: s.name)
def test_a_shape_has_household_size_and_stands_on_the_table(shape: Shape) -> None:
    low, high = shape.mesh.vertices_V3.min(axis=0), shape.mesh.vertices_V3.max(axis=0)
    assert low[2] == pytest.approx(0.0, abs=1e-9)
    assert 0.03 <= 2 * shape.radius_m <= 0.1
    assert shape.height_m == pytest.approx(high[2])
    assert shape.height_m <= (0.161 if shape.kind == "bottle" else 0.101)
    assert shape.reach_m >= np.abs(shape.mesh.vertices_V3[:, :2]).max() - 1e-9


@pytest.mark.parametrize("kind", ["mug", "bowl"])
def test_mugs_and_bowls_are_hollow(kind: str) -> None:
    for shape in shapes_of(kind):
        radial = np.linalg.norm(shape.mesh.vertices_V3[:, :2], axis=1)
        on_axis = shape.mesh.vertices_V3[radial < 1e-6, 2]
        assert on_axis.max() < 0.2 * shape.height_m  # seen from above, the middle is the inner floor


def test_only_mugs_have_a_handle_and_only_rings_a_hole() -> None:
    for shape in all_shapes():
        radial = np.linalg.norm(shape.mesh.vertices_V3[:, :2], axis=1)
        assert (shape.reach_m > 1.2 * shape.radius_m) == (shape.kind == "mug")
        if shape.kind != "cube":  # which has no vertex on its axis
            assert (radial.min() > 0.01) == (shape.kind == "ring")


@pytest.mark.parametrize("kind", TIPPING)
def test_a_thing_on_its_side_rests_on_the_table_and_keeps_its_size(kind: str) -> None:
    for upright in shapes_of(kind):
        lying = shape_of(kind, upright.variant, tipped=True)
        parts = [lying.mesh, lying.accent] if lying.accent else [lying.mesh]
        vertices = np.concatenate([part.vertices_V3 for part in parts])
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        assert low[2] == pytest.approx(0.0, abs=1e-9)
        assert lying.name != upright.name
        assert lying.bulk_m == pytest.approx(upright.bulk_m, rel=0.12)
        np.testing.assert_allclose((low + high)[:2], 0.0, atol=1e-9)  # over the origin
        if kind not in ("box", "mug"):
            assert lying.height_m < upright.height_m


def test_a_bottle_on_its_side_is_long_and_a_cone_rests_along_its_slope() -> None:
    for variant in range(SIZES_PER_KIND):
        bottle = shape_of("bottle", variant, tipped=True)
        assert bottle.half_m
        assert max(bottle.half_m) > 2 * min(bottle.half_m)
        cone = shape_of("cone", variant, tipped=True)
        resting = cone.mesh.vertices_V3[cone.mesh.vertices_V3[:, 2] < 0.002]
        assert np.ptp(resting[:, 0]) > 1.2 * cone.height_m  # from the rim of the foot to the tip


def test_what_does_not_lie_on_its_side_is_refused() -> None:
    with pytest.raises(ValueError, match="ball does not lie"):
        shape_of("ball", 0, tipped=True)


def test_all_shapes_of_a_world_have_names_of_their_own() -> None:
    shapes = all_shapes(("box", "cube", "can"), tipping=True)
    assert len({shape.name for shape in shapes}) == len(shapes) == 5 * SIZES_PER_KIND
    assert not any(shape.tipped for shape in all_shapes(("box",)))
