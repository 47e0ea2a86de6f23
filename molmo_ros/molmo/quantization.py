"""A smaller language model for CPUs: weights in 8 or 4 bits, arithmetic in floating point.

Only the language model's layers are made smaller, mixture-of-experts layers included. The image side, the
embeddings and the output head keep their precision: points are read from fine differences there. The matrix
products are torch's own packed ones, which read the small weights directly; on a GPU give `from_pretrained` one
of transformers' `quantization_config`s instead.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from .modeling import MolmoForConditionalGeneration

Quantization = Literal["none", "int8", "int4"]
QUANTIZATIONS: tuple[Quantization, ...] = ("none", "int8", "int4")

#: From this many rows on, plain arithmetic on weights unpacked for the moment is faster than the packed product.
MANY_ROWS = 16

#: Weights that share a scale and a zero point in 4 bits: 0.5 + 4 / 64 = 0.5625 bytes a weight.
GROUP = 64


class Int8Linear(nn.Module):
    """y = x W^T + b with W in 8 bits and one scale for each output (symmetric, largest value = 127)."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        super().__init__()
        weight = weight_OI.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127.0
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        # With other sizes the bfloat16 kernel reads beyond its rows.
        self.in_bfloat16 = weight.shape[0] % 16 == 0 and weight.shape[1] % 64 == 0
        self.bias = None if bias_O is None else nn.Parameter(bias_O.detach().float(), requires_grad=False)

    def dequantized(self) -> Tensor:
        """[O, I] the weights as they take part in the product."""
        return self.weight.float() * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) < MANY_ROWS and self.in_bfloat16:
            # The kernel is several times quicker for bfloat16 rows; scaling behind it keeps the scales exact.
            rows = rows.bfloat16().contiguous()
            whole = torch._weight_int8pack_mm(rows, self.weight, rows.new_ones(len(self.scale)))
            product = whole.float() * self.scale
        elif len(rows) < MANY_ROWS:
            product = torch._weight_int8pack_mm(rows.float().contiguous(), self.weight, self.scale)
        else:
            product = F.linear(rows.float(), self.dequantized())
        y = product if self.bias is None else product + self.bias
        return y.to(x.dtype).reshape(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    """y = x W^T + b with W in 4 bits, `GROUP` inputs sharing a scale and a zero point (bfloat16).

    Raises:
        ValueError: sizes that the packed product does not take; see `fits`.
    """

    packed: Tensor
    scales_and_zeros: Tensor

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        super().__init__()
        if not self.fits(weight_OI):
            raise ValueError(
                f"4 bits need inputs in groups of {GROUP} and outputs in sixteens, not {weight_OI.shape}"
            )
        outputs, inputs = weight_OI.shape
        groups = weight_OI.detach().float().reshape(outputs, inputs // GROUP, GROUP)
        low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
        scale = ((high - low).clamp(min=1e-8) / 15.0).bfloat16().float()
        # The product computes (q - 8) * scale + zero.
        zero = (low + 8 * scale).bfloat16().float()
        levels = ((groups - zero) / scale + 8).round().clamp(0, 15).to(torch.int32).reshape(outputs, inputs)
        packed = torch._convert_weight_to_int4pack_for_cpu(levels, 1)
        both = torch.cat([scale, zero], dim=2).permute(1, 0, 2).contiguous().bfloat16()
        self.register_buffer("packed", packed)
        self.register_buffer("scales_and_zeros", both)
        self.bias = None if bias_O is None else nn.Parameter(bias_O.detach().float(), requires_grad=False)

    @staticmethod
    def fits(weight_OI: Tensor) -> bool:
        return weight_OI.shape[1] % GROUP == 0 and weight_OI.shape[0] % 16 == 0

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16().contiguous()
        product = torch._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales_and_zeros).float()
        y = product if self.bias is None else product + self.bias
        return y.to(x.dtype).reshape(*x.shape[:-1], -1)


class QuantizedExperts(nn.Module):
    """The experts of a mixture-of-experts layer, each with small weights; called as `OlmoeExperts` is."""

    def __init__(self, experts: OlmoeExperts, bits: Quantization) -> None:
        super().__init__()
        self.act_fn = experts.act_fn
        self.gate_up = nn.ModuleList(quantized_linear(weight, None, bits) for weight in experts.gate_up_proj)
        self.down = nn.ModuleList(quantized_linear(weight, None, bits) for weight in experts.down_proj)

    def forward(self, hidden_ND: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
        out = torch.zeros_like(hidden_ND)
        for expert in chosen_NK.unique().tolist():
            token, place = torch.where(chosen_NK == expert)
            gate, up = self.gate_up[expert](hidden_ND[token]).chunk(2, dim=-1)
            answer = self.down[expert](self.act_fn(gate) * up) * weights_NK[token, place, None]
            out.index_add_(0, token, answer.to(out.dtype))
        return out


def quantized_linear(weight_OI: Tensor, bias_O: Tensor | None, bits: Quantization) -> Int8Linear | Int4Linear:
    """The smallest of ours that takes these sizes: 4 bits fall back to 8 where the groups do not come out even."""
    if bits == "int4" and Int4Linear.fits(weight_OI):
        return Int4Linear(weight_OI, bias_O)
    return Int8Linear(weight_OI, bias_O)


def quantize(model: MolmoForConditionalGeneration, bits: Quantization) -> None:
    """Replace the linears of the language model in place, one after the other, so that memory only shrinks.

    Raises:
        ValueError: unknown `bits`, or a model that is not on a CPU.
    """
    if bits not in QUANTIZATIONS:
        raise ValueError(f"quantization {bits!r} is not one of {', '.join(QUANTIZATIONS)}")
    if bits == "none":
        return
    if model.device.type != "cpu":
        raise ValueError(
            f"{bits} weights are for CPUs and this model is on {model.device}; on a GPU load it with "
            "from_pretrained(..., quantization_config=...) of transformers"
        )
    for name, module in list(model.model.language_model.named_modules()):
        parent = model.model.language_model.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Linear):
            setattr(parent, leaf, quantized_linear(module.weight, module.bias, bits))
        elif isinstance(module, OlmoeExperts):
            setattr(parent, leaf, QuantizedExperts(module, bits))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
