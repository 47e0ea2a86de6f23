"""A local model answers; behaviour with the tiny random checkpoint, and what the bundled one knows."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.pointer import LocalPointer, Settings
from molmo_ros.pointing.prompts import pointing_prompt
from molmo_ros.pointing.protocol import Pointing
from molmo_ros.sim.tabletop import TabletopScene
from molmo_ros.sim.worlds import DEFAULT_WORLD
from molmo_ros.training.evaluate import evaluate

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"


@cache
def bundled() -> LocalPointer:
    return LocalPointer.from_folder(bundled_model_folder(), device="cpu")


@cache
def picture() -> np.ndarray:
    return np.array(Image.open(GOLDENS / "images" / "wide.png").convert("RGB"))


@cache
def tables() -> list[tuple[np.ndarray, str]]:
    """Six fresh tables, and something that stands on each; `training.evaluate` judges how well it is found."""
    tabletop = TabletopScene((640, 480), samples=4)
    shown = []
    for seed in range(500, 506):
        label = tabletop.reset(seed).named[0].label
        shown.append((tabletop.render().color, f"the {label}"))
    tabletop.close()
    return shown


def code_of(target: str, image: np.ndarray, pointer: LocalPointer) -> Code:
    with pytest.raises(PointingError) as caught:
        pointer.point(image, target)
    return caught.value.outcome.code


def test_a_model_that_babbles_is_unparseable_with_its_words() -> None:
    random = LocalPointer.from_folder(GOLDENS / "D" / "checkpoint", device="cpu")
    assert code_of("the red mug", picture(), random) == Code.UNPARSEABLE


def test_an_empty_target_and_a_broken_image_are_refused() -> None:
    assert code_of("  ", picture(), bundled()) == Code.EMPTY_TARGET
    assert code_of("mug", picture().astype(np.float32), bundled()) == Code.BAD_IMAGE


@pytest.mark.parametrize("allowed", [0, 3, 9, 20, 30])
def test_a_stop_is_seen_at_once_at_any_stage(allowed: int) -> None:
    (image, label), asked = tables()[0], 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > allowed

    with pytest.raises(PointingError) as caught:
        bundled().point(image, label, should_stop=stop)
    assert caught.value.outcome.code == Code.CANCELLED
    assert asked == allowed + 1


def answers() -> list[Pointing]:
    return [bundled().point(image, label) for image, label in tables()]


def test_the_bundled_model_finds_things_and_knows_what_is_not_there() -> None:
    """A dozen fresh tables, two thirds right; `training.evaluate` judges on hundreds."""
    (asked,) = evaluate([bundled()], range(600, 612))
    for group in ([a for a in asked if a.present], [a for a in asked if not a.present]):
        assert len(group) >= 12
        assert sum(a.right for a in group) >= 2 / 3 * len(group)


def test_the_bundled_model_speaks_molmos_language() -> None:
    for pointing in answers():
        assert pointing.absent == (not pointing.points)
        assert pointing.absent or pointing.answer.startswith((" <point ", " <points "))


def test_points_carry_confidence_spread_and_the_models_label() -> None:
    pointed = [pointing for pointing in answers() if pointing.points]
    assert pointed
    for pointing in pointed:
        for index, point in enumerate(pointing.points):
            assert 0 < point.confidence <= 1
            assert 0 < point.sigma_px < 640 and math.isfinite(point.sigma_px)
            assert point.index == index and point.label.split()[-1] in DEFAULT_WORLD.kinds
            assert 0 <= point.u <= 639 and 0 <= point.v <= 479
        assert pointing.durations.decode_s > 0 and pointing.durations.vision_s > 0


def generated(target: str) -> str:
    pointer = bundled()
    inputs = pointer.processor(images=picture(), text=pointing_prompt(target))
    tokens = pointer.model.generate(
        **inputs, max_new_tokens=192, do_sample=False, eos_token_id=pointer.processor.eos_token_id
    )
    return pointer.processor.decode(tokens[0, inputs["input_ids"].shape[1] :])


TARGETS = ("the red cube", "the blue mug", "a white ring", "the cubes", "the green bottle")


@pytest.mark.parametrize("foresees", [True, False])
def test_whole_answers_are_what_generate_says(foresees: bool) -> None:
    pointer = LocalPointer(
        bundled().model, bundled().processor, Settings(stops_early=False, foresees=foresees)
    )
    look = pointer.look(picture())
    for target in TARGETS:
        assert pointer.point_in(look, target).answer == generated(target)


def test_answers_that_stop_early_begin_the_same_and_hold_the_same_points() -> None:
    look = bundled().look(picture())
    settings, calibration = Settings(stops_early=False), bundled().calibration
    whole = LocalPointer(bundled().model, bundled().processor, settings, calibration)
    for target in TARGETS:
        early, late = bundled().point_in(look, target), whole.point_in(look, target)
        assert late.answer.startswith(early.answer)
        assert early.absent == late.absent
        for one, other in zip(early.points, late.points, strict=True):
            assert (one.u, one.v) == (other.u, other.v)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_many_targets_at_once_are_answered_as_one_by_one() -> None:
    look = bundled().look(picture())
    one_by_one = [bundled().point_in(look, target) for target in TARGETS]
    for many, one in zip(bundled().point_many(look, TARGETS), one_by_one, strict=True):
        assert isinstance(many, Pointing)
        assert many.answer == one.answer and many.absent == one.absent
        assert [(p.u, p.v) for p in many.points] == [(p.u, p.v) for p in one.points]


def test_tokens_and_points_are_told_as_they_come() -> None:
    look = bundled().look(picture())
    for target in TARGETS:
        told: list[tuple[str, int, tuple[Point2D, ...]]] = []
        pointing = bundled().point_in(
            look,
            target,
            on_progress=lambda *said: told.append(said),  # noqa: B023
        )
        assert told[0] == ("prefill", 0, ())
        assert [tokens for stage, tokens, _ in told if stage == "decode"] == list(range(1, len(told)))
        counts = [len(points) for _, _, points in told]
        assert counts == sorted(counts) and counts[-1] == len(pointing.points)
        for early, final in zip(told[-1][2], pointing.points, strict=True):
            assert (early.u, early.v, early.index) == (final.u, final.v, final.index)
            assert 0 < early.confidence <= 1


def test_any_question_gets_the_models_own_words_and_their_probability() -> None:
    """The words are those of plain greedy generation; the bundled model has learned to point and nothing else."""
    pointer = bundled()
    question = "Point to the red cube."
    reply = pointer.ask(picture(), question)
    assert reply.answer == generated("the red cube")
    assert 0 < reply.confidence <= 1 and reply.durations.decode_s > 0
    assert pointer.ask_in(pointer.look(picture()), question).answer == reply.answer


def test_a_question_can_be_stopped() -> None:
    with pytest.raises(PointingError) as caught:
        bundled().ask(picture(), "What is there?", should_stop=lambda: True)
    assert caught.value.outcome.code == Code.CANCELLED


def test_points_beyond_the_wanted_ones_are_not_waited_for() -> None:
    look = bundled().look(picture())
    for target in TARGETS:
        every = bundled().point_in(look, target).points
        first = bundled().point_in(look, target, max_points=1).points
        assert [(p.u, p.v) for p in first] == [(p.u, p.v) for p in every[:1]]


def test_no_gradients_are_kept() -> None:
    bundled().point(picture(), "the red cube")
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in bundled().model.parameters())
