import numpy as np
import pytest

from molmo_ros.geometry.gripper_room import (
    FURTHEST_ROOM_M,
    SAFETY_M,
    Gripper,
    GripperRoom,
    finger_boxes,
    free_room_m,
    opening_needed_m,
)
from molmo_ros.outcome import Code, PointingError

GRIPPER = Gripper()


def wall(x: float, level: float = 0.05, half_width: float = 0.01) -> np.ndarray:
    """Points of something upright at x, across the fingers' band."""
    y, z = np.meshgrid(np.linspace(-half_width, half_width, 9), np.linspace(0.0, level, 9))
    return np.column_stack([np.full(y.size, x), y.ravel(), z.ravel()])


def test_the_fingers_open_as_far_as_the_thing_reaches_on_its_wider_side() -> None:
    own = np.vstack([wall(-0.02), wall(0.03)])
    assert opening_needed_m(own, GRIPPER, tip_level_m=0.01, margin_m=0.001) == pytest.approx(0.062)


def test_what_is_below_the_tips_or_beside_the_band_need_not_be_passed() -> None:
    own = np.vstack([wall(0.02), wall(0.06, level=0.008), wall(0.07) + [0, 0.05, 0]])
    assert opening_needed_m(own, GRIPPER, tip_level_m=0.01, margin_m=0.0) == pytest.approx(0.04)


def test_a_single_flying_point_does_not_open_the_gripper() -> None:
    own = np.vstack([wall(0.02), [[0.07, 0.0, 0.04]]])
    assert opening_needed_m(own, GRIPPER, 0.01, 0.0) == pytest.approx(0.04)


def test_room_is_measured_from_the_opening_to_the_next_thing_on_each_side() -> None:
    room = free_room_m(np.vstack([wall(-0.05), wall(0.08)]), GRIPPER, opening_m=0.06, tip_level_m=0.01)
    assert room == pytest.approx((0.02, 0.05))


def test_nothing_around_is_as_much_room_as_was_looked_for() -> None:
    assert free_room_m(np.zeros((0, 3)), GRIPPER, 0.06, 0.01) == (FURTHEST_ROOM_M, FURTHEST_ROOM_M)


def test_something_within_the_opening_leaves_no_room() -> None:
    assert free_room_m(wall(0.02), GRIPPER, 0.06, 0.01)[1] == 0.0


def test_a_gripper_that_opens_too_little_says_by_how_much() -> None:
    outcome = GripperRoom(0.095, (0.1, 0.1), (0.0, 0.0)).outcome(GRIPPER)
    assert outcome.code == Code.TOO_WIDE
    assert "95 mm" in outcome.message
    assert "15 mm more than its 80 mm" in outcome.message


@pytest.mark.parametrize(("room", "side"), [((0.005, 0.1), "-x"), ((0.1, 0.005), "+x")])
def test_a_finger_that_does_not_fit_says_on_which_side_and_by_how_much(
    room: tuple[float, float], side: str
) -> None:
    outcome = GripperRoom(0.05, room, (0.0, 0.0)).outcome(GRIPPER)
    assert outcome.code == Code.BLOCKED
    assert f"on the {side} side" in outcome.message
    assert f"{1e3 * (GRIPPER.finger_thickness_m + SAFETY_M - 0.005):.0f} mm too little" in outcome.message


def test_half_a_turn_swaps_the_sides() -> None:
    assert GripperRoom(0.05, (0.01, 0.02), (0.1, 0.2)).turned() == GripperRoom(0.05, (0.02, 0.01), (0.2, 0.1))


def test_the_fingers_space_lies_outside_the_opening_between_tip_and_top() -> None:
    left, right = finger_boxes(GRIPPER, 0.05, 0.01, 0.04)
    np.testing.assert_allclose(left * [-1, 1, 1], right)
    assert (right[:, 0] >= 0.025).all()
    assert (right[:, 0] <= 0.025 + GRIPPER.finger_thickness_m + 1e-9).all()
    assert (np.abs(right[:, 1]) <= GRIPPER.finger_width_m / 2 + 1e-9).all()
    assert ((right[:, 2] > 0.01) & (right[:, 2] <= 0.04 + 1e-9)).all()


@pytest.mark.parametrize("name", ["max_opening_m", "finger_depth_m", "finger_width_m", "tip_clearance_m"])
@pytest.mark.parametrize("value", [0.0, -0.1, np.nan, np.inf, 80.0])
def test_a_gripper_of_impossible_size_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(PointingError, match=name) as caught:
        Gripper(**{name: value})
    assert caught.value.outcome.code == Code.INVALID_REQUEST
