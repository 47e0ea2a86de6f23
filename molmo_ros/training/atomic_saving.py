"""Files and folders that are either as they were or as they should become, whatever happens while they are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SavingError(OSError):
    """Something could not be written whole; what was there before still is."""


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end of the block.

    Raises:
        SavingError: it cannot be written, for example because the disk is full.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with _as_saving_errors(path):
            yield part
            _to_disk(part)
            part.replace(path)
            _to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A new empty folder to write to, which becomes `path` at the end of the block.

    Two renames put it in place of the old one; after a kill between them `restore` brings the old one back.

    Raises:
        SavingError: it cannot be written, for example because the disk is full.
    """
    restore(path)
    part, before = _part_of(path), _before(path)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with _as_saving_errors(path):
            part.mkdir(parents=True)
            yield part
            for file in [*part.rglob("*"), part]:
                _to_disk(file)
            if path.exists():
                path.rename(before)
            part.rename(path)
            _to_disk(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


def restore(path: Path) -> None:
    """Finish what a kill in `replaced_folder` left half done."""
    before = _before(path)
    if before.exists():
        if path.exists():
            shutil.rmtree(before)
        else:
            before.rename(path)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


@contextmanager
def _as_saving_errors(path: Path) -> Iterator[None]:
    """torch and safetensors have exceptions of their own for a full disk."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SavingError(
            f"{path} could not be written: {reason}; what was there before is untouched"
        ) from error


def _to_disk(path: Path) -> None:
    """A rename must not reach the disk before what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
