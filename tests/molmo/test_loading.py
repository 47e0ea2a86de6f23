"""Broken checkpoint folders get one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from molmo_ros.molmo.loading import CheckpointError, load_checkpoint

CHECKPOINT = Path(__file__).parent.parent / "data" / "goldens" / "D" / "checkpoint"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def other_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


def other_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 128}))


def without_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.transformer.blocks.1.attn_out.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.transformer.blocks.9.attn_out.weight"] = torch.zeros(64, 64)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*.json"):
        path.write_text(path.read_text().replace("<im_patch>", "<im_batch>"))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def spoiled(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text("{")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without("tokenizer.json"), "no tokenizer.json"),
        (without("config.json"), "no config.json"),
        (without("preprocessor_config.json"), "no preprocessor_config.json"),
        (without("model.safetensors"), "no \\*.safetensors"),
        (spoiled("config.json"), "not readable JSON"),
        (cut_short, "cut short"),
        (only_a_pickle, "pickle"),
        (other_model, "'llama'"),
        (other_sizes, "does not load|another shape"),
        (without_a_tensor, "has no tensor for .*layers.1.self_attn.o_proj"),
        (with_another_tensor, "no place for: .*layers.9"),
        (other_tokenizer, "no token <im_patch>"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(
    folder: Path, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINT.parents[1] / "72B" / "checkpoint", tmp_path / "checkpoint"))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00002\.safetensors, 1 of 2"):
        load_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_an_unknown_dtype_lists_the_valid_ones() -> None:
    with pytest.raises(CheckpointError, match="bfloat16"):
        load_checkpoint(CHECKPOINT, dtype="int4")


def test_code_in_the_folder_does_not_run(folder: Path) -> None:
    bomb = "raise SystemExit('remote code ran')\n"
    for name in (
        "config_molmo.py",
        "modeling_molmo.py",
        "image_preprocessing_molmo.py",
        "preprocessing_molmo.py",
    ):
        (folder / name).write_text(bomb)
    model, _ = load_checkpoint(folder)
    assert not model.training


def test_bfloat16_is_used_when_asked_for() -> None:
    model, _ = load_checkpoint(CHECKPOINT, device="cpu", dtype="bfloat16")
    assert model.lm_head.weight.dtype == torch.bfloat16
