"""Weights laid out as the CPU's matrix kernels read them, once, instead of at every product.

The plain product of a few rows, such as a short chunk of tokens, spends more time on rearranging the weights
than on multiplying. oneDNN's packed layout takes that away: four to twelve rows then cost little more than one.
The numbers are those of the same weights in another order of summation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Smaller matrices stay in the cache, where the plain product is quicker.
LEAST_WEIGHTS = 1 << 18


class PackedLinear(nn.Module):
    """y = x W^T + b in float32 on a CPU, with W in oneDNN's layout. For inference only.

    It cannot be saved or copied: unpack it first.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.bias = linear.bias
        # The layout that oneDNN takes for any number of rows: measured from 1 to 741 none is quicker.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    @property
    def weight(self) -> Tensor:
        """[O, I] a plain copy of the weights."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return product

    def unpacked(self) -> nn.Linear:
        """The plain module again, bit for bit."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        linear.weight = nn.Parameter(self.weight, requires_grad=False)
        linear.bias = self.bias
        return linear

    def _save_to_state_dict(self, destination: object, prefix: str, keep_vars: bool) -> None:
        raise RuntimeError(
            f"{prefix}weight is packed for the CPU; call molmo.packing.unpack(model) before saving"
        )


def can_pack() -> bool:
    """Whether this build of torch has the kernels."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def pack(model: nn.Module) -> int:
    """Replace the large float32 linears on the CPU in place; how many. Does nothing where torch cannot."""
    if not can_pack():
        return 0
    found = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and module.weight.numel() >= LEAST_WEIGHTS
    ]
    for name in found:
        _replace(model, name, PackedLinear(model.get_submodule(name)))  # type: ignore[arg-type]
    return len(found)


def unpack(model: nn.Module) -> None:
    """Undo `pack`."""
    for name, module in list(model.named_modules()):
        if isinstance(module, PackedLinear):
            _replace(model, name, module.unpacked())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
