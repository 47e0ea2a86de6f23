"""Rotations are those that SciPy knows by the same names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.rotation import from_quaternion, from_rotation_vector, from_rpy, quaternion_xyzw

quaternions = hnp.arrays(float, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)
angles = hnp.arrays(float, 3, elements=st.floats(-4, 4))


@given(quaternions)
def test_a_quaternion_of_any_length_is_its_rotation(q: np.ndarray) -> None:
    np.testing.assert_allclose(from_quaternion(q), Rotation.from_quat(q).as_matrix(), atol=1e-12)


@given(quaternions)
def test_a_matrix_becomes_its_quaternion_with_w_not_negative(q: np.ndarray) -> None:
    back = quaternion_xyzw(Rotation.from_quat(q).as_matrix())
    assert np.linalg.norm(back) == pytest.approx(1.0)
    assert abs(back @ q) == pytest.approx(np.linalg.norm(q))
    assert back[3] >= 0


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_have_a_quaternion_too(axis: int) -> None:
    R = -np.eye(3)
    R[axis, axis] = 1.0
    np.testing.assert_allclose(np.abs(quaternion_xyzw(R)), np.eye(4)[axis], atol=1e-12)


@given(angles)
def test_a_vector_turns_about_its_direction_by_its_length(vector: np.ndarray) -> None:
    np.testing.assert_allclose(
        from_rotation_vector(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-9
    )


@given(angles)
def test_roll_pitch_and_yaw_are_about_fixed_axes(rpy: np.ndarray) -> None:
    np.testing.assert_allclose(from_rpy(rpy), Rotation.from_euler("xyz", rpy).as_matrix(), atol=1e-9)
