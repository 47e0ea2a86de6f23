"""Tensors of a checkpoint that change their type on the way in, without holding the files in memory as well."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from safetensors import safe_open

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
def tensors_to_convert(
    files: Sequence[str] | None, dtype: torch.dtype | None
) -> Iterator[dict[str, Any] | None]:
    """Slices of all tensors, to be read when they are asked for, where the files hold another type than `dtype`.

    transformers maps files into memory. Weights that keep their type then live in the mapped pages and cost
    nothing more; but weights that change it would stand in memory twice, as the pages they were read from and
    as what became of them. Read instead of mapped, each is gone as soon as it is converted.

    Yields:
        None where mapping is right: the types agree, or the files are not safetensors.
    """
    if not files or dtype is None or not all(str(file).endswith(".safetensors") for file in files):
        yield None
        return
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, framework="pt", backend="pread")) for file in files]
        slices = {name: file.get_slice(name) for file in opened for name in file.keys()}  # noqa: SIM118
        stored = {_STORED.get(part.get_dtype(), dtype) for part in slices.values()}
        yield slices if stored - {dtype} else None
