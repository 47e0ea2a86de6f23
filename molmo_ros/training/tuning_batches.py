"""Exercises to batches for fine-tuning any Molmo: each picture once, behind it a row for each of its questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from molmo_ros.molmo import MolmoProcessor
from molmo_ros.molmo.image_processing import UNUSED
from molmo_ros.molmo.processing import format_prompt
from molmo_ros.molmo.vision import PADDING_CROP_VALUE
from molmo_ros.training.exercises import Exercise
from molmo_ros.training.tuning_settings import Settings, Weights

#: The label of a token that is not to be learnt.
IGNORED = -100


@dataclass(frozen=True)
class TuningBatch:
    """B pictures with R rows of L tokens, each row a picture's prompt, a question and its answer.

    `images` [B, C, P, X], `image_masks` [B, C, P], `image_input_idx` [B, C, T] as `MolmoProcessor` gives them, padded
    behind; `picture` [R] whose row it is; `input_ids`, `attention_mask` [R, L], padded behind; `labels` [R, L] the
    token to come where it belongs to the answer, else `IGNORED`; `weights` [R, L] how much it counts.
    """

    images: Tensor
    image_masks: Tensor
    image_input_idx: Tensor
    picture: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device | str) -> TuningBatch:
        return TuningBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class _Row:
    prompt: list[int]
    answer: list[int]


class Reader:
    """Turns pictures and worded exercises into batches."""

    def __init__(self, processor: MolmoProcessor, weights: Weights) -> None:
        self.processor, self.weights = processor, weights
        tokenizer = processor.tokenizer
        texts = [tokenizer.decode([token]).strip() for token in range(len(tokenizer))]
        self.digits = np.array([text.isdecimal() for text in texts])
        self.points = np.array([text == "." for text in texts])

    def batch(
        self, pictures: Sequence[np.ndarray], worded: Sequence[Sequence[tuple[str, str]]]
    ) -> TuningBatch:
        """Args:
        pictures: HxWx3 uint8 RGB.
        worded: for each picture its questions with their answers.
        """
        seen = [self.processor(images=picture, text="", formatted=True) for picture in pictures]
        crops = max(one["images"].shape[1] for one in seen)
        prefixes = [one["input_ids"][0].tolist() for one in seen]
        owners = [n for n, questions in enumerate(worded) for _ in questions]
        rows = [
            _Row(
                prefix + self._ids(format_prompt(question)), [*self._ids(answer), self.processor.eos_token_id]
            )
            for prefix, questions in zip(prefixes, worded, strict=True)
            for question, answer in questions
        ]
        length = max(len(row.prompt) + len(row.answer) for row in rows)
        input_ids = np.full((len(rows), length), self.processor.pad_token_id, np.int64)
        labels = np.full((len(rows), length), IGNORED, np.int64)
        weights, mask = np.zeros((len(rows), length), np.float32), np.zeros((len(rows), length), np.int64)
        for index, row in enumerate(rows):
            start, end = len(row.prompt), len(row.prompt) + len(row.answer)
            input_ids[index, :end] = row.prompt + row.answer
            mask[index, :end] = 1
            # One step ahead: the last token of the question predicts the first of the answer.
            labels[index, start - 1 : end - 1] = row.answer
            weights[index, start - 1 : end - 1] = self._weights(row.answer)
        return TuningBatch(
            images=torch.cat([_padded(one["images"], crops, PADDING_CROP_VALUE) for one in seen]),
            image_masks=torch.cat([_padded(one["image_masks"], crops, 0.0) for one in seen]),
            image_input_idx=torch.cat([_padded(one["image_input_idx"], crops, UNUSED) for one in seen]),
            picture=torch.tensor(owners),
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(mask),
            labels=torch.from_numpy(labels),
            weights=torch.from_numpy(weights),
        )

    def _ids(self, text: str) -> list[int]:
        return list(self.processor.tokenizer.encode(text, add_special_tokens=False))

    def _weights(self, answer: Sequence[int]) -> np.ndarray:
        tokens = np.asarray(answer)
        digits = self.digits[tokens]
        after_point = np.concatenate([[False], self.points[tokens[:-1]]]) & digits
        weights = np.where(after_point, self.weights.decimal, np.where(digits, self.weights.digit, 1.0))
        weights[0] = self.weights.first
        return weights


def _padded(tensor_1C: Tensor, crops: int, value: float) -> Tensor:
    """With more crops behind, filled with `value`."""
    missing = crops - tensor_1C.shape[1]
    if not missing:
        return tensor_1C
    return torch.cat([tensor_1C, tensor_1C.new_full((1, missing, *tensor_1C.shape[2:]), value)], dim=1)


class TuningSteps(TorchDataset[list[TuningBatch]]):
    """What step N of a fine-tuning learns from: item N, which depends on the settings and N alone.

    Every data set goes round and round, each time in another order, so many pictures a step as its `Source` says.
    """

    def __init__(self, sources: Sequence[Sequence[Exercise]], reader: Reader, settings: Settings) -> None:
        self._reader, self._settings = reader, settings
        self._pictures = [_by_picture(exercises) for exercises in sources]

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, step: int) -> list[TuningBatch]:
        settings, rng = self._settings, np.random.default_rng((self._settings.seed, 3, step))
        chosen: list[list[Exercise]] = []
        for number, (source, pictures) in enumerate(zip(settings.data, self._pictures, strict=True)):
            first = step * source.pictures_per_step
            for place in range(first, first + source.pictures_per_step):
                epoch, index = divmod(place, len(pictures))
                order = np.random.default_rng((settings.seed, 7, number, epoch)).permutation(len(pictures))
                chosen.append(pictures[order[index]])
        at_once = settings.pictures_at_once
        return [self._batch(chosen[i : i + at_once], rng) for i in range(0, len(chosen), at_once)]

    def _batch(self, chosen: Sequence[Sequence[Exercise]], rng: np.random.Generator) -> TuningBatch:
        pictures, worded = [], []
        for exercises in chosen:
            count = min(self._settings.questions_per_picture, len(exercises))
            asked = [exercises[i] for i in rng.permutation(len(exercises))[:count]]
            mirrored = (
                self._settings.mirror and all(e.can_be_mirrored for e in asked) and bool(rng.random() < 0.5)
            )
            picture = asked[0].sample.read_image()
            pictures.append(
                _in_other_light(picture[:, ::-1] if mirrored else picture, self._settings.light, rng)
            )
            worded.append([exercise.worded(rng, mirrored) for exercise in asked])
        return self._reader.batch(pictures, worded)


def fixed_batches(exercises: Sequence[Exercise], reader: Reader, settings: Settings) -> list[TuningBatch]:
    """For validation: up to `validation_questions`, spread over the data set, always the same and unchanged."""
    rng = np.random.default_rng((settings.seed, 5))
    pictures = _by_picture(exercises)
    batches, asked = [], 0
    for index in rng.permutation(len(pictures)):
        if asked >= settings.validation_questions:
            break
        some = pictures[index][: settings.questions_per_picture]
        batches.append(reader.batch([some[0].sample.read_image()], [[e.worded(rng) for e in some]]))
        asked += len(some)
    return batches


def _by_picture(exercises: Sequence[Exercise]) -> list[list[Exercise]]:
    groups: dict[str, list[Exercise]] = defaultdict(list)
    for exercise in exercises:
        groups[exercise.sample.image].append(exercise)
    return list(groups.values())


def _in_other_light(picture_HW3: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """A little brighter or darker, warmer or colder."""
    gain = rng.normal(1.0, spread) * rng.normal(1.0, 0.4 * spread, 3)
    bias = rng.normal(0.0, 0.3 * spread) * 255
    return np.clip(picture_HW3 * gain + bias, 0, 255).astype(np.uint8)
