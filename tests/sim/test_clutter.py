"""Things without a name: on the table, of a hand's size, and none shaped like a kind that has a name."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from molmo_ros.sim.clutter import BUILDERS
from molmo_ros.sim.objects import SIZES_PER_KIND, shape_of
from molmo_ros.sim.worlds import TABLETOP


@pytest.mark.parametrize("name", BUILDERS)
def test_it_lies_on_the_table_and_comes_in_sizes(name: str) -> None:
    shapes = [shape_of(name, variant) for variant in range(SIZES_PER_KIND)]
    for shape in shapes:
        parts = [shape.mesh, shape.accent] if shape.accent else [shape.mesh]
        vertices = np.concatenate([part.vertices_V3 for part in parts])
        assert vertices[:, 2].min() == pytest.approx(0.0, abs=1e-9)
        assert 0.01 < shape.height_m < 0.06
        assert 0.02 < shape.reach_m < 0.08
    assert shapes[-1].bulk_m > 1.15 * shapes[0].bulk_m


def test_every_clutter_shape_is_drawn_and_none_has_a_name() -> None:
    assert set(TABLETOP.clutter) == set(BUILDERS)
    assert not set(BUILDERS) & set(TABLETOP.kinds)


@pytest.mark.parametrize("name", ["star", "ell", "cross", "arch", "comb"])
def test_flat_clutter_is_no_box_seen_from_above(name: str) -> None:
    """Its outline leaves much of its bounding rectangle open."""
    shape = shape_of(name, 3)
    drawn_mm = np.round(1000 * shape.mesh.vertices_V3[:, :2] + 100).astype(np.int32)
    seen = np.zeros((200, 200), np.uint8)
    for triangle in drawn_mm[shape.mesh.faces_F3]:
        cv2.fillConvexPoly(seen, triangle, 1)
    rows, columns = np.nonzero(seen)
    assert seen.sum() < 0.8 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
