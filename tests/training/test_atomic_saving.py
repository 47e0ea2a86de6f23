"""Whatever happens while something is saved, what was there before stays whole."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from molmo_ros.training.atomic_saving import SavingError, replaced_file, replaced_folder, restore


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Files cannot grow beyond this many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    for value in (1, 2):
        with replaced_file(path) as part:
            torch.save(value, part)
    assert torch.load(path) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_full_disk_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with replaced_file(path) as part:
        torch.save(torch.zeros(3), part)
    with (
        pytest.raises(SavingError, match="what was there before is untouched"),
        no_room_beyond(100_000),
        replaced_file(path) as part,
    ):
        torch.save(torch.zeros(100_000), part)
    assert torch.equal(torch.load(path), torch.zeros(3))
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_full_disk_leaves_the_folder_before(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    with replaced_folder(folder) as part:
        (part / "a").write_text("whole")
    with pytest.raises(SavingError), no_room_beyond(100_000), replaced_folder(folder) as part:  # noqa: PT012
        (part / "a").write_text("half")
        save_file({"w": torch.zeros(100_000)}, part / "model.safetensors")
    assert [p.name for p in folder.iterdir()] == ["a"]
    assert (folder / "a").read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "checkpoint"
    for name in ("old", "new"):
        with replaced_folder(folder) as part:
            (part / name).write_text(name)
    assert [p.name for p in folder.iterdir()] == ["new"]
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def test_a_kill_between_the_two_renames_is_repaired(tmp_path: Path) -> None:
    folder, before = tmp_path / "checkpoint", tmp_path / "checkpoint.before"
    before.mkdir()
    (before / "a").write_text("old")
    restore(folder)
    assert (folder / "a").read_text() == "old" and not before.exists()
    before.mkdir()
    restore(folder)
    assert (folder / "a").read_text() == "old" and not before.exists()


def test_a_killed_process_leaves_what_was_there(tmp_path: Path) -> None:
    script = f"""
    import os, signal
    from pathlib import Path
    from molmo_ros.training.atomic_saving import replaced_file
    with replaced_file(Path({str(tmp_path / "state")!r})) as part:
        part.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    (tmp_path / "state").write_text("whole")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "state").read_text() == "whole"


def test_an_error_that_is_none_of_the_disk_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replaced_file(tmp_path / "state"):
        raise KeyError("mine")
    assert not list(tmp_path.iterdir())
