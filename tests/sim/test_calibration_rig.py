"""The simulated cell with a board: what `molmo_ros calibrate` makes of its pictures, without the truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.charuco import CharucoBoard
from molmo_ros.geometry.hand_eye import MOUNTINGS, BoardView, Mounting, calibrate_hand_eye
from molmo_ros.geometry.pose import inverse
from molmo_ros.outcome import PointingError
from molmo_ros.sim.calibration_rig import CalibrationRig
from molmo_ros.sim.cell_arm import MountingError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=MOUNTINGS)
def rig(request: pytest.FixtureRequest) -> Iterator[CalibrationRig]:
    mounting: Mounting = request.param
    ours = CalibrationRig(mounting, CharucoBoard())
    yield ours
    ours.close()


def off(T_true: np.ndarray, T: np.ndarray) -> tuple[float, float]:
    """Millimetres and degrees."""
    T_off = inverse(T_true) @ T
    angle = Rotation.from_matrix(T_off[:3, :3]).magnitude()
    return 1e3 * float(np.linalg.norm(T_off[:3, 3])), float(np.degrees(angle))


@pytest.mark.parametrize("seed", [31, 32])
def test_two_centimetres_and_three_degrees_become_less_than_three_millimetres_and_half_a_degree(
    rig: CalibrationRig, seed: int
) -> None:
    rig.reset(seed)
    truth = rig.T_mount_camera_true
    said = truth @ MountingError(0.020, np.radians(3.0)).drawn(np.random.default_rng(seed))
    assert off(truth, said) == pytest.approx((20.0, 3.0))
    views = []
    for joints in rig.postures(12, said):
        seen = rig.visit(joints)
        if seen is None:
            continue
        try:
            views.append(BoardView(seen.T_base_hand, rig.board.find(seen.color)))
        except PointingError:  # a view that an operator would pass over, too
            continue
    assert len(views) >= 8
    found = calibrate_hand_eye(views, rig.camera, rig.mounting)
    distance_mm, angle_deg = off(truth, found.T_mount_camera)
    assert distance_mm <= 3.0
    assert angle_deg <= 0.5
    assert found.board_scale == pytest.approx(1.0, abs=0.01)


def test_the_hand_is_where_its_joints_say_and_measured_with_noise(rig: CalibrationRig) -> None:
    rig.reset(33)
    first, again = rig.hand_pose(), rig.hand_pose()
    assert 0 < np.linalg.norm(first[:3, 3] - again[:3, 3]) < 0.002
