import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from molmo_ros.geometry.checks import Face, Limits, broken_limits, check_goal
from molmo_ros.outcome import Code, PointingError

positions = hnp.arrays(float, 3, elements=st.floats(-2, 2))


def test_without_limits_every_place_is_good() -> None:
    assert check_goal(Limits(), [100.0, -3.0, 7.0], depth_m=1.0, position_cov_m2=np.eye(3), width_m=1.0).ok


@given(positions)
def test_a_box_names_each_side_that_is_broken_and_by_how_much(position: np.ndarray) -> None:
    limits = Limits(workspace_min_m=(-0.5, -1.0, 0.0), workspace_max_m=(0.5, 1.0, 0.8))
    broken = {each.limit: each for each in broken_limits(limits, position)}
    for axis, at, low, high in zip("xyz", position, (-0.5, -1.0, 0.0), (0.5, 1.0, 0.8), strict=True):
        below, above = (
            broken.pop(f"workspace_min_m.{axis}", None),
            broken.pop(f"workspace_max_m.{axis}", None),
        )
        assert (below is not None) == (at < low)
        assert (above is not None) == (at > high)
        for found, excess in ((below, low - at), (above, at - high)):
            if found is not None:
                assert found.code == Code.OUTSIDE_WORKSPACE
                assert found.excess_m == pytest.approx(excess)
                assert f"{excess:.3f} m" in found.message
    assert not broken


@given(positions, hnp.arrays(float, 3, elements=st.floats(-1, 1)).filter(lambda n: np.linalg.norm(n) > 0.1))
def test_a_face_measures_the_distance_to_its_plane(position: np.ndarray, normal: np.ndarray) -> None:
    face = Face("glass wall", (normal[0], normal[1], normal[2]), 0.3)
    unit, distance = normal / np.linalg.norm(normal), 0.3 / np.linalg.norm(normal)
    broken = broken_limits(Limits(workspace_faces=(face,)), position)
    outside = float(unit @ position - distance)
    assert bool(broken) == (outside > 0)
    if broken:
        assert broken[0].limit == "glass wall"
        assert broken[0].excess_m == pytest.approx(outside)
        assert "beyond the face 'glass wall'" in broken[0].message


def test_all_faces_of_a_polytope_must_hold() -> None:
    wedge = (Face("left", (0, 1, 0), 0.2), Face("slope", (1, 0, 1), 1.0))
    limits = Limits(workspace_faces=wedge)
    assert check_goal(limits, [0.4, 0.1, 0.5]).ok
    assert [each.limit for each in broken_limits(limits, [0.8, 0.3, 0.4])] == ["left", "slope"]


def test_the_lowest_height_is_named() -> None:
    outcome = check_goal(Limits(min_height_m=0.02), [0.3, 0.0, 0.005])
    assert outcome.code == Code.OUTSIDE_WORKSPACE
    assert "0.015 m below min_height_m (0.02 m)" in outcome.message


@pytest.mark.parametrize(
    ("depth_m", "limit", "excess_m"), [(0.2, "min_range_m", 0.1), (1.75, "max_range_m", 0.25)]
)
def test_depths_beyond_the_trusted_range_are_out_of_range(
    depth_m: float, limit: str, excess_m: float
) -> None:
    (broken,) = broken_limits(Limits(min_range_m=0.3, max_range_m=1.5), [0, 0, 0.5], depth_m=depth_m)
    assert (broken.code, broken.limit) == (Code.OUT_OF_RANGE, limit)
    assert broken.excess_m == pytest.approx(excess_m)


@pytest.mark.parametrize(
    ("x", "limit", "excess_m"), [(0.1, "min_distance_m", 0.1), (1.0, "max_distance_m", 0.15)]
)
def test_goals_too_near_to_or_too_far_from_the_base_are_out_of_range(
    x: float, limit: str, excess_m: float
) -> None:
    limits = Limits(min_distance_m=0.2, max_distance_m=0.85)
    (broken,) = broken_limits(limits, [x, 0, 0])
    assert (broken.code, broken.limit) == (Code.OUT_OF_RANGE, limit)
    assert broken.excess_m == pytest.approx(excess_m)


def test_the_worst_direction_of_the_covariance_counts() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    cov = turn @ np.diag([0.001**2, 0.002**2, 0.03**2]) @ turn.T
    (broken,) = broken_limits(Limits(max_sigma_m=0.01), [0, 0, 0], position_cov_m2=cov)
    assert (broken.code, broken.limit) == (Code.UNCERTAIN, "max_sigma_m")
    assert broken.excess_m == pytest.approx(0.02)
    assert "30.0 mm" in broken.message
    assert "20.0 mm more than max_sigma_m allows (10.0 mm)" in broken.message
    assert check_goal(Limits(max_sigma_m=0.031), [0, 0, 0], position_cov_m2=cov).ok


def test_an_unknown_covariance_is_no_small_one() -> None:
    outcome = check_goal(Limits(max_sigma_m=0.01), [0, 0, 0], position_cov_m2=np.full((3, 3), np.nan))
    assert outcome.code == Code.UNCERTAIN


def test_a_thing_too_wide_says_by_how_much_and_an_unmeasured_one_passes() -> None:
    limits = Limits(max_width_m=0.08)
    outcome = check_goal(limits, [0, 0, 0], width_m=0.095)
    assert outcome.code == Code.TOO_WIDE
    assert "95.0 mm wide, 15.0 mm more" in outcome.message
    assert check_goal(limits, [0, 0, 0], width_m=math.nan).ok


def test_everything_that_is_broken_is_said_at_once() -> None:
    limits = Limits(max_range_m=1.0, workspace_max_m=(0.5, 1, 1), min_height_m=0.1, max_width_m=0.05)
    outcome = check_goal(limits, [0.6, 0, 0], depth_m=1.2, width_m=0.06)
    assert outcome.code == Code.OUT_OF_RANGE
    for said in ("0.200 m too far", "0.100 m above the maximum", "min_height_m", "10.0 mm more"):
        assert said in outcome.message


@pytest.mark.parametrize(
    "bad",
    [
        {"min_distance_m": 1.0, "max_distance_m": 0.5},
        {"max_sigma_m": 0.0},
        {"max_sigma_m": math.nan},
        {"max_width_m": -0.1},
        {"min_height_m": math.nan},
        {"min_height_m": 1.0, "workspace_max_m": (1.0, 1.0, 0.5)},
        {"sigma_px_if_unknown": -1.0},
        {"sigma_px_if_unknown": math.inf},
    ],
)
def test_limits_that_nothing_satisfies_are_refused(bad: dict) -> None:
    with pytest.raises(PointingError) as caught:
        Limits(**bad)
    assert caught.value.outcome.code == Code.INVALID_REQUEST
    assert any(name in str(caught.value) for name in ("distance", *bad))


@pytest.mark.parametrize(
    ("normal", "offset_m"), [((0, 0, 0), 1.0), ((1, 0, math.nan), 1.0), ((1, 0, 0), math.inf)]
)
def test_a_face_without_a_direction_is_refused_by_name(normal: tuple, offset_m: float) -> None:
    with pytest.raises(PointingError, match="face 'ceiling'"):
        Face("ceiling", normal, offset_m)


@pytest.mark.parametrize("position", [[0, 0], [0, 0, math.nan], [math.inf, 0, 0]])
def test_a_position_that_is_none_is_an_invalid_request(position: list) -> None:
    with pytest.raises(PointingError, match="position_base_m") as caught:
        check_goal(Limits(), position)
    assert caught.value.outcome.code == Code.INVALID_REQUEST
