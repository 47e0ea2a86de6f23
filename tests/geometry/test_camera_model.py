import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from molmo_ros.geometry.camera_model import CameraModel, RegionOfInterest
from molmo_ros.outcome import Code, PointingError

K = [600.0, 0.0, 321.0, 0.0, 590.0, 239.0, 0.0, 0.0, 1.0]
D = [-0.28, 0.07, 0.0008, -0.0005, -0.008]


@st.composite
def cameras(draw: st.DrawFn) -> CameraModel:
    width, height = draw(st.integers(64, 1920)), draw(st.integers(64, 1200))
    focal = width * draw(st.floats(0.5, 2.0))
    k = [focal, draw(st.floats(-1, 1)), width * draw(st.floats(0.4, 0.6)),
         0, focal * draw(st.floats(0.9, 1.1)), height * draw(st.floats(0.4, 0.6)), 0, 0, 1]  # fmt: skip
    model = draw(st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant"]))
    small, tiny = st.floats(-0.3, 0.3), st.floats(-0.003, 0.003)
    d = {
        "plumb_bob": [small, small, tiny, tiny, small],
        "rational_polynomial": [small, small, tiny, tiny, small, small, small, small],
        "equidistant": [st.floats(-0.05, 0.05)] * 4,
    }[model]
    turn = np.array([draw(st.floats(-0.05, 0.05)) for _ in range(3)])
    p = [focal * 0.9, 0, width / 2, draw(st.floats(-200, 200)), 0, focal * 0.9, height / 2, 0, 0, 0, 1, 0]
    return CameraModel.from_info(
        width=width, height=height, k=k, d=[draw(x) for x in d], r=cv2.Rodrigues(turn)[0], p=p,
        distortion_model=model, binning_x=draw(st.integers(0, 3)), binning_y=draw(st.integers(0, 3)),
        roi=draw(st.sampled_from([None, RegionOfInterest(5, 7, height // 2, width // 2, False)])),
        rectified=draw(st.booleans()),
    )  # fmt: skip


@given(camera=cameras(), seed=st.integers(0, 2**32 - 1), depth=st.floats(0.05, 50.0))
def test_projecting_a_deprojected_pixel_gives_the_pixel_back(
    camera: CameraModel, seed: int, depth: float
) -> None:
    rng = np.random.default_rng(seed)
    uv = rng.uniform([-0.5, -0.5], [camera.width - 0.5, camera.height - 0.5], (50, 2))
    points = camera.deproject(uv, np.full(50, depth))
    inside = np.isfinite(points).all(axis=1)
    assume(inside.any())
    back = camera.project(points[inside])
    # a point right on the region's rim may fall a hair outside it on the way back
    known = np.isfinite(back).all(axis=1)
    assert known.sum() >= 0.9 * inside.sum()
    assert np.abs(back[known] - uv[inside][known]).max(initial=0.0) < 1e-6


@given(camera=cameras(), seed=st.integers(0, 2**32 - 1))
def test_deprojecting_a_projected_point_gives_the_point_back(camera: CameraModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.2, 5.0, 40)
    in_image = np.column_stack([rng.uniform(-0.3, 0.3, 40) * z, rng.uniform(-0.2, 0.2, 40) * z, z])
    points = in_image @ camera.R_cam_image.T + camera.ray_origin_cam
    uv = camera.project(points)
    seen = np.isfinite(uv).all(axis=1)
    assume(seen.any())
    np.testing.assert_allclose(camera.deproject(uv[seen], z[seen]), points[seen], atol=1e-8)


def test_a_rectified_pixel_is_what_the_projection_matrix_says() -> None:
    p = [500, 0, 310, -40, 0, 505, 230, 0, 0, 0, 1, 0]
    camera = CameraModel.from_info(width=640, height=480, k=K, d=D, p=p, rectified=True)
    points = np.array([[0.1, -0.2, 1.5], [-0.3, 0.1, 0.7]])
    uvw = np.column_stack([points, np.ones(2)]) @ np.reshape(p, (3, 4)).T
    np.testing.assert_allclose(camera.project(points), uvw[:, :2] / uvw[:, 2:], atol=1e-10)


def test_a_raw_pixel_equals_opencv() -> None:
    camera = CameraModel.from_info(width=640, height=480, k=K, d=D)
    points = np.random.default_rng(0).uniform([-0.4, -0.3, 0.9], [0.4, 0.3, 2.0], (100, 3))
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), np.array(D))[0][
        :, 0
    ]
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-9)


def test_the_raw_and_the_rectified_image_of_one_info_see_the_same_point() -> None:
    """cv2 takes raw pixels of a stereo pair to rectified ones with R and P; both must deproject onto one
    line.
    """
    R = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]
    p = np.array([[560, 0, 318, -33.6], [0, 560, 242, 0], [0, 0, 1, 0.0]])
    info: dict = {"width": 640, "height": 480, "k": K, "d": D, "r": R, "p": p}
    raw, rect = CameraModel.from_info(**info), CameraModel.from_info(**info, rectified=True)
    points = np.random.default_rng(1).uniform([-0.3, -0.2, 0.8], [0.3, 0.2, 2.0], (50, 3))
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 1000, 1e-13)
    rectified = cv2.undistortPointsIter(
        raw.project(points)[:, None], np.reshape(K, (3, 3)), np.array(D), R, p[:, :3], criteria
    )[:, 0]
    np.testing.assert_allclose(rectified, rect.project(points), atol=1e-6)


def test_points_behind_the_camera_have_no_pixel() -> None:
    camera = CameraModel.from_info(width=640, height=480, k=K)
    assert np.isnan(camera.project([[0.1, 0.1, -1.0], [0.0, 0.0, 0.0]])).all()


def test_the_centre_of_the_top_left_pixel_is_zero_zero() -> None:
    """A camera whose axis meets the exact middle of the image has cx = (width - 1) / 2."""
    camera = CameraModel.from_info(width=4, height=2, k=[2, 0, 1.5, 0, 2, 0.5, 0, 0, 1])
    np.testing.assert_allclose(camera.rays([[-0.5, 0.5], [3.5, 0.5]]), [[-1, 0, 1], [1, 0, 1]])
    for u, v, on_it in [(-0.5, -0.5, True), (3.5, 1.5, True), (-0.51, 0, False), (0, 1.51, False)]:
        assert camera.contains(u, v) == on_it


@given(bin_x=st.integers(1, 4), bin_y=st.integers(1, 4), x=st.integers(0, 100), y=st.integers(0, 100))
def test_binning_and_roi_describe_the_delivered_image(bin_x: int, bin_y: int, x: int, y: int) -> None:
    full = CameraModel.from_info(width=640, height=480, k=K, d=D)
    roi = RegionOfInterest(x_offset=x, y_offset=y, width=240, height=120)
    part = CameraModel.from_info(width=640, height=480, k=K, d=D, binning_x=bin_x, binning_y=bin_y, roi=roi)
    assert (part.width, part.height) == (240 // bin_x, 120 // bin_y)
    # the first delivered pixel averages a block; its centre looks where the middle of that block looks
    middle = np.array([[x + (bin_x - 1) / 2, y + (bin_y - 1) / 2]])
    np.testing.assert_allclose(part.rays([[0, 0]]), full.rays(middle), atol=1e-12)


def test_a_resized_image_has_a_resized_camera() -> None:
    full = CameraModel.from_info(width=640, height=480, k=K, d=D)
    half = full.scaled(320, 240)
    assert (half.width, half.height) == (320, 240)
    np.testing.assert_allclose(
        half.rays([[0.0, 0.0], [319.5, 239.5]]), full.rays([[0.5, 0.5], [639.5, 479.5]])
    )
    assert full.scaled(640, 480) is full


def test_a_cropped_image_is_not_a_resized_one() -> None:
    with pytest.raises(PointingError, match="640x360 but CameraInfo describes 640x480") as caught:
        CameraModel.from_info(width=640, height=480, k=K).scaled(640, 360)
    assert caught.value.outcome.code == Code.BAD_CAMERA_INFO


def test_missing_r_p_and_distortion_mean_the_simplest_camera() -> None:
    camera = CameraModel.from_info(width=640, height=480, k=K, r=[0.0] * 9, p=[0.0] * 12, distortion_model="")
    same = CameraModel.from_info(width=640, height=480, k=K, rectified=True)
    uv = np.array([[10.0, 20.0], [600.0, 400.0]])
    np.testing.assert_allclose(camera.rays(uv), same.rays(uv))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"k": [float("nan"), *K[1:]]}, r"k\[0\] is nan"),
        ({"p": [*[1.0] * 11, float("inf")]}, r"p\[11\] is inf"),
        ({"d": [0.1, 0.0, float("-inf"), 0.0, 0.0]}, r"d\[2\] is -inf"),
        ({"k": [0.0] * 9}, "uncalibrated"),
        ({"k": [-600.0, *K[1:]]}, "focal lengths in k are -600"),
        ({"k": K[:8]}, "k has 8 numbers, must have 9"),
        ({"k": [*K[:8], 2.0]}, "k is not of the form"),
        ({"k": "words"}, "k is not a list of 9 numbers"),
        ({"r": [1.0] * 9}, "r is not a rotation"),
        ({"r": [1, 0, 0, 0, 1, 0, 0, 0, -1]}, "r is not a rotation"),
        ({"width": 0}, "size is 0x480"),
        ({"d": [0.1, 0.2]}, "d has 2 numbers, plumb_bob has 4 or 5"),
        (
            {"distortion_model": "barrel"},
            "'barrel' is unknown; valid are plumb_bob, rational_polynomial, equidistant",
        ),
        ({"distortion_model": "", "d": D}, "'' is unknown"),
        ({"d": D, "rectified": True}, "p is all zero"),
        ({"roi": RegionOfInterest(x_offset=600, width=100, height=10)}, "does not lie within the 640x480"),
        ({"roi": RegionOfInterest(x_offset=640)}, "does not lie within"),
        ({"binning_x": -2}, "binning is -2x0"),
        ({"roi": RegionOfInterest(width=1, height=1), "binning_x": 2}, "leaves no pixel"),
    ],
)
def test_a_bad_camera_info_is_refused_by_field(changed: dict, said: str) -> None:
    with pytest.raises(PointingError, match=said) as caught:
        CameraModel.from_info(**{"width": 640, "height": 480, "k": K, **changed})
    assert caught.value.outcome.code == Code.BAD_CAMERA_INFO


def test_a_model_cannot_be_changed() -> None:
    camera = CameraModel.from_info(width=640, height=480, k=K)
    with pytest.raises(ValueError, match="read-only"):
        camera.K[0, 0] = 1.0
