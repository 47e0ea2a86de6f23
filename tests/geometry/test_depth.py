from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth import depth_at
from molmo_ros.outcome import Code, PointingError

Plane = Callable[[np.ndarray, float], np.ndarray]
FACING = np.array([0.0, 0.0, -1.0])


def slanted(degrees: float, about: float = 0.0) -> np.ndarray:
    """Unit normal towards the camera, tilted away from the axis."""
    angle = np.radians(degrees)
    return np.array([np.sin(angle) * np.cos(about), np.sin(angle) * np.sin(about), -np.cos(angle)])


@settings(deadline=None, max_examples=40)
@given(
    degrees=st.floats(0, 65), about=st.floats(0, 6.28), distance=st.floats(0.3, 2.0),
    u=st.floats(-0.5, 639.5), v=st.floats(-0.5, 479.5),
)  # fmt: skip
def test_a_plane_without_noise_is_found_exactly(
    camera: CameraModel, plane_depth: Plane, degrees: float, about: float, distance: float, u: float, v: float
) -> None:
    normal = slanted(degrees, about)
    depth = plane_depth(normal, distance)
    if not (depth > 0).all() or depth.max() > 4:
        return
    sample = depth_at(depth, camera, u, v)
    exact = normal[2] * distance / (camera.rays([[u, v]])[0] @ normal)
    assert sample.depth_m == pytest.approx(exact, abs=2e-5)
    assert sample.normal_cam @ normal > np.cos(np.radians(0.2))
    assert sample.spread_m < 1e-4
    assert sample.valid_ratio == 1.0


@pytest.mark.parametrize("inset_px", [0, 1, 2, 5])
@pytest.mark.parametrize("behind_m", [0.03, 0.1, 1.0])
def test_foreground_is_never_averaged_with_background(
    camera: CameraModel, plane_depth: Plane, inset_px: int, behind_m: float
) -> None:
    depth = plane_depth(FACING, 0.6 + behind_m)
    depth[200:260, 300:360] = 0.6
    on, off = 300 + inset_px, 299 - inset_px
    assert depth_at(depth, camera, on, 230).depth_m == pytest.approx(0.6, abs=1e-4)
    assert depth_at(depth, camera, off, 230).depth_m == pytest.approx(0.6 + behind_m, abs=1e-4)


def test_a_small_thing_before_a_far_wall_keeps_its_own_depth(camera: CameraModel, plane_depth: Plane) -> None:
    """A 7x7 px thing fills a ninth of the window, where a median would answer with the wall."""
    depth = plane_depth(FACING, 1.5)
    depth[237:244, 317:324] = 0.7
    sample = depth_at(depth, camera, 320, 240)
    assert sample.depth_m == pytest.approx(0.7, abs=1e-4)
    assert sample.pixels_used == 49
    assert np.nanmedian(depth[230:251, 310:331]) == pytest.approx(1.5)


def test_flying_pixels_at_the_edge_of_a_thing_are_passed_over(
    camera: CameraModel, plane_depth: Plane
) -> None:
    depth = plane_depth(FACING, 0.9)
    depth[200:281, 280:320] = 0.7
    depth[200:281, 320] = np.random.default_rng(3).uniform(0.72, 0.88, 81)
    assert depth_at(depth, camera, 320, 240).depth_m == pytest.approx(0.7, abs=1e-4)


def test_specks_before_an_even_surface_may_be_a_thing_and_are_refused(
    camera: CameraModel, plane_depth: Plane
) -> None:
    depth = plane_depth(FACING, 0.9)
    depth[239:241, 320:322] = [[0.7, 0.75], [0.8, 0.83]]
    with pytest.raises(PointingError) as caught:
        depth_at(depth, camera, 320, 240)
    assert caught.value.outcome.code == Code.AMBIGUOUS_DEPTH


def test_a_hole_at_the_point_is_bridged_by_its_surface(camera: CameraModel, plane_depth: Plane) -> None:
    normal = slanted(40)
    depth = plane_depth(normal, 0.8)
    cv2.circle(depth, (320, 240), 4, float("nan"), -1)
    exact = normal[2] * 0.8 / (camera.rays([[320, 240]])[0] @ normal)
    sample = depth_at(depth, camera, 320, 240)
    assert sample.depth_m == pytest.approx(exact, abs=1e-4)
    assert 0.8 < sample.valid_ratio < 0.95


def test_a_few_outliers_on_the_surface_change_little(camera: CameraModel, plane_depth: Plane) -> None:
    depth = plane_depth(FACING, 0.5)
    rng = np.random.default_rng(3)
    depth[rng.random(depth.shape) < 0.15] += 0.005
    assert depth_at(depth, camera, 320, 240).depth_m == pytest.approx(0.5, abs=3e-4)


def test_a_raw_image_with_distortion_and_rotation_gives_the_same_plane() -> None:
    camera = CameraModel.from_info(
        width=640,
        height=480,
        k=[450, 0, 320, 0, 450, 240, 0, 0, 1],
        d=[-0.25, 0.05, 0.001, 0.0, 0.0],
        r=cv2.Rodrigues(np.array([0.05, -0.1, 0.02]))[0],
    )
    normal = slanted(35, 1.0)
    v, u = np.mgrid[:480, :640]
    rays = camera.rays(np.column_stack([u.ravel(), v.ravel()]))
    depth = (normal[2] * 0.7 / (rays @ normal)).reshape(480, 640).astype(np.float32)
    sample = depth_at(depth, camera, 150, 120)
    assert sample.depth_m == pytest.approx(float(depth[120, 150]), abs=2e-5)
    assert sample.normal_cam @ normal > np.cos(np.radians(0.2))


def test_standard_error_matches_what_noise_does(camera: CameraModel, plane_depth: Plane) -> None:
    """Errors of 300 fits on correlated noise, in units of the reported sigma, have a spread of about 1."""
    rng = np.random.default_rng(0)
    truth = plane_depth(slanted(30), 0.8)
    sigma = 0.8**2 * 0.08 / (600 * 0.05)
    white = rng.standard_normal((480, 640)).astype(np.float32)
    smooth = cv2.GaussianBlur(white, (11, 11), 1.5)
    noisy = truth + smooth * np.float32(sigma / smooth.std())
    scores = []
    for v in range(20, 460, 30):
        for u in range(20, 620, 30):
            sample = depth_at(noisy, camera, u, v)
            scores.append((sample.depth_m - truth[v, u]) / sample.sigma_m)
    assert 0.6 < np.std(scores) < 1.2
    assert abs(np.mean(scores)) < 0.2


@pytest.mark.parametrize("empty", [0.0, -1.0, float("nan"), float("inf")])
def test_no_return_at_all_is_no_depth(camera: CameraModel, empty: float) -> None:
    with pytest.raises(PointingError, match="0 % of the 21x21 px") as caught:
        depth_at(np.full((480, 640), empty, np.float32), camera, 320, 240)
    assert caught.value.outcome.code == Code.NO_DEPTH


def test_a_wide_hole_takes_no_depth_from_its_surroundings(camera: CameraModel, plane_depth: Plane) -> None:
    depth = plane_depth(FACING, 0.9)
    cv2.circle(depth, (320, 240), 8, float("nan"), -1)
    with pytest.raises(PointingError) as caught:
        depth_at(depth, camera, 320, 240)
    assert caught.value.outcome.code == Code.NO_DEPTH


def test_pure_noise_is_no_surface(camera: CameraModel) -> None:
    depth = np.random.default_rng(0).uniform(0.3, 3.0, (480, 640)).astype(np.float32)
    with pytest.raises(PointingError) as caught:
        depth_at(depth, camera, 320, 240)
    assert caught.value.outcome.code == Code.NO_DEPTH


def test_a_thread_has_a_depth_but_no_normal(camera: CameraModel) -> None:
    depth = np.full((480, 640), np.nan, np.float32)
    depth[:, 320] = 0.5
    sample = depth_at(depth, camera, 320, 240)
    assert sample.depth_m == pytest.approx(0.5)
    assert np.isnan(sample.normal_cam).all()
    assert sample.sigma_m > 0


@pytest.mark.parametrize(("u", "v"), [(-0.6, 10), (640, 10), (10, -3), (10, 480), (float("nan"), 10)])
def test_a_point_off_the_image_is_an_invalid_request(camera: CameraModel, u: float, v: float) -> None:
    with pytest.raises(PointingError, match="not on the 640x480 image") as caught:
        depth_at(np.ones((480, 640), np.float32), camera, u, v)
    assert caught.value.outcome.code == Code.INVALID_REQUEST


def test_a_pixel_beyond_the_lens_is_refused() -> None:
    camera = CameraModel.from_info(
        width=640, height=480, k=[250, 0, 320, 0, 250, 240, 0, 0, 1], d=[-0.4, 0.0, 0.0, 0.0, 0.0]
    )
    with pytest.raises(PointingError, match="folds over") as caught:
        depth_at(np.ones((480, 640), np.float32), camera, 2, 2)
    assert caught.value.outcome.code == Code.BAD_CAMERA_INFO


@pytest.mark.parametrize(
    ("depth", "said"),
    [
        (np.ones((480, 600), np.float32), "600x480 but the camera model is of 640x480"),
        (np.ones((480, 640), np.uint16), "of uint16; needs HxW float32 metres"),
        (np.ones((480, 640, 1), np.float32), "needs HxW float32 metres"),
        (np.ones(480, np.float32), "needs HxW float32 metres"),
        ([[1.0]], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_depth_image_of_the_camera_is_refused(
    camera: CameraModel, depth: object, said: str
) -> None:
    with pytest.raises(PointingError, match=said) as caught:
        depth_at(depth, camera, 320, 240)  # type: ignore[arg-type]
    assert caught.value.outcome.code == Code.BAD_IMAGE
