"""Packed weights give the same numbers, come back bit for bit, and cannot be saved by mistake."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from molmo_ros.molmo.packing import LEAST_WEIGHTS, PackedLinear, can_pack, pack, unpack

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN kernels")


def block(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(512, 1024, bias=bias), nn.ReLU(), nn.Linear(1024, 512, bias=bias), nn.Linear(512, 8)
    )


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_products_with_packed_weights_are_those_of_the_plain_ones(rows: int, bias: bool) -> None:
    plain, x = block(bias).eval(), torch.randn(3, rows, 512)
    expected = plain(x)
    assert pack(plain) == 2
    assert isinstance(plain[0], PackedLinear)
    with torch.inference_mode():
        torch.testing.assert_close(plain(x), expected, atol=1e-5, rtol=1e-4)


def test_small_matrices_and_other_types_stay_as_they_are() -> None:
    small = nn.Linear(64, LEAST_WEIGHTS // 64 - 1)
    model = nn.ModuleDict({"small": small, "in_bfloat16": nn.Linear(1024, 1024, dtype=torch.bfloat16)})
    assert pack(model) == 0
    assert model["small"] is small


def test_unpacking_gives_every_bit_back() -> None:
    model = block()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pack(model)
    unpack(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_packed_model_refuses_to_be_saved() -> None:
    model = block()
    pack(model)
    with pytest.raises(RuntimeError, match=r"0\.weight is packed.*unpack"):
        model.state_dict()
