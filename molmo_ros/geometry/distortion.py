"""Lens distortion and its inverse, on the plane z = 1 in front of the lens.

The polynomials of real calibrations are good where they were fitted and fold over further out: two directions
then land on one pixel, and a pixel beyond the fold looks back at nothing. Each lens here therefore knows its
*monotonic region*, the largest disc around the axis in which the mapping is one to one, and answers NaN
outside it. Inside, `undistort` runs Newton's method to convergence; cv2.undistortPoints stops after five
fixed-point steps and misses by pixels on wide lenses.

Formulas: OpenCV 4, "Camera Calibration and 3D Reconstruction" (plumb_bob, rational_polynomial, thin prism)
and "Fisheye camera model" (equidistant; Kannala and Brandt, PAMI 2006); names:
sensor_msgs/distortion_models.hpp.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

# Rays further out than this are not looked for: r = 10 is 84 degrees from the axis.
LARGEST_RADIUS = 10.0
# The mapping counts as monotonic while it stretches by more than this; nearer to the fold the inverse is
# noise.
SMALLEST_STRETCH = 0.01
# ... and by less than this: beyond, a rational polynomial nears its pole.
LARGEST_STRETCH = 30.0
# In units of the plane z = 1: 1e-12 is 1e-9 px at a focal length of 1 000 px.
CONVERGED = 1e-12
MOST_STEPS = 50

COEFFICIENT_COUNTS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12),
    "equidistant": (4,),
}


class Lens(Protocol):
    """Both ways between ideal directions (x, y, 1) and distorted ones; rows of NaN outside the region."""

    def distort(self, xy_N2: np.ndarray) -> np.ndarray: ...

    def undistort(self, xy_N2: np.ndarray) -> np.ndarray: ...

    def radial_gain(self, r2: np.ndarray) -> np.ndarray:
        """Distorted over ideal radius at ideal radius squared; NaN outside the region."""
        ...

    @property
    def off_axis(self) -> tuple[float, ...]:
        """What is not radial: p1, p2 (tangential) and s1 to s4 (thin prism)."""
        ...


class PerfectLens:
    """No distortion at all: rectified images and most simulators."""

    off_axis = (0.0,) * 6

    def radial_gain(self, r2: np.ndarray) -> np.ndarray:
        return np.ones_like(r2)

    def distort(self, xy_N2: np.ndarray) -> np.ndarray:
        return xy_N2

    def undistort(self, xy_N2: np.ndarray) -> np.ndarray:
        return xy_N2


class BrownConradyLens:
    """plumb_bob (k1 k2 p1 p2 [k3]) and rational_polynomial (k1 k2 p1 p2 k3 k4 k5 k6 [s1 s2 s3 s4])."""

    def __init__(self, coefficients: np.ndarray) -> None:
        padded = np.zeros(12)
        padded[: len(coefficients)] = coefficients
        self._k1, self._k2, self._p1, self._p2, self._k3, self._k4, self._k5, self._k6 = padded[:8]
        self._s1, self._s2, self._s3, self._s4 = padded[8:]
        self.radius = self._monotonic_radius()
        self._radii = np.linspace(0.0, self.radius, 512)
        self._distorted_radii = self._radii * self._radial_gain(self._radii**2)[0]

    def distort(self, xy_N2: np.ndarray) -> np.ndarray:
        inside = np.hypot(xy_N2[:, 0], xy_N2[:, 1]) <= self.radius
        distorted, _ = self._map(np.where(inside[:, None], xy_N2, 0.0))
        return np.where(inside[:, None], distorted, np.nan)

    def undistort(self, xy_N2: np.ndarray) -> np.ndarray:
        known = np.isfinite(xy_N2).all(axis=1, keepdims=True)
        wanted = np.where(known, xy_N2, 0.0)
        wanted_radius = np.hypot(wanted[:, 0], wanted[:, 1])
        first_radius = np.interp(wanted_radius, self._distorted_radii, self._radii)
        # sinc-like division: the axis itself stays where it is
        xy = wanted * (first_radius / np.where(wanted_radius > 0, wanted_radius, 1.0))[:, None]
        for _ in range(MOST_STEPS):
            distorted, jacobian = self._map(xy)
            miss = distorted - wanted
            if np.abs(miss).max(initial=0.0) < CONVERGED:
                break
            determinant = jacobian[0] * jacobian[3] - jacobian[1] * jacobian[2]
            determinant = np.where(np.abs(determinant) > 1e-9, determinant, 1e-9)
            step_x = (jacobian[3] * miss[:, 0] - jacobian[1] * miss[:, 1]) / determinant
            step_y = (jacobian[0] * miss[:, 1] - jacobian[2] * miss[:, 0]) / determinant
            xy = _held_within(xy - np.stack([step_x, step_y], axis=1), 1.02 * self.radius)
        distorted, _ = self._map(xy)
        solved = np.abs(distorted - wanted).max(axis=1) < 10 * CONVERGED
        solved &= np.hypot(xy[:, 0], xy[:, 1]) <= self.radius
        return np.where(solved[:, None] & known, xy, np.nan)

    def radial_gain(self, r2: np.ndarray) -> np.ndarray:
        return np.where(r2 <= self.radius**2, self._radial_gain(r2)[0], np.nan)

    @property
    def off_axis(self) -> tuple[float, ...]:
        return self._p1, self._p2, self._s1, self._s2, self._s3, self._s4

    def _radial_gain(self, r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radial factor and its derivative by r squared."""
        above = 1 + r2 * (self._k1 + r2 * (self._k2 + r2 * self._k3))
        below = 1 + r2 * (self._k4 + r2 * (self._k5 + r2 * self._k6))
        below = np.where(below > 1e-6, below, np.nan)
        above_slope = self._k1 + r2 * (2 * self._k2 + 3 * r2 * self._k3)
        below_slope = self._k4 + r2 * (2 * self._k5 + 3 * r2 * self._k6)
        return above / below, (above_slope * below - above * below_slope) / below**2

    def _map(self, xy_N2: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Distorted directions and the Jacobian (dx'/dx, dx'/dy, dy'/dx, dy'/dy)."""
        x, y = xy_N2[:, 0], xy_N2[:, 1]
        r2 = x * x + y * y
        gain, gain_slope = self._radial_gain(r2)
        tangential_x = 2 * self._p1 * x * y + self._p2 * (r2 + 2 * x * x)
        tangential_y = self._p1 * (r2 + 2 * y * y) + 2 * self._p2 * x * y
        prism_x, prism_y = r2 * (self._s1 + r2 * self._s2), r2 * (self._s3 + r2 * self._s4)
        prism_slope_x, prism_slope_y = self._s1 + 2 * r2 * self._s2, self._s3 + 2 * r2 * self._s4
        mixed = 2 * x * y * gain_slope + 2 * self._p1 * x + 2 * self._p2 * y
        jacobian = (
            gain + 2 * x * x * gain_slope + 2 * self._p1 * y + 6 * self._p2 * x + 2 * x * prism_slope_x,
            mixed + 2 * y * prism_slope_x,
            mixed + 2 * x * prism_slope_y,
            gain + 2 * y * y * gain_slope + 6 * self._p1 * y + 2 * self._p2 * x + 2 * y * prism_slope_y,
        )
        return np.stack(
            [x * gain + tangential_x + prism_x, y * gain + tangential_y + prism_y], axis=1
        ), jacobian

    def _stretches(self, radii: np.ndarray, directions_D2: np.ndarray) -> np.ndarray:
        """For each radius, whether the mapping stretches, and not wildly, all around that circle."""
        xy = (radii[:, None, None] * directions_D2).reshape(-1, 2)
        _, (a, b, c, d) = self._map(xy)
        # smallest eigenvalue of the symmetric part: positive on a disc means one to one on it
        smallest = (a + d) / 2 - np.hypot((a - d) / 2, (b + c) / 2)
        largest = np.sqrt(a * a + b * b + c * c + d * d)
        good = (smallest > SMALLEST_STRETCH) & (largest < LARGEST_STRETCH)
        return good.reshape(len(radii), -1).all(axis=1)

    def _monotonic_radius(self) -> float:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        radii = np.linspace(0, LARGEST_RADIUS, 401)[1:]
        good = self._stretches(radii, directions)
        if good.all():
            return LARGEST_RADIUS
        first_bad = int(np.argmin(good))
        low, high = (radii[first_bad - 1] if first_bad else 0.0), radii[first_bad]
        for _ in range(3):
            finer = np.linspace(low, high, 33)
            good = self._stretches(finer, directions)
            good[0] = True
            first_bad = int(np.argmin(good)) if not good.all() else len(finer) - 1
            low, high = finer[first_bad - 1], finer[first_bad]
        return float(low)


class EquidistantLens:
    """Fisheye: the distorted radius is theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8)."""

    def __init__(self, coefficients: np.ndarray) -> None:
        self._k = np.asarray(coefficients, dtype=float)
        angles = np.linspace(0.0, np.arctan(LARGEST_RADIUS), 2048)
        good = self._bent(angles)[1] > SMALLEST_STRETCH
        last = len(angles) if good.all() else max(int(np.argmin(good)), 2)
        self._angles = angles[:last]
        self._bent_angles = self._bent(self._angles)[0]
        self.radius = float(np.tan(self._angles[-1]))

    def distort(self, xy_N2: np.ndarray) -> np.ndarray:
        radius = np.hypot(xy_N2[:, 0], xy_N2[:, 1])
        angle = np.arctan(radius)
        scale = np.where(radius > 1e-9, self._bent(angle)[0] / np.maximum(radius, 1e-9), 1.0)
        return np.where((radius <= self.radius)[:, None], xy_N2 * scale[:, None], np.nan)

    def undistort(self, xy_N2: np.ndarray) -> np.ndarray:
        wanted = np.hypot(xy_N2[:, 0], xy_N2[:, 1])
        angle = np.interp(wanted, self._bent_angles, self._angles)
        for _ in range(MOST_STEPS):
            bent, slope = self._bent(angle)
            miss = np.nan_to_num(bent - wanted)
            if np.abs(miss).max(initial=0.0) < CONVERGED:
                break
            angle = np.clip(angle - miss / np.maximum(slope, SMALLEST_STRETCH / 2), 0.0, self._angles[-1])
        solved = np.abs(self._bent(angle)[0] - wanted) < 10 * CONVERGED
        scale = np.where(wanted > 1e-9, np.tan(angle) / np.maximum(wanted, 1e-9), 1.0)
        return np.where(solved[:, None], xy_N2 * scale[:, None], np.nan)

    off_axis = (0.0,) * 6

    def radial_gain(self, r2: np.ndarray) -> np.ndarray:
        radius = np.sqrt(r2)
        gain = self._bent(np.arctan(radius))[0] / np.maximum(radius, 1e-9)
        return np.where(radius <= self.radius, np.where(radius > 1e-9, gain, 1.0), np.nan)

    def _bent(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distorted radius at an angle from the axis, and its slope."""
        a2 = angle * angle
        k1, k2, k3, k4 = self._k
        bent = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
        return bent, 1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + a2 * 9 * k4)))


def lens_for(distortion_model: str, coefficients: np.ndarray) -> Lens:
    """The lens of a checked CameraInfo (`CameraModel.from_info` has looked at names and lengths)."""
    if not np.any(coefficients):
        return EquidistantLens(np.zeros(4)) if distortion_model == "equidistant" else PerfectLens()
    if distortion_model == "equidistant":
        return EquidistantLens(coefficients)
    return BrownConradyLens(coefficients)


def _held_within(xy_N2: np.ndarray, radius: float) -> np.ndarray:
    far = np.hypot(xy_N2[:, 0], xy_N2[:, 1])
    return xy_N2 * np.minimum(1.0, radius / np.maximum(far, 1e-12))[:, None]
