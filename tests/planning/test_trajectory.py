"""Trajectories: interpolation, reversal, slowing, braking, limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.planning.trajectory import JointLimits, Trajectory, limit_share, limit_violation

LIMITS = JointLimits(
    ("a", "b"), np.array([-3.0, -3.0]), np.array([3.0, 3.0]), np.array([2.0, 2.0]), np.array([5.0, 5.0])
)


def sweep(duration_s: float = 2.0, reach: float = 1.0) -> Trajectory:
    """A quintic point-to-point motion (minimum jerk), joint b half as far."""
    t = np.linspace(0.0, duration_s, 201)
    s = t / duration_s
    share = np.array([reach, reach / 2])
    p = 10 * s**3 - 15 * s**4 + 6 * s**5
    v = (30 * s**2 - 60 * s**3 + 30 * s**4) / duration_s
    a = (60 * s - 180 * s**2 + 120 * s**3) / duration_s**2
    return Trajectory(("a", "b"), t, p[:, None] * share, v[:, None] * share, a[:, None] * share)


@given(st.floats(0.0, 2.0))
def test_between_samples_it_is_what_was_sampled(time_s: float) -> None:
    s = time_s / 2.0
    position, velocity = sweep().at(time_s)
    assert position[0] == pytest.approx(10 * s**3 - 15 * s**4 + 6 * s**5, abs=1e-6)
    assert velocity[0] == pytest.approx((30 * s**2 - 60 * s**3 + 30 * s**4) / 2.0, abs=1e-3)


def test_before_and_after_it_rests_at_its_ends() -> None:
    for time_s, end in ((-1.0, 0), (5.0, -1)):
        position, velocity = sweep().at(time_s)
        np.testing.assert_array_equal(position, sweep().positions[end])
        np.testing.assert_array_equal(velocity, 0)


def test_reversed_it_passes_the_same_places_with_opposite_speed() -> None:
    there, back = sweep(), sweep().reversed()
    for time_s in np.linspace(0, 2, 17):
        p, v = there.at(time_s)
        q, w = back.at(2.0 - time_s)
        np.testing.assert_allclose(p, q, atol=1e-9)
        np.testing.assert_allclose(v, -w, atol=1e-9)


@given(st.floats(1.0, 10.0))
def test_slowed_it_keeps_its_path_and_needs_less(factor: float) -> None:
    slow = sweep().slowed(factor)
    np.testing.assert_array_equal(slow.positions, sweep().positions)
    assert slow.duration_s == pytest.approx(2.0 * factor)
    np.testing.assert_allclose(np.gradient(slow.positions, slow.times_s, axis=0), slow.velocities, atol=0.02)


@given(st.floats(1.0, 40.0), st.floats(0.002, 0.1))
def test_resampled_it_is_the_same_motion_with_samples_near_enough(factor: float, step_s: float) -> None:
    coarse = sweep().slowed(factor)
    fine = coarse.resampled(step_s)
    assert np.diff(fine.times_s).max() <= max(step_s * 1.001, 1e-9)
    assert fine.duration_s == pytest.approx(coarse.duration_s)
    for end in (0, -1):
        np.testing.assert_allclose(fine.positions[end], coarse.positions[end], atol=1e-12)
    for time_s in np.linspace(0.0, coarse.duration_s, 23)[:-1]:
        for value, was in zip(fine.at(time_s), coarse.at(time_s), strict=True):
            np.testing.assert_allclose(value, was, atol=1e-6)
    assert limit_share(fine, LIMITS) <= 1.01 * limit_share(coarse, LIMITS)


def test_what_is_sampled_finely_enough_is_left_as_it_is() -> None:
    whole = sweep()
    assert whole.resampled(0.0101) is whole


def test_nothing_checked_is_ever_hastened() -> None:
    with pytest.raises(ValueError, match="only ever slowed"):
        sweep().slowed(0.5)


def test_two_are_joined_where_one_ends() -> None:
    there = sweep()
    both = there.then(there.reversed())
    assert both.duration_s == pytest.approx(4.0)
    assert (np.diff(both.times_s) > 0).all()
    with pytest.raises(ValueError, match="from where the first ends"):
        there.then(there)


@given(st.floats(0.0, 2.0))
def test_braking_stays_on_the_path_within_limits_and_ends_at_rest(at_s: float) -> None:
    motion = sweep()
    stop = motion.braked(at_s, LIMITS)
    position, velocity = motion.at(at_s)
    np.testing.assert_allclose(stop.positions[0], position, atol=1e-9)
    np.testing.assert_allclose(stop.velocities[0], velocity, atol=1e-9)
    np.testing.assert_allclose(stop.velocities[-1], 0, atol=1e-9)
    np.testing.assert_allclose(stop.positions[:, 1], stop.positions[:, 0] / 2, atol=1e-6)
    assert limit_violation(stop, LIMITS) == ""
    assert stop.duration_s < 1.0


def test_a_passed_limit_is_named_with_joint_and_time() -> None:
    assert limit_violation(sweep(), LIMITS) == ""
    assert "speed of a" in limit_violation(sweep(0.8), LIMITS)
    narrow = replace(LIMITS, upper=np.array([3.0, 0.4]))
    assert "position of b is 0.5000 at 2.00 s" in limit_violation(sweep(), narrow)
    broken = sweep()
    broken.positions[3, 1] = np.nan
    assert "not finite" in limit_violation(broken, LIMITS)


@given(st.floats(0.2, 3.0))
def test_slowed_by_its_share_it_just_keeps_the_limits(duration_s: float) -> None:
    motion = sweep(duration_s)
    share = limit_share(motion, LIMITS)
    kept = motion.slowed(max(share, 1.0))
    assert limit_violation(kept, LIMITS) == ""
    assert limit_share(kept, LIMITS) <= 1 + 1e-9
