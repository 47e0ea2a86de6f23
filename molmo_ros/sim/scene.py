"""How a seed becomes a scene: which things lie where, how the camera stands, what light falls. Pure numpy.

Frames: `base` is the arm's base on the table top (x forward over the table, z up, z = 0 on the surface, REP
103); `camera` is the optical frame (x right, y down, z forward).
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from molmo_ros.sim.colours import COLOUR_NAMES, RGB, colour_named, distance
from molmo_ros.sim.objects import KINDS, SIZES_PER_KIND, Shape, shapes_of
from molmo_ros.sim.photo import PhotoStyle
from molmo_ros.sim.textures import TEXTURE_COUNT

FloatArray = NDArray[np.float64]

MOST_OBJECTS = 8

# Scenes are laid out for pictures of this width over height.
ASPECT = 4 / 3

# Where things may lie (base frame, metres): within reach of the arm and on the table.
REACH_X_M = (0.26, 0.80)
REACH_Y_M = (-0.42, 0.42)

ARM_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
ARM_PARKED_RAD = (0.0, -0.95, 2.05, 1.35, 0.0, 0.0)
_ARM_SPREAD_RAD = (0.6, 0.12, 0.15, 0.35, 0.4, 1.2)


@dataclass(frozen=True)
class SceneRecipe:
    """What may vary. `objects` is the smallest and largest number of things (1 to 8).

    With `allow_twins`, a scene has with `twin_probability` two or three things of one colour and kind;
    otherwise no two things in a scene share both.
    """

    objects: tuple[int, int] = (4, 8)
    allow_twins: bool = False
    twin_probability: float = 0.35

    def __post_init__(self) -> None:
        low, high = self.objects
        if not 1 <= low <= high <= MOST_OBJECTS:
            raise ValueError(f"objects must be a range within 1..{MOST_OBJECTS}, got {self.objects}")


@dataclass(frozen=True)
class SceneObject:
    """One thing on the table. `centre_m` is its middle (base frame), `yaw_rad` its turn about z.

    `id` is its number in the instance map, 1 for the first (0 is everything else). `size_m` is (width,
    height).
    """

    id: int
    kind: str
    colour: str
    rgb: RGB
    variant: int
    centre_m: tuple[float, float, float]
    yaw_rad: float
    size_m: tuple[float, float]

    @property
    def label(self) -> str:
        """Its name in words: "red cube"."""
        return f"{self.colour} {self.kind}"

    @property
    def shape(self) -> Shape:
        """The mesh and its measures."""
        return shapes_of(self.kind)[self.variant]

    @property
    def T_base_object(self) -> FloatArray:
        """4x4 pose of the foot of the thing (origin on the table, z up)."""
        c, s = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        x, y = self.centre_m[:2]
        return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1.0]])


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


@dataclass(frozen=True, eq=False)
class SceneState:
    """Everything about one scene; the seed determines it all."""

    seed: int
    objects: tuple[SceneObject, ...]
    camera: SceneCamera
    light: SceneLight
    room: SceneRoom
    photo: PhotoStyle
    arm_rad: tuple[float, ...] = field(default=ARM_PARKED_RAD)


def draw_scene(seed: int, recipe: SceneRecipe | None = None) -> SceneState:
    """The scene of a seed. The same seed and recipe give the same scene, whatever was drawn before."""
    recipe = recipe or SceneRecipe()
    rng = np.random.default_rng(seed)
    room = _draw_room(rng)
    camera = _draw_camera(rng)
    light = _draw_light(rng)
    photo = PhotoStyle.draw(rng)
    arm = tuple(float(q + rng.uniform(-s, s)) for q, s in zip(ARM_PARKED_RAD, _ARM_SPREAD_RAD, strict=True))
    names = _draw_names(rng, recipe, room)
    objects: tuple[SceneObject, ...] = ()
    while len(objects) < recipe.objects[0]:  # a bad start can leave no room for the last ones
        objects = _place(rng, names, camera)
    return SceneState(seed, objects, camera, light, room, photo, arm)


def _draw_names(rng: np.random.Generator, recipe: SceneRecipe, room: SceneRoom) -> list[tuple[str, str]]:
    """(colour, kind) for each thing. Few kinds and few colours per scene, so that both words are needed."""
    count = int(rng.integers(recipe.objects[0], recipe.objects[1] + 1))
    telling = [name for name in COLOUR_NAMES if distance(colour_named(name).middle(), room.table_rgb) > 22.0]
    while True:
        kinds = rng.permutation(KINDS)[: rng.integers(2, len(KINDS) + 1)]
        colours = rng.permutation(telling)[: rng.integers(3, len(telling) + 1)]
        if len(kinds) * len(colours) >= count:
            break
    picks = rng.permutation(len(kinds) * len(colours))[:count]
    names = [(str(colours[p // len(kinds)]), str(kinds[p % len(kinds)])) for p in picks]
    if recipe.allow_twins and rng.random() < recipe.twin_probability:
        copies = int(rng.integers(1, 3))
        for i in range(1, min(1 + copies, count)):
            names[i] = names[0]
    return names


def _place(
    rng: np.random.Generator, names: list[tuple[str, str]], camera: SceneCamera
) -> tuple[SceneObject, ...]:
    """Puts the things where the camera sees them, without overlap and with little occlusion.

    After 100 tries a thing may be occluded more; after 200 it is left out.
    """
    placed: list[SceneObject] = []
    boxes: list[FloatArray] = []
    focal = float(camera.K((1, 1))[1, 1])  # in image heights
    rotation, position = camera.T_base_camera[:3, :3], camera.T_base_camera[:3, 3]
    for colour, kind in names:
        variant = int(rng.integers(SIZES_PER_KIND))
        shape = shapes_of(kind)[variant]
        rgb = colour_named(colour).draw(rng)
        yaw = float(rng.uniform(0, 2 * np.pi))
        for attempt in range(200):
            allowed = 0.15 if attempt < 100 else 0.45
            across, down = rng.uniform(-0.48, 0.48, 2)
            ray = rotation @ np.array([across * ASPECT / focal, down / focal, 1.0])
            if ray[2] > -0.05:
                continue
            x, y = (position - ray * position[2] / ray[2])[:2]
            if not (REACH_X_M[0] < x < REACH_X_M[1] and REACH_Y_M[0] < y < REACH_Y_M[1]):
                continue
            if any(
                np.hypot(x - o.centre_m[0], y - o.centre_m[1]) < shape.reach_m + o.shape.reach_m + 0.006
                for o in placed
            ):
                continue
            box = _view_box(rotation, position, focal, x, y, shape)
            if box[0] < -0.49 * ASPECT or box[2] > 0.49 * ASPECT or box[1] < -0.49 or box[3] > 0.49:
                continue
            if any(_overlap(box, other) > allowed for other in boxes):
                continue
            boxes.append(box)
            centre = (float(x), float(y), shape.height_m / 2)
            extent = (2 * shape.radius_m, shape.height_m)
            placed.append(SceneObject(len(placed) + 1, kind, colour, rgb, variant, centre, yaw, extent))
            break
    return tuple(placed)


_CIRCLE = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)


def _view_box(
    rotation: FloatArray, position: FloatArray, focal: float, x: float, y: float, shape: Shape
) -> FloatArray:
    """(left, top, right, bottom) of a bounding cylinder in the image, in image heights from its middle."""
    corners = np.empty((16, 3))
    corners[:8, :2] = corners[8:, :2] = (x, y) + shape.reach_m * _CIRCLE
    corners[:8, 2], corners[8:, 2] = 0.0, shape.height_m
    points = (corners - position) @ rotation
    uv = focal * points[:, :2] / points[:, 2:]
    return np.concatenate([uv.min(axis=0), uv.max(axis=0)])


def _overlap(a: FloatArray, b: FloatArray) -> float:
    """Shared area of two boxes over the smaller one's area."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return float(wide * high / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])))


def _draw_camera(rng: np.random.Generator) -> SceneCamera:
    """On its stand across the table: 30 to 85 degrees up, +-60 degrees around, 0.6 to 1.1 m away.

    A wide lens far away would shrink things to a dozen pixels, so the half height of the view at the table's
    middle stays under 37 cm.
    """
    fovy = np.radians(rng.uniform(40.0, 60.0))
    farthest = min(1.1, 0.37 / np.tan(fovy / 2))
    away = rng.uniform(0.6, farthest)
    up = np.arcsin(rng.uniform(np.sin(np.radians(30.0)), np.sin(np.radians(85.0))))
    around = np.radians(rng.uniform(-60.0, 60.0))
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


def _draw_light(rng: np.random.Generator) -> SceneLight:
    def falling(tilt: tuple[float, float]) -> tuple[float, float, float]:
        lean, around = np.radians(rng.uniform(*tilt)), rng.uniform(0, 2 * np.pi)
        return (
            float(np.sin(lean) * np.cos(around)),
            float(np.sin(lean) * np.sin(around)),
            float(-np.cos(lean)),
        )

    key_direction, fill_direction = falling((15.0, 48.0)), falling((20.0, 65.0))
    total = rng.uniform(0.98, 1.20)
    ambient, key, fill, head = rng.uniform((0.30, 0.30, 0.05, 0.08), (0.42, 0.52, 0.18, 0.20))
    scale = total / (ambient + key * 0.85 + fill * 0.75 + head * 0.7)
    return SceneLight(
        key_direction,
        float(key * scale),
        fill_direction,
        float(fill * scale),
        float(ambient * scale),
        float(head * scale),
    )


def _draw_room(rng: np.random.Generator) -> SceneRoom:
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
        texture=int(rng.integers(TEXTURE_COUNT)),
        table_rgb=table,
        texture_repeat=float(rng.uniform(0.8, 2.4)),
        floor_rgb=_hsv(rng, (15, 50), (0.0, 0.35), (0.25, 0.75)),
        wall_rgb=_hsv(rng, (0, 360), (0.0, 0.18), (0.55, 0.92)),
        gloss=float(rng.uniform(0.05, 0.7)),
    )


def _hsv(
    rng: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> RGB:
    return hsv_to_rgb(rng.uniform(*hue) / 360.0, rng.uniform(*saturation), rng.uniform(*value))
