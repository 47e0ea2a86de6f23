"""The four releases of Molmo v1: their configurations, and how much memory their weights take.

    python -m molmo_ros.molmo.releases        # the memory table of docs/models.md

The configurations are those of the released config.json files, as far as they describe the model.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import torch
from torch import nn
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from .config import MolmoConfig
from .modeling import MolmoForConditionalGeneration
from .quantization import GROUP

_FLAT: dict[str, Any] = {"max_position_embeddings": 4096, "layer_norm_type": "rms"}
_QWEN2: dict[str, Any] = _FLAT | {
    "vocab_size": 152064, "embedding_size": 152064, "rope_theta": 1000000.0, "qkv_bias": True, "norm_after": False,
    "attention_layer_norm": False,
}  # fmt: skip

RELEASES: dict[str, dict[str, Any]] = {
    "MolmoE-1B-0924": {
        "d_model": 2048, "n_heads": 16, "n_kv_heads": None, "n_layers": 16, "mlp_ratio": 1, "mlp_hidden_size": None,
        "activation_type": "swiglu", "block_type": "moe", "moe_num_experts": 64, "moe_top_k": 8,
        "attention_layer_norm": True, "layer_norm_type": "rms", "layer_norm_eps": 1e-5, "norm_after": False,
        "qkv_bias": False, "rope_theta": 10000.0, "vocab_size": 50280, "embedding_size": 50304,
        "max_position_embeddings": 32768,
    },
    "Molmo-7B-O-0924": _FLAT
    | {
        "vocab_size": 100278, "embedding_size": 100352, "hidden_size": 4096, "intermediate_size": 22016,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None, "layer_norm_eps": 1e-6,
        "rope_theta": 500000.0, "qkv_bias": False, "norm_after": True, "attention_layer_norm": True,
    },
    "Molmo-7B-D-0924": _QWEN2
    | {
        "hidden_size": 3584, "intermediate_size": 37888, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "layer_norm_eps": 1e-6,
    },
    "Molmo-72B-0924": _QWEN2
    | {
        "hidden_size": 8192, "intermediate_size": 59136, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "layer_norm_eps": 1e-5,
    },
}  # fmt: skip

#: How weights are held: everything in one number format, or the language model's layers in 8 or 4 bits and the
#: rest in float32.
Format = Literal["float32", "bfloat16", "int8", "int4"]
FORMATS: tuple[Format, ...] = ("float32", "bfloat16", "int8", "int4")


def weight_bytes_of(config: MolmoConfig, held_as: Format) -> int:
    """Bytes of all weights, from their shapes alone; nothing is allocated."""
    with torch.device("meta"):
        model = MolmoForConditionalGeneration(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    if held_as in ("float32", "bfloat16"):
        return count * (4 if held_as == "float32" else 2)
    small, small_bytes = 0, 0
    for module in model.model.language_model.modules():
        matrices: list[torch.Tensor] = []
        if isinstance(module, nn.Linear):
            matrices = [module.weight]
        elif isinstance(module, OlmoeExperts):
            matrices = [*module.gate_up_proj, *module.down_proj]
        for matrix in matrices:
            outputs, inputs = matrix.shape
            small += outputs * inputs
            four_bits = held_as == "int4" and inputs % GROUP == 0 and outputs % 16 == 0
            # 4 bits: a scale and a zero point in bfloat16 for each group; 8 bits: a float32 scale for each row.
            small_bytes += outputs * inputs // 2 + 4 * outputs * (inputs // GROUP) if four_bits else 0
            small_bytes += 0 if four_bits else outputs * inputs + 4 * outputs
    return small_bytes + 4 * (count - small)


def memory_table() -> str:
    """Markdown: gigabytes (10^9) of the weights of every release in every format."""
    lines = [
        "| release | parameters | " + " | ".join(FORMATS) + " |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, settings in RELEASES.items():
        config = MolmoConfig(**settings)
        count = weight_bytes_of(config, "bfloat16") // 2
        sizes = " | ".join(f"{weight_bytes_of(config, held_as) / 1e9:.1f} GB" for held_as in FORMATS)
        lines.append(f"| {name} | {count / 1e9:.2f} G | {sizes} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(memory_table())
