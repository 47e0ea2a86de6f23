"""Figures beside their goals: what every benchmark prints, writes as JSON and checks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value. `goal` is an upper bound in `unit`, or a lower one if `at_least`; None only informs."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def parser(description: str, quick: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have; `quick` says what `--quick` leaves out."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options.add_argument("--quick", action="store_true", help=f"{quick}: under a minute")
    options.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    return options


def report(figures: Sequence[Figure], options: argparse.Namespace, title: str = "") -> int:
    """Print the table, write the JSON, and give the exit code that `options.check` asks for."""
    table = Table("figure", "measured", "goal", "met", title=title or None)
    for figure in figures:
        bound = "" if figure.goal is None else f"{'>=' if figure.at_least else '<='} {figure.goal:g}"
        met = {None: "", True: "yes", False: "NO"}[figure.met]
        table.add_row(figure.name, f"{figure.value:.4g} {figure.unit}".rstrip(), bound, met)
    Console().print(table)
    if options.json:
        found = [asdict(figure) | {"met": figure.met} for figure in figures]
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if options.check and any(figure.met is False for figure in figures) else 0
