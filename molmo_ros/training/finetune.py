"""Teach a Molmo your own things, from a data set of pointing questions (docs/datasets.md).

    python -m molmo_ros.training.finetune --model DIR --config config/training/finetune.yaml --run runs/mine

The whole model learns, or a LoRA beside it. The state is saved every few minutes; the same command goes on where a
run was cut. With a validation set, what did best on it is kept, else the last; `runs/mine/checkpoint` is what the
node's parameter `model` takes, and `python -m molmo_ros.training.evaluate` judges.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from molmo_ros.molmo.loading import CheckpointError
from molmo_ros.training.atomic_saving import SavingError
from molmo_ros.training.dataset import DatasetError, read_dataset
from molmo_ros.training.exercises import Exercise, exercises_of
from molmo_ros.training.memory import keep_freed_memory
from molmo_ros.training.tuner import RESULT, Tuner, load_for
from molmo_ros.training.tuning_batches import Reader, TuningBatch, TuningSteps, fixed_batches
from molmo_ros.training.tuning_settings import Settings, SettingsError, read_settings


def parser() -> argparse.ArgumentParser:
    from molmo_ros.pointing import bundled_model_folder

    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--model", type=Path, default=bundled_model_folder(), metavar="DIR",
        help="checkpoint of a Molmo v1 to begin with (default: the bundled one); it is not changed",
    )  # fmt: skip
    options.add_argument("--config", type=Path, default=Path("config/training/finetune.yaml"))
    options.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="folder for state, log and result"
    )
    options.add_argument(
        "--skip-bad", action="store_true", help="leave out and count what cannot be learnt from"
    )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 something in the data, the settings, the checkpoint or on the disk; one line says what."""
    chosen = parser().parse_args(arguments)
    try:
        finetune(read_settings(chosen.config), chosen.model, chosen.run, skip_bad=chosen.skip_bad)
    except (SettingsError, DatasetError, CheckpointError, SavingError) as error:
        print(error)
        return 1
    return 0


def finetune(settings: Settings, base: Path, run: Path, *, skip_bad: bool = False) -> Path:
    """Run to the end, or on from where it was cut; the folder with the result.

    Raises:
        SettingsError, DatasetError, CheckpointError, SavingError: see there.
    """
    keep_freed_memory()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    sources = [read_exercises(Path(source.folder), skip_bad) for source in settings.data]
    validation = read_exercises(Path(settings.validation), skip_bad) if settings.validation else []
    model, processor = load_for(settings, base)
    tuner = Tuner(settings, model, processor, base, run)
    if tuner.resume():
        print(f"going on at step {tuner.step} of {settings.steps}")
    count = sum(parameter.numel() for _, parameter in tuner.learning())
    print(f"{count / 1e6:.2f} M parameters learn from {sum(map(len, sources))} questions", flush=True)
    reader = Reader(processor, settings.loss_weights)
    judges = fixed_batches(validation, reader, settings) if validation else []
    run.mkdir(parents=True, exist_ok=True)
    with (run / "log.jsonl").open("a") as log:
        _learn(tuner, TuningSteps(sources, reader, settings), judges, log)
    return run / RESULT


def read_exercises(folder: Path, skip_bad: bool) -> list[Exercise]:
    """What can be learnt from a data set; what cannot is printed and counted. Raises DatasetError."""
    exercises, left_out = exercises_of(read_dataset(folder, skip_bad=skip_bad), skip_bad=skip_bad)
    for error in left_out:
        print(f"left out: {error}")
    if left_out:
        print(f"{len(left_out)} questions of {folder} left out, {len(exercises)} are used")
    return exercises


def _learn(tuner: Tuner, steps: TuningSteps, judges: list[TuningBatch], log: TextIO) -> None:
    settings, saved_s = tuner.settings, time.monotonic()
    if judges and tuner.step == 0:
        _note(log, {"step": 0, "validation": tuner.validate(judges)})
    stream = DataLoader(
        steps,
        batch_size=None,
        sampler=range(tuner.step, settings.steps),
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
    )
    with _progress() as bar:
        task = bar.add_task("learning", total=settings.steps, completed=tuner.step, said="")
        for batches in stream:
            loss = tuner.take_step(batches)
            entry: dict[str, Any] = {"step": tuner.step, "loss": round(loss, 5)}
            last = tuner.step == settings.steps
            if judges and (last or tuner.step % settings.validate_every_steps == 0):
                entry["validation"] = round(tuner.validate(judges), 5)
                if entry["validation"] < tuner.best:
                    tuner.best = entry["validation"]
                    tuner.save_result()
            elif last:
                tuner.save_result()
            _note(log, entry)
            bar.update(
                task, completed=tuner.step, said=" ".join(f"{k} {v}" for k, v in entry.items() if k != "step")
            )
            if last or time.monotonic() - saved_s >= 60 * settings.save_every_minutes:
                tuner.save_state()
                saved_s = time.monotonic()


def _note(log: TextIO, entry: dict[str, Any]) -> None:
    log.write(json.dumps(entry) + "\n")
    log.flush()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
