"""Table textures, all computed: wood, stone, weave, checks, stripes, speckle, plain, and two kept for tests.

Textures are pale and nearly grey; the scene's table colour tints them, so one texture serves many tables.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE_PX = 512

_FAMILIES = ("wood", "planks", "clouds", "speckle", "weave", "checks", "stripes", "plain", "marble", "tiles")

#: The first world has the first of these numbers, later worlds train on the second, and behind those come
#: the textures that no training ever shows: of families of their own.
TEXTURE_COUNT, TRAINING_TEXTURES, HELD_OUT_TEXTURES = 30, 42, 6

_HELD_OUT_FAMILIES = ("gingham", "terrazzo")


@cache
def table_texture(i: int) -> NDArray[np.uint8]:
    """The image (SIZE_PX, SIZE_PX, 3) of a number, always the same one."""
    families = _FAMILIES if i < TRAINING_TEXTURES else _HELD_OUT_FAMILIES
    return _texture(families[i % len(families)], np.random.default_rng(7000 + i))


@cache
def shadow_spot() -> NDArray[np.uint8]:
    """A soft round spot (128, 128, 4) uint8, RGBA: dark in the middle, clear at the rim."""
    axis = (np.arange(128) - 63.5) / 63.5
    r = np.hypot(*np.meshgrid(axis, axis))
    alpha = np.clip(1.0 - r, 0, 1) ** 1.3 * 255
    spot = np.zeros((128, 128, 4), np.uint8)
    spot[..., 3] = np.clip(alpha * 1.25, 0, 255)
    return spot


def _texture(family: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    light = _BUILDERS[family](rng)
    warm = rng.uniform(-0.02, 0.02) * (light - light.mean())[..., None] * np.array([1.0, 0.0, -1.0])
    image = light[..., None] * 255 + warm * 255
    return np.clip(image, 0, 255).astype(np.uint8)


def _smooth_noise(rng: np.random.Generator, wave_px: tuple[float, float]) -> NDArray[np.float32]:
    """Noise of zero mean and unit deviation, smooth over `wave_px` pixels along (x, y), without a seam."""
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE_PX, SIZE_PX)))
    fy = np.fft.fftfreq(SIZE_PX)[:, None] * wave_px[1]
    fx = np.fft.rfftfreq(SIZE_PX)[None] * wave_px[0]
    noise = np.fft.irfft2(spectrum * np.exp(-4.0 * (fx**2 + fy**2)), s=(SIZE_PX, SIZE_PX))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def _wood(rng: np.random.Generator) -> NDArray[np.float32]:
    _, y = np.mgrid[0:SIZE_PX, 0:SIZE_PX].astype(np.float32) / SIZE_PX
    bend = _smooth_noise(rng, (400, 60)) * rng.uniform(0.02, 0.06)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (y + bend) * rng.integers(8, 18))
    fibre = _smooth_noise(rng, (120, 3))
    return np.clip(0.86 - rng.uniform(0.08, 0.2) * grain**2 + 0.035 * fibre, 0.3, 1).astype(np.float32)


def _planks(rng: np.random.Generator) -> NDArray[np.float32]:
    light = _wood(rng)
    rows = int(rng.integers(3, 7))
    edges = np.linspace(0, SIZE_PX, rows + 1).astype(int)
    for top, bottom in pairwise(edges):
        light[top:bottom] = np.roll(light[top:bottom], int(rng.integers(SIZE_PX)), axis=1) * rng.uniform(
            0.85, 1.05
        )
        light[top : top + 3] *= 0.6
    return np.clip(light, 0, 1)


def _clouds(rng: np.random.Generator) -> NDArray[np.float32]:
    noise = sum(_smooth_noise(rng, (w, w)) / 2**i for i, w in enumerate((160, 60, 20, 6)))
    return np.clip(0.84 + rng.uniform(0.03, 0.09) * np.asarray(noise, np.float32), 0.3, 1)


def _speckle(rng: np.random.Generator) -> NDArray[np.float32]:
    spots = _smooth_noise(rng, (5, 5))
    light = np.full((SIZE_PX, SIZE_PX), 0.88, np.float32)
    light[spots > 1.6] -= rng.uniform(0.15, 0.4)
    light[spots < -1.8] += 0.1
    return cv2.GaussianBlur(light, (0, 0), 0.8)


def _weave(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] * (2 * np.pi / SIZE_PX) * int(rng.integers(40, 72))
    thread = np.sin(x) * np.sin(y)
    return np.clip(0.85 + 0.06 * thread + 0.03 * _smooth_noise(rng, (40, 4)), 0, 1).astype(np.float32)


def _checks(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] * int(rng.integers(4, 10)) // SIZE_PX
    soft = rng.random() < 0.5
    dark = (x % 2 + y % 2) / 2 if soft else (x + y) % 2
    return np.clip(0.92 - rng.uniform(0.12, 0.35) * dark + 0.01 * _smooth_noise(rng, (3, 3)), 0, 1).astype(
        np.float32
    )


def _stripes(rng: np.random.Generator) -> NDArray[np.float32]:
    _, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] * (2 * np.pi / SIZE_PX) * int(rng.integers(5, 16))
    band = np.clip(3 * np.sin(x), -1, 1)
    return np.clip(0.84 + rng.uniform(0.03, 0.1) * band + 0.01 * _smooth_noise(rng, (3, 3)), 0, 1).astype(
        np.float32
    )


def _plain(rng: np.random.Generator) -> NDArray[np.float32]:
    return np.clip(0.9 + 0.012 * _smooth_noise(rng, (3, 3)) + 0.015 * _smooth_noise(rng, (200, 200)), 0, 1)


def _marble(rng: np.random.Generator) -> NDArray[np.float32]:
    turbulence = sum(np.abs(_smooth_noise(rng, (w, w))) / 2**i for i, w in enumerate((180, 70, 25)))
    veins = np.exp(-np.asarray(turbulence) * rng.uniform(3, 6))
    return np.clip(0.92 - rng.uniform(0.25, 0.5) * veins + 0.02 * _smooth_noise(rng, (60, 60)), 0, 1).astype(
        np.float32
    )


def _tiles(rng: np.random.Generator) -> NDArray[np.float32]:
    count = int(rng.integers(5, 10))
    shade = rng.uniform(0.8, 0.95, (count, count)).astype(np.float32)
    light = cv2.resize(shade, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_NEAREST)
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] * count % SIZE_PX
    light[(x < 3 * count) | (y < 3 * count)] = rng.uniform(0.55, 0.7)
    return np.clip(light + 0.01 * _smooth_noise(rng, (4, 4)), 0, 1)


def _gingham(rng: np.random.Generator) -> NDArray[np.float32]:
    """Half-see-through stripes both ways."""
    count = int(rng.integers(8, 22))
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] * 2 * count // SIZE_PX % 2
    thread = 0.012 * _smooth_noise(rng, (2, 2))
    return np.clip(0.95 - rng.uniform(0.10, 0.24) * (x + y) + thread, 0.2, 1).astype(np.float32)


def _terrazzo(rng: np.random.Generator) -> NDArray[np.float32]:
    """Chips of many greys in a pale ground: the cells of scattered points, where they are thick."""
    size = SIZE_PX // 4
    points = rng.uniform(0, size, (260, 2))
    y, x = np.mgrid[0:size, 0:size]
    away = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    nearest = np.partition(away, 1, axis=-1)
    chip = nearest[..., 1] - nearest[..., 0] > rng.uniform(2.0, 4.0)
    light = np.where(chip, rng.uniform(0.55, 0.95, 260)[away.argmin(axis=-1)], 0.9).astype(np.float32)
    light = cv2.resize(light, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR)
    return np.clip(light + 0.01 * _smooth_noise(rng, (3, 3)), 0, 1)


_BUILDERS = {
    "gingham": _gingham,
    "terrazzo": _terrazzo,
    "wood": _wood,
    "planks": _planks,
    "clouds": _clouds,
    "speckle": _speckle,
    "weave": _weave,
    "checks": _checks,
    "stripes": _stripes,
    "plain": _plain,
    "marble": _marble,
    "tiles": _tiles,
}
