import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo_ros.geometry.distortion import BrownConradyLens, EquidistantLens, PerfectLens, lens_for


def brown(k_scale: float = 1.0) -> st.SearchStrategy[np.ndarray]:
    k = st.floats(-0.4 * k_scale, 0.4 * k_scale)
    p = st.floats(-0.005, 0.005)
    return st.tuples(k, k, p, p, k).map(np.array)


rational = st.tuples(
    *[st.floats(-0.5, 0.5)] * 2, *[st.floats(-0.005, 0.005)] * 2, *[st.floats(-0.5, 0.5)] * 4,
    *[st.floats(-0.003, 0.003)] * 4,
).map(np.array)  # fmt: skip
fisheye = st.tuples(*[st.floats(-0.05, 0.05)] * 4).map(np.array)


def discs_of(radius: float, count: int = 60, seed: int = 0) -> np.ndarray:
    """Directions spread evenly over a disc, its centre and rim included."""
    rng = np.random.default_rng(seed)
    r = radius * np.sqrt(np.concatenate([[0.0, 1.0], rng.uniform(0, 1, count)]))
    a = rng.uniform(0, 2 * np.pi, count + 2)
    return np.column_stack([r * np.cos(a), r * np.sin(a)]) * (1 - 1e-12)


@given(d=st.one_of(brown(), rational))
def test_undistorting_takes_back_distorting_all_over_the_monotonic_region(d: np.ndarray) -> None:
    lens = BrownConradyLens(d)
    xy = discs_of(min(lens.radius, 3.0))
    distorted = lens.distort(xy)
    back = lens.undistort(distorted)
    np.testing.assert_allclose(lens.distort(back), distorted, atol=1e-11)
    np.testing.assert_allclose(back, xy, atol=1e-9)


@given(d=fisheye)
def test_a_fisheye_undistorts_what_it_distorts(d: np.ndarray) -> None:
    lens = EquidistantLens(d)
    xy = discs_of(min(lens.radius, 5.0))
    np.testing.assert_allclose(lens.undistort(lens.distort(xy)), xy, atol=1e-8)


@given(d=st.one_of(brown(), rational))
def test_distortion_equals_opencv(d: np.ndarray) -> None:
    lens = BrownConradyLens(d)
    xy = discs_of(min(lens.radius, 2.0))
    points = np.column_stack([xy, np.ones(len(xy))])
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), d)[0][:, 0]
    np.testing.assert_allclose(lens.distort(xy), expected, atol=1e-12)


@given(d=fisheye)
def test_fisheye_distortion_equals_opencv(d: np.ndarray) -> None:
    lens = EquidistantLens(d)
    xy = discs_of(min(lens.radius, 4.0))
    points = np.column_stack([xy, np.ones(len(xy))])[:, None]
    expected = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), d)[0][:, 0]
    np.testing.assert_allclose(lens.distort(xy), expected, atol=1e-12)


def test_undistortion_equals_opencv_iterated_to_convergence() -> None:
    d = np.array([-0.28, 0.07, 0.0008, -0.0005, -0.008])
    lens = BrownConradyLens(d)
    distorted = lens.distort(discs_of(0.8))
    to_the_end = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 2000, 1e-14)
    expected = cv2.undistortPointsIter(distorted[:, None], np.eye(3), d, np.eye(3), np.eye(3), to_the_end)[
        :, 0
    ]
    np.testing.assert_allclose(lens.undistort(distorted), expected, atol=1e-10)


def test_directions_and_pixels_beyond_the_fold_are_nan() -> None:
    lens = BrownConradyLens(np.array([-0.4, 0.0, 0.0, 0.0, 0.0]))
    # r (1 - 0.4 r^2) turns round at r = sqrt(1 / 1.2)
    assert lens.radius == pytest.approx(np.sqrt(1 / 1.2), abs=0.01)
    assert np.isfinite(lens.distort(np.array([[0.8, 0.0]]))).all()
    assert np.isnan(lens.distort(np.array([[0.95, 0.0]]))).all()
    highest = 0.9129 * (1 - 0.4 * 0.9129**2)
    assert np.isfinite(lens.undistort(np.array([[0.95 * highest, 0.0]]))).all()
    assert np.isnan(lens.undistort(np.array([[0.0, 1.01 * highest]]))).all()
    between = 0.911 * (1 - 0.4 * 0.911**2)
    assert np.isnan(lens.undistort(np.array([[between, 0.0]]))).all(), "too near the fold to be trusted"


def test_one_pixel_beyond_the_fold_does_not_spoil_the_others() -> None:
    lens = BrownConradyLens(np.array([-0.4, 0.0, 0.002, 0.001, 0.0]))
    good = np.array([[0.2, -0.1], [0.0, 0.0], [0.3, 0.3]])
    mixed = np.vstack([good, [[50.0, 1.0]], [[np.nan, 0.0]]])
    undistorted = lens.undistort(mixed)
    np.testing.assert_allclose(undistorted[:3], lens.undistort(good), atol=1e-12)
    assert np.isnan(undistorted[3:]).all()


def test_a_fisheye_that_folds_refuses_pixels_beyond_its_rim() -> None:
    lens = EquidistantLens(np.array([-0.3, 0.0, 0.0, 0.0]))
    rim = np.sqrt(1 / 0.9)
    assert np.arctan(lens.radius) == pytest.approx(rim, abs=0.02)
    assert np.isnan(lens.undistort(np.array([[1.05 * rim * (1 - 0.3 * rim**2), 0.0]]))).all()


@settings(max_examples=20)
@given(st.sampled_from(["plumb_bob", "rational_polynomial"]))
def test_no_coefficients_mean_no_distortion(model: str) -> None:
    assert isinstance(lens_for(model, np.zeros(8)), PerfectLens)


def test_an_equidistant_lens_without_coefficients_still_bends() -> None:
    lens = lens_for("equidistant", np.zeros(4))
    np.testing.assert_allclose(lens.distort(np.array([[1.0, 0.0]])), [[np.pi / 4, 0.0]])
