"""Following a trajectory: to its end, stopped, without a heartbeat, held up."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.planning.trajectory import JointLimits, Trajectory
from molmo_ros.sim.following import GOAL_TIME_S, Follower

LIMITS = JointLimits(("a",), np.array([-3.0]), np.array([3.0]), np.array([2.0]), np.array([5.0]))


def sweep() -> Trajectory:
    t = np.linspace(0.0, 2.0, 201)
    s = t[:, None] / 2.0
    p, v, a = (
        10 * s**3 - 15 * s**4 + 6 * s**5,
        30 * s**2 - 60 * s**3 + 30 * s**4,
        60 * s - 180 * s**2 + 120 * s**3,
    )
    return Trajectory(("a",), t, p, v / 2.0, a / 4.0)


def test_an_arm_that_is_where_it_should_be_reaches_the_end() -> None:
    follower = Follower(sweep(), LIMITS, 10.0)
    for now_s in np.arange(10.0, 12.0, 0.1):
        wanted, _ = follower.wanted(now_s)
        assert follower.judge(wanted, now_s).state == "moving"
    assert follower.progress(11.0) == pytest.approx(0.5)
    assert follower.judge(np.array([1.0]), 12.01).state == "reached"


def test_stopped_it_comes_to_rest_on_its_path_and_says_so() -> None:
    follower = Follower(sweep(), LIMITS, 0.0)
    before, speed = follower.wanted(1.0)
    follower.stop(1.0)
    after, still = follower.wanted(1.0)
    np.testing.assert_allclose([after, still], [before, speed], atol=1e-9)
    rest, at_rest = follower.wanted(3.0)
    assert before < rest < 1.0
    assert at_rest == pytest.approx(0.0)
    assert follower.judge(rest, 3.0).state == "stopped"
    follower.stop(3.0)
    assert follower.wanted(3.0)[0] == pytest.approx(rest)


def test_without_a_heartbeat_it_stops_and_with_one_it_does_not() -> None:
    kept, lost = Follower(sweep(), LIMITS, 0.0, 0.15), Follower(sweep(), LIMITS, 0.0, 0.15)
    for now_s in np.arange(0.0, 2.0, 0.02):
        kept.heard(now_s)
        kept.wanted(now_s)
        if now_s < 1.0:
            lost.heard(now_s)
        lost.wanted(now_s)
        if now_s < 1.12:
            assert not lost.stopping
        if now_s > 1.2:
            assert lost.stopping
    assert not kept.stopping
    assert kept.wanted(2.0)[0] == pytest.approx(1.0)
    assert lost.wanted(9.0)[0] < 1.0


def test_an_arm_held_up_or_short_of_its_goal_is_told_apart() -> None:
    follower = Follower(sweep(), LIMITS, 0.0)
    assert follower.judge(np.array([0.0]), 1.0).state == "path_tolerance"
    assert follower.judge(np.array([0.95]), 2.5).state == "moving"
    assert follower.judge(np.array([0.95]), 2.1 + GOAL_TIME_S).state == "goal_tolerance"
