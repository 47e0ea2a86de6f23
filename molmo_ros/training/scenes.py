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

import cv2
import numpy as np

from molmo_ros.molmo.image_processing import MolmoImageProcessor, fitted_size
from molmo_ros.sim.colours import COLOUR_NAMES
from molmo_ros.sim.objects import KINDS
from molmo_ros.training.questions import Thing

#: Seeds below this belong to tests and demos, from the second on to validation; training lies between.
TRAIN_SEEDS = range(1_000_000, 5_000_000)
VALIDATION_SEEDS = range(5_000_000, 6_000_000)
TEST_SEEDS = range(1_000_000)

#: Most things in a scene, and the size of the arrays in a shard.
MOST_THINGS = 8

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


@dataclass(frozen=True)
class Shard:
    """`pictures` [N, H, W, 3] uint8; `kinds`, `colours` [N, 8] (1-based, 0 = no thing); `points` [N, 8, 2] percent;
    `patch_things` [N, P] number of the thing (1..8) that covers the patch, 0 = none; `seeds` [N]."""

    pictures: np.ndarray
    kinds: np.ndarray
    colours: np.ndarray
    points: np.ndarray
    patch_things: np.ndarray
    seeds: np.ndarray

    def things(self, row: int) -> list[Thing]:
        """The visible things of one picture."""
        return [
            Thing(COLOUR_NAMES[colour - 1], KINDS[kind - 1], float(x), float(y))
            for kind, colour, (x, y) in zip(self.kinds[row], self.colours[row], self.points[row], strict=True)
            if kind > 0
        ]


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
    counts = np.stack([(cells == thing).sum(axis=1) for thing in range(1, MOST_THINGS + 1)], axis=1)
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


def draw_shard(order: ShardOrder) -> Path:
    """Render the scenes of one shard into `order.path` (.npz); a finished shard is left as it is."""
    if order.path.exists():
        return order.path
    from molmo_ros.sim.scene import SceneRecipe
    from molmo_ros.sim.tabletop import TabletopScene
    from molmo_ros.sim.truth import scene_truth

    cv2.setNumThreads(1)
    tabletop = TabletopScene(order.render_size, SceneRecipe(objects=order.objects, allow_twins=True))
    width, height = order.render_size
    least_pixels = int(LEAST_VISIBLE_SHARE * width * height)
    n, (rows, cols) = order.count, order.grid.patches
    shard = Shard(
        pictures=np.zeros((n, *order.grid.size, 3), np.uint8),
        kinds=np.zeros((n, MOST_THINGS), np.uint8),
        colours=np.zeros((n, MOST_THINGS), np.uint8),
        points=np.zeros((n, MOST_THINGS, 2), np.float32),
        patch_things=np.zeros((n, rows * cols), np.uint8),
        seeds=np.arange(order.first_seed, order.first_seed + n),
    )
    for row, seed in enumerate(shard.seeds):
        state = tabletop.reset(int(seed))
        view = tabletop.render(segmentation=True)
        assert view.ids is not None
        shard.pictures[row] = cv2.resize(view.color, order.grid.size[::-1], interpolation=cv2.INTER_AREA)
        shard.patch_things[row] = covering_thing(view.ids, order.grid)
        for truth in scene_truth(state, view.ids, least_pixels):
            slot = truth.id - 1
            u, v = aim_point(truth.mask_HW)
            shard.kinds[row, slot] = KINDS.index(truth.kind) + 1
            shard.colours[row, slot] = COLOUR_NAMES.index(truth.colour) + 1
            shard.points[row, slot] = 100 * u / width, 100 * v / height
    tabletop.close()
    part = order.path.with_suffix(".part.npz")
    np.savez(part, **vars(shard))
    part.rename(order.path)
    return order.path


def load_shards(paths: Sequence[Path]) -> Shard:
    """All shards as one."""
    loaded = [np.load(path) for path in paths]
    return Shard(**{name: np.concatenate([shard[name] for shard in loaded]) for name in loaded[0].files})


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
