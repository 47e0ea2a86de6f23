import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo_ros.geometry.footprint import footprint_of

STEP_M = 0.0015


def grid(half_x: float, half_y: float) -> np.ndarray:
    """Points a pixel apart, as a camera straight above sees them: pixels whose centre is on the thing."""
    x = np.arange(-half_x, half_x, STEP_M) + STEP_M / 2
    y = np.arange(-half_y, half_y, STEP_M) + STEP_M / 2
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def placed(points: np.ndarray, yaw: float, at: tuple[float, float]) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    turned: np.ndarray = points @ np.array([[c, s], [-s, c]]) + at
    return turned


def measured(points: np.ndarray, noise_m: float = 0.0, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    step = np.array([STEP_M, 0.0]), np.array([0.0, STEP_M])
    return footprint_of(points + rng.normal(0, noise_m, points.shape), *step)


@settings(max_examples=60)
@given(
    width=st.floats(0.015, 0.08), more=st.floats(1.25, 4.0), yaw=st.floats(-1.57, 1.57),
    x=st.floats(-0.5, 0.8), y=st.floats(-0.5, 0.5), noise=st.floats(0, 0.0004),
)  # fmt: skip
def test_a_rectangle_is_found_whichever_way_it_lies(
    width: float, more: float, yaw: float, x: float, y: float, noise: float
) -> None:
    footprint = measured(placed(grid(width / 2, width * more / 2), yaw, (x, y)), noise)
    assert not footprint.round
    assert footprint.width_m == pytest.approx(width, abs=0.003)
    assert footprint.length_m == pytest.approx(width * more, abs=0.003)
    np.testing.assert_allclose(footprint.centre, [x, y], atol=0.0015)
    off = (footprint.yaw_rad - yaw + np.pi / 2) % np.pi - np.pi / 2
    assert abs(off) < np.radians(max(2.5, np.degrees(0.7 * STEP_M / (width * more))))
    assert -np.pi / 2 <= footprint.yaw_rad <= np.pi / 2


@given(
    radius=st.floats(0.012, 0.09), x=st.floats(-0.5, 0.5), y=st.floats(-0.5, 0.5), noise=st.floats(0, 0.0004)
)
def test_a_disc_is_round_and_as_wide_as_it_is(radius: float, x: float, y: float, noise: float) -> None:
    points = grid(radius, radius)
    points = points[np.hypot(*points.T) < radius]
    footprint = measured(points + [x, y], noise)
    assert footprint.round
    assert footprint.width_m == footprint.length_m == pytest.approx(2 * radius, abs=0.003)
    np.testing.assert_allclose(footprint.centre, [x, y], atol=0.0015)


@pytest.mark.parametrize("about", [0.0, 1.0, 2.5])
def test_a_disc_half_hidden_keeps_its_whole_diameter(about: float) -> None:
    """A rectangle around what is seen would be two thirds as wide."""
    radius = 0.035
    points = grid(radius, radius)
    points = points[np.hypot(*points.T) < radius]
    seen = points[points @ [np.cos(about), np.sin(about)] > -0.3 * radius]
    footprint = measured(seen, 0.0002)
    assert footprint.round
    assert footprint.width_m == pytest.approx(2 * radius, abs=0.004)
    assert np.hypot(*footprint.centre) < 0.004


def test_single_flying_points_do_not_widen_it() -> None:
    points = np.vstack([grid(0.02, 0.035), [[0.05, 0.0], [-0.03, 0.06]]])
    footprint = measured(points)
    assert footprint.width_m == pytest.approx(0.04, abs=0.004)
    assert footprint.length_m == pytest.approx(0.07, abs=0.004)


def test_a_ring_is_as_wide_as_its_rim() -> None:
    points = grid(0.04, 0.04)
    distance = np.hypot(*points.T)
    footprint = measured(points[(distance < 0.04) & (distance > 0.034)])
    assert footprint.round
    assert footprint.width_m == pytest.approx(0.08, abs=0.003)


def test_the_same_points_give_the_same_footprint() -> None:
    points = placed(grid(0.02, 0.03), 0.4, (0.1, 0.2))
    first, again = measured(points, 0.0005), measured(points, 0.0005)
    assert first.yaw_rad == again.yaw_rad
    np.testing.assert_array_equal(first.centre, again.centre)


@pytest.mark.parametrize(
    "points",
    [
        np.array([[0.1, 0.2]]),
        np.array([[0.1, 0.2], [0.11, 0.2]]),
        np.column_stack([np.linspace(0, 0.1, 30), np.zeros(30)]),
        np.full((40, 2), 0.3),
    ],
    ids=["one point", "two points", "a line", "all at one place"],
)
def test_degenerate_points_have_a_finite_footprint(points: np.ndarray) -> None:
    footprint = measured(points)
    assert np.isfinite([footprint.width_m, footprint.length_m, footprint.yaw_rad, *footprint.centre]).all()
    assert 0 < footprint.width_m <= footprint.length_m
