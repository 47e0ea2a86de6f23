"""How a seed becomes a scene: which things lie where; `surroundings` has camera, light and room. Pure numpy.

Frames: `base` is the arm's base on the table top (x forward over the table, z up, z = 0 on the surface, REP
103); `camera` is the optical frame (x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from molmo_ros.sim.clutter import BUILDERS as CLUTTER
from molmo_ros.sim.colours import DULL_COLOURS, RGB, distance
from molmo_ros.sim.objects import SIZES_PER_KIND, TIPPING, Shape, shape_of
from molmo_ros.sim.photo import PhotoStyle
from molmo_ros.sim.surroundings import (
    SceneCamera,
    SceneLight,
    SceneRoom,
    draw_camera,
    draw_light,
    draw_room,
)
from molmo_ros.sim.worlds import DEFAULT_WORLD, World

FloatArray = NDArray[np.float64]

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
    """What may vary. `objects` is the smallest and largest number of things, clutter not counted.

    With `allow_twins`, a scene has with `twin_probability` several things of one colour and kind; otherwise no
    two things in a scene share both. With `held_out`, table textures and fields of view are those that no
    training shows.
    """

    objects: tuple[int, int] = (4, 8)
    allow_twins: bool = False
    twin_probability: float = 0.35
    world: World = DEFAULT_WORLD
    held_out: bool = False

    def __post_init__(self) -> None:
        low, high = self.objects
        most = self.world.most_objects
        if not 1 <= low <= high <= most:
            raise ValueError(f"objects must be a range within 1..{most}, got {self.objects}")
        if self.held_out and not self.world.held_out_textures:
            raise ValueError(f"the world {self.world.name!r} keeps nothing out of its training")


@dataclass(frozen=True)
class SceneObject:
    """One thing on the table. `centre_m` is its middle (base frame), `yaw_rad` its turn about z.

    `id` is its number in the instance map, 1 for the first (0 is everything else). `size_m` is (width,
    height). `tipped`: it lies on its side. Of clutter, `kind` and `colour` are words that nobody asks for.
    """

    id: int
    kind: str
    colour: str
    rgb: RGB
    variant: int
    centre_m: tuple[float, float, float]
    yaw_rad: float
    size_m: tuple[float, float]
    tipped: bool = False

    @property
    def label(self) -> str:
        """Its name in words: "red cube"."""
        return f"{self.colour} {self.kind}"

    @property
    def shape(self) -> Shape:
        """The mesh and its measures."""
        return shape_of(self.kind, self.variant, self.tipped)

    @property
    def T_base_object(self) -> FloatArray:
        """4x4 pose of the foot of the thing (origin on the table, z up)."""
        c, s = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        x, y = self.centre_m[:2]
        return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1.0]])


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

    @property
    def named(self) -> tuple[SceneObject, ...]:
        """The things that words can ask for: all but the clutter."""
        return tuple(thing for thing in self.objects if thing.kind not in CLUTTER)


def draw_scene(seed: int, recipe: SceneRecipe | None = None) -> SceneState:
    """The scene of a seed. The same seed and recipe give the same scene, whatever was drawn before."""
    recipe = recipe or SceneRecipe()
    world = recipe.world
    rng = np.random.default_rng(seed)
    room = draw_room(rng, world.held_out_textures if recipe.held_out else world.textures)
    camera = draw_camera(rng, world.camera, recipe.held_out)
    light = draw_light(rng, world.light)
    photo = PhotoStyle.draw(rng, world.photo)
    arm = tuple(float(q + rng.uniform(-s, s)) for q, s in zip(ARM_PARKED_RAD, _ARM_SPREAD_RAD, strict=True))
    names = _draw_names(rng, recipe, room)
    objects: tuple[SceneObject, ...] = ()
    while len(objects) < recipe.objects[0]:  # a bad start can leave no room for the last ones
        objects = _place(rng, names, camera, world)
    if world.most_clutter:
        clutter = _draw_clutter(rng, world)
        objects = _place(rng, clutter, camera, world, objects)
    return SceneState(seed, objects, camera, light, room, photo, arm)


def _draw_names(rng: np.random.Generator, recipe: SceneRecipe, room: SceneRoom) -> list[tuple[str, str]]:
    """(colour, kind) for each thing. Few kinds and few colours per scene, so that both words are needed."""
    world = recipe.world
    count = int(rng.integers(recipe.objects[0], recipe.objects[1] + 1))
    telling = [name for name in world.colours if distance(world.colour(name).middle(), room.table_rgb) > 22.0]
    fewest, most = world.kinds_per_scene
    while True:
        kinds = rng.permutation(world.kinds)[: rng.integers(fewest, most + 1)]
        colours = rng.permutation(telling)[: rng.integers(3, len(telling) + 1)]
        if len(kinds) * len(colours) >= count:
            break
    picks = rng.permutation(len(kinds) * len(colours))[:count]
    names = [(str(colours[p // len(kinds)]), str(kinds[p % len(kinds)])) for p in picks]
    if recipe.allow_twins and rng.random() < recipe.twin_probability:
        copies = int(rng.integers(1, world.most_twins + 1))
        for i in range(1, min(1 + copies, count)):
            names[i] = names[0]
    return names


def _draw_clutter(rng: np.random.Generator, world: World) -> list[tuple[str, str]]:
    """(colour, shape) of up to `most_clutter` things without a name, half of them in dull colours."""
    count = int(rng.integers(0, world.most_clutter + 1))
    dull = [colour.name for colour in DULL_COLOURS]
    return [
        (str(rng.choice(dull if rng.random() < 0.5 else world.colours)), str(rng.choice(world.clutter)))
        for _ in range(count)
    ]


def _place(
    rng: np.random.Generator,
    names: list[tuple[str, str]],
    camera: SceneCamera,
    world: World,
    before: tuple[SceneObject, ...] = (),
) -> tuple[SceneObject, ...]:
    """Puts the things beside those of `before`, where the camera sees them, without overlap on the table.

    After 100 tries a thing may be occluded more; after 200 it is left out.
    """
    focal = float(camera.K((1, 1))[1, 1])  # in image heights
    rotation, position = camera.T_base_camera[:3, :3], camera.T_base_camera[:3, 3]
    placed = list(before)
    boxes = [_view_box(rotation, position, focal, *o.centre_m[:2], o.shape) for o in before]
    for colour, kind in names:
        variant = int(rng.integers(SIZES_PER_KIND))
        tipped = world.tipped_share > 0 and kind in TIPPING and bool(rng.random() < world.tipped_share)
        shape = shape_of(kind, variant, tipped)
        rgb = world.colour(colour).draw(rng)
        yaw = float(rng.uniform(0, 2 * np.pi))
        if world.shows_handles and kind == "mug":
            yaw = _handle_in_view(yaw, camera)
        for attempt in range(200):
            allowed = world.overlap[attempt >= 100]
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
            number = len(placed) + 1
            placed.append(SceneObject(number, kind, colour, rgb, variant, centre, yaw, extent, tipped))
            break
    return tuple(placed)


def _handle_in_view(yaw_rad: float, camera: SceneCamera) -> float:
    """That turn of a mug, or a quarter turn more where its handle would point away from the camera."""
    away = camera.T_base_camera[:2, 2] / np.linalg.norm(camera.T_base_camera[:2, 2])
    hidden = np.array([np.cos(yaw_rad), np.sin(yaw_rad)]) @ away > np.cos(np.radians(45))
    return yaw_rad + np.pi / 2 if hidden else yaw_rad


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
