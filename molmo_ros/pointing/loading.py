"""A checkpoint folder to whoever answers with it: config.json says which family it is of."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForImageTextToText

from molmo_ros.molmo.loading import (
    CheckpointError,
    as_checkpoint_errors,
    base_folder,
    load_checkpoint,
    load_model,
    model_type,
    read_json,
)
from molmo_ros.pointing.formats import AUTO, WHY_NOT_MOLMO_POINT, PointFormat, point_format
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.pointing.protocol import Pointer
from molmo_ros.pointing.transformers_pointer import TransformersPointer
from molmo_ros.pointing.vlm_families import FAMILIES, Family


def load_pointer(
    folder: Path | str,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    format_name: str = AUTO,
) -> Pointer:
    """Who points with the model of this folder; no code of the folder is run, and only safetensors are read.

    Args:
        folder: a released checkpoint of one of `vlm_families.FAMILIES`, or a LoRA adapter for a Molmo v1.
        device: see `molmo.loading.load_checkpoint`.
        dtype: see there.
        quantization: see there; for Molmo v1 only.
        format_name: one of `formats.FORMATS`; `formats.AUTO` where the family has but one.

    Raises:
        CheckpointError: what is wrong with the folder or with these choices, and what would work.
    """
    folder = Path(folder)
    base = base_folder(folder)
    kind = model_type(base)
    if kind not in FAMILIES:
        reason = f"; {WHY_NOT_MOLMO_POINT}" if kind == "molmo_point" else ""
        raise CheckpointError(
            f"{base / 'config.json'} says model_type {kind!r}, which is not supported{reason}; "
            f"supported are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[kind]
    spoken = _format(kind, family, format_name)
    if kind == "molmo":
        if spoken.name == "molmo":
            return LocalPointer.from_folder(folder, device, dtype, quantization)
        return TransformersPointer(*load_checkpoint(folder, device, dtype, quantization), family, spoken)
    if base != folder:
        raise CheckpointError(f"{folder} is an adapter for {kind}; adapters are read for Molmo v1 only")
    if quantization != "none":
        raise CheckpointError(
            f"quantization {quantization} is for Molmo v1; {kind} checkpoints take none, or dtype bfloat16"
        )
    read_json(folder, "tokenizer.json", "its tokenizer")
    # transformers 5 saves the image settings among those of the processor, releases have a file of their own.
    parts = folder / "processor_config.json"
    if not parts.is_file() or "image_processor" not in read_json(folder, parts.name, "its processor"):
        read_json(folder, "preprocessor_config.json", "its image settings")
    with as_checkpoint_errors(folder, f"a {kind} checkpoint"):
        processor = family.load_processor(folder)
    model = load_model(
        AutoModelForImageTextToText, folder, device, dtype, may_hold_more=True, trust_remote_code=False
    )
    return TransformersPointer(model, processor, family, spoken)


def _format(kind: str, family: Family, name: str) -> PointFormat:
    if name == AUTO and not family.sole_format:
        raise CheckpointError(
            f"{kind} checkpoints point in more than one way, and numbers do not say which: set point_format; "
            f"of the released ones it is {' or '.join(family.formats)}"
        )
    try:
        spoken = point_format(family.formats[0] if name == AUTO else name)
        family.check(spoken)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return spoken
