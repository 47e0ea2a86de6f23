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
from molmo_ros.pointing.pointer import LocalPointer, Pointing
from molmo_ros.pointing.prompts import pointing_prompt
from molmo_ros.sim.tabletop import TabletopScene

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"


@cache
def bundled() -> LocalPointer:
    return LocalPointer.from_folder(bundled_model_folder(), device="cpu")


@cache
def picture() -> np.ndarray:
    return np.array(Image.open(GOLDENS / "images" / "wide.png").convert("RGB"))


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


def test_a_stop_is_seen_at_the_next_token() -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    with pytest.raises(PointingError) as caught:
        bundled().point(picture(), "the red cube", should_stop=stop)
    assert caught.value.outcome.code == Code.CANCELLED
    assert asked == 6


@cache
def answers() -> list[Pointing]:
    """Things that stand on six fresh tables, asked for by name; `training.evaluate` judges how well."""
    tabletop = TabletopScene((640, 480), samples=4)
    found = []
    for seed in range(500, 506):
        label = tabletop.reset(seed).objects[0].label
        found.append(bundled().point(tabletop.render().color, f"the {label}"))
    tabletop.close()
    return found


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
            assert point.index == index and point.label in pointing.answer
            assert 0 <= point.u <= 639 and 0 <= point.v <= 479
        assert pointing.durations.decode_s > 0 and pointing.durations.vision_s > 0


def test_greedy_decoding_is_what_generate_does() -> None:
    pointer = bundled()
    inputs = pointer.processor(images=picture(), text=pointing_prompt("the red cube"))
    tokens = pointer.model.generate(
        **inputs, max_new_tokens=192, do_sample=False, eos_token_id=pointer.processor.eos_token_id
    )
    answer = pointer.processor.decode(tokens[0, inputs["input_ids"].shape[1] :])
    assert pointer.point(picture(), "the red cube").answer == answer


def test_no_gradients_are_kept() -> None:
    bundled().point(picture(), "the red cube")
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in bundled().model.parameters())
