"""What depth tells of one thing: whether it has come to stand somewhere, and which points are its own."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.frame import Frame
from molmo_ros.planning.seen_thing import SeenThing, has_arrived, located_in, thing_at
from molmo_ros.planning.table_view import Sight, TableView, level_view
from molmo_ros.pointing.point import Point2D

PLACE = np.array([0.4, 0.1, 0.0])
SIDE_M = 0.06


def patch(half_m: float, z: float, centre: np.ndarray = PLACE) -> np.ndarray:
    """A square of points (N, 3), a millimetre apart."""
    x, y = np.mgrid[-half_m:half_m:0.001, -half_m:half_m:0.001]
    return np.column_stack([x.ravel() + centre[0], y.ravel() + centre[1], np.full(x.size, z)])


@pytest.fixture
def cube() -> SeenThing:
    return SeenThing.of(patch(SIDE_M / 2, SIDE_M), 0.0)


def test_what_rose_at_the_place_has_arrived(cube: SeenThing) -> None:
    table = patch(0.15, 0.0)
    assert has_arrived(table, np.vstack([table, patch(SIDE_M / 2, SIDE_M)]), PLACE, cube) is True


def test_a_place_that_is_as_bare_as_before_is_empty(cube: SeenThing) -> None:
    table = patch(0.15, 0.0)
    assert has_arrived(table, table, PLACE, cube) is False


def test_what_is_seen_only_around_the_place_tells_nothing(cube: SeenThing) -> None:
    around = patch(0.15, 0.0)
    around = around[np.hypot(*(around[:, :2] - PLACE[:2]).T) > 0.9 * cube.extent_m / 2]
    assert has_arrived(around, around, PLACE, cube) is None


def test_a_place_at_the_edge_of_the_picture_tells_nothing(cube: SeenThing) -> None:
    half = patch(0.15, 0.0)
    half = half[half[:, 1] > PLACE[1] + 0.005]
    assert has_arrived(half, half, PLACE, cube) is None


def test_the_sides_that_another_view_shows_are_its_own_too() -> None:
    """A post of 12 cm, seen by a camera that looks along the table from 45 degrees above it."""
    camera = CameraModel.from_info(
        width=320, height=240, k=np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])
    )
    T = np.eye(4)
    s = np.sqrt(0.5)
    T[:3, :3] = np.array([[0.0, -s, s], [-1.0, 0.0, 0.0], [0.0, -s, -s]])
    T[:3, 3] = [-0.2, 0.1, 0.6]
    v, u = np.mgrid[:240, :320]
    rays = np.stack([(u - 159.5) / 300, (v - 119.5) / 300, np.ones(u.shape)], axis=-1) @ T[:3, :3].T
    depth = -T[2, 3] / rays[..., 2]
    front = (PLACE[0] - 0.015 - T[0, 3]) / rays[..., 0]
    hit = T[:3, 3] + front[..., None] * rays
    on_front = (np.abs(hit[..., 1] - PLACE[1]) < 0.015) & (hit[..., 2] > 0) & (hit[..., 2] < 0.12)
    depth = np.where(on_front, front, depth).astype(np.float32)
    frame = Frame(np.zeros((240, 320, 3), np.uint8), depth, camera, 0, "camera")
    view = level_view(Sight(frame, T))
    from_above = SeenThing.of(patch(0.015, 0.12), 0.0)
    whole = from_above.seen_too(view)
    assert whole.own_base_N3[:, 2].min() < 0.02 < from_above.own_base_N3[:, 2].min()
    assert np.hypot(*(whole.own_base_N3[:, :2] - PLACE[:2]).T).max() < 0.05
    elsewhere = SeenThing.of(patch(0.015, 0.12, PLACE + [0.0, 0.15, 0.0]), 0.0)
    assert elsewhere.seen_too(view) is elsewhere


def from_above(heights_m: np.ndarray) -> TableView:
    """What a camera 0.6 m above the table sees of these heights (240, 320), 2 mm a pixel at the table."""
    camera = CameraModel.from_info(
        width=320, height=240, k=np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])
    )
    T = np.array([[0.0, -1.0, 0.0, 0.4], [-1.0, 0.0, 0.0, 0.1], [0.0, 0.0, -1.0, 0.6], [0.0, 0.0, 0.0, 1.0]])
    depth = (0.6 - heights_m).astype(np.float32)
    return level_view(Sight(Frame(np.zeros((240, 320, 3), np.uint8), depth, camera, 0, "camera"), T))


def test_a_bowl_whose_floor_is_pointed_at_is_the_bowl() -> None:
    v, u = np.mgrid[:240, :320]
    radius_m = 0.002 * np.hypot(u - 160, v - 120)
    heights = np.where((radius_m > 0.040) & (radius_m < 0.050), 0.04, np.where(radius_m < 0.040, 0.003, 0.0))
    heights[118:122, 158:166] = 0.0075  # unevenness, which noise makes of a floor now and then
    view = from_above(heights)
    located = located_in(view, Point2D(161.0, 120.0, "the bowl", 0.9, 3.0, 0))
    assert located.grasp is not None and located.grasp.footprint.length_m < 0.03  # that is taken for a thing
    bowl = thing_at(view, located)
    assert bowl.height_m == pytest.approx(0.04, abs=0.003)
    assert np.hypot(*np.ptp(bowl.own_base_N3[:, :2], axis=0)) > 0.1
