"""Makes a perfect depth image look like one from a real RGB-D camera.

What is modelled, and from where:

- Stereo (D435-like): the error lies in disparity, sigma_z = z^2 * subpixel / (f * B), Intel RealSense D400
  tuning guide; disparity comes in steps and neighbours share a matching window, so errors are smooth over a
  few pixels: Barron & Malik, "Intrinsic Scene Properties from a Single RGB-D Image", CVPR 2013; Handa et al.,
  "A Benchmark for RGB-D Visual Odometry, 3D Reconstruction and SLAM", ICRA 2014.
- Kinect-like (structured light, v1): axial and lateral error by depth and angle of incidence, Nguyen, Izadi &
  Lovell, "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT 2012.
- Holes at grazing angles, in the shadow that one eye of the pair does not see, and in patches without
  texture; flying pixels across depth steps. Their rates are chosen by us to look like the real thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import cv2
import numpy as np

from molmo_ros.geometry.depth_profile import D435, KINECT, DepthProfile

STEP_RATIO = 0.03  # neighbours differing by more than this share of the depth are an edge
FLYING_SHARE = 0.35  # of edge pixels, some fly between the two surfaces
EDGE_HOLE_SHARE = 0.35  # and some are lost
GRAZING_FROM, GRAZING_TO = (
    np.radians(65),
    np.radians(85),
)  # returns thin out between these angles of incidence
STEEPEST_TANGENT = float(np.tan(np.radians(88)))
PATCH_SHARE_SIGMA = (
    1.8  # patches without texture: where a smooth random field exceeds this (0.5 % of the image)
)


@dataclass(frozen=True)
class _Sensor:
    """What `DepthProfile` does not say: how the errors are made."""

    profile: DepthProfile
    baseline_m: float
    disparity_step_px: float
    window_sigma_px: float
    structured_light: bool


SENSORS = {
    "d435": _Sensor(D435, 0.050, 1 / 32, 1.5, structured_light=False),
    "kinect": _Sensor(KINECT, 0.075, 1 / 8, 0.7, structured_light=True),
}
NOISES = ("none", *SENSORS)


def noisy_depth(
    depth_m: np.ndarray,
    focal_px: float,
    rng: np.random.Generator,
    noise: str = "d435",
    max_depth_m: float = 6.0,
) -> np.ndarray:
    """HxW float32 metres as a camera of kind `noise` (one of NOISES) would give them; NaN = no return.

    `depth_m`: perfect depth along the optical axis, metres; what is not finite or beyond `max_depth_m` gives
    no return. `focal_px` for both axes; the optical axis goes through the middle of the image. The same
    generator state gives the same image.
    """
    seen = np.isfinite(depth_m) & (depth_m > 0) & (depth_m <= max_depth_m)
    if noise == "none":
        return np.where(seen, depth_m, np.nan).astype(np.float32)
    if noise not in SENSORS:
        raise ValueError(f"depth noise '{noise}' is unknown; valid are {', '.join(NOISES)}")
    sensor = SENSORS[noise]
    height, width = depth_m.shape
    true = np.where(seen, depth_m, np.float32(10 * max_depth_m)).astype(np.float32)

    tangent2 = _tangent2_of_incidence(true, focal_px)
    nearest, farthest = _nearest(true), _farthest(true)
    edge = farthest - nearest > STEP_RATIO * true

    shifted = _laterally_shifted(true, _random_bytes(rng, height, width, 2), sensor)
    smooth = _smooth_noise(_random_bytes(rng, height, width), sensor.window_sigma_px)
    focal_baseline = np.float32(focal_px * sensor.baseline_m)
    if sensor.structured_light:
        axial = np.asarray(sensor.profile.sigma_z_m(shifted, focal_px), dtype=np.float32)
        axial += np.float32(1e-4) / np.sqrt(shifted) * _angle_term(tangent2)
        smooth *= axial
        smooth += shifted
        disparity = focal_baseline / np.maximum(smooth, np.float32(0.05), out=smooth)
    else:
        subpixel = np.float32(sensor.profile.subpixel_px)
        disparity = _angle_term(tangent2)
        disparity *= np.float32(0.1) * subpixel
        disparity += subpixel
        disparity *= smooth
        disparity += focal_baseline / shifted
    disparity *= np.float32(1 / sensor.disparity_step_px)
    steps = np.maximum(np.rint(disparity, out=disparity), 1, out=disparity)
    measured = np.float32(focal_baseline / sensor.disparity_step_px) / steps

    edge_byte, other_byte = _random_bytes(rng, height, width), _random_bytes(rng, height, width)
    flying = edge & (edge_byte < 256 * FLYING_SHARE)
    share = other_byte[flying].astype(np.float32) / 255
    measured[flying] = share * nearest[flying] + (1 - share) * farthest[flying]

    lost = edge & (edge_byte >= 256 * (1 - EDGE_HOLE_SHARE))
    lost |= _grazing_holes(tangent2, other_byte) & ~edge
    lost |= _stereo_shadow(true, focal_baseline)
    lost |= _untextured_patches(rng, height, width)
    lost |= ~seen | (measured > max_depth_m)
    measured[lost] = np.nan
    return measured


def _random_bytes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.frombuffer(rng.bytes(int(np.prod(shape))), dtype=np.uint8).reshape(shape)


def _tangent2_of_incidence(depth_m: np.ndarray, focal_px: float) -> np.ndarray:
    """Squared tangent of the angle between ray and surface normal.

    A plane is 1/z = a x + b y + c in normalised coordinates, its normal n = (a, b, c) and n . P = 1 for its
    points, so cos = 1 / (|n| |P|).
    """
    height, width = depth_m.shape
    x, y, ray_length2 = _rays(height, width, float(focal_px))
    inverse = 1 / depth_m
    # central differences, times depth: n scaled so that its last component is 1 - a x - b y
    a = cv2.Sobel(inverse, cv2.CV_32F, 1, 0, ksize=1, scale=focal_px / 2)
    b = cv2.Sobel(inverse, cv2.CV_32F, 0, 1, ksize=1, scale=focal_px / 2)
    a *= depth_m
    b *= depth_m
    c = 1 - a * x
    c -= b * y
    a *= a
    b *= b
    c *= c
    a += b
    a += c
    a *= ray_length2
    a -= 1
    return np.clip(a, 0, STEEPEST_TANGENT**2, out=a)


@lru_cache(maxsize=4)
def _rays(height: int, width: int, focal_px: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = ((np.arange(width, dtype=np.float32) - (width - 1) / 2) / np.float32(focal_px))[None, :]
    y = ((np.arange(height, dtype=np.float32) - (height - 1) / 2) / np.float32(focal_px))[:, None]
    return x, y, 1 + x * x + y * y


def _angle_term(tangent2: np.ndarray) -> np.ndarray:
    """(theta / (pi/2 - theta))^2 of Nguyen et al., from a table."""
    table, scale = _angle_table()
    return cv2.LUT(cv2.convertScaleAbs(cv2.sqrt(cv2.sqrt(tangent2)), alpha=scale), table)


@lru_cache(maxsize=1)
def _angle_table() -> tuple[np.ndarray, float]:
    """256 entries, even in the root of the tangent, which resolves both facing and grazing surfaces."""
    top = np.sqrt(STEEPEST_TANGENT)
    theta = np.arctan(np.linspace(0, top, 256) ** 2)
    return ((theta / (np.pi / 2 - theta)) ** 2).astype(np.float32), float(255 / top)


def _laterally_shifted(depth_m: np.ndarray, bytes_HW2: np.ndarray, sensor: _Sensor) -> np.ndarray:
    """Every pixel takes the depth of a pixel nearby, normally distributed and rounded."""
    table = _rounded_normal_table(0.8 if sensor.structured_light else 0.5)
    height, width = depth_m.shape
    from_HW2 = cv2.LUT(bytes_HW2, table)
    from_HW2 += _pixel_grid(height, width)
    return cv2.remap(depth_m, from_HW2, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _pixel_grid(height: int, width: int) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(width, dtype=np.int16), np.arange(height, dtype=np.int16))
    return np.stack([columns, rows], axis=2)


@lru_cache(maxsize=4)
def _rounded_normal_table(sigma_px: float) -> np.ndarray:
    """The 256 quantiles of a normal distribution, rounded to whole pixels."""
    quantiles = [NormalDist(0, sigma_px).inv_cdf((i + 0.5) / 256) for i in range(256)]
    return np.rint(quantiles).astype(np.int16)


def _smooth_noise(white: np.ndarray, sigma_px: float) -> np.ndarray:
    """Noise of standard deviation 1, correlated over a Gaussian window.

    `white` is uniform random bytes: the sum over the window makes it normal, and bytes are ten times cheaper.
    """
    kernel = cv2.getGaussianKernel(2 * int(np.ceil(3 * sigma_px)) + 1, sigma_px, cv2.CV_32F)
    # a byte has variance (256^2 - 1) / 12; the filter keeps (sum of squares)^2 of it, a factor of each pass
    gain = 1 / (float((kernel**2).sum()) * np.sqrt((256**2 - 1) / 12))
    return cv2.sepFilter2D(white, cv2.CV_32F, kernel * np.float32(gain), kernel, delta=-127.5 * gain)


def _nearest(depth_m: np.ndarray) -> np.ndarray:
    return cv2.erode(depth_m, np.ones((3, 3), np.uint8))


def _farthest(depth_m: np.ndarray) -> np.ndarray:
    return cv2.dilate(depth_m, np.ones((3, 3), np.uint8))


def _grazing_holes(tangent2: np.ndarray, random_bytes: np.ndarray) -> np.ndarray:
    """The share of lost returns grows from none to all between the two angles."""
    holes = np.zeros(tangent2.shape, dtype=bool)
    steep = tangent2 > np.tan(GRAZING_FROM) ** 2
    theta = np.arctan(np.sqrt(tangent2[steep]))
    holes[steep] = random_bytes[steep] < 256 * (theta - GRAZING_FROM) / (GRAZING_TO - GRAZING_FROM)
    return holes


def _stereo_shadow(depth_m: np.ndarray, focal_baseline: np.float32) -> np.ndarray:
    """Pixels whose counterpart in the other eye is hidden by something nearer to their right."""
    disparity = focal_baseline / depth_m
    in_other_eye = np.arange(depth_m.shape[1], dtype=np.float32)[None, :] - disparity
    # the leftmost position of anything up to `span` pixels to the right, by doubling the reach; nothing hides
    # a pixel from further away than all disparities differ
    leftmost = in_other_eye.copy()
    span, reach = float(disparity.max() - disparity.min()), 1
    while reach < min(2 * span, depth_m.shape[1]):
        leftmost[:, :-reach] = cv2.min(leftmost[:, :-reach], leftmost[:, reach:])
        reach *= 2
    leftmost += 1
    return in_other_eye > leftmost


def _untextured_patches(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.standard_normal((height // 4 + 1, width // 4 + 1), dtype=np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return field > PATCH_SHARE_SIGMA
