"""How noisy a depth camera is, in numbers from its maker or from those who measured it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DepthProfile:
    """Standard deviation of one depth pixel, and how far its neighbours share its error.

    sigma_z = floor_m + growth_per_m * (z - growth_from_m)^2 + z^2 * subpixel_px / (f * baseline_m)

    `pixels_per_sample`: neighbouring pixels whose errors move together (the matching window), so that
    averaging n pixels gains only n / pixels_per_sample. `depth_focal_px`: focal length of the depth camera
    itself, for depth that was registered into a colour image of another focal length; None takes the colour
    image's.
    """

    name: str
    floor_m: float = 0.0
    growth_per_m: float = 0.0
    growth_from_m: float = 0.0
    subpixel_px: float = 0.0
    baseline_m: float = 1.0
    pixels_per_sample: float = 1.0
    depth_focal_px: float | None = None

    def sigma_z_m(self, depth_m: float | np.ndarray, focal_px: float) -> float | np.ndarray:
        """One pixel's standard deviation along the optical axis, metres, on a surface facing the camera."""
        stereo = self.subpixel_px / ((self.depth_focal_px or focal_px) * self.baseline_m)
        return self.floor_m + self.growth_per_m * (depth_m - self.growth_from_m) ** 2 + stereo * depth_m**2


# Intel RealSense D400 tuning guide (Grunnet-Jepsen, Sweetser, Woodfill): depth RMS error = z^2 * subpixel /
# (f * B); D435: B = 50 mm, subpixel about 0.08 on a well textured scene. The matching window correlates about
# 6x5 pixels.
D435 = DepthProfile("d435", subpixel_px=0.08, baseline_m=0.050, pixels_per_sample=28.0)
# Nguyen, Izadi & Lovell, "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT
# 2012.
KINECT = DepthProfile("kinect", floor_m=0.0012, growth_per_m=0.0019, growth_from_m=0.4, pixels_per_sample=7.0)
# For a depth camera nobody has measured: 2 mm near by, 6 mm at 1 m, 18 mm at 2 m.
GENERIC = DepthProfile("generic", floor_m=0.002, growth_per_m=0.004, pixels_per_sample=28.0)

PROFILES = {profile.name: profile for profile in (D435, KINECT, GENERIC)}
