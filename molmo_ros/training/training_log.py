"""What a training tells while it runs: a progress bar, a line of JSON each 50 steps, and TensorBoard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from molmo_ros.training.schedule import Schedule

#: Steps between two lines, whose losses are means over them.
LINE_EVERY = 50


class TrainingLog:
    """Writes `log.jsonl` and TensorBoard's files into the run folder, and shows a bar on a terminal."""

    def __init__(self, run: Path, schedule: Schedule, title: str, first_step: int) -> None:
        self._file = (run / "log.jsonl").open("a")
        self._board = SummaryWriter(str(run / "tensorboard"))
        console = Console()
        console.print(title)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._bar = self._progress.add_task("", total=schedule.steps, completed=first_step, said="")
        self._found: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._count, self._since = 0, time.monotonic()

    def __enter__(self) -> TrainingLog:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._board.close()
        self._file.close()

    def step(self, step: int, lesson: str, losses: dict[str, float]) -> None:
        """One step was taken."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if step % LINE_EVERY == 0:
            means = {name: total / self._count for name, total in self._sums.items()}
            seconds = (time.monotonic() - self._since) / self._count
            self._write(
                {"step": step, "lesson": lesson, **_rounded(means), "seconds_per_step": round(seconds, 3)}
            )
            for name, value in means.items():
                self._board.add_scalar(f"loss/{name}", value, step)
            self._sums, self._count, self._since = {}, 0, time.monotonic()
        said = [f"loss {sum(losses.values()):.2f}"]
        said += [f"{name} {self._found[name]:.0%}" for name in ("hit", "absent") if name in self._found]
        self._progress.update(self._bar, completed=step, description=lesson, said=", ".join(said))

    def validation(self, step: int, found: dict[str, float]) -> None:
        """Shares of right answers on pictures that are not learnt from."""
        self._found |= found
        self._write({"step": step, **_rounded(found)})
        for name, value in found.items():
            self._board.add_scalar(f"validation/{name}", value, step)
        self._since = time.monotonic()

    def _write(self, entry: dict[str, object]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
