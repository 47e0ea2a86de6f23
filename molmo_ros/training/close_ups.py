"""The first lesson: what single things look like, on small windows cut out of the pictures.

A thing covers a hundredth of a picture. Windows of a few patches around each thing, at their own places in the
positional embedding, show the ViT five times more things in the same time than whole pictures do; later
lessons go on from there with whole pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from molmo_ros.molmo.vision import VisionTransformer
from molmo_ros.training.batches import QuestionBatches

#: Patches along each side of a window.
WINDOW = 5


@dataclass(frozen=True)
class CloseUpBatch:
    """N windows of W patches: `patches` [N, W, X] pixels, `places` [N, W] their numbers in the picture's grid,
    `kinds`, `colours` [N, W] what covers each patch, from 1, 0 = none of the things."""

    patches: Tensor
    places: Tensor
    kinds: Tensor
    colours: Tensor


class CloseUps(IterableDataset[CloseUpBatch]):
    """An endless, reproducible stream of windows, one for each thing in the pictures of `batches`."""

    def __init__(self, batches: QuestionBatches, first_step: int = 0) -> None:
        self.batches, self.first_step = batches, first_step

    def __iter__(self) -> Iterator[CloseUpBatch]:
        step = self.first_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> CloseUpBatch:
        rng = np.random.default_rng((self.batches.seed, 5, step))
        shard, grid = self.batches.shard, self.batches.grid
        rows = self.batches.rows(step)
        flips = rng.random(len(rows)) < 0.5
        images = self.batches.images(rows, flips, rng)
        covering = self.batches.covering_things(rows, flips)
        picked: list[tuple[int, np.ndarray]] = []
        for b, row in enumerate(rows):
            for slot in np.flatnonzero(shard.kinds[row]):
                x, y = shard.points[row, slot]
                picked.append((b, _window(grid.patches, 100 - x if flips[b] else x, y, rng)))
        picture = np.asarray([b for b, _ in picked])[:, None]
        places = np.stack([window for _, window in picked])
        things = covering[picture, places]
        kinds = np.pad(shard.kinds[rows].astype(np.int64), ((0, 0), (1, 0)))
        colours = np.pad(shard.colours[rows].astype(np.int64), ((0, 0), (1, 0)))
        return CloseUpBatch(
            patches=images[torch.from_numpy(picture), torch.from_numpy(places)],
            places=torch.from_numpy(places),
            kinds=torch.from_numpy(kinds[picture, things]),
            colours=torch.from_numpy(colours[picture, things]),
        )


def _window(patches: tuple[int, int], x: float, y: float, rng: np.random.Generator) -> np.ndarray:
    """[W] numbers of the patches around a point (percent), up to one patch beside it."""
    rows, cols = patches
    top = int(y / 100 * rows) + int(rng.integers(-1, 2)) - WINDOW // 2
    left = int(x / 100 * cols) + int(rng.integers(-1, 2)) - WINDOW // 2
    top, left = min(max(top, 0), rows - WINDOW), min(max(left, 0), cols - WINDOW)
    numbers = np.arange(rows * cols).reshape(rows, cols)
    return numbers[top : top + WINDOW, left : left + WINDOW].ravel()


def window_features(vit: VisionTransformer, patches_NWX: Tensor, places_NW: Tensor) -> Tensor:
    """What the ViT makes of a picture of which only these patches are there: [N, W, F]."""
    x = vit.patch_embedding(patches_NWX) + vit.positional_embedding[1:][places_NW]
    first = (vit.class_embedding + vit.positional_embedding[0]).expand(len(x), 1, -1)
    x = vit.pre_ln(torch.cat([first, x], dim=1))
    taken: dict[int, Tensor] = {}
    for index, block in enumerate(vit.transformer.resblocks[: max(vit.feature_layers) + 1]):
        x = block(x)
        taken[index] = x[:, 1:]
    return torch.cat([taken[layer] for layer in vit.feature_layers], dim=-1)
