"""The model that the parameters name, local or remote."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, PointingError

if TYPE_CHECKING:
    from molmo_ros.pointing.protocol import Pointer

LoadPointer = Callable[[PointingParameters, Callable[[str], None]], "Pointer"]


def load_pointer_of(parameters: PointingParameters, tell: Callable[[str], None]) -> Pointer:
    """Who points. `tell` hears what it is at. PointingError(MODEL_UNAVAILABLE) says what is wrong with it."""
    return _remote(parameters) if parameters.backend == "remote" else _local(parameters, tell)


def _local(parameters: PointingParameters, tell: Callable[[str], None]) -> Pointer:
    from molmo_ros.pointing import bundled_model_folder

    folder = Path(parameters.model).expanduser() if parameters.model else bundled_model_folder()
    tell("importing torch")
    # Here, because torch takes seconds to import and the node is up before.
    from molmo_ros.molmo.loading import CheckpointError
    from molmo_ros.pointing.loading import load_pointer
    from molmo_ros.pointing.pointer import LocalPointer

    if not folder.is_dir():
        tell(f"looking for {parameters.model} on the hub")
        folder = _from_hub(parameters.model, parameters.allow_downloads)
    size_gb = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9
    tell(f"reading {size_gb:.2f} GB from {folder}")
    try:
        pointer = load_pointer(
            folder, parameters.device, parameters.dtype, parameters.quantization, parameters.point_format
        )
    except CheckpointError as error:
        raise PointingError(Code.MODEL_UNAVAILABLE, str(error)) from error
    if parameters.max_crops:
        if not isinstance(pointer, LocalPointer):
            raise PointingError(
                Code.MODEL_UNAVAILABLE,
                f"max_crops is for Molmo v1; {folder} is of another family, set it to 0",
            )
        pointer.processor.image_processor.max_crops = parameters.max_crops
    return pointer


def _from_hub(name: str, may_download: bool) -> Path:
    """A folder with the files of a model on the hub: from this machine's cache, or fetched if that is allowed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not may_download))
    except HFValidationError as error:
        raise PointingError(
            Code.MODEL_UNAVAILABLE, f"there is no folder {name}; parameter model names a checkpoint"
        ) from error
    except LocalEntryNotFoundError as error:
        how = (
            "the hub could not be reached, and it was never fetched"
            if may_download
            else "set allow_downloads to fetch it from the hub"
        )
        raise PointingError(
            Code.MODEL_UNAVAILABLE,
            f"there is no folder {name}, and no model of that name on this machine; {how}; parameter model names a "
            "checkpoint",
        ) from error
    except (OSError, ValueError) as error:
        raise PointingError(
            Code.MODEL_UNAVAILABLE,
            f"{name} cannot be fetched from the hub: {' '.join(str(error).split())[:200]}",
        ) from error


def _remote(parameters: PointingParameters) -> Pointer:
    try:
        from molmo_ros.pointing.remote_pointer import Endpoint, RemotePointer
    except ImportError as error:
        raise PointingError(
            Code.MODEL_UNAVAILABLE, f"backend remote needs httpx2 (pip install 'httpx2>=2,<3'): {error}"
        ) from error
    from molmo_ros.pointing.formats import point_format

    try:
        endpoint = Endpoint(
            base_url=parameters.remote_url,
            model=parameters.model,
            api_key=_key(parameters),
            timeout_s=parameters.remote_timeout_s,
            tries=parameters.remote_tries,
        )
        return RemotePointer(endpoint, point_format(parameters.point_format))
    except ValueError as error:
        raise PointingError(Code.MODEL_UNAVAILABLE, str(error)) from error


def _key(parameters: PointingParameters) -> str:
    """The endpoint's key, "" when none is named."""
    if parameters.remote_key_variable:
        key = os.environ.get(parameters.remote_key_variable, "").strip()
        if not key:
            raise PointingError(
                Code.MODEL_UNAVAILABLE,
                f"the environment variable {parameters.remote_key_variable} (remote_key_variable) is not set; export "
                "it where the node is started",
            )
        return key
    if not parameters.remote_key_file:
        return ""
    path = Path(parameters.remote_key_file).expanduser()
    try:
        others_may_read = bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PointingError(
            Code.MODEL_UNAVAILABLE, f"the key file {path} (remote_key_file) cannot be read: {error}"
        ) from error
    if others_may_read or not key:
        why = "is open to others; run: chmod 600" if others_may_read else "is empty:"
        raise PointingError(Code.MODEL_UNAVAILABLE, f"the key file {path} (remote_key_file) {why} {path}")
    return key
