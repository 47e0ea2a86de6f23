"""The language model's part of a released config.json, in transformers' terms and back.

Two spellings exist: a flat one (Molmo-7B-D, 7B-O, 72B) and that of the training code (MolmoE-1B). In both,
`vocab_size` counts the tokenizer's words while the tables have `embedding_size` rows, and the feed-forward's
width is given as both halves of the gated layer together.
"""

from __future__ import annotations

from typing import Any

from transformers import Olmo2Config, OlmoeConfig, PreTrainedConfig, Qwen2Config


def text_config_of(released: dict[str, Any]) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """The language model of a released configuration, and the keys that say nothing about it.

    Raises:
        ValueError: a combination of settings that none of the released families has.
    """
    rest = dict(released)
    if "d_model" in rest:
        return _olmoe_of(rest), rest
    return _olmo2_or_qwen2_of(rest), rest


def released_spelling(text: PreTrainedConfig) -> dict[str, Any]:
    """The keys of a released config.json that describe this language model."""
    if isinstance(text, OlmoeConfig):
        return {
            "d_model": text.hidden_size,
            "n_heads": text.num_attention_heads,
            "n_kv_heads": text.num_key_value_heads,
            "n_layers": text.num_hidden_layers,
            "mlp_hidden_size": 2 * text.intermediate_size,
            "moe_num_experts": text.num_experts,
            "moe_top_k": text.num_experts_per_tok,
            "max_position_embeddings": text.max_position_embeddings,
            "layer_norm_eps": text.rms_norm_eps,
            "rope_theta": _rope_theta(text),
            "vocab_size": text.vocab_size,
            "clip_qkv": text.clip_qkv,
            "use_cache": text.use_cache,
            **_OLMOE_ALWAYS,
        }
    assert isinstance(text, (Olmo2Config, Qwen2Config))
    is_olmo2 = isinstance(text, Olmo2Config)
    return {
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": 2 * text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "max_position_embeddings": text.max_position_embeddings,
        "layer_norm_type": "rms",
        "layer_norm_eps": text.rms_norm_eps,
        "rope_theta": _rope_theta(text),
        "qkv_bias": not is_olmo2,
        "attention_layer_norm": is_olmo2,
        "norm_after": is_olmo2,
        "clip_qkv": None,
        "use_cache": text.use_cache,
        "use_position_ids": True,
    }


def _olmo2_or_qwen2_of(rest: dict[str, Any]) -> Olmo2Config | Qwen2Config:
    """Takes the flat keys out of `rest`. The defaults are Molmo-7B-D's."""
    norm_after = bool(rest.pop("norm_after", False))
    query_key_norm = bool(rest.pop("attention_layer_norm", norm_after))
    biases = bool(rest.pop("qkv_bias", not norm_after))
    if (norm_after, query_key_norm, biases) not in ((True, True, False), (False, False, True)):
        raise ValueError(
            f"norm_after {norm_after}, attention_layer_norm {query_key_norm} and qkv_bias {biases} fit no released "
            "family: Molmo-7B-O has true, true, false; Molmo-7B-D and Molmo-72B have false, false, true"
        )
    _refuse_settings(rest)
    heads = rest.pop("num_attention_heads", 28)
    common: dict[str, Any] = {
        "vocab_size": rest.pop("vocab_size", 152064),
        "hidden_size": rest.pop("hidden_size", 3584),
        "intermediate_size": rest.pop("intermediate_size", 37888) // 2,
        "num_hidden_layers": rest.pop("num_hidden_layers", 28),
        "num_attention_heads": heads,
        "num_key_value_heads": rest.pop("num_key_value_heads", None if norm_after else 4) or heads,
        "max_position_embeddings": rest.pop("max_position_embeddings", 4096),
        "rms_norm_eps": rest.pop("layer_norm_eps", 1e-6),
        "rope_parameters": _rope(rest.pop("rope_theta", 1_000_000.0)),
        "use_cache": rest.pop("use_cache", True),
        "tie_word_embeddings": False,
    }
    for key in ("auto_map", "layer_norm_type", "use_position_ids"):
        rest.pop(key, None)
    if norm_after:
        return Olmo2Config(**common, pad_token_id=None, eos_token_id=None)
    return Qwen2Config(**common)


#: What every mixture-of-experts release has, in the training code's words.
_OLMOE_ALWAYS = {
    "attention_layer_norm": True,
    "activation_type": "swiglu",
    "block_type": "moe",
    "layer_norm_type": "rms",
    "moe_shared_expert": False,
    "norm_after": False,
    "qkv_bias": False,
    "include_bias": False,
    "rope": True,
}


def _olmoe_of(rest: dict[str, Any]) -> OlmoeConfig:
    """Takes the keys of the training spelling out of `rest`. The defaults are MolmoE-1B's."""
    for key, value in _OLMOE_ALWAYS.items():
        if rest.pop(key, value) != value:
            raise ValueError(
                f"{key} is not {value!r}, as it is in MolmoE-1B, the one release in this spelling"
            )
    clip = rest.pop("clip_qkv", None)
    _refuse_settings(rest)
    size, heads = rest.pop("d_model"), rest.pop("n_heads", 16)
    both_halves = rest.pop("mlp_hidden_size", None) or int(rest.get("mlp_ratio", 1) * size)
    kv_heads = 1 if rest.get("multi_query_attention") else rest.pop("n_kv_heads", None)
    rest.pop("auto_map", None), rest.pop("n_kv_heads", None)
    return OlmoeConfig(
        vocab_size=rest.pop("vocab_size", 50280),
        hidden_size=size,
        intermediate_size=both_halves // 2,
        num_hidden_layers=rest.pop("n_layers", 16),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads,
        max_position_embeddings=rest.pop("max_position_embeddings", 32768),
        rms_norm_eps=rest.pop("layer_norm_eps", 1e-5),
        rope_parameters=_rope(rest.pop("rope_theta", 10_000.0)),
        num_experts=rest.pop("moe_num_experts", 64),
        num_experts_per_tok=rest.pop("moe_top_k", 8),
        norm_topk_prob=False,
        clip_qkv=clip,
        use_cache=rest.pop("use_cache", True),
        pad_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )


def _refuse_settings(rest: dict[str, Any]) -> None:
    """Settings that would change the numbers and that no release uses."""
    for key, usual in (
        ("clip_qkv", None),
        ("layer_norm_type", "rms"),
        ("alibi", False),
        ("scale_logits", False),
    ):
        if rest.get(key, usual) != usual:
            raise ValueError(
                f"{key} is {rest[key]!r}; every released Molmo has {usual!r}, and so has this code"
            )


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": float(theta)}


def _rope_theta(text: PreTrainedConfig) -> float:
    return float(text.rope_parameters["rope_theta"])
