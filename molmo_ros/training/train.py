"""Train a pointing model on simulated tables.

    python -m molmo_ros.training.train --config config/training/tabletop.yaml --run runs/tabletop

Scenes are drawn once into shards under the run folder. The first steps teach the image side alone (dense
lessons), the rest the whole model. The state is saved every few minutes and a killed run goes on where it
was; the averaged weights are written as a checkpoint in the released layout each time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import DynamicCache

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.sim.colours import COLOUR_NAMES
from molmo_ros.sim.objects import KINDS
from molmo_ros.training.batches import Batch, QuestionBatches
from molmo_ros.training.questions import every_wording
from molmo_ros.training.scenes import Grid, Shard, ShardOrder, draw_shards, load_shards
from molmo_ros.training.tabletop_model import (
    GAZE_LAYER,
    DenseLessons,
    DenseTruth,
    build_image_processor,
    build_model,
    count_parameters,
    gaze_loss,
)
from molmo_ros.training.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Schedule:
    """Everything about the steps; see config/training/tabletop.yaml for the meaning of each."""

    seed: int
    steps: int
    image_only_steps: int
    pictures_per_step: int
    questions_per_picture: int
    peak_learning_rate: float
    warmup_steps: int
    decay_steps: int
    weight_decay: float
    gradient_clip: float
    average_decay: float
    patch_loss_weight: float
    token_loss_weight: float
    gaze_loss_weight: float
    save_every_steps: int
    validate_every_steps: int
    threads: int

    def learning_rate(self, step: int) -> float:
        """Warm up, hold, then fall linearly to a hundredth in the last `decay_steps`."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        fall = min(1.0, max(0.01, (self.steps - step) / self.decay_steps))
        return self.peak_learning_rate * warm * fall


@dataclass
class Losses:
    """Means of one step: next token, patches, image tokens, where the model looks."""

    words: Tensor
    patches: Tensor
    tokens: Tensor
    gaze: Tensor


class Trainer:
    """Model, averaged model, optimiser and where they stand."""

    def __init__(self, config: dict[str, Any], schedule: Schedule, run: Path) -> None:
        torch.manual_seed(schedule.seed)
        torch.set_num_threads(schedule.threads)
        self.config, self.schedule, self.run, self.step = config, schedule, run, 0
        self.model = build_model(config["model"])
        text, vision = self.model.config.text_config, self.model.config.vision_config
        self.lessons = DenseLessons(
            vision.hidden_size * len(vision.feature_layers), text.hidden_size, len(KINDS), len(COLOUR_NAMES)
        )
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        decayed = [p for p in self._parameters() if p.ndim > 1]
        plain = [p for p in self._parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": schedule.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=schedule.peak_learning_rate,
            betas=(0.9, 0.98),
        )

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [*self.model.parameters(), *self.lessons.parameters()]

    def losses(self, batch: Batch, with_words: bool) -> Losses:
        backbone = self.model.model.vision_backbone
        # Without tiling both crops are the same picture, so one pass through the ViT serves both.
        features = backbone.features(batch.images[:, None])
        tokens = backbone.pool(features.expand(-1, batch.image_masks.shape[1], -1, -1), batch.image_masks)
        truth = batch.truth
        twice = DenseTruth(
            truth.patch_kind,
            truth.patch_colour,
            *map(_twice, (truth.token_kind, truth.token_colour, truth.token_offset, truth.token_percent)),
        )
        patches, places = self.lessons(features[:, 0], tokens, twice)
        words, gaze = features.new_zeros(()), features.new_zeros(())
        if with_words:
            with _layer_inputs(self.model.model.language_model.layers[GAZE_LAYER]) as inputs:
                logits = self.text_logits(batch, tokens)
            language_model = self.model.model.language_model
            of_pictures, of_questions = inputs
            gaze = gaze_loss(language_model, of_pictures, of_questions, batch.image_input_idx, batch.look_at)
            each = F.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none", ignore_index=-100)
            words = (each * batch.weights).sum() / batch.weights.sum()
        return Losses(words, patches, places, gaze)

    def text_logits(self, batch: Batch, tokens_BCTD: Tensor) -> Tensor:
        """[R, L, V]: the pictures are read once, then every question goes on from its picture's cache."""
        core = self.model.model
        cache = DynamicCache(config=self.model.config.text_config)
        prefix = core.embed(batch.prefix_ids, tokens_BCTD, batch.image_input_idx)
        core.language_model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(batch.question_ids) // len(batch.prefix_ids))
        hidden = core.language_model(
            inputs_embeds=core.wte(batch.question_ids), past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits: Tensor = self.model.lm_head(hidden)
        return logits

    def take_step(self, batch: Batch) -> Losses:
        schedule = self.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.learning_rate(self.step)
        losses = self.losses(batch, with_words=self.step >= schedule.image_only_steps)
        total = (
            losses.words
            + schedule.gaze_loss_weight * losses.gaze
            + schedule.patch_loss_weight * losses.patches
            + schedule.token_loss_weight * losses.tokens
        )
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters(), schedule.gradient_clip)
        self.optimiser.step()
        self.step += 1
        decay = min(schedule.average_decay, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        with torch.no_grad():
            for name, value in self.average.items():
                value.lerp_(state[name], 1 - decay)
        return losses

    def save(self, processor: MolmoProcessor) -> None:
        """State for going on, and the averaged weights as a bf16 checkpoint in `run/checkpoint`."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "lessons": self.lessons.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
        }
        part = self.run / "state.part"
        torch.save(state, part)
        part.rename(self.run / "state.pt")
        averaged = MolmoForConditionalGeneration(self.model.config)
        averaged.load_state_dict(self.average)
        write_checkpoint(averaged, processor, self.run / "checkpoint")

    def begin_with(self, folder: Path) -> None:
        """Take the weights of a checkpoint of the same sizes instead of fresh ones."""
        weights = MolmoForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
        self.model.load_state_dict(weights)
        self.average = {name: value.detach().clone() for name, value in weights.items()}

    def resume(self) -> None:
        path = self.run / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.lessons.load_state_dict(state["lessons"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])


@contextmanager
def _layer_inputs(layer: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collects what goes into a layer while the context is open: one tensor for each pass through it."""
    inputs: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        yield inputs
    finally:
        handle.remove()


def _twice(truth: Tensor) -> Tensor:
    """The same truth for the whole picture and its one high-resolution crop."""
    return truth[:, None].expand(-1, 2, *truth.shape[1:])


def write_checkpoint(model: MolmoForConditionalGeneration, processor: MolmoProcessor, folder: Path) -> None:
    """The released layout, weights stored in bf16."""
    stored = MolmoForConditionalGeneration(model.config)
    stored.load_state_dict(model.state_dict())
    stored.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def measure(trainer: Trainer, batches: list[Batch], processor: MolmoProcessor) -> dict[str, float]:
    """With the true answer's beginning given: how often the model would say the next token right.

    `decision`: point or "There are none"; `digit`: coordinate digits; `first_digit`: the first of a point.
    """
    here = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.model.load_state_dict(trainer.average)
    digits = torch.tensor([processor.tokenizer.encode(d, add_special_tokens=False)[0] for d in "0123456789"])
    quote = processor.tokenizer.encode('="', add_special_tokens=False)[0]
    starts = torch.tensor(
        [processor.tokenizer.encode(t, add_special_tokens=False)[0] for t in (" <", " There")]
    )
    right = {"decision": [0, 0], "digit": [0, 0], "first_digit": [0, 0]}
    with torch.no_grad():
        for batch in batches:
            backbone = trainer.model.model.vision_backbone
            features = backbone.features(batch.images[:, None])
            tokens = backbone.pool(features.expand(-1, 2, -1, -1), batch.image_masks)
            guess = trainer.text_logits(batch, tokens).argmax(-1)
            labels, seen = batch.labels, batch.question_ids
            is_digit = torch.isin(labels, digits)
            for name, where in {
                "decision": torch.isin(labels, starts),
                "digit": is_digit,
                "first_digit": is_digit & (seen == quote),
            }.items():
                right[name][0] += int((guess == labels)[where].sum())
                right[name][1] += int(where.sum())
    trainer.model.load_state_dict(here)
    return {name: hits / max(count, 1) for name, (hits, count) in right.items()}


def shard_orders(config: dict[str, Any], part: str, grid: Grid, folder: Path) -> list[ShardOrder]:
    scenes = config["scenes"]
    per_shard = min(scenes["shard_scenes"], scenes[part]["count"])
    first = scenes[part]["first_seed"]
    return [
        ShardOrder(
            folder / part / f"{first + start}.npz",
            first + start,
            per_shard,
            tuple(scenes["render_size"]),
            tuple(scenes["objects"]),
            grid,
        )
        for start in range(0, scenes[part]["count"], per_shard)
    ]


def draw_part(config: dict[str, Any], part: str, grid: Grid, run: Path) -> Shard:
    return load_shards(draw_shards(shard_orders(config, part, grid, run / "scenes")))


def read_config(path: Path, steps: int | None) -> tuple[dict[str, Any], Schedule]:
    config = yaml.safe_load(path.read_text())
    names = {field.name for field in fields(Schedule)}
    schedule = Schedule(**{name: value for name, value in config["training"].items() if name in names})
    return config, replace(schedule, steps=steps) if steps else schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/training/tabletop.yaml"))
    parser.add_argument(
        "--run", type=Path, default=Path("runs/tabletop"), help="folder for scenes, state, checkpoint"
    )
    parser.add_argument("--steps", type=int, help="instead of the number in the configuration")
    parser.add_argument(
        "--begin-with", type=Path, metavar="FOLDER", help="checkpoint whose weights to start from"
    )
    arguments = parser.parse_args()
    config, schedule = read_config(arguments.config, arguments.steps)
    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)

    processor = MolmoProcessor(
        build_image_processor(config["model"]),
        train_tokenizer(every_wording(COLOUR_NAMES, KINDS), config["model"]["embedding_size"]),
    )
    width, height = config["scenes"]["render_size"]
    grid = Grid.of(processor.image_processor, (height, width))
    train_shard = draw_part(config, "train", grid, run)
    validation_shard = draw_part(config, "validation", grid, run)

    trainer = Trainer(config, schedule, run)
    if arguments.begin_with:
        trainer.begin_with(arguments.begin_with)
    trainer.resume()
    print(
        f"{count_parameters(trainer.model) / 1e6:.2f} M parameters, {len(train_shard.pictures)} pictures",
        flush=True,
    )
    sizes = {"pictures": schedule.pictures_per_step, "questions": schedule.questions_per_picture}
    validation = QuestionBatches(validation_shard, processor, grid, seed=1, **sizes)
    held_out = [
        validation.batch(i) for i in range(len(validation_shard.pictures) // schedule.pictures_per_step)
    ]
    stream = QuestionBatches(
        train_shard, processor, grid, seed=schedule.seed, first_step=trainer.step, **sizes
    )
    log = (run / "log.jsonl").open("a")
    started, first = time.monotonic(), trainer.step
    for batch in DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=8):
        losses = trainer.take_step(batch)
        if trainer.step % 50 == 0:
            entry = {
                "step": trainer.step,
                "words": round(losses.words.item(), 4),
                "patches": round(losses.patches.item(), 4),
                "tokens": round(losses.tokens.item(), 4),
                "gaze": round(losses.gaze.item(), 4),
                "seconds_per_step": round((time.monotonic() - started) / (trainer.step - first), 3),
            }
            if trainer.step % schedule.validate_every_steps == 0:
                entry |= {k: round(v, 3) for k, v in measure(trainer, held_out, processor).items()}
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(entry, flush=True)
        if trainer.step % schedule.save_every_steps == 0 or trainer.step >= schedule.steps:
            trainer.save(processor)
        if trainer.step >= schedule.steps:
            break


if __name__ == "__main__":
    main()
