"""Released names in, released names out: the layout on disk of all four families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.core_model_loading import revert_weight_conversion

from molmo_ros.molmo import MolmoConfig, MolmoForConditionalGeneration

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
FAMILIES = ("D", "O", "E", "72B")

every_family = pytest.mark.parametrize("family", FAMILIES)

#: What differs between a file of the release and ours on purpose.
NOT_KEPT = {"architectures", "auto_map", "torch_dtype", "transformers_version", "vision_backbone"}

_7B: dict[str, Any] = {"model_type": "molmo", "max_position_embeddings": 4096, "layer_norm_type": "rms"}
RELEASED: dict[str, dict[str, Any]] = {
    "Molmo-7B-D-0924": _7B
    | {
        "vocab_size": 152064, "embedding_size": 152064, "hidden_size": 3584, "intermediate_size": 37888,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "layer_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "qkv_bias": True, "norm_after": False, "attention_layer_norm": False,
    },
    "Molmo-7B-O-0924": _7B
    | {
        "vocab_size": 100278, "embedding_size": 100352, "hidden_size": 4096, "intermediate_size": 22016,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None, "layer_norm_eps": 1e-6,
        "rope_theta": 500000.0, "qkv_bias": False, "norm_after": True, "attention_layer_norm": True,
    },
    "Molmo-72B-0924": _7B
    | {
        "vocab_size": 152064, "embedding_size": 152064, "hidden_size": 8192, "intermediate_size": 59136,
        "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "layer_norm_eps": 1e-5,
        "rope_theta": 1000000.0, "qkv_bias": True, "norm_after": False, "attention_layer_norm": False,
    },
    "MolmoE-1B-0924": {
        "model_type": "molmo", "d_model": 2048, "n_heads": 16, "n_kv_heads": None, "n_layers": 16, "mlp_ratio": 1,
        "mlp_hidden_size": None, "activation_type": "swiglu", "block_type": "moe", "moe_num_experts": 64,
        "moe_top_k": 8, "attention_layer_norm": True, "layer_norm_type": "rms", "layer_norm_eps": 1e-5,
        "norm_after": False, "qkv_bias": False, "rope_theta": 10000.0, "vocab_size": 50280,
        "embedding_size": 50304, "additional_vocab_size": 128, "max_position_embeddings": 32768,
    },
}  # fmt: skip


def load(family: str) -> MolmoForConditionalGeneration:
    return MolmoForConditionalGeneration.from_pretrained(GOLDENS / family / "checkpoint").eval()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


@every_family
def test_saving_gives_the_released_names_and_the_same_bits(family: str, tmp_path: Path) -> None:
    load(family).save_pretrained(tmp_path)
    ours, theirs = weights(tmp_path), weights(GOLDENS / family / "checkpoint")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@every_family
def test_a_saved_configuration_has_the_released_spelling_and_loads_the_same(
    family: str, tmp_path: Path
) -> None:
    net = load(family)
    net.save_pretrained(tmp_path)
    ours = json.loads((tmp_path / "config.json").read_text())
    theirs = json.loads((GOLDENS / family / "checkpoint" / "config.json").read_text())
    # Where a release leaves a size to a default, the saved file spells it out.
    spelled_out = {key for key, value in theirs.items() if value is None}
    for key in theirs.keys() - NOT_KEPT - spelled_out:
        assert ours[key] == theirs[key], key
    for key, value in ours["vision_backbone"].items():
        assert theirs["vision_backbone"][key] == value, key
    again = MolmoForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert again.config.to_dict().keys() == net.config.to_dict().keys()
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(again(input_ids=ids).logits, net(input_ids=ids).logits, rtol=0, atol=0)


@every_family
def test_the_auto_classes_know_molmo(family: str) -> None:
    folder = GOLDENS / family / "checkpoint"
    assert AutoConfig.from_pretrained(folder).model_type == "molmo"
    assert isinstance(AutoModelForImageTextToText.from_pretrained(folder), MolmoForConditionalGeneration)


@pytest.mark.parametrize("release", RELEASED)
def test_a_release_has_exactly_its_published_tensors(release: str) -> None:
    """Names, shapes and totals of the real checkpoints, from their config.json alone; nothing is allocated."""
    with torch.device("meta"):
        net = MolmoForConditionalGeneration(MolmoConfig(**RELEASED[release]))
    ours = {name: list(t.shape) for name, t in revert_weight_conversion(net, net.state_dict()).items()}
    published = json.loads((GOLDENS / "official_shapes.json").read_text())[release]
    theirs = {}
    for pattern, about in published.items():
        if not isinstance(about, dict) or "shape" not in about:
            continue
        for index in range(about["count"]):
            experts = RELEASED[release].get("moe_num_experts", 1) if "{e}" in pattern else 1
            layer, expert = divmod(index, experts)
            theirs[pattern.replace("{i}", str(layer)).replace("{e}", str(expert))] = about["shape"]
    assert ours == theirs


def test_settings_that_no_release_has_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Molmo-7B-O has true, true, false"):
        AutoConfig.for_model("molmo", norm_after=True, qkv_bias=True)
    with pytest.raises(ValueError, match="block_type"):
        AutoConfig.for_model("molmo", d_model=64, block_type="sequential")
    with pytest.raises(ValueError, match="clip_qkv"):
        AutoConfig.for_model("molmo", clip_qkv=8.0)
