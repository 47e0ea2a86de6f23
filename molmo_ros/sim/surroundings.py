"""What is around the things: the camera on its stand, the light, table, floor and wall. Pure numpy."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmo_ros.sim.colours import RGB
from molmo_ros.sim.worlds import CameraRange, LightRange, Range

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SceneCamera:
    """A pinhole camera on its stand: `T_base_camera` (4x4, optical frame) and the vertical field of view."""

    T_base_camera: FloatArray
    fovy_rad: float

    def K(self, size: tuple[int, int]) -> FloatArray:
        """3x3 intrinsics for an image of (width, height); pixel (0, 0) is the top-left pixel's centre."""
        width, height = size
        f = height / 2 / np.tan(self.fovy_rad / 2)
        return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]])

    def project(self, points_base_N3: FloatArray, size: tuple[int, int]) -> FloatArray:
        """Pixels (u, v) of points given in the base frame, as (N, 2)."""
        rotation, position = self.T_base_camera[:3, :3], self.T_base_camera[:3, 3]
        points_camera = (np.asarray(points_base_N3) - position) @ rotation
        pixels = points_camera @ self.K(size).T
        return np.asarray(pixels[:, :2] / pixels[:, 2:])


@dataclass(frozen=True)
class SceneLight:
    """Two directional lights (unit direction of travel, strength) and the light from everywhere."""

    key_direction: tuple[float, float, float]
    key: float
    fill_direction: tuple[float, float, float]
    fill: float
    ambient: float
    head: float


@dataclass(frozen=True)
class SceneRoom:
    """Table texture number and turn (quarter turns), and the colours of table, floor and wall."""

    texture: int
    table_rgb: RGB
    texture_repeat: float
    floor_rgb: RGB
    wall_rgb: RGB
    gloss: float


def draw_camera(rng: np.random.Generator, within: CameraRange, held_out: bool = False) -> SceneCamera:
    """On its stand across the table, looking at the middle of where things may lie.

    With `held_out`, its field of view is one that training never shows.
    """
    fovy = np.radians(_draw_fovy_deg(rng, within, held_out))
    nearest, farthest = (half / np.tan(fovy / 2) for half in within.half_height_m)
    away = rng.uniform(max(within.away_m[0], nearest), min(within.away_m[1], farthest))
    low, high = np.radians(within.elevation_deg)
    up = (
        np.arcsin(rng.uniform(np.sin(low), np.sin(high))) if within.even_in_height else rng.uniform(low, high)
    )
    around = np.radians(rng.uniform(*within.around_deg))
    aim = np.array([0.52 + rng.uniform(-0.05, 0.05), rng.uniform(-0.08, 0.08), 0.02])
    forward = -np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = np.radians(rng.normal(0.0, 2.0))
    T_base_camera = np.eye(4)
    T_base_camera[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    T_base_camera[:3, 1] = -np.sin(roll) * right + np.cos(roll) * down
    T_base_camera[:3, 2] = forward
    T_base_camera[:3, 3] = aim - away * forward
    return SceneCamera(T_base_camera, float(fovy))


def _draw_fovy_deg(rng: np.random.Generator, within: CameraRange, held_out: bool) -> float:
    low, high = within.fovy_deg
    if within.held_out_fovy_deg is None:
        return float(rng.uniform(low, high))
    from_deg, to_deg = within.held_out_fovy_deg
    if held_out:
        return float(rng.uniform(from_deg, to_deg))
    fovy = rng.uniform(low, high - (to_deg - from_deg))
    return float(fovy if fovy < from_deg else fovy + (to_deg - from_deg))


def draw_light(rng: np.random.Generator, within: LightRange) -> SceneLight:
    def falling(tilt: Range) -> tuple[float, float, float]:
        lean, around = np.radians(rng.uniform(*tilt)), rng.uniform(0, 2 * np.pi)
        return (
            float(np.sin(lean) * np.cos(around)),
            float(np.sin(lean) * np.sin(around)),
            float(-np.cos(lean)),
        )

    key_direction, fill_direction = falling(within.key_lean_deg), falling(within.fill_lean_deg)
    total = rng.uniform(*within.total)
    ambient, key, fill, head = rng.uniform(within.least, within.most)
    scale = total / (ambient + key * 0.85 + fill * 0.75 + head * 0.7)
    return SceneLight(
        key_direction,
        float(key * scale),
        fill_direction,
        float(fill * scale),
        float(ambient * scale),
        float(head * scale),
    )


def draw_room(rng: np.random.Generator, textures: tuple[int, ...]) -> SceneRoom:
    mood = rng.random()
    if mood < 0.40:  # wood: tan, oak, walnut
        table = _hsv(rng, (22, 38), (0.20, 0.55), (0.55, 1.0))
    elif mood < 0.66:  # greys, from near black to near white
        table = _hsv(rng, (0, 360), (0.0, 0.08), (0.22, 1.0))
    elif mood < 0.84:  # soft colours
        table = _hsv(rng, (0, 360), (0.10, 0.38), (0.60, 1.0))
    else:  # cloths as colourful as the things on them
        table = _hsv(rng, (0, 360), (0.45, 0.85), (0.40, 0.85))
    return SceneRoom(
        texture=textures[int(rng.integers(len(textures)))],
        table_rgb=table,
        texture_repeat=float(rng.uniform(0.8, 2.4)),
        floor_rgb=_hsv(rng, (15, 50), (0.0, 0.35), (0.25, 0.75)),
        wall_rgb=_hsv(rng, (0, 360), (0.0, 0.18), (0.55, 0.92)),
        gloss=float(rng.uniform(0.05, 0.7)),
    )


def _hsv(
    rng: np.random.Generator,
    hue: Range,
    saturation: Range,
    value: Range,
) -> RGB:
    return hsv_to_rgb(rng.uniform(*hue) / 360.0, rng.uniform(*saturation), rng.uniform(*value))
