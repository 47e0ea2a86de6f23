"""Fewer calls, the same sums."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Olmo2Config, Olmo2Model, Qwen2Config, Qwen2Model

from molmo_ros.molmo.key_values import PlaceWriter, PrefixWriter, Slots, SpanWriter
from molmo_ros.molmo.lean_layers import LeanLayers, can_be_lean
from molmo_ros.molmo.packing import LEAST_WEIGHTS

SIZES: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 40, "max_position_embeddings": 64,
}  # fmt: skip
VARIANTS: dict[str, Any] = {
    "qwen2": lambda **more: Qwen2Model(Qwen2Config(**{**SIZES, **more})),
    "olmo2": lambda **more: Olmo2Model(Olmo2Config(**{**SIZES, **more})),
}


def random_model(family: str, **sizes: Any) -> Any:
    torch.manual_seed(1)
    model = VARIANTS[family](**sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1) * 0.5)
    return model


def native(model: Any, embeds: torch.Tensor, places: torch.Tensor, store: Any, mask: Any) -> torch.Tensor:
    turned = model.rotary_emb(embeds, places)
    for layer in model.layers:
        embeds = layer(
            embeds, attention_mask=mask, position_embeddings=turned, past_key_values=store, use_cache=True
        )
    return embeds


@pytest.mark.parametrize("family", VARIANTS)
@pytest.mark.parametrize("heads", [(6, 2), (6, 6), (4, 1)])
@pytest.mark.parametrize(("rows", "new"), [(1, 1), (1, 7), (3, 1), (3, 5)])
@torch.inference_mode()
def test_lean_layers_compute_what_the_native_ones_do(
    family: str, heads: tuple[int, int], rows: int, new: int
) -> None:
    model = random_model(family, num_attention_heads=heads[0], num_key_value_heads=heads[1])
    head = nn.Linear(48, 40, bias=False)
    lean = LeanLayers(model, head, 64)
    prefix, embeds = torch.randn(rows, 9, 48), torch.randn(rows, new, 48)
    results = []
    for way in (partial(native, model), partial(lean, before_layer=lambda: None)):
        slots = Slots(rows, 32)
        first = way(prefix, torch.arange(9)[None].expand(rows, -1), SpanWriter(slots, 0), None)
        places = torch.arange(9, 9 + new)[None].expand(rows, -1)
        behind = torch.arange(9 + new) > places[:, None, :, None]
        mask = None if new == 1 else torch.where(behind, -torch.inf, torch.zeros(()))
        results.append((first, way(embeds, places, PlaceWriter(slots, places, 9 + new), mask)))
    for ours, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)
    hidden = results[0][1][0]
    torch.testing.assert_close(lean.logits(hidden), head(model.norm(hidden)), atol=2e-4, rtol=2e-4)


def test_a_prefix_is_kept_as_the_native_layers_would_keep_it() -> None:
    model = random_model("qwen2")
    lean = LeanLayers(model, nn.Linear(48, 40, bias=False), 64)
    embeds, places = torch.randn(1, 11, 48), torch.arange(11)[None]
    ours, theirs = PrefixWriter(99), PrefixWriter(99)
    with torch.inference_mode():
        lean(embeds, places, ours, None, lambda: None)
        native(model, embeds, places, theirs, None)
    for mine, other in zip([*ours.keys, *ours.values], [*theirs.keys, *theirs.values], strict=True):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=2e-4)


def test_only_small_plain_float32_layers_are_lean() -> None:
    assert can_be_lean(random_model("qwen2"))
    assert not can_be_lean(random_model("qwen2").to(torch.bfloat16))
    assert not can_be_lean(random_model("qwen2", intermediate_size=LEAST_WEIGHTS // 48 + 1))
    assert not can_be_lean(random_model("qwen2", hidden_act="gelu"))
    assert not can_be_lean(
        random_model("qwen2", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    )
    wrapped = random_model("qwen2")
    wrapped.layers[1].mlp.up_proj = nn.Sequential(wrapped.layers[1].mlp.up_proj)
    assert not can_be_lean(wrapped)
