"""Shards to training batches: several questions packed behind one picture, each blind to the others.

One picture costs far more than one question, so a sequence is: the picture's tokens, then the questions one
after the other. The attention mask lets a question see the picture and itself; positions start anew behind
the picture for each. To the model every question looks exactly as if it had been asked alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from molmo_ros.molmo import MolmoProcessor
from molmo_ros.molmo.processing import format_prompt
from molmo_ros.sim.colours import COLOUR_NAMES
from molmo_ros.sim.objects import KINDS
from molmo_ros.training.questions import Question, Thing, ask_about, ask_absent, ask_by_colour, ask_by_kind
from molmo_ros.training.scenes import Grid, Shard
from molmo_ros.training.tabletop_model import DenseTruth

#: Weight of coordinate digits in the loss; the rest of the answer is easy and weighs 1.
DIGIT_WEIGHT = 3.0

#: Longer answers would make every sequence of the batch longer.
MOST_POINTS = 3


@dataclass(frozen=True)
class Batch:
    """`images` [B, P, X] one crop each, `image_masks` [B, 2, P]; `input_ids` [B, S] with `image_input_idx`
    [B, 2, T]; `position_ids` [B, S]; `attention_mask` [B, 1, S, S] bool; `labels` [B, S] (-100 = no loss) and
    `weights` [B, S]; `first_text` where the text begins in S."""

    images: Tensor
    image_masks: Tensor
    input_ids: Tensor
    image_input_idx: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    weights: Tensor
    first_text: int
    truth: DenseTruth


class QuestionBatches(IterableDataset[Batch]):
    """An endless, reproducible stream: batch `step` depends on the seed and the step alone."""

    def __init__(
        self,
        shard: Shard,
        processor: MolmoProcessor,
        grid: Grid,
        seed: int,
        pictures: int,
        questions: int,
        first_step: int = 0,
    ) -> None:
        self.shard, self.processor, self.grid = shard, processor, grid
        self.seed, self.pictures, self.questions, self.first_step = seed, pictures, questions, first_step
        blank = np.zeros((*grid.size, 3), np.uint8)
        frame = processor(images=blank, text="", formatted=True)
        self.prefix = frame["input_ids"][0]
        self.image_input_idx = frame["image_input_idx"][0]
        self.image_masks = frame["image_masks"][0]
        self.digits = {processor.tokenizer.encode(d, add_special_tokens=False)[0] for d in "0123456789"}
        image_processor = processor.image_processor
        self.mean = torch.tensor(image_processor.image_mean)
        self.std = torch.tensor(image_processor.image_std)
        self.encoded: dict[str, list[int]] = {}

    def __iter__(self) -> Iterator[Batch]:
        step = self.first_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        rows = self._rows(step)
        flips = rng.random(len(rows)) < 0.5
        packs = []
        for row, flip in zip(rows, flips, strict=True):
            things = self.shard.things(row)
            if flip:
                things = [Thing(t.colour, t.kind, 100.0 - t.x, t.y) for t in things]
            packs.append([draw_question(things, rng) for _ in range(self.questions)])
        return Batch(
            images=self._images(rows, flips, rng),
            image_masks=self.image_masks.expand(len(rows), -1, -1),
            image_input_idx=self.image_input_idx.expand(len(rows), -1, -1),
            first_text=len(self.prefix),
            truth=self._dense_truth(rows, flips),
            **self._text(packs, rng),
        )

    def _rows(self, step: int) -> np.ndarray:
        """Every picture once an epoch, in an order of the epoch's own."""
        per_epoch = len(self.shard.pictures) // self.pictures
        epoch, index = divmod(step, per_epoch)
        order = np.random.default_rng((self.seed, 77, epoch)).permutation(len(self.shard.pictures))
        return order[index * self.pictures : (index + 1) * self.pictures]

    def _images(self, rows: np.ndarray, flips: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Normalised patches, with a little light and colour change on top of the simulator's own."""
        pictures = self.shard.pictures[rows].astype(np.float32) / 255.0
        pictures[flips] = pictures[flips][:, :, ::-1]
        gain = rng.normal(1.0, 0.06, (len(rows), 1, 1, 1)) * rng.normal(1.0, 0.025, (len(rows), 1, 1, 3))
        bias = rng.normal(0.0, 0.02, (len(rows), 1, 1, 1))
        pictures = np.clip(pictures * gain.astype(np.float32) + bias.astype(np.float32), 0.0, 1.0)
        n, p = self.grid.patches, self.grid.patch_size
        canvas = np.zeros((len(rows), n * p, n * p, 3), np.float32)
        top, left = self.grid.offset
        canvas[:, top : top + self.grid.size[0], left : left + self.grid.size[1]] = pictures
        pixels = (torch.from_numpy(canvas) - self.mean) / self.std
        patches = pixels.reshape(len(rows), n, p, n, p, 3).permute(0, 1, 3, 2, 4, 5)
        return patches.reshape(len(rows), n * n, p * p * 3)

    def _text(self, packs: list[list[Question]], rng: np.random.Generator) -> dict[str, Tensor]:
        prefix = len(self.prefix)
        rows = [[self._encode(question) for question in pack] for pack in packs]
        length = prefix + max(sum(len(q) + len(a) for q, a in row) for row in rows)
        input_ids = torch.full((len(rows), length), self.processor.eos_token_id)
        position_ids = torch.zeros(len(rows), length, dtype=torch.long)
        segment = torch.full((len(rows), length), -1)
        labels = torch.full((len(rows), length), -100)
        weights = torch.zeros(len(rows), length)
        input_ids[:, :prefix] = self.prefix
        position_ids[:, :prefix] = torch.arange(prefix)
        segment[:, :prefix] = 0
        for b, row in enumerate(rows):
            at = prefix
            for number, (question, answer) in enumerate(row, 1):
                end = at + len(question) + len(answer)
                input_ids[b, at:end] = torch.tensor(question + answer)
                position_ids[b, at:end] = prefix + torch.arange(end - at)
                segment[b, at:end] = number
                # Predicted one step ahead: the last question token predicts the first answer token.
                start = at + len(question) - 1
                labels[b, start : end - 1] = torch.tensor(answer)
                weights[b, start : end - 1] = torch.tensor([DIGIT_WEIGHT if t in self.digits else 1.0 for t in answer])
                at = end
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        own = segment[:, :, None] == segment[:, None, :]
        mask = (own | (segment == 0)[:, None, :]) & causal
        return {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "labels": labels,
            "weights": weights,
            "attention_mask": mask[:, None],
        }

    def _encode(self, question: Question) -> tuple[list[int], list[int]]:
        def ids(text: str) -> list[int]:
            return list(self.processor.tokenizer.encode(text, add_special_tokens=False))

        if question.text not in self.encoded:
            self.encoded[question.text] = ids(format_prompt(question.text))
        return self.encoded[question.text], [*ids(question.answer), self.processor.eos_token_id]

    def _dense_truth(self, rows: np.ndarray, flips: np.ndarray) -> DenseTruth:
        n = self.grid.patches
        things = self.shard.patch_things[rows].reshape(len(rows), n, n).astype(np.int64)
        things[flips] = things[flips][:, :, ::-1]
        things = things.reshape(len(rows), n * n)
        kinds = np.pad(self.shard.kinds[rows].astype(np.int64), ((0, 0), (1, 0)))
        colours = np.pad(self.shard.colours[rows].astype(np.int64), ((0, 0), (1, 0)))
        batch = np.arange(len(rows))[:, None]
        token_kind = np.zeros((len(rows), n // 2, n // 2), np.int64)
        token_colour = np.zeros_like(token_kind)
        offset = np.zeros((*token_kind.shape, 2), np.float32)
        cell = 2 * self.grid.patch_size
        for b, row in enumerate(rows):
            for slot in np.flatnonzero(self.shard.kinds[row]):
                x, y = self.shard.points[row, slot]
                x = 100.0 - x if flips[b] else x
                right = (x / 100 * self.grid.size[1] + self.grid.offset[1]) / cell
                down = (y / 100 * self.grid.size[0] + self.grid.offset[0]) / cell
                i, j = min(int(down), n // 2 - 1), min(int(right), n // 2 - 1)
                token_kind[b, i, j] = self.shard.kinds[row, slot]
                token_colour[b, i, j] = self.shard.colours[row, slot]
                offset[b, i, j] = right - j, down - i
        tokens = (n // 2) ** 2
        return DenseTruth(
            patch_kind=torch.from_numpy(kinds[batch, things]),
            patch_colour=torch.from_numpy(colours[batch, things]),
            token_kind=torch.from_numpy(token_kind.reshape(-1, tokens)),
            token_colour=torch.from_numpy(token_colour.reshape(-1, tokens)),
            token_offset=torch.from_numpy(offset.reshape(-1, tokens, 2)),
        )


def draw_question(things: list[Thing], rng: np.random.Generator) -> Question:
    """Mostly one thing by colour and kind; sometimes by one of the two; one in four is not there."""
    dice = rng.random()
    if dice < 0.25 or not things:
        return ask_absent(things, COLOUR_NAMES, KINDS, rng)
    index = int(rng.integers(len(things)))
    by_kind, by_colour = (
        ask_by_kind(things, things[index].kind, rng),
        ask_by_colour(things, things[index].colour, rng),
    )
    if 0.85 <= dice < 0.93 and len(by_kind.targets) <= MOST_POINTS:
        return by_kind
    if dice >= 0.93 and len(by_colour.targets) <= MOST_POINTS:
        return by_colour
    return ask_about(things, index, rng)
