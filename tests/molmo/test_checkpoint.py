"""Released names in, released names out: the layout on disk of all four families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.core_model_loading import revert_weight_conversion

from molmo_ros.molmo import MolmoConfig, MolmoForConditionalGeneration
from molmo_ros.molmo.releases import RELEASES

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
FAMILIES = ("D", "O", "E", "72B")

every_family = pytest.mark.parametrize("family", FAMILIES)

#: What differs between a file of the release and ours on purpose.
NOT_KEPT = {"architectures", "auto_map", "torch_dtype", "transformers_version", "vision_backbone"}


def load(family: str) -> MolmoForConditionalGeneration:
    return MolmoForConditionalGeneration.from_pretrained(GOLDENS / family / "checkpoint").eval()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


@every_family
def test_saving_gives_the_released_names_and_the_same_bits(family: str, tmp_path: Path) -> None:
    load(family).save_pretrained(tmp_path)
    ours, theirs = weights(tmp_path), weights(GOLDENS / family / "checkpoint")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@every_family
def test_a_saved_configuration_has_the_released_spelling_and_loads_the_same(
    family: str, tmp_path: Path
) -> None:
    net = load(family)
    net.save_pretrained(tmp_path)
    ours = json.loads((tmp_path / "config.json").read_text())
    theirs = json.loads((GOLDENS / family / "checkpoint" / "config.json").read_text())
    # Where a release leaves a size to a default, the saved file spells it out.
    spelled_out = {key for key, value in theirs.items() if value is None}
    for key in theirs.keys() - NOT_KEPT - spelled_out:
        assert ours[key] == theirs[key], key
    for key, value in ours["vision_backbone"].items():
        assert theirs["vision_backbone"][key] == value, key
    again = MolmoForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert again.config.to_dict().keys() == net.config.to_dict().keys()
    stored, loaded = net.state_dict(), again.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    ids = torch.tensor([[5, 6, 7, 8]])
    # Where the same weights lie in memory decides how products are summed, in the last bit.
    torch.testing.assert_close(again(input_ids=ids).logits, net(input_ids=ids).logits, rtol=1e-6, atol=1e-6)


@every_family
def test_the_auto_classes_know_molmo(family: str) -> None:
    folder = GOLDENS / family / "checkpoint"
    assert AutoConfig.from_pretrained(folder).model_type == "molmo"
    assert isinstance(AutoModelForImageTextToText.from_pretrained(folder), MolmoForConditionalGeneration)


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_has_exactly_its_published_tensors(release: str) -> None:
    """Names, shapes and totals of the real checkpoints, from their config.json alone; nothing is allocated."""
    with torch.device("meta"):
        net = MolmoForConditionalGeneration(MolmoConfig(**RELEASES[release]))
    ours = {name: list(t.shape) for name, t in revert_weight_conversion(net, net.state_dict()).items()}
    published = json.loads((GOLDENS / "official_shapes.json").read_text())[release]
    theirs = {}
    for pattern, about in published.items():
        if not isinstance(about, dict) or "shape" not in about:
            continue
        for index in range(about["count"]):
            experts = RELEASES[release].get("moe_num_experts", 1) if "{e}" in pattern else 1
            layer, expert = divmod(index, experts)
            theirs[pattern.replace("{i}", str(layer)).replace("{e}", str(expert))] = about["shape"]
    assert ours == theirs


def test_settings_that_no_release_has_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Molmo-7B-O has true, true, false"):
        AutoConfig.for_model("molmo", norm_after=True, qkv_bias=True)
    with pytest.raises(ValueError, match="block_type"):
        AutoConfig.for_model("molmo", d_model=64, block_type="sequential")
    with pytest.raises(ValueError, match="clip_qkv"):
        AutoConfig.for_model("molmo", clip_qkv=8.0)
