"""The tensors in a checkpoint's files: mapped, or read where mapping would hold them in memory twice."""

from __future__ import annotations

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
    """Slices of all tensors, to be taken when they are asked for; and whether they are views of the mapped files.

    Weights that keep their type live in the mapped pages and cost nothing more. Weights that change it would stand in
    memory twice, as the pages they were read from and as what became of them. Read instead of mapped, each is gone as
    soon as it is converted.

    Yields:
        None for the slices where the files are not safetensors.
    """
    if not files or dtype is None or not all(str(file).endswith(".safetensors") for file in files):
        yield None, False
        return
    with ExitStack() as stack:
        slices = _slices(stack, files, "mmap")
        mapped = {_STORED.get(part.get_dtype(), dtype) for part in slices.values()} <= {dtype}
        yield (slices if mapped else _slices(stack, files, "pread")), mapped


def _slices(stack: ExitStack, files: Sequence[str], backend: Literal["mmap", "pread"]) -> dict[str, Any]:
    opened = [stack.enter_context(safe_open(file, framework="pt", backend=backend)) for file in files]
    return {name: file.get_slice(name) for file in opened for name in file.keys()}  # noqa: SIM118
