"""What a camera does to a clean picture: exposure, white balance, contrast, a little blur, sensor noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

_NOISE_STEPS_PER_SIGMA = 32.0
_NOISE_BANK_PX = 1024


@dataclass(frozen=True)
class PhotoRange:
    """How much the cameras of a world differ.

    `exposure` and `warmth` are standard deviations (of the logarithm, and of the gain of red against blue, cut
    off at twice that); the others are smallest and largest. JPEG, with the share of pictures that went through
    it, is a quality of 0 to 100.
    """

    exposure: float = 0.09
    warmth: float = 0.035
    tint: float = 0.012
    gamma: tuple[float, float] = (0.88, 1.12)
    blur_px_at_640: tuple[float, float] = (0.0, 0.9)
    noise_levels: tuple[float, float] = (0.5, 4.0)
    jpeg_share: float = 0.0
    jpeg_quality: tuple[int, int] = (40, 95)


@dataclass(frozen=True)
class PhotoStyle:
    """One camera's settings. Blur is given for an image 640 pixels wide, noise in grey levels of 0..255.

    `jpeg_quality` is 0 for a picture that was never compressed.
    """

    exposure: float
    white_balance: tuple[float, float, float]
    gamma: float
    blur_px_at_640: float
    noise_levels: float
    jpeg_quality: int = 0

    @staticmethod
    def draw(rng: np.random.Generator, within: PhotoRange | None = None) -> PhotoStyle:
        """Settings as an ordinary auto-exposed camera has them indoors."""
        within = within or PhotoRange()
        warm, tint = rng.normal(0.0, within.warmth), rng.normal(0.0, within.tint)
        warm = float(np.clip(warm, -2 * within.warmth, 2 * within.warmth))
        style = PhotoStyle(
            exposure=float(np.exp(rng.normal(0.0, within.exposure))),
            white_balance=(1.0 + warm, 1.0 + tint, 1.0 - warm),
            gamma=float(rng.uniform(*within.gamma)),
            blur_px_at_640=float(rng.uniform(*within.blur_px_at_640)),
            noise_levels=float(rng.uniform(*within.noise_levels)),
        )
        if within.jpeg_share and rng.random() < within.jpeg_share:
            low, high = within.jpeg_quality
            style = replace(style, jpeg_quality=int(rng.integers(low, high + 1)))
        return style


def developed(image_HW3: NDArray[np.uint8], style: PhotoStyle, noise_seed: int) -> NDArray[np.uint8]:
    """The picture as that camera would hand it out: HxWx3 uint8 RGB, a new array."""
    levels = np.arange(256) / 255.0
    table = np.empty((1, 256, 3), np.uint8)
    for channel, gain in enumerate(style.white_balance):
        curve = np.clip(levels * style.exposure * gain, 0, None) ** style.gamma
        # A soft shoulder instead of a hard clip keeps bright things' shading.
        curve = np.where(curve > 0.85, 0.85 + 0.15 * np.tanh((curve - 0.85) / 0.15), curve)
        table[0, :, channel] = np.clip(np.rint(curve * 255), 0, 255)
    photo = cv2.LUT(image_HW3, table)
    sigma_px = style.blur_px_at_640 * image_HW3.shape[1] / 640
    if sigma_px > 0.2:
        photo = cv2.GaussianBlur(photo, (0, 0), sigma_px)
    height, width = photo.shape[:2]
    rng = np.random.default_rng(noise_seed)
    bank = _noise_bank()
    top, left = rng.integers(0, _NOISE_BANK_PX - np.minimum((height, width), _NOISE_BANK_PX) + 1)
    noise = bank[top : top + height, left : left + width]
    if noise.shape != photo.shape:
        noise = np.resize(bank, photo.shape)
    weight = style.noise_levels / _NOISE_STEPS_PER_SIGMA
    photo = np.asarray(cv2.addWeighted(photo, 1.0, noise, weight, -128.0 * weight), dtype=np.uint8)
    return _through_jpeg(photo, style.jpeg_quality) if style.jpeg_quality else photo


def _through_jpeg(image_HW3: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Compressed and opened again; JPEG weighs colours as the eye does, so OpenCV must know which is red."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, packed = cv2.imencode(".jpg", np.ascontiguousarray(image_HW3[..., ::-1]), settings)
    if not done:
        raise RuntimeError("OpenCV could not write a JPEG")
    opened = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), dtype=np.uint8)
    return np.ascontiguousarray(opened[..., ::-1])


@cache
def _noise_bank() -> NDArray[np.uint8]:
    """Gaussian noise around 128, drawn once: fresh noise for every frame would cost more than drawing it."""
    rng = np.random.default_rng(20)
    noise = rng.standard_normal((_NOISE_BANK_PX, _NOISE_BANK_PX, 3)).astype(np.float32)
    return np.clip(128.5 + _NOISE_STEPS_PER_SIGMA * noise, 0, 255).astype(np.uint8)
