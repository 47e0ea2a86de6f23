"""A checkpoint folder to a model and its processor, with one clear line when it cannot be.

Only safetensors are read, and no code of the folder runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import is_accelerate_available

from .adapters import AdapterError, base_of, is_adapter, merge_adapter
from .modeling import MolmoForConditionalGeneration
from .packing import pack
from .processing import MolmoProcessor
from .quantization import QUANTIZATIONS, quantize

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CheckpointError(ValueError):
    """A folder that is not a usable checkpoint; the message says what is wrong and what would work."""


def load_checkpoint(
    folder: Path, device: str = "auto", dtype: str = "auto", quantization: str = "none"
) -> tuple[MolmoForConditionalGeneration, MolmoProcessor]:
    """Model (in evaluation mode, laid out for this machine's kernels) and processor.

    Args:
        folder: a released Molmo checkpoint: config.json, safetensors, tokenizer.json, preprocessor_config.json;
            or a LoRA adapter for one (see `adapters`), which is merged into its weights.
        device: "auto" (a GPU if there is one), or a torch device such as "cpu" or "cuda:0".
        dtype: "float32", "bfloat16", "float16", or "auto" (bfloat16 on a GPU, float32 elsewhere).
        quantization: "none", or "int8" or "int4" for a language model with small weights on a CPU.

    Raises:
        CheckpointError: see its docstring.
    """
    adapter, folder = Path(folder), base_folder(Path(folder))
    kind = model_type(folder)
    if kind != "molmo":
        raise CheckpointError(f"{folder / 'config.json'} says model_type {kind!r}; this loader reads 'molmo'")
    read_json(folder, "tokenizer.json", "its tokenizer")
    read_json(folder, "preprocessor_config.json", "its image settings")
    if quantization not in QUANTIZATIONS:
        raise CheckpointError(f"quantization {quantization!r} is not one of {', '.join(QUANTIZATIONS)}")
    with as_checkpoint_errors(folder, "a Molmo checkpoint"):
        processor = MolmoProcessor.from_pretrained(folder)
        model = load_model(MolmoForConditionalGeneration, folder, device, dtype)
    with as_checkpoint_errors(adapter, "an adapter for a Molmo checkpoint"):
        if is_adapter(adapter):
            model = merge_adapter(model, adapter).eval()
        quantize(model, quantization)
        pack(model)
    return model, processor


def load_model(
    model_class: Any, folder: Path, device: str, dtype: str, *, may_hold_more: bool = False, **more: Any
) -> Any:
    """A model in evaluation mode from a folder's safetensors, none of which may be missing or have another shape.

    Args:
        model_class: with transformers' `from_pretrained`.
        folder: the checkpoint.
        device: as for `load_checkpoint`.
        dtype: as for `load_checkpoint`.
        may_hold_more: whether tensors that the model has no place for are passed over.
        more: for `from_pretrained`.

    Raises:
        CheckpointError: the weights are not whole, or not of this model, or `dtype` is unknown.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in _DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is not one of auto, {', '.join(_DTYPES)}")
    _check_weights(folder)
    with as_checkpoint_errors(folder, f"a {model_type(folder)} checkpoint"):
        # With accelerate the weights go straight to the device, without it through the machine's memory.
        straight = device != "cpu" and is_accelerate_available()
        model, report = model_class.from_pretrained(
            folder,
            dtype=_DTYPES[dtype],
            device_map={"": device} if straight else None,
            use_safetensors=True,
            output_loading_info=True,
            **more,
        )
        _refuse_gaps(folder, {**report, "unexpected_keys": ()} if may_hold_more else report)
        return model.to(device).eval()


def base_folder(folder: Path) -> Path:
    """Where the weights are: the folder itself or, for an adapter, its base. Raises CheckpointError."""
    try:
        return base_of(folder)
    except AdapterError as error:
        raise CheckpointError(str(error)) from error


def model_type(folder: Path) -> str:
    """What config.json says it is; CheckpointError where there is none."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}; give a folder with a checkpoint")
    return str(read_json(folder, "config.json", "the sizes of the model").get("model_type"))


def read_json(folder: Path, name: str, holds: str) -> dict[str, Any]:
    """A file of the checkpoint; CheckpointError if it is missing or broken."""
    if not (folder / name).is_file():
        raise CheckpointError(f"{folder} has no {name} ({holds}); copy it from the release it belongs to")
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / name} is not readable JSON: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder / name} is no JSON object; copy it from the release it belongs to")
    return content


@contextmanager
def as_checkpoint_errors(folder: Path, what: str) -> Iterator[None]:
    """Turns what transformers and safetensors raise about the files of a folder into one clear line."""
    try:
        yield
    except CheckpointError:
        raise
    except AdapterError as error:
        raise CheckpointError(str(error)) from error
    except (SafetensorError, ImportError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder} does not load as {what}: {_one_line(error)}") from error


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


def _check_weights(folder: Path) -> None:
    """The faults that have a plain name."""
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
