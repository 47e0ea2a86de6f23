"""Small weights: the arithmetic is that of the rounded weights, and only the language model is rounded."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.molmo.loading import CheckpointError, load_checkpoint
from molmo_ros.molmo.quantization import (
    GROUP,
    MANY_ROWS,
    Int4Linear,
    Int8Linear,
    Quantization,
    QuantizedExperts,
    quantize,
    quantized_linear,
    weight_bytes,
)

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
FAMILIES = ("D", "O", "E", "72B")

every_family = pytest.mark.parametrize("family", FAMILIES)


@cache
def exact(family: str) -> MolmoForConditionalGeneration:
    return MolmoForConditionalGeneration.from_pretrained(GOLDENS / family / "checkpoint").eval()


def small(family: str, bits: Quantization) -> MolmoForConditionalGeneration:
    model = copy.deepcopy(exact(family))
    quantize(model, bits)
    return model


def linear(outputs: int, inputs: int) -> nn.Linear:
    torch.manual_seed(outputs + inputs)
    return nn.Linear(inputs, outputs)


@pytest.mark.parametrize("rows", [1, 3, MANY_ROWS - 1, MANY_ROWS, 100])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (48, 192), (10, 33), (256, 80), (20, 64)])
def test_eight_bits_multiply_with_the_rounded_weights(rows: int, outputs: int, inputs: int) -> None:
    full = linear(outputs, inputs)
    ours, x = Int8Linear(full.weight, full.bias), torch.randn(2, rows, inputs)
    in_bfloat16 = 2 * rows < MANY_ROWS and outputs % 16 == 0 and inputs % 64 == 0
    seen = x.bfloat16().float() if in_bfloat16 else x
    product = nn.functional.linear(seen, ours.dequantized())
    # Eight bits of mantissa in and out for few rows, nothing lost for many.
    assert (
        (ours(x) - full.bias - product).abs() <= 1e-4 + (2**-8 if in_bfloat16 else 1e-4) * product.abs()
    ).all()
    step = full.weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((ours.dequantized() - full.weight).abs() <= 0.501 * step).all()


@pytest.mark.parametrize("rows", [1, 40])
def test_four_bits_multiply_with_weights_within_half_a_level(rows: int) -> None:
    full = linear(128, 4 * GROUP)
    ours, x = Int4Linear(full.weight, full.bias), torch.randn(rows, 4 * GROUP)
    groups = full.weight.reshape(128, 4, GROUP)
    level = (groups.amax(dim=2) - groups.amin(dim=2)) / 15
    # One input at a time shows the weight it is multiplied with.
    weights = (ours(torch.eye(4 * GROUP)) - full.bias).T.reshape(128, 4, GROUP)
    assert ((weights - groups).abs() <= 0.6 * level[..., None] + 0.01 * groups.abs().amax()).all()
    expected = nn.functional.linear(x, weights.reshape(128, -1), full.bias)
    assert (ours(x) - expected).abs().max() < 0.02 * expected.abs().max() + 0.02


def test_four_bits_take_at_most_six_tenths_of_a_byte_a_weight() -> None:
    full = nn.Linear(1024, 512, bias=False)
    assert weight_bytes(Int4Linear(full.weight)) <= 0.6 * full.weight.numel()
    assert weight_bytes(Int8Linear(full.weight)) <= 1.01 * full.weight.numel()


def test_sizes_that_four_bits_do_not_take_get_eight() -> None:
    assert isinstance(quantized_linear(torch.randn(64, 128), None, "int4"), Int4Linear)
    assert isinstance(quantized_linear(torch.randn(64, 100), None, "int4"), Int8Linear)


@pytest.mark.parametrize("bits", ["int8", "int4"])
@every_family
def test_every_linear_and_expert_of_the_language_model_and_nothing_else_is_rounded(
    family: str, bits: Quantization
) -> None:
    model, full = small(family, bits), exact(family)
    text = model.model.language_model
    assert not [name for name, module in text.named_modules() if isinstance(module, nn.Linear)]
    assert not [name for name, p in text.named_parameters() if "experts" in name]
    assert any(isinstance(m, QuantizedExperts) for m in text.modules()) == (family == "E")
    for part in ("vision_backbone", "wte"):
        theirs = getattr(full.model, part).state_dict()
        for name, value in getattr(model.model, part).state_dict().items():
            assert torch.equal(value, theirs[name]), name
    assert torch.equal(model.lm_head.weight, full.lm_head.weight)


@pytest.mark.parametrize(("bits", "correlation"), [("int8", 0.999), ("int4", 0.95)])
@every_family
def test_logits_stay_close_and_answers_are_generated(
    family: str, bits: Quantization, correlation: float
) -> None:
    processor = MolmoProcessor.from_pretrained(GOLDENS / family / "checkpoint")
    about = processor(Image.open(GOLDENS / "images" / "wide.png"), "Point to the red mug.")
    ours, theirs = small(family, bits)(**about).logits, exact(family)(**about).logits
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > correlation
    assert not torch.equal(ours, theirs)
    assert small(family, bits).generate(**about, max_new_tokens=4, min_new_tokens=4).shape[0] == 1


def test_a_checkpoint_folder_is_loaded_with_small_weights_on_request() -> None:
    folder = GOLDENS / "D" / "checkpoint"
    model, _ = load_checkpoint(folder, device="cpu", quantization="int8")
    assert weight_bytes(model.model.language_model) < 0.35 * weight_bytes(exact("D").model.language_model)
    with pytest.raises(CheckpointError, match="none, int8, int4"):
        load_checkpoint(folder, device="cpu", quantization="int2")
