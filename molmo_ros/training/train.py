"""Train a pointing model on simulated tables.

    python -m molmo_ros.training.train --config config/training/tabletop.yaml --run runs/tabletop

Scenes are drawn once into shards under the run folder. The first lesson shows the ViT single things, the
second shows the image side whole pictures, the third teaches the whole model. The state is saved every few
minutes and a killed run goes on where it was; the averaged weights are written as a checkpoint in the released
layout each time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import DynamicCache

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.sim.worlds import DEFAULT_WORLD, FIRST, World, world_named
from molmo_ros.training import tabletop_questions
from molmo_ros.training.batches import SHORT_SHARE, Batch, QuestionBatches
from molmo_ros.training.close_ups import CloseUpBatch, CloseUps, window_features
from molmo_ros.training.questions import every_wording
from molmo_ros.training.scenes import Grid, Shard, ShardOrder, Words, draw_shards, load_shards
from molmo_ros.training.tabletop_model import (
    GAZE_LAYER,
    DenseLessons,
    DenseTruth,
    build_image_processor,
    build_model,
    count_parameters,
    gaze_loss,
    whiten_patches,
)
from molmo_ros.training.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Lesson:
    """One part of the training: what is taught, for how long, and how the learning rate goes.

    `name`: "close_ups" (windows around single things, for the ViT), "pictures" (the whole image side), or
    "words" (everything, questions and answers included). The ViT, most of the work, learns in every
    `vit_every`-th step. `absent_share`: questions for things that are not there. `seed`: of the pictures' order
    and the questions. `short_share`: batches whose answers end after the first point.
    """

    name: str
    steps: int
    pictures_per_step: int
    peak_learning_rate: float
    warmup_steps: int
    decay_steps: int
    vit_every: int = 1
    absent_share: float = 0.25
    seed: int = 0
    short_share: float = SHORT_SHARE

    def __post_init__(self) -> None:
        if self.name not in LESSONS:
            raise ValueError(f"no lesson is called {self.name!r}; there are {', '.join(LESSONS)}")

    def learning_rate(self, step: int) -> float:
        """Warm up, hold, then fall linearly to a fiftieth in the last `decay_steps`."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        fall = min(1.0, max(0.02, (self.steps - step) / self.decay_steps))
        return self.peak_learning_rate * warm * fall


LESSONS = ("close_ups", "pictures", "words")


@dataclass(frozen=True)
class Schedule:
    """Everything about the steps; see config/training/tabletop.yaml for the meaning of each."""

    seed: int
    lessons: tuple[Lesson, ...]
    questions_per_picture: int
    weight_decay: float
    gradient_clip: float
    average_decay: float
    patch_loss_weight: float
    token_loss_weight: float
    asked_loss_weight: float
    gaze_loss_weight: float
    save_every_steps: int
    validate_every_steps: int
    threads: int

    @property
    def steps(self) -> int:
        return sum(lesson.steps for lesson in self.lessons)

    def lesson_at(self, step: int) -> tuple[Lesson, int]:
        """The lesson of a step of the whole training, and the step's number in it."""
        for lesson in self.lessons:
            if step < lesson.steps:
                return lesson, step
            step -= lesson.steps
        raise ValueError(f"the training has {self.steps} steps")


@dataclass
class Losses:
    """Means of one step: next token, patches, image tokens, what is asked for, where the model looks."""

    words: Tensor
    patches: Tensor
    tokens: Tensor
    asked: Tensor
    gaze: Tensor


class Trainer:
    """Model, averaged model, optimiser and where they stand."""

    def __init__(self, config: dict[str, Any], schedule: Schedule, run: Path) -> None:
        torch.manual_seed(schedule.seed)
        torch.set_num_threads(schedule.threads)
        self.config, self.schedule, self.run, self.step = config, schedule, run, 0
        self.model = build_model(config["model"])
        text, vision = self.model.config.text_config, self.model.config.vision_config
        words = Words.of(world_of(config))
        self.lessons = DenseLessons(
            vision.hidden_size * len(vision.feature_layers),
            text.hidden_size,
            len(words.kinds),
            len(words.colours),
        )
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        # Muon (Jordan et al. 2024) for the matrices between layers learns from fewer pictures than Adam; tables,
        # heads, norms and biases are not its business.
        matrices = [
            parameter
            for name, parameter in self.model.named_parameters()
            if parameter.ndim == 2 and any(part in name for part in ("resblocks", "image_p", "layers"))
        ]
        taken = {id(parameter) for parameter in matrices}
        rest = [p for p in self._parameters() if id(p) not in taken]
        rate, decay = schedule.lessons[0].peak_learning_rate, schedule.weight_decay
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [
                    {"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
                    {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
                ],
                lr=rate,
                betas=(0.9, 0.98),
            ),
        ]

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [*self.model.parameters(), *self.lessons.parameters()]

    def losses(self, batch: Batch, with_words: bool, with_vit: bool = True) -> Losses:
        backbone = self.model.model.vision_backbone
        # Without tiling both crops are the same picture, so one pass through the ViT serves both.
        with torch.set_grad_enabled(with_vit):
            features = backbone.features(batch.images[:, None])
        tokens = backbone.pool(features.expand(-1, batch.image_masks.shape[1], -1, -1), batch.image_masks)
        truth = batch.truth
        twice = DenseTruth(
            truth.patch_kind,
            truth.patch_colour,
            *map(_twice, (truth.token_kind, truth.token_colour, truth.token_offset, truth.token_percent)),
        )
        patches, places = self.lessons(features[:, 0], tokens, twice)
        words = asked = gaze = features.new_zeros(())
        if with_words:
            with _layer_inputs(self.model.model.language_model.layers[GAZE_LAYER]) as inputs:
                logits = self.text_logits(batch, tokens)
            language_model = self.model.model.language_model
            of_pictures, of_questions = inputs
            places_in_prompt = batch.image_input_idx
            gaze = gaze_loss(
                language_model, of_pictures, of_questions, places_in_prompt, batch.look_at, batch.gaze_weights
            )
            before_answer = (batch.labels >= 0).int().argmax(dim=1)
            asked = self.lessons.asked(
                of_questions[torch.arange(len(of_questions)), before_answer],
                batch.asked_kind,
                batch.asked_colour,
            )
            each = F.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none", ignore_index=-100)
            words = (each * batch.weights).sum() / batch.weights.sum()
        return Losses(words, patches, places, asked, gaze)

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

    def close_up_losses(self, batch: CloseUpBatch) -> Losses:
        vit = self.model.model.vision_backbone.image_vit
        features = window_features(vit, batch.patches, batch.places)
        none = features.new_zeros(())
        return Losses(none, self.lessons.patches(features, batch.kinds, batch.colours), none, none, none)

    def take_step(self, batch: Batch | CloseUpBatch) -> Losses:
        schedule = self.schedule
        lesson, step = schedule.lesson_at(self.step)
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = lesson.learning_rate(step)
        if isinstance(batch, CloseUpBatch):
            losses = self.close_up_losses(batch)
        else:
            losses = self.losses(batch, lesson.name == "words", with_vit=step % lesson.vit_every == 0)
        total = (
            losses.words
            + schedule.asked_loss_weight * losses.asked
            + schedule.gaze_loss_weight * losses.gaze
            + schedule.patch_loss_weight * losses.patches
            + schedule.token_loss_weight * losses.tokens
        )
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        total.backward()
        learning = [parameter for parameter in self._parameters() if parameter.grad is not None]
        torch.nn.utils.clip_grad_norm_(learning, schedule.gradient_clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        decay = min(schedule.average_decay, (1 + step) / (10 + step))
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
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
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

    def whiten(self, batches: QuestionBatches, count: int = 25) -> None:
        """Fit the patch embedding's start to the pictures, things and background in equal parts."""
        drawn = [batches.batch(index) for index in range(count)]
        patches = torch.cat([batch.images.flatten(0, 1) for batch in drawn])
        shows_thing = torch.cat([batch.truth.patch_kind.flatten() for batch in drawn]) > 0
        things, background = patches[shows_thing], patches[~shows_thing]
        background = background[:: max(1, len(background) // len(things))]
        whiten_patches(self.model.model.vision_backbone.image_vit, torch.cat([things, background]))
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def resume(self) -> None:
        path = self.run / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.lessons.load_state_dict(state["lessons"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


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
    """Shares of what the averaged weights get right.

    With the true answer's beginning given, the next token: `decision`: point or "There are none"; `x_tens`: the
    first digit of a point's x, which only the words and the picture tell; `x_ones`, `y_tens`: the digits that
    follow from it. On the image side: `kind` and `colour` of the thing in an image token.
    """
    here = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.model.load_state_dict(trainer.average)
    digits = torch.tensor([processor.tokenizer.encode(d, add_special_tokens=False)[0] for d in "0123456789"])
    quote = processor.tokenizer.encode('="', add_special_tokens=False)[0]
    point = processor.tokenizer.encode(".", add_special_tokens=False)[0]
    starts = torch.tensor(
        [processor.tokenizer.encode(t, add_special_tokens=False)[0] for t in (" <", " There")]
    )
    right: dict[str, list[int]] = {}
    with torch.no_grad():
        for batch in batches:
            backbone = trainer.model.model.vision_backbone
            features = backbone.features(batch.images[:, None])
            tokens = backbone.pool(features.expand(-1, 2, -1, -1), batch.image_masks)
            guess = trainer.text_logits(batch, tokens).argmax(-1)
            labels, seen = batch.labels, batch.question_ids
            is_digit = torch.isin(labels, digits)
            tens = is_digit & (seen == quote)
            is_y = ((seen == quote).cumsum(dim=1) % 2) == 0
            ones = is_digit & (seen != point) & ~tens
            kind, colour, *_ = trainer.lessons.token_head(tokens[:, 0]).split(trainer.lessons.token_sizes, -1)
            truth, there = batch.truth, batch.truth.token_kind > 0
            for name, hits in {
                "decision": (guess == labels)[torch.isin(labels, starts)],
                "x_tens": (guess == labels)[tens & ~is_y],
                "x_ones": (guess == labels)[ones & ~is_y],
                "y_tens": (guess == labels)[tens & is_y],
                "kind": (kind.argmax(-1) == truth.token_kind)[there],
                "colour": (colour.argmax(-1) == truth.token_colour)[there],
            }.items():
                count = right.setdefault(name, [0, 0])
                count[0] += int(hits.sum())
                count[1] += hits.numel()
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
            world_of(config).name,
            scenes.get("twin_probability", 0.35),
            scenes.get("samples", 0),
        )
        for start in range(0, scenes[part]["count"], per_shard)
    ]


def draw_part(config: dict[str, Any], part: str, grid: Grid, run: Path) -> Shard:
    return load_shards(draw_shards(shard_orders(config, part, grid, run / "scenes")))


def world_of(config: dict[str, Any]) -> World:
    """The world that a configuration trains for."""
    return world_named(config["scenes"].get("world", DEFAULT_WORLD.name))


def build_processor(config: dict[str, Any]) -> MolmoProcessor:
    """Preprocessing and a tokenizer for the words of the configuration's world."""
    world = world_of(config)
    texts = (
        every_wording(world.colours, world.kinds)
        if world == FIRST
        else tabletop_questions.every_wording(world)
    )
    return MolmoProcessor(
        build_image_processor(config["model"]), train_tokenizer(texts, config["model"]["embedding_size"])
    )


def read_config(path: Path) -> tuple[dict[str, Any], Schedule]:
    config = yaml.safe_load(path.read_text())
    settings = dict(config["training"])
    lessons = tuple(Lesson(**lesson) for lesson in settings.pop("lessons"))
    return config, Schedule(lessons=lessons, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/training/tabletop.yaml"))
    parser.add_argument(
        "--run", type=Path, default=Path("runs/tabletop"), help="folder for scenes, state, checkpoint"
    )
    parser.add_argument(
        "--begin-with", type=Path, metavar="FOLDER", help="checkpoint whose weights to start from"
    )
    arguments = parser.parse_args()
    config, schedule = read_config(arguments.config)
    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)

    processor = build_processor(config)
    width, height = config["scenes"]["render_size"]
    grid = Grid.of(processor.image_processor, (height, width))
    train_shard = draw_part(config, "train", grid, run)
    validation_shard = draw_part(config, "validation", grid, run)

    trainer = Trainer(config, schedule, run)
    if arguments.begin_with:
        trainer.begin_with(arguments.begin_with)
    else:
        trainer.whiten(QuestionBatches(train_shard, processor, grid, seed=2, pictures=8, questions=1))
    trainer.resume()
    print(
        f"{count_parameters(trainer.model) / 1e6:.2f} M parameters, {len(train_shard.pictures)} pictures",
        flush=True,
    )
    validation = QuestionBatches(
        validation_shard, processor, grid, seed=1, pictures=8, questions=schedule.questions_per_picture
    )
    held_out = [validation.batch(index) for index in range(len(validation_shard.pictures) // 8)]
    with (run / "log.jsonl").open("a") as log:
        while trainer.step < schedule.steps:
            lesson, step = schedule.lesson_at(trainer.step)
            questions = QuestionBatches(
                train_shard,
                processor,
                grid,
                seed=lesson.seed,
                absent_share=lesson.absent_share,
                short_share=lesson.short_share,
                pictures=lesson.pictures_per_step,
                questions=schedule.questions_per_picture if lesson.name == "words" else 1,
                first_step=step,
            )
            stream = CloseUps(questions, first_step=step) if lesson.name == "close_ups" else questions
            teach(trainer, lesson, stream, held_out, processor, log)


def teach(
    trainer: Trainer,
    lesson: Lesson,
    stream: QuestionBatches | CloseUps,
    held_out: list[Batch],
    processor: MolmoProcessor,
    log: TextIO,
) -> None:
    """The rest of one lesson: steps, log lines, validation, saved states."""
    schedule, started, first = trainer.schedule, time.monotonic(), trainer.step
    for batch in DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=8):
        losses = trainer.take_step(batch)
        last = trainer.step >= schedule.steps or schedule.lesson_at(trainer.step)[0] is not lesson
        if trainer.step % 50 == 0:
            entry = {"step": trainer.step, "lesson": lesson.name}
            entry |= {name: round(value.item(), 4) for name, value in vars(losses).items()}
            entry["seconds_per_step"] = round((time.monotonic() - started) / (trainer.step - first), 3)
            if trainer.step % schedule.validate_every_steps == 0 and lesson.name != "close_ups":
                entry |= {k: round(v, 3) for k, v in measure(trainer, held_out, processor).items()}
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(entry, flush=True)
        if trainer.step % schedule.save_every_steps == 0 or last:
            trainer.save(processor)
        if last:
            return


if __name__ == "__main__":
    main()
