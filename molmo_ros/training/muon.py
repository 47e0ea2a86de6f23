"""Muon (Jordan et al. 2024) with the products in the precision that the CPU is fast in.

`torch.optim.Muon` always computes its Newton-Schulz steps in bfloat16. A CPU without bfloat16 products takes many times
as long for them as in float32: of the bundled model some 20 s a step instead of one or two.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

#: Of the quintic Newton-Schulz step, as `torch.optim.Muon` has them by default.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for 2D parameters. The same as `torch.optim.Muon` with
    `adjust_lr_fn="match_rms_adamw"`, whose saved state it reads, but for `in_bfloat16`."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float,
        weight_decay: float,
        in_bfloat16: bool,
        momentum: float = 0.95,
    ) -> None:
        matrices = list(parameters)
        wrong = [tuple(p.shape) for p in matrices if p.ndim != 2]
        if wrong:
            raise ValueError(f"Muon is for matrices; parameters of shapes {wrong} go to another optimiser")
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = torch.bfloat16 if in_bfloat16 else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients that there are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                average = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(average, group["momentum"])  # Nesterov
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                # An orthogonal step is as large as one of AdamW with this factor (Liu et al. 2025).
                rate = group["lr"] * 0.2 * max(parameter.shape) ** 0.5
                parameter.add_(orthogonal(ahead, self._dtype), alpha=-rate)


def has_bfloat16_products() -> bool:
    """Whether this CPU multiplies bfloat16 itself; one that does not takes many times as long as in float32."""
    return any(name.endswith("bf16") and here is True for name, here in torch.cpu.get_capabilities().items())


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About the U V^T of a matrix U S V^T: its singular values brought to between 0.5 and 1.5."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype, copy=True)
    x.div_(x.norm().clamp(min=1e-7))
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if tall else x
