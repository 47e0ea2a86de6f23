"""Joint trajectories: samples in time of where each joint is, how fast, and how its speed changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Shares by which numbers may pass a limit through rounding alone.
_ROUNDING = 1e-6
_BRAKING_STRETCHES = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True, eq=False)
class JointLimits:
    """Limits of each joint (D,): positions `lower` .. `upper` [rad or m], speed [1/s] and acceleration [1/s^2]."""

    names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray


@dataclass(frozen=True, eq=False)
class Trajectory:
    """N samples of D joints: `times_s` (N,) from 0, rising; `positions` [rad or m], `velocities` and
    `accelerations` (N, D)."""

    joint_names: tuple[str, ...]
    times_s: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    accelerations: np.ndarray

    @property
    def duration_s(self) -> float:
        return float(self.times_s[-1])

    def at(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Position and velocity (D,) at a time, by cubic Hermite interpolation; held before and after."""
        if time_s < 0.0:
            return self.positions[0].copy(), np.zeros(self.positions.shape[1])
        if time_s >= self.duration_s:
            return self.positions[-1].copy(), np.zeros(self.positions.shape[1])
        i = int(np.searchsorted(self.times_s, time_s, side="right")) - 1
        h = self.times_s[i + 1] - self.times_s[i]
        s = (time_s - self.times_s[i]) / h
        return _hermite(
            s, h, self.positions[i], self.positions[i + 1], self.velocities[i], self.velocities[i + 1]
        )

    def reversed(self) -> Trajectory:
        """The same way back."""
        return Trajectory(
            self.joint_names,
            self.duration_s - self.times_s[::-1],
            self.positions[::-1].copy(),
            -self.velocities[::-1],
            self.accelerations[::-1].copy(),
        )

    def slowed(self, factor: float) -> Trajectory:
        """The same path in `factor` times the time."""
        if factor < 1.0:
            raise ValueError(f"factor is {factor:g}: a checked trajectory is only ever slowed, by 1 or more")
        return Trajectory(
            self.joint_names,
            self.times_s * factor,
            self.positions,
            self.velocities / factor,
            self.accelerations / factor**2,
        )

    def resampled(self, step_s: float) -> Trajectory:
        """The same motion with samples at most `step_s` apart; itself when it has them."""
        if np.diff(self.times_s).max(initial=0.0) <= step_s * (1 + _ROUNDING):
            return self
        times = np.linspace(0.0, self.duration_s, int(np.ceil(self.duration_s / step_s)) + 1)
        i = np.minimum(np.searchsorted(self.times_s, times, side="right"), len(self.times_s) - 1) - 1
        h = (self.times_s[i + 1] - self.times_s[i])[:, None]
        s = (times - self.times_s[i])[:, None] / h
        positions, velocities = _hermite(
            s, h, self.positions[i], self.positions[i + 1], self.velocities[i], self.velocities[i + 1]
        )
        accelerations = (1 - s) * self.accelerations[i] + s * self.accelerations[i + 1]
        return Trajectory(self.joint_names, times, positions, velocities, accelerations)

    def then(self, other: Trajectory) -> Trajectory:
        """This one, and at its end, which must be where the other begins, the other."""
        if other.joint_names != self.joint_names:
            raise ValueError(f"joints differ: {self.joint_names} and {other.joint_names}")
        gap = float(np.abs(other.positions[0] - self.positions[-1]).max())
        if gap > 1e-3:
            raise ValueError(f"the second trajectory begins {gap:.4f} rad from where the first ends")
        return Trajectory(
            self.joint_names,
            np.concatenate([self.times_s, self.duration_s + other.times_s[1:]]),
            np.concatenate([self.positions, other.positions[1:]]),
            np.concatenate([self.velocities, other.velocities[1:]]),
            np.concatenate([self.accelerations, other.accelerations[1:]]),
        )

    def braked(self, at_s: float, limits: JointLimits, step_s: float = 0.01) -> Trajectory:
        """Comes to rest along the same path, and so clear of obstacles, beginning at time `at_s`.

        Time itself slows down, evenly, over the shortest stretch that keeps to the limits.
        """
        _, speed = self.at(at_s)
        shortest_s = max(float((np.abs(speed) / limits.acceleration).max()), step_s)
        braked = self._slowing(at_s, shortest_s, step_s)
        for stretch in _BRAKING_STRETCHES:
            braked = self._slowing(at_s, stretch * shortest_s, step_s)
            if not limit_violation(braked, limits):
                break
        return braked

    def _slowing(self, at_s: float, over_s: float, step_s: float) -> Trajectory:
        steps = max(int(np.ceil(over_s / step_s)), 2)
        times = np.linspace(0.0, over_s, steps + 1)
        pace = 1.0 - times / over_s
        along = at_s + times - times**2 / (2 * over_s)
        samples = [self.at(float(t)) for t in along]
        positions = np.array([position for position, _ in samples])
        velocities = np.array([velocity for _, velocity in samples]) * pace[:, None]
        accelerations = np.gradient(velocities, times, axis=0)
        return Trajectory(self.joint_names, times, positions, velocities, accelerations)


def _hermite(
    s: Any, h: Any, p0: np.ndarray, p1: np.ndarray, v0: np.ndarray, v1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Position and velocity at a share `s` of the time `h` between two samples, by their cubic."""
    m0, m1 = v0 * h, v1 * h
    position = (
        (2 * s**3 - 3 * s**2 + 1) * p0 + (s**3 - 2 * s**2 + s) * m0 + (3 * s**2 - 2 * s**3) * p1 + (s**3 - s**2) * m1
    )
    velocity = (6 * (s**2 - s) * (p0 - p1) + (3 * s**2 - 4 * s + 1) * m0 + (3 * s**2 - 2 * s) * m1) / h
    return position, velocity


def from_samples(
    joint_names: Sequence[str],
    times_s: Sequence[float],
    positions: npt.ArrayLike,
    velocities: npt.ArrayLike,
    accelerations: npt.ArrayLike,
) -> Trajectory:
    """A trajectory from lists of samples, or arrays of them (N, D)."""
    return Trajectory(
        tuple(joint_names),
        np.asarray(times_s, dtype=float) - float(times_s[0]),
        np.asarray(positions, dtype=float),
        np.asarray(velocities, dtype=float),
        np.asarray(accelerations, dtype=float),
    )


def limit_violation(trajectory: Trajectory, limits: JointLimits) -> str:
    """Which joint passes which limit, in words; empty when none does."""
    for values, low, high, what in (
        (trajectory.positions, limits.lower, limits.upper, "position"),
        (trajectory.velocities, -limits.velocity, limits.velocity, "speed"),
        (trajectory.accelerations, -limits.acceleration, limits.acceleration, "acceleration"),
    ):
        slack = _ROUNDING * np.maximum(1.0, high - low)
        over = np.maximum(values - high, low - values) - slack
        if not np.isfinite(values).all():
            return f"a {what} is not finite"
        sample, joint = np.unravel_index(int(np.argmax(over)), over.shape)
        if over[sample, joint] > 0:
            return (
                f"{what} of {limits.names[joint]} is {values[sample, joint]:.4f} at "
                f"{trajectory.times_s[sample]:.2f} s; its limits are {low[joint]:.4f} and {high[joint]:.4f}"
            )
    return ""


def limit_share(trajectory: Trajectory, limits: JointLimits) -> float:
    """By which factor the trajectory must be slowed to keep speed and acceleration (1 or less: it does)."""
    speed = float((np.abs(trajectory.velocities) / limits.velocity).max())
    acceleration = float((np.abs(trajectory.accelerations) / limits.acceleration).max())
    return max(speed, float(np.sqrt(acceleration)))
