"""Boxes from YAML, and cells of space from points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.planning.obstacles import (
    Box,
    ObstacleError,
    free_to_rest,
    load_boxes,
    voxels_from_points,
    without_target,
)


def boxes_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "boxes.yaml"
    path.write_text(text)
    return path


def test_boxes_are_read_with_turn_and_allowed_links(tmp_path: Path) -> None:
    text = "boxes: {shelf: {size_m: [1, 2, 0.5], xyz_m: [0.4, 0, 1], yaw_rad: 1.5707963, may_touch: [hand]}}"
    (box,) = load_boxes(boxes_file(tmp_path, text))
    assert (box.name, box.size_m, box.may_touch) == ("shelf", (1.0, 2.0, 0.5), ("hand",))
    np.testing.assert_allclose(box.T_base_box[:3, 0], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(box.T_base_box[:3, 3], [0.4, 0, 1])


def test_a_file_without_boxes_is_no_obstacle(tmp_path: Path) -> None:
    assert load_boxes(boxes_file(tmp_path, "boxes:")) == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1, 2", "not YAML"),
        ("walls: {}", "takes one entry, boxes"),
        ("boxes: {a: {size_m: [1, 1, 1]}}", "'a' takes size_m and xyz_m"),
        ("boxes: {a: {size_m: [1, 1], xyz_m: [0, 0, 0]}}", "'a'.*three numbers"),
        ("boxes: {a: {size_m: [1, 1, -1], xyz_m: [0, 0, 0]}}", "'a'.*positive"),
        ("boxes: {a: {size_m: [1, 1, 1], xyz_m: [0, 0, .nan]}}", "'a'.*finite"),
        ("boxes: {a: {size_m: [1, 1, 1], xyz_m: [0, 0, 0], colour: red}}", "'a' takes"),
    ],
)
def test_what_is_wrong_with_a_box_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ObstacleError, match=named):
        load_boxes(boxes_file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ObstacleError, match="no obstacle file"):
        load_boxes(tmp_path / "gone.yaml")


def test_an_upright_box_refuses_a_size_that_is_none() -> None:
    with pytest.raises(ObstacleError):
        Box.upright("flat", (1.0, 0.0, 1.0), (0.0, 0.0, 0.0))


@given(
    st.lists(st.tuples(*[st.floats(-1.0, 1.0)] * 2, st.floats(0.0, 1.0)), min_size=1, max_size=50),
    st.sampled_from([0.01, 0.02, 0.05]),
)
def test_every_point_lies_in_a_cell_when_single_points_count(
    points: list[tuple[float, float, float]], size_m: float
) -> None:
    voxels = voxels_from_points(np.array(points), size_m, fewest_points=1)
    for point in points:
        assert (np.abs(voxels.centres_N3 - point).max(axis=1) <= size_m / 2 + 1e-9).any()


def test_single_points_no_returns_and_far_points_fill_nothing() -> None:
    points = np.array([[0.5, 0, 0.1], [np.nan, 0, 0.1], [9.0, 0, 0], [9.0, 0, 0], [9.0, 0, 0]])
    assert len(voxels_from_points(points, 0.02)) == 0
    assert len(voxels_from_points(np.repeat(points[:1], 3, axis=0), 0.02)) == 1


def test_the_target_and_what_is_near_it_is_no_obstacle() -> None:
    points = np.array([[0.50, 0, 0.1], [0.51, 0, 0.1], [0.60, 0, 0.1]])
    np.testing.assert_array_equal(without_target(points, points[:1], 0.02), points[2:])
    np.testing.assert_array_equal(without_target(points, np.empty((0, 3)), 0.02), points)


def test_the_top_of_what_a_thing_is_put_on_does_not_stand_in_its_way() -> None:
    top_m, size_m = 0.046, 0.015  # the topmost cell reaches from 0.045 to 0.060
    x, y = np.meshgrid(np.arange(-0.02, 0.02, 0.004), np.arange(-0.02, 0.02, 0.004))
    stand = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, top_m)])
    side = stand + [0.0, 0.0, -0.020]
    neighbour = stand + [0.08, 0.0, 0.0]
    voxels = voxels_from_points(np.concatenate([stand, side, neighbour]), size_m)
    foot = np.array([0.0, 0.0, top_m + 0.010])

    free = free_to_rest(voxels, foot, 0.03)
    near = np.abs(free.centres_N3[:, 0]) < 0.04
    assert (free.centres_N3[near, 2] + size_m / 2 <= foot[2]).all()
    assert near.any()  # its sides stay
    assert np.count_nonzero(~near) == np.count_nonzero(voxels.centres_N3[:, 0] > 0.04)  # and so do others
