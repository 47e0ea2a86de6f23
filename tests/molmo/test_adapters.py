"""A LoRA adapter goes onto the base it was made for, and onto nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

from molmo_ros.molmo import MolmoForConditionalGeneration
from molmo_ros.molmo.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE,
    base_of,
    fingerprint,
    is_adapter,
)
from molmo_ros.molmo.loading import CheckpointError, load_checkpoint
from molmo_ros.pointing.loading import load_pointer
from molmo_ros.pointing.pointer import LocalPointer

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDENS / "D" / "checkpoint", tmp_path / "base"))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """A LoRA that changes something."""
    torch.manual_seed(0)
    model = MolmoForConditionalGeneration.from_pretrained(base)
    tuned = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    )
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path / "adapter"
    tuned.save_pretrained(folder, save_embedding_layers=False)
    name_base(folder, "../base")
    return folder


def name_base(adapter: Path, base: str) -> None:
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": base}))


def logits(folder: Path) -> torch.Tensor:
    model, processor = load_checkpoint(folder, "cpu")
    with torch.no_grad():
        out: torch.Tensor = model(
            **processor(Image.open(GOLDENS / "images" / "wide.png"), "Point to the mug.")
        ).logits
    return out


def test_a_loaded_adapter_is_its_base_with_the_change_added(base: Path, adapter: Path) -> None:
    from peft import PeftModel

    assert is_adapter(adapter) and not is_adapter(base)
    assert base_of(adapter) == base.resolve() and base_of(base) == base
    plain, processor = load_checkpoint(base, "cpu")
    tuned = PeftModel.from_pretrained(plain, str(adapter)).eval()
    inputs = processor(Image.open(GOLDENS / "images" / "wide.png"), "Point to the mug.")
    with torch.no_grad():
        beside = tuned(**inputs).logits
    torch.testing.assert_close(logits(adapter), beside, atol=1e-4, rtol=1e-4)
    assert (logits(base) - beside).abs().max() > 0.01
    loaded, _ = load_checkpoint(adapter, "cpu")
    assert not any("lora" in name for name, _ in loaded.named_parameters()) and not loaded.training


def test_the_node_s_loader_takes_an_adapter_with_small_weights_too(adapter: Path) -> None:
    pointer = load_pointer(adapter, "cpu", quantization="int8")
    assert isinstance(pointer, LocalPointer)
    kinds = {type(module).__name__ for module in pointer.model.model.language_model.modules()}
    assert not any("Lora" in kind for kind in kinds)


def test_the_base_may_be_named_absolutely(base: Path, adapter: Path) -> None:
    name_base(adapter, str(base))
    assert base_of(adapter) == base.resolve()


@pytest.mark.parametrize(
    ("named", "says"), [("../gone", "no folder with a checkpoint"), ("", "names no base")]
)
def test_a_base_that_is_not_there_is_named(adapter: Path, named: str, says: str) -> None:
    name_base(adapter, named)
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(adapter, "cpu")


def test_another_base_of_the_same_sizes_is_refused(base: Path, adapter: Path) -> None:
    (adapter / BASE).write_text(json.dumps({"fingerprint": fingerprint(base)}))
    load_checkpoint(adapter, "cpu")
    (path,) = base.glob("*.safetensors")
    weights = load_file(path)
    first = sorted(weights)[0]
    save_file(weights | {first: weights[first] + 1}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not what the adapter"):
        load_checkpoint(adapter, "cpu")


def test_an_adapter_for_other_sizes_is_refused(adapter: Path) -> None:
    shutil.rmtree(adapter.parent / "base")
    shutil.copytree(GOLDENS / "E" / "checkpoint", adapter.parent / "base")
    with pytest.raises(CheckpointError, match="does not fit its base"):
        load_checkpoint(adapter, "cpu")


def test_tensors_that_are_missing_are_not_passed_over(adapter: Path) -> None:
    weights = load_file(adapter / ADAPTER_WEIGHTS)
    weights.pop(sorted(weights)[0])
    save_file(weights, adapter / ADAPTER_WEIGHTS)
    with pytest.raises(CheckpointError, match="1 tensors differ"):
        load_checkpoint(adapter, "cpu")


def test_pickles_and_other_kinds_of_adapters_are_not_read(adapter: Path) -> None:
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(CheckpointError, match="'IA3'; LORA is read here"):
        load_checkpoint(adapter, "cpu")
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(config))
    torch.save(load_file(adapter / ADAPTER_WEIGHTS), adapter / "adapter_model.bin")
    (adapter / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        load_checkpoint(adapter, "cpu")


def test_a_broken_adapter_is_named(adapter: Path) -> None:
    (adapter / ADAPTER_WEIGHTS).write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="broken or cut short"):
        load_checkpoint(adapter, "cpu")
    (adapter / ADAPTER_CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        load_checkpoint(adapter, "cpu")
