from collections.abc import Sequence

import numpy as np
import pytest
from box_scenes import Box, depth_of_boxes, pose_looking_at

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth import depth_at
from molmo_ros.geometry.object_region import ObjectRegion, object_region
from molmo_ros.geometry.pose import inverse
from molmo_ros.geometry.support_plane import PlanePrior, fit_support_plane
from molmo_ros.outcome import Code, PointingError

EYE = (0.9, 0.0, 0.55)


def region(
    camera: CameraModel, boxes: Sequence[Box], at: Sequence[float], eye: Sequence[float] = EYE
) -> tuple[ObjectRegion, np.ndarray]:
    """The region at a place (base frame) and its points in the base frame."""
    T = pose_looking_at(eye, [0.5, 0.0, 0.0])
    depth = depth_of_boxes(camera, T, boxes)
    support = fit_support_plane(depth, camera, PlanePrior.from_gravity(T))
    u, v = camera.project((inverse(T) @ [*at, 1])[:3])[0]
    found = object_region(depth, camera, support, depth_at(depth, camera, u, v, support=support))
    return found, found.points_cam @ T[:3, :3].T + T[:3, 3]


def test_all_of_a_box_is_its_region_and_nothing_of_the_table(camera: CameraModel) -> None:
    found, points = region(camera, [Box(0.5, 0.0, 0.0, (0.06, 0.1, 0.07))], [0.5, 0.0, 0.07])
    assert points[:, 2].min() > 0.003
    assert points[:, 2].max() == pytest.approx(0.07, abs=1e-3)
    np.testing.assert_allclose(points.min(axis=0)[:2], [0.47, -0.05], atol=0.002)
    np.testing.assert_allclose(points.max(axis=0)[:2], [0.53, 0.05], atol=0.002)
    np.testing.assert_allclose(found.height_m, points[:, 2], atol=1e-3)
    assert not found.cut_off
    assert len(found.surroundings_cam) == 0


def test_a_neighbour_beside_it_is_surroundings(camera: CameraModel) -> None:
    boxes = [Box(0.5, 0.0, 0.0, (0.05, 0.05, 0.06)), Box(0.5, 0.065, 0.0, (0.05, 0.05, 0.06))]
    found, points = region(camera, boxes, [0.5, 0.0, 0.06])
    assert points[:, 1].max() == pytest.approx(0.025, abs=0.002)
    assert len(found.surroundings_cam) > 500


@pytest.mark.parametrize("gap_m", [0.005, 0.008])
@pytest.mark.parametrize("eye", [EYE, (0.55, 0.0, 0.9), (0.5, 0.5, 0.6)])
def test_a_thin_neighbour_close_by_is_surroundings(
    camera: CameraModel, gap_m: float, eye: Sequence[float]
) -> None:
    """A finger would hit it; only strips of the thing's own sides are left out."""
    boxes = [Box(0.5, 0.0, 0.0, (0.05, 0.05, 0.06)), Box(0.5, 0.027 + gap_m, 0.0, (0.05, 0.004, 0.03))]
    found, points = region(camera, boxes, [0.5, 0.0, 0.06], eye)
    if points[:, 1].max() < 0.026 + gap_m:  # else the two are taken for one thing, which is no danger either
        assert len(found.surroundings_cam) > 30


def test_a_neighbour_that_stands_in_front_does_not_join(camera: CameraModel) -> None:
    """In the image the two overlap; seen from above there is table between them."""
    boxes = [Box(0.45, 0.0, 0.0, (0.05, 0.05, 0.06)), Box(0.54, 0.0, 0.0, (0.05, 0.05, 0.06))]
    _, points = region(camera, boxes, [0.45, 0.0, 0.06], eye=(1.0, 0.0, 0.4))
    assert points[:, 0].max() == pytest.approx(0.475, abs=0.003)


def test_a_stack_is_one_thing(camera: CameraModel) -> None:
    """Its upper part hides where it stands on the lower; from above they overlap."""
    boxes = [Box(0.5, 0.0, 0.0, (0.10, 0.10, 0.04)), Box(0.5, 0.0, 0.0, (0.04, 0.04, 0.10))]
    _, points = region(camera, boxes, [0.5, 0.0, 0.10])
    assert points[:, 1].max() == pytest.approx(0.05, abs=0.003)
    assert points[:, 2].max() == pytest.approx(0.10, abs=0.002)


def test_a_thing_larger_than_the_view_is_cut_off(camera: CameraModel) -> None:
    found, _ = region(camera, [Box(0.5, 0.0, 0.0, (0.2, 0.6, 0.05))], [0.5, 0.0, 0.05])
    assert found.cut_off


def test_the_bare_support_has_no_thing(camera: CameraModel) -> None:
    with pytest.raises(PointingError, match="nothing stands on the support") as caught:
        region(camera, [], [0.5, 0.0, 0.0])
    assert caught.value.outcome.code == Code.NO_DEPTH


def test_a_crumb_has_no_extent(camera: CameraModel) -> None:
    with pytest.raises(PointingError, match=r"nothing stands|too few for its extent") as caught:
        region(camera, [Box(0.5, 0.0, 0.0, (0.005, 0.003, 0.006))], [0.5, 0.0, 0.006])
    assert caught.value.outcome.code == Code.NO_DEPTH
