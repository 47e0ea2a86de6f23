"""What is meant by a point beside, between and on things; through `depth_at`, which is how surfaces are used."""

import numpy as np
import pytest
from box_scenes import Box, depth_of_boxes, pose_looking_at

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth import depth_at
from molmo_ros.geometry.pose import inverse
from molmo_ros.geometry.support_plane import PlanePrior, SupportPlane, fit_support_plane
from molmo_ros.geometry.surfaces import connected
from molmo_ros.outcome import Code, PointingError

FACING_PLANE = SupportPlane(np.array([0.0, 0.0, -1.0]), -1.0, 0.001, 0.9)


def wall_with(things: dict[tuple[int, int, int, int], float]) -> np.ndarray:
    """A wall 1 m away with rectangles (top, bottom, left, right) before it."""
    depth = np.full((480, 640), 1.0, np.float32)
    for (top, bottom, left, right), z in things.items():
        depth[top:bottom, left:right] = z
    return depth


def test_neighbours_without_a_step_are_one_surface_and_diagonals_do_not_join() -> None:
    depth = np.array([[1.0, 1.004, 1.02], [1.2, 1.2, 1.021], [np.nan, 1.2, 1.3]])
    labels = connected(depth, np.isfinite(depth), np.full(depth.shape, 0.006), None)
    assert labels[0, 0] == labels[0, 1] != labels[0, 2]
    assert labels[0, 2] == labels[1, 2] != labels[2, 2]
    assert labels[1, 0] == labels[1, 1] == labels[2, 1]
    assert labels[2, 0] == 0


@pytest.mark.parametrize("beside_px", [1, 4, 8])
def test_a_point_just_beside_a_thing_means_the_thing(camera: CameraModel, beside_px: int) -> None:
    depth = wall_with({(200, 280, 300, 360): 0.9})
    sample = depth_at(depth, camera, 359 + beside_px, 240, sigma_px=4.0, support=FACING_PLANE)
    assert sample.depth_m == pytest.approx(0.9, abs=1e-3)
    assert sample.pixel[1] == 359
    assert not sample.ambiguous


def test_a_point_further_than_a_few_sigma_means_what_it_is_on(camera: CameraModel) -> None:
    depth = wall_with({(200, 280, 300, 360): 0.9})
    for beside_px, sigma_px in ((14, 4.0), (4, 1.0)):
        sample = depth_at(depth, camera, 359 + beside_px, 240, sigma_px=sigma_px, support=FACING_PLANE)
        assert sample.depth_m == pytest.approx(1.0, abs=1e-3)
        assert (sample.u, sample.v) == (359 + beside_px, 240)


def test_without_a_support_plane_nothing_is_snapped_to(camera: CameraModel) -> None:
    depth = wall_with({(200, 280, 300, 360): 0.9})
    assert depth_at(depth, camera, 363, 240, sigma_px=4.0).depth_m == pytest.approx(1.0, abs=1e-3)


def test_a_thing_below_the_support_is_not_snapped_to(camera: CameraModel) -> None:
    depth = wall_with({(200, 280, 300, 360): 1.2})
    sample = depth_at(depth, camera, 363, 240, sigma_px=4.0, support=FACING_PLANE)
    assert sample.depth_m == pytest.approx(1.0, abs=1e-3)


def test_between_two_things_at_different_depths_it_is_ambiguous(camera: CameraModel) -> None:
    depth = wall_with({(200, 280, 300, 350): 0.9, (200, 280, 354, 404): 0.8})
    sample = depth_at(depth, camera, 351.6, 240, sigma_px=4.0, support=FACING_PLANE)
    assert sample.ambiguous
    found = sorted([sample.depth_m, sample.rival_depth_m])
    assert found == pytest.approx([0.8, 0.9], abs=1e-2)


def test_well_inside_one_of_two_things_it_is_not(camera: CameraModel) -> None:
    depth = wall_with({(200, 280, 300, 350): 0.9, (200, 280, 354, 404): 0.8})
    sample = depth_at(depth, camera, 335, 240, sigma_px=4.0, support=FACING_PLANE)
    assert not sample.ambiguous
    assert sample.depth_m == pytest.approx(0.9, abs=1e-3)


def test_an_exact_point_is_never_ambiguous(camera: CameraModel) -> None:
    depth = wall_with({(200, 280, 300, 350): 0.9, (200, 280, 350, 400): 0.8})
    for u, z in ((349, 0.9), (350, 0.8)):
        sample = depth_at(depth, camera, u, 240, sigma_px=0.0, support=FACING_PLANE)
        assert not sample.ambiguous
        assert sample.depth_m == pytest.approx(z, abs=1e-3)


def test_at_a_things_foot_the_support_is_cut_from_it(camera: CameraModel) -> None:
    """There is no step in depth where a box meets the table; the plane tells them apart."""
    T = pose_looking_at([0.9, 0.0, 0.4], [0.5, 0.0, 0.0])
    depth = depth_of_boxes(camera, T, [Box(0.5, 0.0, 0.0, (0.06, 0.06, 0.08))])
    support = fit_support_plane(depth, camera, PlanePrior.from_gravity(T))
    u, v = camera.project((inverse(T) @ [0.53, 0.0, 0.02, 1])[:3])[0]
    sample = depth_at(depth, camera, u, v, sigma_px=1.0, support=support)
    normal = T[:3, :3] @ sample.normal_cam
    np.testing.assert_allclose(normal, [1, 0, 0], atol=0.05)


def test_one_pixel_before_a_wall_is_ambiguous_and_alone_in_the_void_no_depth(camera: CameraModel) -> None:
    for support in (None, FACING_PLANE):
        with pytest.raises(PointingError) as before:
            depth_at(wall_with({(240, 241, 320, 321): 0.7}), camera, 320, 240, sigma_px=1.0, support=support)
        assert before.value.outcome.code == Code.AMBIGUOUS_DEPTH
        alone = np.full((480, 640), np.nan, np.float32)
        alone[240, 320] = 0.7
        with pytest.raises(PointingError) as nothing:
            depth_at(alone, camera, 320, 240, sigma_px=1.0, support=support)
        assert nothing.value.outcome.code == Code.NO_DEPTH


def test_a_surface_seen_edge_on_is_ambiguous(camera: CameraModel) -> None:
    rows = np.arange(480)[:, None]
    floor = 0.02 * 600 / np.maximum(rows - 238.5, 1e-3)
    depth = np.where((rows > 240) & (floor < 4), floor, np.nan).astype(np.float32)
    depth = np.broadcast_to(depth, (480, 640)).copy()
    with pytest.raises(PointingError, match="edge-on") as caught:
        depth_at(depth, camera, 320, 243)
    assert caught.value.outcome.code in (Code.AMBIGUOUS_DEPTH, Code.NO_DEPTH)


@pytest.mark.parametrize(
    ("sigma_px", "radius_px"), [(-1.0, 10), (np.nan, 10), (np.inf, 10), (1.0, 1), (1.0, -3)]
)
def test_doubts_and_radii_that_are_none_are_refused(
    camera: CameraModel, sigma_px: float, radius_px: int
) -> None:
    with pytest.raises(PointingError, match=r"sigma_px|radius_px") as caught:
        depth_at(wall_with({}), camera, 320, 240, sigma_px=sigma_px, radius_px=radius_px)
    assert caught.value.outcome.code == Code.INVALID_REQUEST


def test_a_larger_doubt_gives_a_larger_covariance_that_reaches_along_the_thing(camera: CameraModel) -> None:
    depth = wall_with({(200, 280, 300, 360): 0.9})
    small, large = (
        depth_at(depth, camera, 330, 240, sigma_px=sigma, support=FACING_PLANE).pointing_cov_cam
        for sigma in (2.0, 4.0)
    )
    assert small[0, 0] == pytest.approx((0.9 * 2 / 600) ** 2, rel=0.1)
    assert large[0, 0] == pytest.approx((0.9 * 4 / 600) ** 2, rel=0.1)
    assert large[2, 2] < 1e-5


def test_near_an_edge_the_covariance_reaches_to_what_lies_behind(camera: CameraModel) -> None:
    """Without a support nobody knows that the wall was not meant."""
    depth = wall_with({(200, 280, 300, 360): 0.9})
    cov = depth_at(depth, camera, 362, 240, sigma_px=4.0).pointing_cov_cam
    assert np.sqrt(cov[2, 2]) > 0.03
