import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from molmo_ros.geometry.pose import check_rigid, inverse, tool_rotation, transform
from molmo_ros.geometry.rotation import quaternion_xyzw
from molmo_ros.outcome import Code, PointingError

directions = hnp.arrays(float, 3, elements=st.floats(-1, 1)).filter(lambda x: np.linalg.norm(x) > 0.1)
quaternions = (
    hnp.arrays(float, 4, elements=st.floats(-1, 1))
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: q / np.linalg.norm(q))
)


@given(quaternions, hnp.arrays(float, 3, elements=st.floats(-10, 10)))
def test_a_transform_and_its_inverse_cancel(q: np.ndarray, t: np.ndarray) -> None:
    T = transform(t, q)
    check_rigid("T", T)
    np.testing.assert_allclose(T @ inverse(T), np.eye(4), atol=1e-12)
    back = quaternion_xyzw(T[:3, :3])
    assert abs(back @ q) == pytest.approx(1.0)
    assert back[3] >= 0


def test_quaternions_are_in_the_order_of_ros() -> None:
    quarter_turn_about_z = transform([1, 2, 3], [0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    np.testing.assert_allclose(quarter_turn_about_z @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


@given(directions)
def test_a_tool_points_where_it_approaches(approach: np.ndarray) -> None:
    R = tool_rotation(approach)
    np.testing.assert_allclose(R[:, 2], approach / np.linalg.norm(approach), atol=1e-9)
    np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-9)
    assert np.linalg.det(R) == pytest.approx(1.0)


def test_straight_down_the_fingers_close_along_the_base_y() -> None:
    R = tool_rotation(np.array([0, 0, -1.0]))
    np.testing.assert_allclose(R @ [1, 0, 0], [0, 1, 0])


def test_straight_up_is_a_rotation_too() -> None:
    R = tool_rotation(np.array([0, 0, 1.0]))
    np.testing.assert_allclose(R[:, 2], [0, 0, 1], atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)


@given(directions, hnp.arrays(float, 3, elements=st.floats(-1e-4, 1e-4)))
def test_a_slightly_different_approach_turns_the_tool_only_slightly(
    approach: np.ndarray, nudge: np.ndarray
) -> None:
    unit = approach / np.linalg.norm(approach)
    if unit[2] > 0.9:
        return
    assert np.abs(tool_rotation(unit) - tool_rotation(unit + nudge)).max() < 0.01


@pytest.mark.parametrize(
    ("T", "said"),
    [
        (np.diag([2.0, 1, 1, 1]), "T_base_camera is not rigid"),
        (np.diag([-1.0, 1, 1, 1]), "not rigid"),
        (np.full((4, 4), np.nan), "not a finite 4x4"),
        (np.eye(3), "not a finite 4x4"),
    ],
)
def test_what_is_not_rigid_is_named(T: np.ndarray, said: str) -> None:
    with pytest.raises(PointingError, match=said) as caught:
        check_rigid("T_base_camera", T)
    assert caught.value.outcome.code == Code.TF_UNAVAILABLE


@pytest.mark.parametrize(("t", "q"), [([0, 0, 0], [0, 0, 0, 0]), ([np.nan, 0, 0], [0, 0, 0, 1])])
def test_numbers_that_are_no_transform_are_refused(t: list, q: list) -> None:
    with pytest.raises(PointingError, match="not a transform"):
        transform(t, q)
