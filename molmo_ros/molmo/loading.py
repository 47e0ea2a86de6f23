"""A checkpoint folder to a model and its processor, with one clear line when it cannot be.

Only safetensors are read, and no code of the folder runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import is_accelerate_available

from .modeling import MolmoForConditionalGeneration
from .processing import MolmoProcessor
from .quantization import QUANTIZATIONS, quantize

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CheckpointError(ValueError):
    """A folder that is not a usable Molmo checkpoint; the message says what is wrong and what would work."""


def load_checkpoint(
    folder: Path, device: str = "auto", dtype: str = "auto", quantization: str = "none"
) -> tuple[MolmoForConditionalGeneration, MolmoProcessor]:
    """Model (in evaluation mode) and processor.

    Args:
        folder: a released Molmo checkpoint: config.json, safetensors, tokenizer.json, preprocessor_config.json.
        device: "auto" (a GPU if there is one), or a torch device such as "cpu" or "cuda:0".
        dtype: "float32", "bfloat16", "float16", or "auto" (bfloat16 on a GPU, float32 elsewhere).
        quantization: "none", or "int8" or "int4" for a language model with small weights on a CPU.

    Raises:
        CheckpointError: see its docstring.
    """
    folder = Path(folder)
    _check_files(folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in _DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is not one of auto, {', '.join(_DTYPES)}")
    if quantization not in QUANTIZATIONS:
        raise CheckpointError(f"quantization {quantization!r} is not one of {', '.join(QUANTIZATIONS)}")
    try:
        processor = MolmoProcessor.from_pretrained(folder)
        # With accelerate the weights go straight to the device, without it through the machine's memory.
        straight = device != "cpu" and is_accelerate_available()
        model, report = MolmoForConditionalGeneration.from_pretrained(
            folder,
            dtype=_DTYPES[dtype],
            device_map={"": device} if straight else None,
            use_safetensors=True,
            output_loading_info=True,
        )
        _refuse_gaps(folder, report)
        model.to(device)
        quantize(model, quantization)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} does not load as a Molmo checkpoint: {_one_line(error)}") from error
    return model.eval(), processor


def _refuse_gaps(folder: Path, report: dict[str, Any]) -> None:
    """transformers fills missing tensors with random numbers and only warns; a robot must not run on those."""
    for fault, what in {
        "missing_keys": "has no tensor for",
        "mismatched_keys": "has another shape for",
        "unexpected_keys": "has tensors that config.json has no place for:",
    }.items():
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in report.get(fault) or ())
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise CheckpointError(
                f"{folder} {what} {shown}; config.json and the weights are not of one release"
            )


def _check_files(folder: Path) -> None:
    """The faults that have a plain name."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}; give a folder with a Molmo checkpoint")
    for name, holds in {
        "config.json": "the sizes of the model",
        "tokenizer.json": "its tokenizer",
        "preprocessor_config.json": "its image settings",
    }.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name} ({holds}); copy it from the release it belongs to")
        try:
            json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{folder / name} is not readable JSON: {_one_line(error)}") from error
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != "molmo":
        raise CheckpointError(f"{folder / 'config.json'} says model_type {kind!r}; this loader reads 'molmo'")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        absent = sorted(name for name in listed if not (folder / name).is_file())
        if absent:
            raise CheckpointError(
                f"{folder} lacks {', '.join(absent)}, {len(absent)} of {len(listed)} files that {index.name} lists; "
                "fetch them again"
            )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))
        also = f"; {pickles[0].name} is a pickle, which could run code and is not read" if pickles else ""
        raise CheckpointError(f"{folder} has no *.safetensors with the weights{also}")
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is broken or cut short ({path.stat().st_size} bytes): {_one_line(error)}; fetch it again"
            ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
