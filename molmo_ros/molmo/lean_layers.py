"""A small language model's layers with fewer calls.

In a small model a token costs calls, not arithmetic: a layer of 256 channels multiplies for some 40 us on a core
and spends several times as long on getting from one operation to the next. The same sums are done here with a
third of the operations: products that share their input are one, the turning of queries and keys is one, and
norms are torch's own. The numbers differ from the native layers' by the order of summation.

Shapes in names: B rows, L new tokens, D width, H heads, E size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import SiLUActivation
from transformers.models.olmo2.modeling_olmo2 import Olmo2DecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from .key_values import KeyValueStore
from .packing import LEAST_WEIGHTS

_LAYERS = (Qwen2DecoderLayer, Olmo2DecoderLayer)


class LeanLayers:
    """The layers of a small Qwen2 or Olmo2 model in float32 on a CPU; `can_be_lean` says of which.

    Weights are read once, here: make it again when they have changed.
    """

    def __init__(self, language_model: Any, head: nn.Linear, context: int) -> None:
        self._head = _Product([head], language_model.norm)
        self._layers = [_LeanLayer(layer, index) for index, layer in enumerate(language_model.layers)]
        cos, sin = language_model.rotary_emb(language_model.norm.weight, torch.arange(context)[None])
        half = sin.shape[-1] // 2
        # Half a turn of the channels exchanges the two of each pair; the sign that belongs to it is in the sine.
        self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)

    def __call__(
        self,
        embeds_BLD: Tensor,
        places_BL: Tensor,
        store: KeyValueStore,
        mask: Tensor | None,
        before_layer: Callable[[], None],
    ) -> Tensor:
        """Hidden states [B, L, D] before the final norm; see `Engine._through_layers`."""
        cos, sin = self._cos[places_BL][:, :, None], self._sin[places_BL][:, :, None]
        rows = len(embeds_BLD)
        hidden_ND = embeds_BLD.flatten(0, 1)
        for layer in self._layers:
            before_layer()
            hidden_ND = layer(hidden_ND, rows, cos, sin, store, mask)
        return hidden_ND.view(embeds_BLD.shape)

    def logits(self, hidden_LD: Tensor) -> Tensor:
        """[L, V]"""
        return self._head(hidden_LD)


def can_be_lean(language_model: Any) -> bool:
    """Whether these layers are known, small, plain and on the CPU, so that calls are what they cost."""
    rope = getattr(language_model.config, "rope_parameters", None) or {}
    return rope.get("rope_type", "default") == "default" and all(
        type(layer) in _LAYERS and _is_plain(layer) for layer in language_model.layers
    )


def _is_plain(layer: Any) -> bool:
    attention, mlp = layer.self_attn, layer.mlp
    linears = [
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    ]
    return (
        # accelerate's hooks, which fetch weights from elsewhere
        not any(hasattr(module, "_hf_hook") for module in layer.modules())
        and isinstance(mlp.act_fn, (nn.SiLU, SiLUActivation))
        and getattr(attention, "sliding_window", None) is None
        and all(
            type(linear) is nn.Linear
            and linear.weight.dtype == torch.float32
            and linear.weight.device.type == "cpu"
            and linear.weight.numel() < LEAST_WEIGHTS
            for linear in linears
        )
    )


class _LeanLayer:
    """One layer: Qwen2 has its norms before attention and MLP, Olmo2 behind them and on queries and keys too."""

    def __init__(self, layer: Any, index: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._index = index
        self._head_size, self._scale = int(attention.head_dim), float(attention.scaling)
        self._group = int(attention.num_key_value_groups)
        self._key_heads = attention.k_proj.out_features // self._head_size
        before_attention = before_mlp = after_attention = after_mlp = None
        if isinstance(layer, Qwen2DecoderLayer):
            before_attention, before_mlp = layer.input_layernorm, layer.post_attention_layernorm
        else:
            after_attention, after_mlp = layer.post_attention_layernorm, layer.post_feedforward_layernorm
        self._qkv = _Product([attention.q_proj, attention.k_proj, attention.v_proj], before_attention)
        self._gate_up = _Product([mlp.gate_proj, mlp.up_proj], before_mlp)
        self._o, self._down = _Product([attention.o_proj]), _Product([mlp.down_proj])
        self._after_attention, self._after_mlp = _norm(after_attention), _norm(after_mlp)
        self._q_norm, self._k_norm = (
            _norm(getattr(attention, name, None)) for name in ("q_norm", "k_norm")
        )

    def __call__(
        self,
        hidden_ND: Tensor,
        rows: int,
        cos: Tensor,
        sin: Tensor,
        store: KeyValueStore,
        mask: Tensor | None,
    ) -> Tensor:
        attended = self._o(self._attend(self._qkv(hidden_ND), rows, cos, sin, store, mask))
        hidden_ND = hidden_ND + _normed(attended, self._after_attention)
        gate, up = self._gate_up(hidden_ND).chunk(2, dim=-1)
        return hidden_ND + _normed(self._down(F.silu(gate) * up), self._after_mlp)

    def _attend(
        self,
        qkv: Tensor,
        rows: int,
        cos: Tensor,
        sin: Tensor,
        store: KeyValueStore,
        mask: Tensor | None,
    ) -> Tensor:
        size, shared, new = self._head_size, self._key_heads, len(qkv) // rows
        if self._q_norm is not None:
            kept = shared * size
            q, k = qkv[:, : -2 * kept], qkv[:, -2 * kept : -kept]
            qkv = torch.cat([_normed(q, self._q_norm), _normed(k, self._k_norm), qkv[:, -kept:]], dim=-1)
        heads_BLHE = qkv.view(rows, new, -1, size)
        qk = heads_BLHE[:, :, :-shared]
        qk = torch.addcmul(qk * cos, qk.roll(size // 2, -1), sin)
        q, k = qk[:, :, :-shared], qk[:, :, -shared:]
        keys, values = store.update(k.transpose(1, 2), heads_BLHE[:, :, -shared:].transpose(1, 2), self._index)
        if new == 1:
            # The heads that share a key are its queries, which saves the copies of it.
            q = q.reshape(rows, shared, self._group, size)
            attended = F.scaled_dot_product_attention(q, keys, values, mask, scale=self._scale)
            return attended.reshape(rows, -1)
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys,
            values,
            mask,
            is_causal=mask is None,
            scale=self._scale,
            enable_gqa=self._group > 1,
        )
        return attended.transpose(1, 2).reshape(rows * new, -1)


@dataclass(frozen=True)
class _Norm:
    """A root-mean-square norm; `weight` None where it went into the product that follows."""

    weight: Tensor | None
    eps: Tensor
    share: float


def _norm(norm: Any, *, folded: bool = False) -> _Norm | None:
    if norm is None:
        return None
    weight = norm.weight.detach()
    return _Norm(None if folded else weight, weight.new_tensor(norm.variance_epsilon), 1.0 / len(weight))


def _normed(x: Tensor, norm: _Norm | None) -> Tensor:
    if norm is None:
        return x
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    x = x * torch.addcmul(norm.eps, length, length, value=norm.share).rsqrt()
    return x if norm.weight is None else x * norm.weight


class _Product:
    """Linears of one input, normed before, as one product; their results lie side by side."""

    def __init__(self, linears: Sequence[nn.Linear], norm: Any = None) -> None:
        self._norm = _norm(norm, folded=True)
        weight_OI = torch.cat([linear.weight.detach() for linear in linears])
        if norm is not None:
            weight_OI = weight_OI * norm.weight.detach()
        # Laid out for rows times matrix, which for one row is a third quicker than the other way.
        self._weight_IO = weight_OI.t().contiguous()
        self._bias = None
        if any(linear.bias is not None for linear in linears):
            self._bias = torch.cat(
                [
                    linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
                    for linear in linears
                ]
            )

    def __call__(self, x_NI: Tensor) -> Tensor:
        x_NI = _normed(x_NI, self._norm)
        if self._bias is None:
            return torch.mm(x_NI, self._weight_IO)
        return torch.addmm(self._bias, x_NI, self._weight_IO)
