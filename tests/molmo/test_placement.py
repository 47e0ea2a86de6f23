"""What goes straight from the files into the model, and that it is what transformers itself would have put there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping

from molmo_ros.molmo import MolmoConfig, MolmoForConditionalGeneration, modeling
from molmo_ros.molmo.placement import place_tensors

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
FAMILIES = ("D", "O", "E", "72B")
every_family = pytest.mark.parametrize("family", FAMILIES)


def on_meta(folder: Path) -> MolmoForConditionalGeneration:
    with torch.device("meta"):
        return MolmoForConditionalGeneration(MolmoConfig.from_pretrained(folder))


@contextmanager
def slices_of(folder: Path) -> Iterator[dict[str, Any]]:
    files = [safe_open(path, framework="pt") for path in folder.glob("*.safetensors")]
    yield {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118


def placed_in(folder: Path) -> tuple[MolmoForConditionalGeneration, set[str], dict[str, Any]]:
    net = on_meta(folder)
    with slices_of(folder) as stored:
        return net, *place_tensors(net, stored, get_model_conversion_mapping(net))


@every_family
def test_all_but_stacked_experts_goes_straight_into_the_model(family: str) -> None:
    net, placed, left = placed_in(GOLDENS / family / "checkpoint")
    assert placed == {name for name, value in net.named_parameters() if value.device.type == "cpu"}
    assert all(".experts." in name for name in left)
    assert bool(left) == (family == "E")
    assert set(dict(net.named_parameters())) - placed == (
        {
            f"model.language_model.layers.{layer}.mlp.experts.{name}"
            for layer in range(net.config.text_config.num_hidden_layers)
            for name in ("gate_up_proj", "down_proj")
        }
        if family == "E"
        else set()
    )


@every_family
def test_it_is_what_transformers_would_have_put_there(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = GOLDENS / family / "checkpoint"
    ours, ours_said = MolmoForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    monkeypatch.setattr(modeling, "place_tensors", lambda model, stored, mapping: (set(), stored))
    theirs, theirs_said = MolmoForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert ours_said == theirs_said
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    for name, parameter in ours.named_parameters():
        assert parameter.requires_grad == theirs.get_parameter(name).requires_grad, name


def test_placed_tensors_are_views_of_the_file_and_take_no_memory_of_their_own(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDENS / "D" / "checkpoint", tmp_path / "ours")
    net, placed, _ = placed_in(folder)
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if str(folder) in line]
    places = [net.get_parameter(name).data_ptr() for name in placed]
    assert all(any(int(low, 16) <= place < int(high, 16) for low, high in spans) for place in places)


def test_who_wants_nothing_mapped_gets_nothing_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling, "place_tensors", lambda *_: pytest.fail("tensors were placed"))
    folder = shutil.copytree(GOLDENS / "D" / "checkpoint", tmp_path / "ours")
    net = MolmoForConditionalGeneration.from_pretrained(folder, disable_mmap=True)
    assert not any(parameter.is_meta for parameter in net.parameters())
    assert str(folder) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value[:-1].clone(),
        lambda value: value.to(torch.bfloat16),
        lambda value: torch.zeros(3, *value.shape),
        lambda value: value.sum(),
    ],
    ids=["a row less", "another type", "a dimension more", "a number"],
)
@pytest.mark.parametrize("name", ["ln_f.weight", "blocks.0.att_proj.weight", "blocks.0.ff_out.weight"])
def test_what_does_not_fit_is_left(name: str, spoil: Any, tmp_path: Path) -> None:
    folder = GOLDENS / "D" / "checkpoint"
    stored = {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}
    name = f"model.transformer.{name}"
    stored[name] = spoil(stored[name])
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    net, placed, left = placed_in(tmp_path)
    assert set(left) == {name}
    missing = {name for name, value in net.named_parameters() if value.is_meta}
    assert missing == set(dict(net.named_parameters())) - placed
    assert len(missing) == (3 if "att_proj" in name else 1)


def test_names_that_nothing_bears_are_left_and_parameters_without_a_tensor_stay_empty(tmp_path: Path) -> None:
    folder = GOLDENS / "D" / "checkpoint"
    stored = {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}
    stored["model.transformer.other.weight"] = stored.pop("model.transformer.ln_f.weight")
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    net, placed, left = placed_in(tmp_path)
    assert set(left) == {"model.transformer.other.weight"}
    assert net.model.language_model.norm.weight.is_meta
    assert isinstance(net.lm_head.weight, nn.Parameter) and "lm_head.weight" in placed
