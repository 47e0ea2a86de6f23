from collections.abc import Callable

import numpy as np
import pytest
from box_scenes import Box, depth_of_boxes, pose_looking_at
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry import (
    PROFILES,
    CameraModel,
    ExtrinsicError,
    Frame,
    Gripper,
    Limits,
    PlanePrior,
    SupportPlane,
    fit_support_plane,
    inverse,
    locate,
    transform,
)
from molmo_ros.geometry.depth import depth_at
from molmo_ros.geometry.pose import check_rigid
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.point import Point2D
from molmo_ros.sim.depth_noise import noisy_depth

Plane = Callable[[np.ndarray, float], np.ndarray]


def point(u: float, v: float, sigma_px: float = 2.0) -> Point2D:
    return Point2D(u=u, v=v, label="red cube", confidence=0.9, sigma_px=sigma_px, index=0)


def looking_down(height_m: float = 0.8, tilt_deg: float = 40.0) -> np.ndarray:
    """T_base_camera of a camera opposite the robot, `tilt_deg` up from straight down."""
    down = np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]])
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", tilt_deg, degrees=True).as_matrix() @ down
    T[:3, 3] = [1.0, 0.1, height_m]
    return T


def table_depth(camera: CameraModel, T_base_camera: np.ndarray, table_z_m: float = 0.0) -> np.ndarray:
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = camera.rays(np.column_stack([u.ravel(), v.ravel()])) @ T_base_camera[:3, :3].T
    depth = (table_z_m - T_base_camera[2, 3]) / rays[:, 2]
    return np.where(depth > 0, depth, np.nan).reshape(camera.height, camera.width).astype(np.float32)


def frame(camera: CameraModel, depth: np.ndarray | None) -> Frame:
    color = np.zeros((camera.height, camera.width, 3), np.uint8)
    return Frame(
        color_HW3=color, depth_m=depth, camera=camera, stamp_ns=0, frame_id="camera_color_optical_frame"
    )


@pytest.fixture(scope="module")
def scene(camera: CameraModel) -> tuple[Frame, np.ndarray]:
    T = looking_down()
    return frame(camera, table_depth(camera, T)), T


def test_a_point_on_the_table_lands_on_the_table(scene: tuple[Frame, np.ndarray]) -> None:
    view, T = scene
    wanted_base = np.array([0.45, 0.05, 0.0])
    wanted_cam = (inverse(T) @ [*wanted_base, 1])[:3]
    u, v = view.camera.project([wanted_cam])[0]
    located = locate(view, point(u, v), T)
    assert located.outcome.ok
    np.testing.assert_allclose(located.position_base_m, wanted_base, atol=1e-4)
    np.testing.assert_allclose(located.normal_base, [0, 0, 1], atol=0.01)
    np.testing.assert_allclose(located.T_base_target[:3, 3], located.position_base_m)


def test_the_goal_comes_from_above_or_against_the_surface(camera: CameraModel, plane_depth: Plane) -> None:
    normal = np.array([np.sin(0.5), 0.0, -np.cos(0.5)])
    view = frame(camera, plane_depth(normal, 0.7))
    T = transform([0.5, 0, 1.0], Rotation.from_euler("x", 180, degrees=True).as_quat())
    above = locate(view, point(320, 240), T)
    against = locate(view, point(320, 240), T, approach="surface_normal")
    np.testing.assert_allclose(above.T_base_target[:3, 2], [0, 0, -1])
    np.testing.assert_allclose(against.T_base_target[:3, 2], -against.normal_base, atol=1e-6)
    np.testing.assert_allclose(against.normal_base, [np.sin(0.5), 0, np.cos(0.5)], atol=2e-3)


def test_the_covariance_is_turned_into_the_base_frame(camera: CameraModel, plane_depth: Plane) -> None:
    """A camera looking along the base's x axis is unsure of depth along x."""
    T = transform([0, 0, 0.5], Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]).as_quat())
    view = frame(camera, plane_depth(np.array([0.0, 0, -1]), 1.0))
    located = locate(view, point(320, 240, sigma_px=6.0), T)
    assert located.depth is not None
    assert located.position_cov_m2[0, 0] == pytest.approx(located.depth.sigma_m**2, rel=0.05)
    assert located.position_cov_m2[1, 1] == pytest.approx((6 / 600) ** 2, rel=0.05)


def test_an_unknown_pixel_error_takes_the_assumed_one(scene: tuple[Frame, np.ndarray]) -> None:
    view, T = scene
    limits = Limits(sigma_px_if_unknown=5.0)
    unknown = locate(view, point(320, 240, sigma_px=float("nan")), T, limits=limits)
    known = locate(view, point(320, 240, sigma_px=5.0), T)
    np.testing.assert_allclose(unknown.position_cov_m2, known.position_cov_m2)


def test_no_depth_is_an_outcome_without_a_position(camera: CameraModel) -> None:
    empty = frame(camera, np.full((480, 640), np.nan, np.float32))
    for view in (empty, frame(camera, None)):
        located = locate(view, point(320, 240), looking_down())
        assert located.outcome.code == Code.NO_DEPTH
        assert located.depth is None
        assert np.isnan(located.position_base_m).all()
        assert np.isnan(located.T_base_target).all()


def test_out_of_range_says_the_range(scene: tuple[Frame, np.ndarray]) -> None:
    view, T = scene
    located = locate(view, point(320, 240), T, limits=Limits(max_range_m=0.5))
    assert located.outcome.code == Code.OUT_OF_RANGE
    assert "allowed is 0.1 to 0.5 m" in located.outcome.message
    assert np.isfinite(located.position_base_m).all()


def test_outside_the_workspace_says_which_limit_and_by_how_much(scene: tuple[Frame, np.ndarray]) -> None:
    view, T = scene
    here = locate(view, point(320, 240), T).position_base_m
    box = Limits(
        workspace_min_m=(here[0] - 1, here[1] + 0.25, here[2] - 1),
        workspace_max_m=(here[0] - 0.125, here[1] + 1, here[2] + 1),
    )
    outcome = locate(view, point(320, 240), T, limits=box).outcome
    assert outcome.code == Code.OUTSIDE_WORKSPACE
    assert "x = " in outcome.message
    assert "is 0.125 m above the maximum" in outcome.message
    assert "y = " in outcome.message
    assert "is 0.250 m below the minimum" in outcome.message
    assert "z = " not in outcome.message


def test_a_thread_can_be_met_from_above_but_has_no_normal(camera: CameraModel) -> None:
    depth = np.full((480, 640), np.nan, np.float32)
    depth[:, 320] = 0.5
    view = frame(camera, depth)
    assert locate(view, point(320, 240), looking_down()).outcome.ok
    against = locate(view, point(320, 240), looking_down(), approach="surface_normal")
    assert against.outcome.code == Code.AMBIGUOUS_DEPTH


def test_a_point_off_the_image_is_an_outcome(scene: tuple[Frame, np.ndarray]) -> None:
    assert locate(scene[0], point(900, 10), scene[1]).outcome.code == Code.INVALID_REQUEST


def test_a_transform_that_is_not_rigid_is_refused(scene: tuple[Frame, np.ndarray]) -> None:
    with pytest.raises(PointingError, match="T_base_camera is not rigid"):
        locate(scene[0], point(320, 240), np.diag([1.1, 1, 1, 1]))


def test_an_unknown_approach_is_refused_with_the_known_ones(scene: tuple[Frame, np.ndarray]) -> None:
    with pytest.raises(PointingError, match="valid are top_down, surface_normal"):
        locate(*scene_with_point(scene), approach="sideways")  # type: ignore[arg-type]


def scene_with_point(scene: tuple[Frame, np.ndarray]) -> tuple[Frame, Point2D, np.ndarray]:
    return scene[0], point(320, 240), scene[1]


@pytest.mark.parametrize(
    "bad",
    [
        {"min_range_m": 2.0, "max_range_m": 1.0},
        {"min_range_m": -1.0},
        {"max_range_m": float("nan")},
        {"workspace_min_m": (0, 0, 1), "workspace_max_m": (1, 1, 0)},
        {"workspace_min_m": (0, float("nan"), 0)},
    ],
)
def test_empty_limits_are_refused(bad: dict) -> None:
    with pytest.raises(PointingError, match="empty"):
        Limits(**bad)


def test_two_walls_of_one_hollow_thing_are_no_two_things(camera: CameraModel) -> None:
    """A square tin without a lid, 5 mm thick: over the near wall's rim the far wall is seen from inside."""
    walls = [
        Box(0.5 + x, y, 0.0, size)
        for x, y, size in (
            (-0.04, 0.0, (0.005, 0.085, 0.1)),
            (0.04, 0.0, (0.005, 0.085, 0.1)),
            (0.0, -0.04, (0.075, 0.005, 0.1)),
            (0.0, 0.04, (0.075, 0.005, 0.1)),
        )
    ]
    T = pose_looking_at([1.0, 0.0, 0.45], [0.5, 0.0, 0.0])
    view = frame(camera, depth_of_boxes(camera, T, walls))
    assert view.depth_m is not None
    support = fit_support_plane(view.depth_m, camera, PlanePrior.from_gravity(T))
    u, v = pixel_of(camera, T, [0.54, 0.0, 0.1])
    for above_the_rim_px in (6.0, 0.0, -4.0):
        at = point(u, v - above_the_rim_px, sigma_px=8.0)
        assert depth_at(view.depth_m, camera, at.u, at.v, sigma_px=at.sigma_px, support=support).ambiguous
        located = locate(view, at, T, support=support)
        assert located.outcome.ok, located.outcome
        assert np.abs(located.position_base_m[:2] - [0.5, 0.0]).max() < 0.05


@pytest.mark.parametrize("noise", ["d435", "kinect"])
def test_on_noisy_depth_the_covariance_holds_the_truth_as_often_as_it_says(
    camera: CameraModel, noise: str
) -> None:
    """A slanted table through the sensor's noise, with wrong pixels and a wrong mount; 95 % ellipsoid."""
    rng = np.random.default_rng(7)
    extrinsic = ExtrinsicError(translation_m=0.002, rotation_rad=0.003)
    inside, trials = 0, 0
    for _ in range(15):
        T = looking_down(rng.uniform(0.5, 1.0), rng.uniform(10, 55))
        perfect = table_depth(camera, T)
        view = frame(camera, noisy_depth(perfect, camera.fx, rng, noise))
        for _ in range(40):
            uv = rng.uniform([40, 40], [600, 440])
            sigma_px = rng.uniform(0.3, 4)
            turn = Rotation.from_rotvec(rng.normal(0, extrinsic.rotation_rad, 3)).as_matrix()
            shift = rng.normal(0, extrinsic.translation_m, 3)
            truth_cam = camera.deproject([uv], [perfect[round(uv[1]), round(uv[0])]])[0]
            truth_cam *= -T[2, 3] / (T[:3, :3] @ truth_cam)[2]  # exactly on the table
            truth = T[:3, :3] @ (turn @ truth_cam + shift) + T[:3, 3]
            u, v = uv + rng.normal(0, sigma_px, 2)
            pointed = point(u, v, sigma_px=sigma_px)
            located = locate(view, pointed, T, profile=PROFILES[noise], extrinsic=extrinsic)
            if located.outcome.code == Code.NO_DEPTH:
                continue
            miss = located.position_base_m - truth
            inside += miss @ np.linalg.solve(located.position_cov_m2, miss) < 7.815
            trials += 1
    assert trials > 570
    assert 0.90 <= inside / trials <= 0.99


MUG = Box(0.5, 0.0, 0.3, (0.06, 0.04, 0.09))
TIN = Box(0.44, 0.09, 0.0, (0.05, 0.05, 0.05))


def box_view(camera: CameraModel, noise: str = "none", seed: int = 0) -> tuple[Frame, np.ndarray]:
    T = pose_looking_at([0.95, 0.05, 0.6], [0.5, 0.0, 0.0])
    depth = noisy_depth(depth_of_boxes(camera, T, [MUG, TIN]), camera.fx, np.random.default_rng(seed), noise)
    return frame(camera, depth), T


def pixel_of(camera: CameraModel, T: np.ndarray, place: list[float]) -> np.ndarray:
    uv: np.ndarray = camera.project((inverse(T) @ [*place, 1])[:3])[0]
    return uv


def test_with_a_support_and_a_gripper_the_grasp_comes_along(camera: CameraModel) -> None:
    view, T = box_view(camera)
    assert view.depth_m is not None
    support = fit_support_plane(view.depth_m, camera, PlanePrior.from_gravity(T))
    u, v = pixel_of(camera, T, [0.5, 0.0, 0.09])
    located = locate(view, point(u, v), T, support=support, gripper=Gripper())
    assert located.outcome.ok
    assert located.grasp_outcome.ok
    assert located.grasp is not None
    best = located.grasp.grasps[0]
    np.testing.assert_allclose(located.T_base_target[:3, :3], best.T_base_grasp[:3, :3])
    np.testing.assert_allclose(located.T_base_target[:3, 3], located.position_base_m)
    np.testing.assert_allclose(located.position_base_m, [0.5, 0.0, 0.09], atol=0.002)
    assert located.width_m == best.width_m == pytest.approx(0.04, abs=0.004)


def test_a_point_on_the_table_is_a_goal_without_a_grasp(camera: CameraModel) -> None:
    view, T = box_view(camera)
    assert view.depth_m is not None
    support = fit_support_plane(view.depth_m, camera, PlanePrior.from_gravity(T))
    u, v = pixel_of(camera, T, [0.5, -0.15, 0.0])
    located = locate(view, point(u, v), T, support=support, gripper=Gripper())
    assert located.outcome.ok
    assert located.grasp is None
    assert located.grasp_outcome.code == Code.NO_DEPTH
    assert "nothing stands on the support" in located.grasp_outcome.message
    assert np.isnan(located.width_m)
    np.testing.assert_allclose(located.T_base_target[:3, 2], [0, 0, -1])


def test_a_point_beside_a_thing_is_moved_onto_it_only_with_a_support(camera: CameraModel) -> None:
    view, T = box_view(camera)
    assert view.depth_m is not None
    support = fit_support_plane(view.depth_m, camera, PlanePrior.from_gravity(T))
    u, v = pixel_of(camera, T, [0.44, 0.115, 0.05]) + [6.0, 0.0]
    beside = point(u, v, sigma_px=4.0)
    assert locate(view, beside, T, support=support).position_base_m[2] > 0.01
    assert abs(locate(view, beside, T).position_base_m[2]) < 0.002


def test_limits_of_doubt_and_width_are_checked(camera: CameraModel) -> None:
    view, T = box_view(camera, "d435")
    assert view.depth_m is not None
    support = fit_support_plane(view.depth_m, camera, PlanePrior.from_gravity(T))
    u, v = pixel_of(camera, T, [0.5, 0.0, 0.09])
    unsure = locate(view, point(u, v, sigma_px=8.0), T, limits=Limits(max_sigma_m=0.004), support=support)
    assert unsure.outcome.code == Code.UNCERTAIN
    wide = locate(view, point(u, v), T, limits=Limits(max_width_m=0.02), support=support, gripper=Gripper())
    assert wide.outcome.code == Code.TOO_WIDE
    assert "max_width_m" in wide.outcome.message


def test_two_things_that_may_be_meant_are_ambiguous(camera: CameraModel) -> None:
    depth = np.full((480, 640), 1.0, np.float32)
    depth[200:280, 300:350] = 0.9
    depth[200:280, 362:412] = 0.8
    T = transform([0.5, 0, 1.0], Rotation.from_euler("x", 180, degrees=True).as_quat())
    support = fit_support_plane(depth, camera, PlanePrior.from_gravity(T))
    located = locate(frame(camera, depth), point(356.2, 240, sigma_px=6.0), T, support=support)
    assert located.outcome.code == Code.AMBIGUOUS_DEPTH
    assert "0.9" in located.outcome.message
    assert "0.8" in located.outcome.message


@pytest.mark.parametrize("noise", ["d435", "kinect"])
def test_among_things_the_covariance_holds_the_truth_as_often_as_it_says(
    camera: CameraModel, noise: str
) -> None:
    """Points on things, their edges too, with wrong pixels, noise and a wrong mount; 95 % ellipsoid."""
    rng = np.random.default_rng(8)
    extrinsic = ExtrinsicError(translation_m=0.002, rotation_rad=0.003)
    inside, trials = 0, 0
    for seed in range(6):
        view, T = box_view(camera, noise, seed)
        exact = depth_of_boxes(camera, T, [MUG, TIN])
        on_things = np.abs(exact - depth_of_boxes(camera, T, [])) > 1e-4
        assert view.depth_m is not None
        support = fit_support_plane(view.depth_m, camera, PlanePrior.from_gravity(T), profile=PROFILES[noise])
        rows, columns = np.nonzero(on_things)
        for pick in rng.integers(0, len(rows), 60):
            sigma_px = rng.uniform(0.5, 6)
            turn = Rotation.from_rotvec(rng.normal(0, extrinsic.rotation_rad, 3)).as_matrix()
            meant_cam = camera.deproject([[columns[pick], rows[pick]]], [exact[rows[pick], columns[pick]]])[0]
            meant_cam = turn @ meant_cam + rng.normal(0, extrinsic.translation_m, 3)
            truth = T[:3, :3] @ meant_cam + T[:3, 3]
            u, v = np.array([columns[pick], rows[pick]]) + rng.normal(0, sigma_px, 2)
            located = locate(
                view, point(u, v, sigma_px), T, profile=PROFILES[noise], extrinsic=extrinsic, support=support
            )
            if not located.outcome.ok:
                continue
            miss = located.position_base_m - truth
            inside += miss @ np.linalg.solve(located.position_cov_m2, miss) < 7.815
            trials += 1
    assert trials > 320
    assert 0.90 <= inside / trials <= 0.99


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), sigma_px=st.sampled_from([0.0, 0.3, 1.0, 3.0, 12.0, float("nan")]))
def test_whatever_the_depth_image_holds_the_answer_is_whole_or_refused(seed: int, sigma_px: float) -> None:
    rng = np.random.default_rng(seed)
    small = CameraModel.from_info(width=96, height=72, k=[90, 0, 47, 0, 90, 36, 0, 0, 1], rectified=True)
    T = pose_looking_at([0.95, 0.05, 0.6], [0.5, 0.0, 0.0])
    boxes = [
        Box(
            rng.uniform(0.3, 0.7),
            rng.uniform(-0.2, 0.2),
            rng.uniform(0, 3),
            tuple(rng.uniform(0.005, 0.2, 3)),
        )
        for _ in range(rng.integers(0, 5))
    ]
    depth = depth_of_boxes(small, T, boxes)
    depth += rng.normal(0, rng.choice([0.0, 0.001, 0.02]), depth.shape).astype(np.float32)
    for _ in range(rng.integers(0, 6)):
        top, left = rng.integers(0, 72), rng.integers(0, 96)
        junk = rng.choice([np.nan, 0.0, np.inf, -1.0, 0.3, 2.0])
        depth[top : top + rng.integers(1, 40), left : left + rng.integers(1, 40)] = junk
    garbage = rng.random(depth.shape) < rng.choice([0.0, 0.05, 0.5])
    depth[garbage] = rng.uniform(0.1, 3.0, np.count_nonzero(garbage))
    support = SupportPlane(inverse(T)[:3, 2], float(inverse(T)[:3, 2] @ inverse(T)[:3, 3]), 0.001, 0.5)
    view = frame(small, depth)
    for approach in ("top_down", "surface_normal"):
        for plane in (None, support):
            u, v = rng.uniform(-0.5, 95.5), rng.uniform(-0.5, 71.5)
            located = locate(
                view, point(u, v, sigma_px), T, support=plane, gripper=Gripper(), approach=approach
            )
            if not located.outcome.ok:
                assert located.outcome.message
                continue
            for known in (located.position_base_m, located.position_cov_m2, located.T_base_target):
                assert np.isfinite(known).all()
            assert np.linalg.eigvalsh(located.position_cov_m2)[0] >= -1e-15
            check_rigid("T_base_target", located.T_base_target)
            for grasp in located.grasp.grasps if located.grasp else ():
                check_rigid("T_base_grasp", grasp.T_base_grasp)
                assert np.isfinite([grasp.width_m, grasp.opening_m, *grasp.room.room_m]).all()
