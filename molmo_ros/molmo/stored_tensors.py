"""The tensors in a checkpoint's files: mapped, or read where mapping would hold them in memory twice."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from safetensors import safe_open
from transformers.utils import logging

_NO_THREADS = "HF_DEACTIVATE_ASYNC_LOAD"
#: safetensors' names of the types that weights are stored in.
_STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@contextmanager
def without_threads() -> Iterator[None]:
    """For weights that stay in mapped pages: there is nothing to read ahead, and four threads that transformers starts
    for it take a fifth of the loading. Its switch for that is an environment variable.
    """
    before = os.environ.get(_NO_THREADS)
    os.environ[_NO_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_THREADS]
        else:
            os.environ[_NO_THREADS] = before


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """Where there is no progress to be shown."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


@contextmanager
def stored_tensors(
    files: Sequence[str] | None, dtype: torch.dtype | None
) -> Iterator[tuple[dict[str, Any] | None, bool]]:
    """All tensors, as what gives a tensor for `[...]`; and whether they are views of the mapped files.

    Weights that keep their type live in the mapped pages and cost nothing more. Weights that change it would stand in
    memory twice, as the pages they were read from and as what became of them. Read instead of mapped, each is gone as
    soon as it is converted.

    Yields:
        None for the tensors where the files are not safetensors.
    """
    if not files or dtype is None or not all(str(file).endswith(".safetensors") for file in files):
        yield None, False
        return
    with ExitStack() as stack:
        slices = _slices(stack, files, "mmap")
        parts = [part for of_file in slices.values() for part in of_file.values()]
        mapped = {_STORED.get(part.get_dtype(), dtype) for part in parts} <= {dtype}
        if not mapped:
            slices = _slices(stack, files, "pread")
        tensors: dict[str, Any] = {}
        for file, of_file in slices.items():
            tensors |= _views(file, of_file) if mapped else of_file
        yield tensors, mapped


def _slices(
    stack: ExitStack, files: Sequence[str], backend: Literal["mmap", "pread"]
) -> dict[str, dict[str, Any]]:
    """By file and name, in the order in which they lie in the file."""
    opened = {
        file: stack.enter_context(safe_open(file, framework="pt", backend=backend)) for file in files
    }
    return {file: {name: it.get_slice(name) for name in it.offset_keys()} for file, it in opened.items()}


def _views(file: str, slices: dict[str, Any]) -> dict[str, Any]:
    """The same as tensors in one mapping of the whole file, which takes a third of the time of asking for each.

    What a file ends with are its tensors, without gaps (safetensors' format; `safe_open` has checked it). A file
    with types that are no weights is left as it is, and so are tensors at odd places.
    """
    dtypes = {name: _STORED[part.get_dtype()] for name, part in slices.items() if part.get_dtype() in _STORED}
    if len(dtypes) < len(slices):
        return slices
    shapes = {name: part.get_shape() for name, part in slices.items()}
    sizes = {name: math.prod(shapes[name]) * dtype.itemsize for name, dtype in dtypes.items()}
    whole = torch.from_file(file, shared=False, size=os.path.getsize(file), dtype=torch.uint8)
    start = len(whole) - sum(sizes.values())
    views: dict[str, Any] = {}
    for name, dtype in dtypes.items():
        end = start + sizes[name]
        fits = start % dtype.itemsize == 0 and sizes[name]
        views[name] = whole[start:end].view(dtype).view(shapes[name]) if fits else slices[name]
        start = end
    return views
