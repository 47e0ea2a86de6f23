"""Our Muon is torch's, in the precision that is asked for."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from molmo_ros.training.muon import Muon, orthogonal


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape) * 0.1) for shape in ((24, 40), (40, 24), (16, 16))]


def taught(
    optimiser: torch.optim.Optimizer, matrices: list[torch.nn.Parameter], steps: int, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=chance)
        optimiser.step()


def test_in_bfloat16_it_is_torchs_and_goes_on_from_its_state() -> None:
    theirs, ours = parameters(), parameters()
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimiser = Muon(ours, lr=0.01, weight_decay=0.1, in_bfloat16=True)
    taught(reference, theirs, 3, seed=1)
    taught(optimiser, ours, 3, seed=1)
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    optimiser.load_state_dict(deepcopy(reference.state_dict()))
    taught(reference, theirs, 2, seed=2)
    taught(optimiser, ours, 2, seed=2)
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_in_float32_it_is_the_same_but_for_rounding() -> None:
    theirs, ours = parameters(), parameters()
    taught(Muon(theirs, lr=0.01, weight_decay=0.1, in_bfloat16=True), theirs, 3, seed=1)
    taught(Muon(ours, lr=0.01, weight_decay=0.1, in_bfloat16=False), ours, 3, seed=1)
    for our, their, start in zip(ours, theirs, parameters(), strict=True):
        assert (our - their).norm() < 0.05 * (our - start).norm()
        assert not our.equal(their)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals(orthogonal(matrix, torch.float32))
    assert values.max() < 1.5 and values.median() > 0.5


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[\(3,\)\]"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1, weight_decay=0.0, in_bfloat16=False)
