"""What a camera does to a clean picture: exposure, white balance, contrast, a little blur, sensor noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

_NOISE_STEPS_PER_SIGMA = 32.0
_NOISE_BANK_PX = 1024


@dataclass(frozen=True)
class PhotoStyle:
    """One camera's settings. Blur is given for an image 640 pixels wide, noise in grey levels of 0..255."""

    exposure: float
    white_balance: tuple[float, float, float]
    gamma: float
    blur_px_at_640: float
    noise_levels: float

    @staticmethod
    def draw(rng: np.random.Generator) -> PhotoStyle:
        """Settings as an ordinary auto-exposed camera has them indoors."""
        warm, tint = rng.normal(0.0, 0.035), rng.normal(0.0, 0.012)
        return PhotoStyle(
            exposure=float(np.exp(rng.normal(0.0, 0.09))),
            white_balance=(
                1.0 + float(np.clip(warm, -0.07, 0.07)),
                1.0 + tint,
                1.0 - float(np.clip(warm, -0.07, 0.07)),
            ),
            gamma=float(rng.uniform(0.88, 1.12)),
            blur_px_at_640=float(rng.uniform(0.0, 0.9)),
            noise_levels=float(rng.uniform(0.5, 4.0)),
        )


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
    return np.asarray(cv2.addWeighted(photo, 1.0, noise, weight, -128.0 * weight), dtype=np.uint8)


@cache
def _noise_bank() -> NDArray[np.uint8]:
    """Gaussian noise around 128, drawn once: fresh noise for every frame would cost more than drawing it."""
    rng = np.random.default_rng(20)
    noise = rng.standard_normal((_NOISE_BANK_PX, _NOISE_BANK_PX, 3)).astype(np.float32)
    return np.clip(128.5 + _NOISE_STEPS_PER_SIGMA * noise, 0, 255).astype(np.uint8)
