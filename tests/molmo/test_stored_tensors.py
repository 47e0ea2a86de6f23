"""Which checkpoints are read instead of mapped, and that what is read is what is stored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from molmo_ros.molmo.stored_tensors import stored_tensors, without_threads


def test_tensors_that_change_their_type_are_read_one_by_one(tmp_path: Path) -> None:
    stored = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    save_file({"a": stored["a"]}, tmp_path / "1.safetensors")
    save_file({"b": stored["b"]}, tmp_path / "2.safetensors")
    files = [str(tmp_path / f"{number}.safetensors") for number in (1, 2)]
    with stored_tensors(files, torch.bfloat16) as (slices, mapped):
        assert slices is not None and not mapped
        assert {name: part[...].tolist() for name, part in slices.items()} == {
            name: value.tolist() for name, value in stored.items()
        }


def test_tensors_that_keep_their_type_stay_mapped(tmp_path: Path) -> None:
    save_file({"a": torch.randn(3, 4), "ids": torch.arange(3)}, tmp_path / "1.safetensors")
    with stored_tensors([str(tmp_path / "1.safetensors")], torch.float32) as (slices, mapped):
        assert slices is not None and set(slices) == {"a", "ids"} and mapped


def test_other_files_and_no_files_are_left_to_transformers(tmp_path: Path) -> None:
    for files in (None, [], [str(tmp_path / "pytorch_model.bin")]):
        with stored_tensors(files, torch.bfloat16) as (slices, mapped):
            assert slices is None and not mapped


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_the_switch_for_threads_is_as_it_was_afterwards(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "HF_DEACTIVATE_ASYNC_LOAD"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)

    def load() -> None:
        with without_threads():
            assert os.environ[name] == "1"
            raise KeyError

    with pytest.raises(KeyError):
        load()
    assert os.environ.get(name) == before
