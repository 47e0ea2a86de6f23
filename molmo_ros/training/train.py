"""Train a pointing model on simulated tables.

    python -m molmo_ros.training.train --config config/training/tabletop.yaml --run runs/tabletop

Scenes are drawn once into shards under the run folder. The first lesson shows the ViT single things, the
second shows the image side whole pictures, the third teaches the whole model. The state is saved every few
minutes and a killed run goes on where it was; the averaged weights are written as a checkpoint in the released
layout each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.molmo.vision import VisionAttention
from molmo_ros.sim.worlds import DEFAULT_WORLD, FIRST, World, world_named
from molmo_ros.training import tabletop_questions
from molmo_ros.training.atomic_saving import replaced_file, replaced_folder
from molmo_ros.training.batches import Batch, QuestionBatches
from molmo_ros.training.close_ups import CloseUpBatch, CloseUps, window_features
from molmo_ros.training.memory import keep_freed_memory
from molmo_ros.training.muon import Muon, has_bfloat16_products
from molmo_ros.training.questions import every_wording
from molmo_ros.training.scenes import Grid, Shard, ShardOrder, Words, draw_shards, load_shards
from molmo_ros.training.schedule import Lesson, Schedule, read_config
from molmo_ros.training.tabletop_model import (
    GAZE_LAYER,
    DenseLessons,
    DenseTruth,
    attend_in_bfloat16,
    build_image_processor,
    build_model,
    count_parameters,
    gaze_loss,
    whiten_patches,
)
from molmo_ros.training.tokenizer import train_tokenizer
from molmo_ros.training.training_log import TrainingLog
from molmo_ros.training.validation import hit_rates, next_token_shares, text_logits

#: Weights of the dense lessons' heads, beside a run's checkpoint.
HEADS = "heads.safetensors"

#: Enough to tell a percent or two.
VALIDATION_PICTURES = 96

#: Added to the seed of a lesson for its close-ups.
OTHER_ORDER = 1000


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
        self.config, self.schedule, self.run, self.step, self.best = config, schedule, run, 0, 0.0
        self.model = build_model(config["model"])
        self.in_bfloat16 = schedule.precision == "bfloat16" and has_bfloat16_products()
        if self.in_bfloat16:
            for module in self.model.model.vision_backbone.image_vit.modules():
                if isinstance(module, VisionAttention):
                    module.attend = attend_in_bfloat16
            # Of questions this short, plain products in bfloat16 take a fraction of the fused kernel in float32.
            self.model.model.language_model.set_attn_implementation("eager")
        if schedule.compiled:
            compile_layers(self.model)
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
            Muon(matrices, rate, decay, in_bfloat16=has_bfloat16_products()),
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
                logits = text_logits(self.model, batch, tokens)
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

    def close_up_losses(self, batch: CloseUpBatch) -> Losses:
        vit = self.model.model.vision_backbone.image_vit
        features = window_features(vit, batch.patches, batch.places)
        none = features.new_zeros(())
        return Losses(none, self.lessons.patches(features, batch.kinds, batch.colours), none, none, none)

    def take_step(self, batch: Batch | CloseUpBatch, beside: CloseUpBatch | None = None) -> Losses:
        """One step on a batch, with the close-ups `beside` it."""
        schedule = self.schedule
        lesson, step = schedule.lesson_at(self.step)
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = lesson.learning_rate(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.in_bfloat16):
            if isinstance(batch, CloseUpBatch):
                losses = self.close_up_losses(batch)
            else:
                losses = self.losses(batch, lesson.name == "words", with_vit=step % lesson.vit_every == 0)
            close_ups = self.close_up_losses(beside).patches if beside is not None else 0.0
        total = (
            close_ups
            + losses.words
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

    def averaged(self) -> MolmoForConditionalGeneration:
        """A model of the averaged weights, which are the ones that are kept."""
        model = MolmoForConditionalGeneration(self.model.config)
        model.load_state_dict(self.average)
        return model.eval()

    def save(self, processor: MolmoProcessor) -> None:
        """All that is needed to go on (`state.pt`), and what others may begin with (`checkpoint`, `heads.safetensors`).

        Every file is replaced whole: a kill or a full disk leaves the one before.
        """
        state = {
            "step": self.step,
            "best": self.best,
            "model": self.model.state_dict(),
            "lessons": self.lessons.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        with replaced_file(self.run / "state.pt") as part:
            torch.save(state, part)
        with replaced_file(self.run / HEADS) as part:
            save_file({n: t.to(torch.bfloat16) for n, t in self.lessons.state_dict().items()}, part)
        write_checkpoint(self.averaged(), processor, self.run / "checkpoint")

    def keep_if_best(self, score: float, processor: MolmoProcessor) -> None:
        """Another copy in `best` of the averaged weights with the highest score so far."""
        if score > self.best:
            self.best = score
            write_checkpoint(self.averaged(), processor, self.run / "best")

    def begin_with(self, folder: Path) -> None:
        """Take the weights of `folder`/checkpoint, of the same sizes, and where they are there the lessons' heads."""
        weights = MolmoForConditionalGeneration.from_pretrained(folder / "checkpoint", dtype=torch.float32)
        self.model.load_state_dict(weights.state_dict())
        self.average = {name: value.detach().clone() for name, value in weights.state_dict().items()}
        if (folder / HEADS).is_file():
            self.lessons.load_state_dict({n: t.float() for n, t in load_file(folder / HEADS).items()})

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
        self.step, self.best = state["step"], state["best"]
        self.model.load_state_dict(state["model"])
        self.lessons.load_state_dict(state["lessons"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def compile_layers(model: MolmoForConditionalGeneration) -> None:
    """Fuse what lies between the products of a layer; takes a minute or two at the first steps.

    Pictures are all of one size, close-ups differ in number, and questions in length.
    """
    # A layer knows its own number, so each is compiled for itself, for the pictures and for the questions.
    torch._dynamo.config.recompile_limit = 4 * model.config.text_config.num_hidden_layers
    for block in model.model.vision_backbone.image_vit.transformer.resblocks:
        block.compile()
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=True)


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
    """The released layout, weights stored in bf16; a folder that is there is replaced when the new one is whole."""
    stored = MolmoForConditionalGeneration(model.config)
    stored.load_state_dict(model.state_dict())
    with replaced_folder(folder) as new:
        stored.to(torch.bfloat16).save_pretrained(new)
        processor.save_pretrained(new)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/training/tabletop.yaml"))
    parser.add_argument(
        "--run", type=Path, default=Path("runs/tabletop"), help="folder for scenes, state, checkpoint"
    )
    parser.add_argument(
        "--begin-with", type=Path, metavar="RUN", help="another run's folder: start from its weights"
    )
    parser.add_argument(
        "--from-lesson", type=int, default=0, metavar="N", help="skip the lessons before this one (from 0)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of torch, instead of the configuration's")
    arguments = parser.parse_args()
    keep_freed_memory()
    config, schedule = read_config(arguments.config)
    if arguments.threads:
        schedule = replace(schedule, threads=arguments.threads)
    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)

    processor = build_processor(config)
    width, height = config["scenes"]["render_size"]
    grid = Grid.of(processor.image_processor, (height, width))
    train_shard = draw_part(config, "train", grid, run)
    validation_shard = draw_part(config, "validation", grid, run)

    trainer = Trainer(config, schedule, run)
    if schedule.precision == "bfloat16" and not trainer.in_bfloat16:
        print("this CPU has no bfloat16 products: float32 instead, which takes several times as long")
    if arguments.begin_with:
        trainer.begin_with(arguments.begin_with)
    else:
        trainer.whiten(QuestionBatches(train_shard, processor, grid, seed=2, pictures=8, questions=1))
    trainer.step = sum(lesson.steps for lesson in schedule.lessons[: arguments.from_lesson])
    trainer.resume()
    validation = QuestionBatches(
        validation_shard, processor, grid, seed=1, pictures=8, questions=schedule.questions_per_picture
    )
    title = f"{count_parameters(trainer.model) / 1e6:.2f} M parameters, {len(train_shard.pictures)} pictures"
    with TrainingLog(run, schedule, title, trainer.step) as log:
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
            if lesson.name == "close_ups":
                teach(trainer, lesson, CloseUps(questions, first_step=step), None, validation, log)
                continue
            beside = None
            if lesson.close_ups_beside:
                # Another order, so that a step shows other pictures' things than those it asks about.
                others = QuestionBatches(
                    train_shard,
                    processor,
                    grid,
                    seed=lesson.seed + OTHER_ORDER,
                    pictures=lesson.close_ups_beside,
                    questions=1,
                )
                beside = CloseUps(others, first_step=step)
            teach(trainer, lesson, questions, beside, validation, log)


def teach(
    trainer: Trainer,
    lesson: Lesson,
    stream: QuestionBatches | CloseUps,
    beside: CloseUps | None,
    validation: QuestionBatches,
    log: TrainingLog,
) -> None:
    """The rest of one lesson: steps, log lines, validation, saved states."""
    schedule, processor = trainer.schedule, validation.processor
    held_out = [validation.batch(index) for index in range(VALIDATION_PICTURES // validation.pictures)]

    def loaded(batches: QuestionBatches | CloseUps) -> DataLoader[Any]:
        return DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8)

    close_ups: Iterable[CloseUpBatch | None] = loaded(beside) if beside else repeat(None)
    for batch, close_up in zip(loaded(stream), close_ups, strict=False):
        losses = trainer.take_step(batch, close_up)
        last = trainer.step >= schedule.steps or schedule.lesson_at(trainer.step)[0] is not lesson
        log.step(trainer.step, lesson.name, {name: value.item() for name, value in vars(losses).items()})
        if lesson.name != "close_ups" and (trainer.step % schedule.validate_every_steps == 0 or last):
            found = next_token_shares(trainer.averaged(), trainer.lessons, held_out, processor)
            if lesson.name == "words":
                rates = hit_rates(trainer.averaged(), validation, range(VALIDATION_PICTURES))
                found |= rates
                trainer.keep_if_best(sum(rates.values()) / len(rates), processor)
            log.validation(trainer.step, found)
        if trainer.step % schedule.save_every_steps == 0 or last:
            trainer.save(processor)
        if last:
            return


if __name__ == "__main__":
    main()
