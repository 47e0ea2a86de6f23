"""Shards to training batches: several questions behind each picture, each blind to the others.

One picture costs far more than one question. So the picture's tokens go through the language model once, and
the questions, each a row of its own, go on from that cache: to the model every question looks exactly as if
it had been asked alone.
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
from molmo_ros.sim.worlds import FIRST, world_named
from molmo_ros.training import tabletop_questions
from molmo_ros.training.questions import Question, Thing, ask_about, ask_absent, ask_by_colour, ask_by_kind
from molmo_ros.training.scenes import Grid, Shard, Words
from molmo_ros.training.tabletop_model import DenseTruth

#: Weights in the loss: the first token says whether the thing is there at all, digits before the decimal point
#: say where, the one behind it is mostly chance, and the words around them (weight 1) are easy.
DECISION_WEIGHT, DIGIT_WEIGHT, DECIMAL_WEIGHT = 5.0, 3.0, 0.3

#: Of the questions for things that are there: those from here on name the kind alone, and the colour alone.
BY_KIND_FROM, BY_COLOUR_FROM = 0.8, 0.68 / 0.75

#: Longer answers would make every sequence of the batch longer.
MOST_POINTS = 2

#: Most batches end here: after the first point come words that the model knows soon, and cost as much.
SHORT_ANSWER_TOKENS, SHORT_SHARE = 15, 0.75

#: Weights of the gaze lesson: before the first token of the answer, at digits of x, and at digits of y, which
#: nearly follow from x.
GAZE_DECISION, GAZE_X, GAZE_Y = 3.0, 1.0, 0.4

#: In `Batch.look_at`: nothing to look at here, or a thing that is not in the picture.
ANYWHERE, NOWHERE = -1, -2


@dataclass(frozen=True)
class Batch:
    """B pictures with Q questions each, R = B x Q rows of L tokens.

    `images` [B, P, X] one crop each, `image_masks` [B, C, P]; `prefix_ids` [B, S] the picture's part of the
    prompt with `image_input_idx` [B, C, T]; `question_ids` [R, L] questions and answers, padded behind;
    `labels` [R, L] the token to come where it belongs to the answer, else -100; `weights` [R, L];
    `look_at` [R, L] number of the image token that holds the point to be spoken of next, `NOWHERE` before "There
    are none", else `ANYWHERE`; `gaze_weights` [R, L]; `asked_kind`, `asked_colour` [R] what the words name, from 1,
    0 = left open.
    """

    images: Tensor
    image_masks: Tensor
    prefix_ids: Tensor
    image_input_idx: Tensor
    question_ids: Tensor
    labels: Tensor
    weights: Tensor
    look_at: Tensor
    gaze_weights: Tensor
    asked_kind: Tensor
    asked_colour: Tensor
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
        absent_share: float = 0.25,
        short_share: float = SHORT_SHARE,
    ) -> None:
        self.shard, self.processor, self.grid, self.absent_share = shard, processor, grid, absent_share
        self.world, self.short_share = world_named(shard.world), short_share
        self.words = Words.of(self.world)
        self.seed, self.pictures, self.questions, self.first_step = seed, pictures, questions, first_step
        blank = np.zeros((*grid.size, 3), np.uint8)
        frame = processor(images=blank, text="", formatted=True)
        self.prefix = frame["input_ids"][0]
        self.image_input_idx = frame["image_input_idx"][0]
        self.image_masks = frame["image_masks"][0]
        self.digits = {processor.tokenizer.encode(d, add_special_tokens=False)[0] for d in "0123456789"}
        (self.point_id,) = processor.tokenizer.encode(".", add_special_tokens=False)
        (self.quote_id,) = processor.tokenizer.encode('="', add_special_tokens=False)
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
        rows = self.rows(step)
        flips = rng.random(len(rows)) < 0.5
        packs: list[tuple[Question, list[int]]] = []
        for row, flip in zip(rows, flips, strict=True):
            packs += [
                (question, [self._token_of(*point) for point in question.points])
                for question in self._questions(row, flip, rng)
            ]
        return Batch(
            images=self.images(rows, flips, rng),
            image_masks=self.image_masks.expand(len(rows), -1, -1),
            image_input_idx=self.image_input_idx.expand(len(rows), -1, -1),
            prefix_ids=self.prefix.expand(len(rows), -1),
            truth=self._dense_truth(rows, flips),
            **self._text(packs, short=rng.random() < self.short_share),
        )

    def _questions(self, row: int, flip: bool, rng: np.random.Generator) -> list[Question]:
        """What is asked about one picture, in its world's way; `flip`: as in a mirror."""
        if self.world != FIRST:
            seen = self.shard.seen(row)
            seen = seen.mirrored() if flip else seen
            return [
                tabletop_questions.draw_question(seen, self.world, rng, self.absent_share)
                for _ in range(self.questions)
            ]
        things = self.shard.things(row)
        if flip:
            things = [Thing(t.colour, t.kind, 100.0 - t.x, t.y) for t in things]
        return [draw_question(things, rng, self.absent_share) for _ in range(self.questions)]

    def rows(self, step: int) -> np.ndarray:
        """Every picture once an epoch, in an order of the epoch's own."""
        per_epoch = len(self.shard.pictures) // self.pictures
        epoch, index = divmod(step, per_epoch)
        order = np.random.default_rng((self.seed, 77, epoch)).permutation(len(self.shard.pictures))
        return order[index * self.pictures : (index + 1) * self.pictures]

    def images(self, rows: np.ndarray, flips: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Normalised patches, with a little light and colour change on top of the simulator's own."""
        pictures = self.shard.pictures[rows].astype(np.float32) / 255.0
        pictures[flips] = pictures[flips][:, :, ::-1]
        gain = rng.normal(1.0, 0.06, (len(rows), 1, 1, 1)) * rng.normal(1.0, 0.025, (len(rows), 1, 1, 3))
        bias = rng.normal(0.0, 0.02, (len(rows), 1, 1, 1))
        pictures = np.clip(pictures * gain.astype(np.float32) + bias.astype(np.float32), 0.0, 1.0)
        (down, across), p = self.grid.patches, self.grid.patch_size
        canvas = np.zeros((len(rows), *self.grid.crop_size, 3), np.float32)
        top, left = self.grid.offset
        canvas[:, top : top + self.grid.size[0], left : left + self.grid.size[1]] = pictures
        pixels = (torch.from_numpy(canvas) - self.mean) / self.std
        patches = pixels.reshape(len(rows), down, p, across, p, 3).permute(0, 1, 3, 2, 4, 5)
        return patches.reshape(len(rows), down * across, p * p * 3)

    def covering_things(self, rows: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """[B, P] the thing (from 1) that covers each patch of these pictures, 0 = none."""
        things = self.shard.patch_things[rows].reshape(len(rows), *self.grid.patches).astype(np.int64)
        things[flips] = things[flips][:, :, ::-1]
        return things.reshape(len(rows), -1)

    def _token_of(self, x: float, y: float) -> int:
        """Number of the image token that holds a point (percent), row by row in a crop."""
        right, down = self._place(x, y)
        return int(down) * self.grid.tokens[1] + int(right)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """A point in percent, as (right, down) in image tokens of the crop."""
        (rows, cols), (tall, wide), p = self.grid.tokens, self.grid.pooling, self.grid.patch_size
        right = (x / 100 * self.grid.size[1] + self.grid.offset[1]) / (wide * p)
        down = (y / 100 * self.grid.size[0] + self.grid.offset[0]) / (tall * p)
        return min(max(right, 0.0), cols - 1e-3), min(max(down, 0.0), rows - 1e-3)

    def _text(self, packs: list[tuple[Question, list[int]]], short: bool) -> dict[str, Tensor]:
        rows = [self._encode(question) for question, _ in packs]
        if short:
            rows = [(question, answer[:SHORT_ANSWER_TOKENS]) for question, answer in rows]
        length = max(len(question) + len(answer) for question, answer in rows)
        question_ids = np.full((len(rows), length), self.processor.eos_token_id, np.int64)
        labels = np.full((len(rows), length), -100, np.int64)
        look_at = np.full((len(rows), length), ANYWHERE, np.int64)
        gaze_weights = np.zeros((len(rows), length), np.float32)
        for row, ((question, answer), (_, tokens)) in enumerate(zip(rows, packs, strict=True)):
            end = len(question) + len(answer)
            question_ids[row, :end] = question + answer
            # One step ahead: the last token of the question predicts the first of the answer.
            labels[row, len(question) - 1 : end - 1] = answer
            # Numbers come as x1, y1, x2, y2, ... of the points in the answer's order.
            numbers = np.cumsum(np.asarray(answer) == self.quote_id) - 1
            spoken = np.isin(answer, list(self.digits)) & (numbers >= 0) & (numbers < 2 * len(tokens))
            of_number = np.repeat(np.asarray(tokens, np.int64), 2)
            for place in np.flatnonzero(spoken):
                look_at[row, len(question) - 1 + place] = of_number[numbers[place]]
                gaze_weights[row, len(question) - 1 + place] = GAZE_Y if numbers[place] % 2 else GAZE_X
            look_at[row, len(question) - 1] = tokens[0] if tokens else NOWHERE
            gaze_weights[row, len(question) - 1] = GAZE_DECISION
        weights = np.where(np.isin(labels, list(self.digits)), DIGIT_WEIGHT, 1.0)
        weights[(question_ids == self.point_id) & (labels >= 0)] = DECIMAL_WEIGHT
        weights[np.arange(len(rows)), [len(question) - 1 for question, _ in rows]] = DECISION_WEIGHT
        weights *= labels >= 0
        return {
            "question_ids": torch.from_numpy(question_ids),
            "labels": torch.from_numpy(labels),
            "weights": torch.from_numpy(weights.astype(np.float32)),
            "look_at": torch.from_numpy(look_at),
            "gaze_weights": torch.from_numpy(gaze_weights),
            "asked_kind": torch.tensor([self.words.codes(q.colour, q.kind)[1] for q, _ in packs]),
            "asked_colour": torch.tensor([self.words.codes(q.colour, q.kind)[0] for q, _ in packs]),
        }

    def _encode(self, question: Question) -> tuple[list[int], list[int]]:
        def ids(text: str) -> list[int]:
            return list(self.processor.tokenizer.encode(text, add_special_tokens=False))

        if question.text not in self.encoded:
            self.encoded[question.text] = ids(format_prompt(question.text))
        return self.encoded[question.text], [*ids(question.answer), self.processor.eos_token_id]

    def _dense_truth(self, rows: np.ndarray, flips: np.ndarray) -> DenseTruth:
        things = self.covering_things(rows, flips)
        kinds = np.pad(self.shard.kinds[rows].astype(np.int64), ((0, 0), (1, 0)))
        colours = np.pad(self.shard.colours[rows].astype(np.int64), ((0, 0), (1, 0)))
        batch = np.arange(len(rows))[:, None]
        token_kind = np.zeros((len(rows), *self.grid.tokens), np.int64)
        token_colour = np.zeros_like(token_kind)
        offset = np.zeros((*token_kind.shape, 2), np.float32)
        percent = np.zeros_like(offset)
        for b, row in enumerate(rows):
            for slot in np.flatnonzero(self.shard.kinds[row]):
                x, y = self.shard.points[row, slot]
                x = 100.0 - x if flips[b] else x
                right, down = self._place(float(x), float(y))
                i, j = int(down), int(right)
                token_kind[b, i, j] = self.shard.kinds[row, slot]
                token_colour[b, i, j] = self.shard.colours[row, slot]
                offset[b, i, j] = right - j, down - i
                percent[b, i, j] = x, y
        return DenseTruth(
            patch_kind=torch.from_numpy(kinds[batch, things]),
            patch_colour=torch.from_numpy(colours[batch, things]),
            token_kind=torch.from_numpy(token_kind.reshape(len(rows), -1)),
            token_colour=torch.from_numpy(token_colour.reshape(len(rows), -1)),
            token_offset=torch.from_numpy(offset.reshape(len(rows), -1, 2)),
            token_percent=torch.from_numpy(percent.reshape(len(rows), -1, 2)),
        )


def draw_question(things: list[Thing], rng: np.random.Generator, absent_share: float = 0.25) -> Question:
    """Mostly one thing by colour and kind; one in five by one of the two; a share is not there."""
    dice = rng.random()
    if dice < absent_share or not things:
        return ask_absent(things, COLOUR_NAMES, KINDS, rng)
    labels = [thing.label for thing in things]
    few = [i for i, label in enumerate(labels) if labels.count(label) <= MOST_POINTS]
    if not few:
        return ask_absent(things, COLOUR_NAMES, KINDS, rng)
    index = int(rng.choice(few))
    by_kind, by_colour = (
        ask_by_kind(things, things[index].kind, rng),
        ask_by_colour(things, things[index].colour, rng),
    )
    rest = (dice - absent_share) / (1 - absent_share)
    if BY_KIND_FROM <= rest < BY_COLOUR_FROM and len(by_kind.targets) <= MOST_POINTS:
        return by_kind
    if rest >= BY_COLOUR_FROM and len(by_colour.targets) <= MOST_POINTS:
        return by_colour
    return ask_about(things, index, rng)
