"""LoRA adapters (PEFT's layout) on a checkpoint: found, checked against their base, and merged into its weights.

An adapter folder holds `adapter_config.json` and `adapter_model.safetensors`; the first names the folder of the
base, absolute or relative to the adapter. `base.json`, which our fine-tuning writes beside them, tells that base
from another of the same sizes. Pickled adapters are not read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from .modeling import MolmoForConditionalGeneration

ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"

#: Of each weights file, what goes into the fingerprint: sizes and names of all tensors, and numbers of some.
_FINGERPRINT_BYTES = 1 << 20


class AdapterError(ValueError):
    """A folder that is not a usable adapter; the message says what is wrong and what would work."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter instead of whole weights."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> Path:
    """The folder with the weights that an adapter goes on; a folder with whole weights is its own.

    Raises:
        AdapterError: the base is not there, or not the one that the adapter was trained on.
    """
    if not is_adapter(folder):
        return folder
    config = _read_json(folder / ADAPTER_CONFIG)
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise AdapterError(
            f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path; put its folder there"
        )
    base = (folder / Path(named).expanduser()).resolve()
    if not (base / "config.json").is_file():
        raise AdapterError(
            f"the base of the adapter {folder}, {named}, is no folder with a checkpoint; put the right one into "
            f"base_model_name_or_path in {ADAPTER_CONFIG}, absolute or relative to the adapter"
        )
    if (folder / BASE).is_file():
        wanted = _read_json(folder / BASE).get("fingerprint")
        if wanted != fingerprint(base):
            raise AdapterError(
                f"{base} is not what the adapter {folder} was trained on ({folder / BASE}), or has changed since"
            )
    return base


def fingerprint(folder: Path) -> str:
    """Tells a checkpoint from others: a digest of its configuration and of the beginning of its weights."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_FINGERPRINT_BYTES))
    return digest.hexdigest()


def merge_adapter(model: MolmoForConditionalGeneration, folder: Path) -> MolmoForConditionalGeneration:
    """The model with a LoRA's changes added to its weights, as if it had been trained whole.

    Raises:
        AdapterError: peft is not installed, no LoRA, a pickle, or made for a model of other sizes.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise AdapterError(
            f"{folder} is an adapter, which needs peft (pip install peft); checkpoints saved merged need none"
        ) from error
    kind = _read_json(folder / ADAPTER_CONFIG).get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{folder / ADAPTER_CONFIG} says peft_type {kind!r}; LORA is read here")
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise AdapterError(f"{folder} has no {ADAPTER_WEIGHTS}; other formats are pickles and are not read")
    try:
        with safe_open(weights, framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{weights} is broken or cut short: {error}") from error
    try:
        tuned = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise AdapterError(f"{folder} does not fit its base: {' '.join(str(error).split())[:300]}") from error
    # PEFT passes over what is missing or too much.
    taken = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    wanted = {name: tuple(value.shape) for name, value in taken.items()}
    if wanted != stored:
        odd = sorted(set(wanted.items()) ^ set(stored.items()))
        raise AdapterError(f"{folder} does not fit its base: {len(odd)} tensors differ, such as {odd[0][0]}")
    merged: MolmoForConditionalGeneration = tuned.merge_and_unload(safe_merge=True)
    return merged


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AdapterError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path} is no JSON object")
    return content
