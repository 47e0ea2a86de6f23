"""A folder is loaded by what its config.json says; what cannot be is refused with one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from molmo_ros.molmo.loading import CheckpointError
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.loading import load_pointer
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.pointing.transformers_pointer import TransformersPointer


@pytest.fixture
def folder(molmo2_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(molmo2_folder, tmp_path / "checkpoint"))


def test_molmo_is_loaded_onto_its_own_engine() -> None:
    for name in ("auto", "molmo"):
        assert isinstance(load_pointer(bundled_model_folder(), "cpu", format_name=name), LocalPointer)


def test_a_fine_tuned_molmo_is_asked_in_its_own_format() -> None:
    pointer = load_pointer(bundled_model_folder(), "cpu", format_name="graspmolmo")
    assert isinstance(pointer, TransformersPointer) and pointer.point_format.name == "graspmolmo"


def test_molmo2_needs_no_format_and_the_weights_take_the_type_that_is_wanted(molmo2_folder: Path) -> None:
    pointer = load_pointer(molmo2_folder, "cpu", "bfloat16")
    assert isinstance(pointer, TransformersPointer) and pointer.point_format.name == "molmo2"
    assert pointer.model.dtype == torch.bfloat16 and not pointer.model.training


def test_no_code_of_the_folder_is_run(molmo2_folder: Path) -> None:
    assert "raise SystemExit" in (molmo2_folder / "bomb.py").read_text()
    for name in ("config.json", "processor_config.json", "preprocessor_config.json"):
        assert "bomb." in (molmo2_folder / name).read_text()
    load_pointer(molmo2_folder, "cpu")


@pytest.mark.parametrize(
    ("fixture", "says"),
    [
        ("qwen2_5_folder", "set point_format; of the released ones it is qwen2_5_vl or qwen2_5_vl_xml"),
        ("qwen3_folder", "set point_format; of the released ones it is qwen3_vl"),
        (
            "florence2_folder",
            "set point_format; of the released ones it is florence2_boxes or florence2_outlines",
        ),
    ],
)
def test_a_format_is_not_guessed(fixture: str, says: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(CheckpointError, match=says):
        load_pointer(request.getfixturevalue(fixture), "cpu")


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"format_name": "percent"}, r"unknown point format 'percent'; choose one of: molmo, "),
        ({"format_name": "molmo_point"}, r"MolmoPoint answers in special tokens"),
        ({"format_name": "qwen2_5_vl"}, r"in pixels of the model's input"),
        ({"quantization": "int8"}, r"int8 is for Molmo v1"),
        ({"dtype": "float8"}, r"dtype 'float8' is not one of auto, float32"),
        ({"device": "gpu"}, r"does not load as a molmo2 checkpoint"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(choice: dict[str, Any], says: str, molmo2_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=says):
        load_pointer(molmo2_folder, **{"device": "cpu"} | choice)


def renamed(kind: str) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))

    return rename


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_one_tensor_less(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[min(weights)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            renamed("llama"),
            r"model_type 'llama', which is not supported; supported are molmo, molmo2, .*florence2",
        ),
        (
            renamed("molmo_point"),
            r"'molmo_point', which is not supported; MolmoPoint answers in special tokens",
        ),
        (without("config.json"), r"no config.json"),
        (no_json, r"no JSON object"),
        (without("tokenizer.json"), r"no tokenizer.json"),
        (without("preprocessor_config.json"), r"no preprocessor_config.json"),
        (without("chat_template.jinja"), r"no chat template"),
        (without("model.safetensors"), r"no \*.safetensors"),
        (only_a_pickle, r"pytorch_model.bin is a pickle"),
        (with_one_tensor_less, r"has no tensor for"),
    ],
)
def test_a_spoiled_folder_is_refused(spoil: Callable[[Path], None], says: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_pointer(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_pointer(tmp_path / "nowhere")
