import numpy as np
import pytest
from box_scenes import Box, depth_of_boxes, pose_looking_at
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.pose import inverse
from molmo_ros.geometry.support_plane import PlanePrior, SupportPlane, SupportPlaneTracker, fit_support_plane
from molmo_ros.outcome import Code, PointingError
from molmo_ros.sim.depth_noise import noisy_depth

SECOND_NS = 1_000_000_000
BOXES = [Box(0.5, 0.0, 0.3, (0.1, 0.06, 0.05)), Box(0.45, 0.15, 1.0, (0.08, 0.08, 0.15))]


def error_m(plane: SupportPlane, T_base_camera: np.ndarray, table_z_m: float = 0.0) -> float:
    """Largest height error over the part of the table where things stand."""
    in_base = plane.moved(T_base_camera)
    corners = np.array([[x, y, table_z_m] for x in (0.3, 0.7) for y in (-0.2, 0.2)])
    return float(np.abs(in_base.height_m(corners)).max())


@settings(max_examples=25)
@given(
    x=st.floats(0.7, 1.2), y=st.floats(-0.4, 0.4), z=st.floats(0.4, 1.0), table=st.floats(-0.3, 0.3),
    focal=st.floats(300, 900), rectified=st.booleans(),
)  # fmt: skip
def test_a_table_without_noise_is_found_exactly_under_its_things(
    x: float, y: float, z: float, table: float, focal: float, rectified: bool
) -> None:
    d = () if rectified else (-0.1, 0.02, 0.001, 0.0, 0.0)
    camera = CameraModel.from_info(
        width=320, height=240, k=[focal / 2, 0, 160, 0, focal / 2, 118, 0, 0, 1], d=d, rectified=rectified
    )
    T = pose_looking_at([x, y, table + z], [0.5, 0.0, table])
    depth = depth_of_boxes(camera, T, BOXES, table)
    plane = fit_support_plane(depth, camera, PlanePrior.from_gravity(T))
    assert error_m(plane, T, table) < 2e-4
    np.testing.assert_allclose(plane.moved(T).normal_cam, [0, 0, 1], atol=1e-3)
    assert plane.spread_m < 1e-3


@pytest.mark.parametrize("noise", ["d435", "kinect"])
def test_noise_moves_it_by_less_than_two_millimetres(camera: CameraModel, noise: str) -> None:
    from molmo_ros.geometry.depth_profile import PROFILES

    rng = np.random.default_rng(0)
    for elevation_m in (0.35, 0.6, 0.9):
        T = pose_looking_at([0.95, 0.1, elevation_m], [0.5, 0.0, 0.0])
        depth = noisy_depth(depth_of_boxes(camera, T, BOXES), camera.fx, rng, noise)
        plane = fit_support_plane(depth, camera, PlanePrior.from_gravity(T), profile=PROFILES[noise])
        assert error_m(plane, T) < 0.002


def test_the_same_image_gives_the_same_plane(camera: CameraModel) -> None:
    T = pose_looking_at([0.95, 0.1, 0.6], [0.5, 0.0, 0.0])
    depth = noisy_depth(depth_of_boxes(camera, T, BOXES), camera.fx, np.random.default_rng(1), "d435")
    first, again = (fit_support_plane(depth, camera, PlanePrior.from_gravity(T)) for _ in range(2))
    np.testing.assert_array_equal(first.normal_cam, again.normal_cam)
    assert first.offset_m == again.offset_m


def test_a_wall_that_fills_most_of_the_view_is_no_support(camera: CameraModel) -> None:
    T = pose_looking_at([0.0, 0.0, 0.35], [1.0, 0.0, 0.1])
    depth = depth_of_boxes(camera, T, [Box(1.5, 0.0, 0.0, (0.1, 6.0, 4.0))])
    plane = fit_support_plane(depth, camera, PlanePrior.from_gravity(T))
    np.testing.assert_allclose(plane.moved(T).normal_cam, [0, 0, 1], atol=1e-3)


def test_of_table_and_floor_the_prior_frame_chooses(camera: CameraModel) -> None:
    T = pose_looking_at([1.0, 0.0, 0.9], [0.4, 0.0, 0.0])
    table = Box(0.3, 0.0, 0.0, (0.5, 0.6, 0.4))
    depth = depth_of_boxes(camera, T, [table], table_z_m=-0.4)
    for height, frame_z in ((0.0, 0.01), (-0.4, -0.42)):
        T_base_support = np.eye(4)
        T_base_support[2, 3] = frame_z
        plane = fit_support_plane(depth, camera, PlanePrior.from_frame(T, T_base_support)).moved(T)
        assert plane.offset_m == pytest.approx(height, abs=1e-3)


def test_a_tilted_base_frame_is_found_through_the_support_frame(camera: CameraModel) -> None:
    """The arm hangs at 40 degrees; its z is not up, but the table's frame says where up is."""
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("x", 40, degrees=True).as_matrix()
    T_world_camera = pose_looking_at([1.0, 0.0, 0.7], [0.5, 0.0, 0.0])
    depth = depth_of_boxes(camera, T_world_camera, BOXES)
    T_base_camera = tilt @ T_world_camera
    with pytest.raises(PointingError, match="no support plane in view"):
        fit_support_plane(depth, camera, PlanePrior.from_gravity(T_base_camera))
    plane = fit_support_plane(depth, camera, PlanePrior.from_frame(T_base_camera, tilt))
    assert error_m(plane, T_world_camera) < 1e-3


@pytest.mark.parametrize("empty", [0.0, np.nan, np.inf, -1.0])
def test_an_empty_image_has_no_plane(camera: CameraModel, empty: float) -> None:
    with pytest.raises(PointingError, match="only 0 of") as caught:
        fit_support_plane(np.full((480, 640), empty, np.float32), camera, PlanePrior(np.array([0, -1.0, 0])))
    assert caught.value.outcome.code == Code.NO_DEPTH


def test_noise_without_a_surface_has_no_plane(camera: CameraModel) -> None:
    depth = np.random.default_rng(0).uniform(0.3, 3.0, (480, 640)).astype(np.float32)
    with pytest.raises(PointingError) as caught:
        fit_support_plane(depth, camera, PlanePrior(np.array([0, -1.0, 0])))
    assert caught.value.outcome.code == Code.NO_DEPTH


def test_a_table_seen_edge_on_is_ambiguous(camera: CameraModel) -> None:
    T = pose_looking_at([2.0, 0.0, 0.02], [0.0, 0.0, 0.0])
    depth = depth_of_boxes(camera, T, [])
    depth[:240] = np.nan
    depth[262:] = np.nan
    with pytest.raises(PointingError, match="edge-on") as caught:
        fit_support_plane(depth, camera, PlanePrior.from_gravity(T))
    assert caught.value.outcome.code == Code.AMBIGUOUS_DEPTH


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"up_cam": np.zeros(3)}, "up_cam"),
        ({"up_cam": np.array([0, np.nan, 1])}, "up_cam"),
        ({"up_cam": np.array([0, 1.0])}, "up_cam"),
        ({"up_cam": np.array([0, 1.0, 0]), "max_tilt_rad": 0.0}, "max_tilt_rad"),
        ({"up_cam": np.array([0, 1.0, 0]), "max_tilt_rad": 2.0}, "max_tilt_rad"),
        ({"up_cam": np.array([0, 1.0, 0]), "offset_m": np.nan}, "offset_m"),
        ({"up_cam": np.array([0, 1.0, 0]), "offset_m": 0.5, "max_offset_m": 0.0}, "max_offset_m"),
    ],
)
def test_a_prior_that_is_none_is_refused_by_field(arguments: dict, said: str) -> None:
    with pytest.raises(PointingError, match=said) as caught:
        PlanePrior(**arguments)
    assert caught.value.outcome.code == Code.INVALID_REQUEST


def test_transforms_that_are_not_rigid_are_named() -> None:
    bad = np.diag([1.0, 1, 2, 1])
    for call, name in (
        (lambda: PlanePrior.from_gravity(bad), "T_base_camera"),
        (lambda: PlanePrior.from_frame(np.eye(4), bad), "T_base_support"),
        (lambda: SupportPlane(np.array([0, 0, 1.0]), 0.0, 0.0, 1.0).moved(bad), "T_to_from"),
    ):
        with pytest.raises(PointingError, match=name):
            call()


def test_a_moved_plane_measures_the_same_heights() -> None:
    rng = np.random.default_rng(0)
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=1).as_matrix()
    T[:3, 3] = rng.normal(size=3)
    normal = np.array([0.6, 0.0, 0.8])
    plane = SupportPlane(normal, 0.3, 0.001, 0.5)
    points = rng.normal(size=(20, 3))
    moved = points @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(plane.moved(T).height_m(moved), plane.height_m(points), atol=1e-12)
    np.testing.assert_allclose(plane.moved(T).moved(inverse(T)).normal_cam, normal, atol=1e-12)


class TestTracking:
    T = pose_looking_at([0.95, 0.1, 0.6], [0.5, 0.0, 0.0])

    def depth(self, camera: CameraModel, seed: int, T: np.ndarray | None = None) -> np.ndarray:
        exact = depth_of_boxes(camera, self.T if T is None else T, BOXES)
        return noisy_depth(exact, camera.fx, np.random.default_rng(seed), "d435")

    def test_a_moving_camera_keeps_its_table(self, camera: CameraModel) -> None:
        tracker = SupportPlaneTracker()
        for n in range(5):
            T = pose_looking_at([0.95 - 0.05 * n, 0.1, 0.6 + 0.02 * n], [0.5, 0.03 * n, 0.0])
            plane = tracker.update(self.depth(camera, n, T), camera, T, n * SECOND_NS)
            assert error_m(plane, T) < 0.002

    def test_a_hand_before_the_camera_does_not_lose_the_table(self, camera: CameraModel) -> None:
        tracker = SupportPlaneTracker(hold_s=2.0)
        before = tracker.update(self.depth(camera, 0), camera, self.T, 0)
        covered = np.full((480, 640), 0.3, np.float32)
        plane = tracker.update(covered, camera, self.T, SECOND_NS)
        np.testing.assert_allclose(plane.normal_cam, before.normal_cam, atol=1e-9)
        with pytest.raises(PointingError) as caught:
            tracker.update(covered, camera, self.T, 4 * SECOND_NS)
        assert caught.value.outcome.code == Code.NO_DEPTH

    def test_a_table_that_sank_is_followed_at_once(self, camera: CameraModel) -> None:
        """What is seen lies behind the old plane, so nothing hides it: it is gone."""
        tracker = SupportPlaneTracker()
        tracker.update(self.depth(camera, 0), camera, self.T, 0)
        lower = depth_of_boxes(camera, self.T, [], table_z_m=-0.1)
        plane = tracker.update(lower, camera, self.T, SECOND_NS // 10)
        assert error_m(plane, self.T, -0.1) < 0.002

    def test_without_a_first_plane_there_is_nothing_to_hold_on_to(self, camera: CameraModel) -> None:
        with pytest.raises(PointingError):
            SupportPlaneTracker().update(np.full((480, 640), 0.3, np.float32), camera, self.T, 0)
