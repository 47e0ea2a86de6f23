"""Scenes of the simulated table as training pictures: rendered once, kept in shards.

A shard holds what the model needs to see and nothing it could cheat with later: the picture at the size the
model sees it, the words and points of the visible things, and which thing covers each patch. Seeds are split
by construction: training, validation and test scenes come from seed ranges that never meet.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from molmo_ros.molmo.image_processing import MolmoImageProcessor, fitted_size
from molmo_ros.sim.worlds import DEFAULT_WORLD, World, world_named
from molmo_ros.training.questions import Thing
from molmo_ros.training.tabletop_questions import UNNAMED, Seen

if TYPE_CHECKING:
    from molmo_ros.sim.scene import SceneState
    from molmo_ros.sim.tabletop import View

#: Seeds below this belong to tests and demos, from the second on to validation; training lies between.
TRAIN_SEEDS = range(1_000_000, 5_000_000)
VALIDATION_SEEDS = range(5_000_000, 6_000_000)
TEST_SEEDS = range(1_000_000)

#: Every so many-th pixel of a picture is looked at for free space.
_FREE_EVERY = 4

#: A thing is asked about when at least this share of the picture shows it (20 pixels of 320 x 240).
LEAST_VISIBLE_SHARE = 20 / (320 * 240)


@dataclass(frozen=True)
class Grid:
    """Where a picture of `size` lies in the model's crop, and how that is cut into patches and tokens.

    `size`, `crop_size` (height, width) pixels; `patch_size` pixels; `pooling` (down, across) patches a token.
    """

    size: tuple[int, int]
    crop_size: tuple[int, int]
    patch_size: int
    pooling: tuple[int, int]

    @classmethod
    def of(cls, processor: MolmoImageProcessor, picture_size: tuple[int, int]) -> Grid:
        fitted = fitted_size(picture_size, processor.crop_size)
        return cls(fitted, processor.crop_size, processor.image_patch_size, processor.pooling)

    @property
    def offset(self) -> tuple[int, int]:
        """Pixels above and left of the picture in the crop."""
        return (self.crop_size[0] - self.size[0]) // 2, (self.crop_size[1] - self.size[1]) // 2

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches in the crop."""
        return self.crop_size[0] // self.patch_size, self.crop_size[1] // self.patch_size

    @property
    def tokens(self) -> tuple[int, int]:
        """Rows and columns of image tokens in the crop."""
        return self.patches[0] // self.pooling[0], self.patches[1] // self.pooling[1]


class PicturesOnDisk:
    """[N, H, W, 3] uint8: the pictures of several shards, read as they are asked for; all are too many for memory."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = list(parts)
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """[len(rows), H, W, 3], in memory."""
        places = np.searchsorted(self.ends, rows, side="right")
        starts = self.ends - [len(part) for part in self.parts]
        return np.stack([self.parts[p][row - starts[p]] for row, p in zip(rows, places, strict=True)])


@dataclass(frozen=True)
class Shard:
    """`pictures` [N, H, W, 3] uint8; `kinds`, `colours` [N, S] words of the visible things, from 1, 0 = no thing;
    `points` [N, S, 2] percent; `patch_things` [N, P] number of the thing (1..S) that covers the patch, 0 = none;
    `seeds` [N]. `world` is the name of the world whose words these are, in its order; behind them, one more kind
    stands for things without a name.

    What only questions of later worlds turn on: `hidden_kinds`, `hidden_colours` [N, S] of things too little to
    see to ask for; `measures` [N, S, 3] bulk (m), distance from the camera (m) and visible pixels;
    `free_spots` [N, 2] percent, NaN where the table is full.
    """

    pictures: np.ndarray | PicturesOnDisk
    kinds: np.ndarray
    colours: np.ndarray
    points: np.ndarray
    patch_things: np.ndarray
    seeds: np.ndarray
    world: str = DEFAULT_WORLD.name
    hidden_kinds: np.ndarray | None = None
    hidden_colours: np.ndarray | None = None
    measures: np.ndarray | None = None
    free_spots: np.ndarray | None = None

    @classmethod
    def empty(cls, count: int, grid: Grid, first_seed: int, world: World) -> Shard:
        """What is true of `count` pictures, to be filled in; without the pictures."""
        slots, patches = world.slots, grid.patches[0] * grid.patches[1]
        return cls(
            pictures=np.zeros((0, *grid.size, 3), np.uint8),
            kinds=np.zeros((count, slots), np.uint8),
            colours=np.zeros((count, slots), np.uint8),
            points=np.zeros((count, slots, 2), np.float32),
            patch_things=np.zeros((count, patches), np.uint8),
            seeds=np.arange(first_seed, first_seed + count),
            world=world.name,
            hidden_kinds=np.zeros((count, slots), np.uint8),
            hidden_colours=np.zeros((count, slots), np.uint8),
            measures=np.zeros((count, slots, 3), np.float32),
            free_spots=np.full((count, 2), np.nan, np.float32),
        )

    def things(self, row: int) -> list[Thing]:
        """The visible things of one picture."""
        words = Words.of(world_named(self.world))
        measures = np.zeros((*self.kinds.shape[1:], 3)) if self.measures is None else self.measures[row]
        return [
            Thing(*words.of_codes(colour, kind), float(x), float(y), float(bulk), float(away), int(pixels))
            for kind, colour, (x, y), (bulk, away, pixels) in zip(
                self.kinds[row], self.colours[row], self.points[row], measures, strict=True
            )
            if kind > 0
        ]

    def seen(self, row: int) -> Seen:
        """What questions of later worlds may turn on. Raises ValueError for a shard without it."""
        if self.hidden_kinds is None or self.hidden_colours is None or self.free_spots is None:
            raise ValueError("this shard was drawn before there were relations and free space; draw it again")
        words = Words.of(world_named(self.world))
        hidden = zip(self.hidden_colours[row], self.hidden_kinds[row], strict=True)
        x, y = (float(value) for value in self.free_spots[row])
        return Seen(
            tuple(self.things(row)),
            tuple(words.of_codes(colour, kind) for colour, kind in hidden if kind > 0),
            None if np.isnan(x) else (x, y),
        )


@dataclass(frozen=True)
class Words:
    """The words of a world as numbers from 1 on; the last kind is a thing without a name, colour 0 has no word."""

    colours: tuple[str, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, world: World) -> Words:
        return cls(world.colours, (*world.kinds, UNNAMED) if world.clutter else world.kinds)

    def codes(self, colour: str | None, kind: str | None) -> tuple[int, int]:
        """Numbers of a colour and a kind; 0 for no colour word and for no kind, the last for an unnamed kind."""
        colour_code = self.colours.index(colour) + 1 if colour in self.colours else 0
        if kind is None:
            return colour_code, 0
        return colour_code, self.kinds.index(kind) + 1 if kind in self.kinds else len(self.kinds)

    def of_codes(self, colour: int, kind: int) -> tuple[str, str]:
        return self.colours[colour - 1] if colour else "", self.kinds[kind - 1]


def aim_point(mask_HW: np.ndarray) -> tuple[float, float]:
    """(u, v) where a person would point on a visible region: its middle, or for a ring its near side.

    Pixels, (0, 0) = centre of the top-left pixel; always on the region.
    """
    rows, columns = np.nonzero(mask_HW)
    u, v = columns.mean(), rows.mean()
    column, row = round(float(u)), round(float(v))
    if mask_HW[row, column]:
        return float(u), float(v)
    below = np.flatnonzero(mask_HW[row:, column]) + row
    if len(below):
        gaps = np.flatnonzero(np.diff(below) > 1)
        run = below[: gaps[0] + 1] if len(gaps) else below
        return float(column), float(run.mean())
    nearest = np.argmin((columns - u) ** 2 + (rows - v) ** 2)
    return float(columns[nearest]), float(rows[nearest])


def covering_thing(ids_HW: np.ndarray, grid: Grid, least_share: float = 0.2) -> np.ndarray:
    """[P] the thing that fills most of each patch, 0 where none fills `least_share` of it."""
    canvas = np.zeros(grid.crop_size, np.uint8)
    resized = cv2.resize(ids_HW.astype(np.uint8), grid.size[::-1], interpolation=cv2.INTER_NEAREST)
    top, left = grid.offset
    canvas[top : top + grid.size[0], left : left + grid.size[1]] = resized
    p, (rows, cols) = grid.patch_size, grid.patches
    cells = canvas.reshape(rows, p, cols, p).transpose(0, 2, 1, 3).reshape(rows * cols, p * p)
    most = max(int(ids_HW.max()), 1)
    counts = np.stack([(cells == thing).sum(axis=1) for thing in range(1, most + 1)], axis=1)
    best = counts.argmax(axis=1)
    return np.where(counts.max(axis=1) >= least_share * p * p, best + 1, 0).astype(np.uint8)


@dataclass(frozen=True)
class ShardOrder:
    """One shard to draw: `count` scenes from `first_seed` on."""

    path: Path
    first_seed: int
    count: int
    render_size: tuple[int, int]
    objects: tuple[int, int]
    grid: Grid
    world: str = DEFAULT_WORLD.name
    twin_probability: float = 0.35
    samples: int = 0


def draw_shard(order: ShardOrder) -> Path:
    """Render the scenes of one shard into `order.path` (.npz, pictures beside it); a finished one is left as it is."""
    if order.path.exists():
        return order.path
    from molmo_ros.sim.scene import SceneRecipe
    from molmo_ros.sim.tabletop import TabletopScene

    cv2.setNumThreads(1)
    world = world_named(order.world)
    recipe = SceneRecipe(order.objects, True, order.twin_probability, world)
    tabletop = TabletopScene(order.render_size, recipe, order.samples)
    shard = Shard.empty(order.count, order.grid, order.first_seed, world)
    pictures = np.zeros((order.count, *order.grid.size, 3), np.uint8)
    for row, seed in enumerate(shard.seeds):
        state = tabletop.reset(int(seed))
        view = tabletop.render(segmentation=True)
        pictures[row] = cv2.resize(view.color, order.grid.size[::-1], interpolation=cv2.INTER_AREA)
        _note(shard, row, state, view, order.grid)
    tabletop.close()
    np.save(_pictures_beside(order.path), pictures)
    part = order.path.with_suffix(".part.npz")
    np.savez(part, **{name: value for name, value in vars(shard).items() if name != "pictures"})
    part.rename(order.path)  # last, so that a shard that is there is whole
    return order.path


def _note(shard: Shard, row: int, state: SceneState, view: View, grid: Grid) -> None:
    """Fill in what is true of one picture."""
    from molmo_ros.sim.free_space import emptiest_spot, free_table
    from molmo_ros.sim.truth import scene_truth

    assert view.ids is not None and shard.measures is not None and shard.free_spots is not None
    assert shard.hidden_kinds is not None and shard.hidden_colours is not None
    height, width = view.ids.shape
    words = Words.of(world_named(shard.world))
    shard.patch_things[row] = covering_thing(view.ids, grid)
    hidden = {thing.id: thing for thing in state.objects}
    for truth in scene_truth(state, view.ids, int(LEAST_VISIBLE_SHARE * width * height)):
        slot = truth.id - 1
        u, v = aim_point(truth.mask_HW)
        shard.colours[row, slot], shard.kinds[row, slot] = words.codes(truth.colour, truth.kind)
        shard.points[row, slot] = 100 * u / width, 100 * v / height
        shard.measures[row, slot] = truth.bulk_m, truth.distance_m, truth.visible_pixels
        del hidden[truth.id]
    for thing in hidden.values():
        shard.hidden_colours[row, thing.id - 1], shard.hidden_kinds[row, thing.id - 1] = words.codes(
            thing.colour, thing.kind
        )
    spot = emptiest_spot(free_table(state, view.depth_m, view.ids, every=_FREE_EVERY))
    if spot is not None:
        shard.free_spots[row] = _FREE_EVERY * 100 * np.array(spot) / (width, height)


def _pictures_beside(path: Path) -> Path:
    return path.with_suffix(".pictures.npy")


def load_shards(paths: Sequence[Path]) -> Shard:
    """All shards as one; the pictures stay on disk. Raises ValueError for shards of different worlds."""
    loaded = [np.load(path) for path in paths]
    worlds = {str(shard["world"]) for shard in loaded}
    if len(worlds) != 1:
        raise ValueError(f"shards of different worlds: {', '.join(sorted(worlds))}")
    arrays = {
        name: np.concatenate([shard[name] for shard in loaded]) for name in loaded[0].files if name != "world"
    }
    pictures = PicturesOnDisk([np.load(_pictures_beside(path), mmap_mode="r") for path in paths])
    return Shard(pictures, **arrays, world=worlds.pop())


def draw_shards(orders: Sequence[ShardOrder], processes: int = 2) -> list[Path]:
    """Draw what is missing, one process per core; every process keeps to its core."""
    todo = [order for order in orders if not order.path.exists()]
    for order in todo:
        order.path.parent.mkdir(parents=True, exist_ok=True)
    if todo:
        os.environ.update(OMP_NUM_THREADS="1", LP_NUM_THREADS="0")
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for done, _ in enumerate(pool.imap_unordered(draw_shard, todo), 1):
                print(f"drawn {done} of {len(todo)} shards", flush=True)
    return [order.path for order in orders]
