"""How fast scenes are drawn, and how much of the training loop is training.

    tools/run python benchmarks/training.py [--quick] [--check] [--json FILE]

Draws training scenes of the newest world at 224 pixels, as `train` does: one process on each core, into shards. Then
takes steps of the last lesson fed from these shards and counts the time in forward, backward and step against all of
the loop, which waits for batches besides. Other work on the machine slows the drawing, so the best of several
repeats counts.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from figures import Figure, parser, report
from torch.utils.data import DataLoader

from molmo_ros.training.batches import QuestionBatches
from molmo_ros.training.memory import keep_freed_memory
from molmo_ros.training.scenes import TRAIN_SEEDS, Grid, ShardOrder, draw_shards, load_shards
from molmo_ros.training.schedule import read_config
from molmo_ros.training.train import Trainer, build_processor, world_of

CONFIG = Path(__file__).parents[1] / "config" / "training" / "tabletop.yaml"
SCENES_GOAL, SHARE_GOAL = 50.0, 90.0
SIZE, CORES = (224, 168), 2


def orders(
    config: dict[str, Any], grid: Grid, folder: Path, scenes: int, size: tuple[int, int]
) -> list[ShardOrder]:
    """One shard for each core."""
    settings = config["scenes"]
    each = scenes // CORES
    return [
        ShardOrder(
            folder / f"{core}.npz",
            TRAIN_SEEDS.start + core * each,
            each,
            size,
            tuple(settings["objects"]),
            grid,
            world_of(config).name,
            settings.get("twin_probability", 0.35),
            settings.get("samples", 0),
        )
        for core in range(CORES)
    ]


def drawing(
    config: dict[str, Any], grid: Grid, folder: Path, scenes: int, repeats: int
) -> tuple[float, float]:
    """Scenes a second, and processor seconds for one, which others on the machine change less; the best of several
    repeats. Starting the processes and building the first scene is left out: a training draws
    for half an hour."""
    beginnings, wholes = [], []
    for repeat in range(repeats):
        beginnings.append(_seconds_to_draw(orders(config, grid, folder / f"few{repeat}", CORES, SIZE)))
        wholes.append(_seconds_to_draw(orders(config, grid, folder / f"many{repeat}", scenes + CORES, SIZE)))
    clock_s, processor_s = (
        min(whole) - min(beginning)
        for whole, beginning in zip(zip(*wholes, strict=True), zip(*beginnings, strict=True), strict=True)
    )
    # On a machine that others keep busy the start may take longer than all of the drawing.
    return scenes / clock_s if clock_s > 0 else float("nan"), processor_s / scenes


def _seconds_to_draw(shards: Sequence[ShardOrder]) -> tuple[float, float]:
    """On the clock, and of all processors together."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    draw_shards(shards, CORES)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - started, used_s


def training_share(
    config: dict[str, Any], folder: Path, shards: Sequence[Path], steps: int
) -> tuple[float, float]:
    """Percent of the loop's time in forward, backward and step, and seconds for a step."""
    _, schedule = read_config(CONFIG)
    processor = build_processor(config)
    grid = Grid.of(processor.image_processor, tuple(config["scenes"]["render_size"][::-1]))
    lesson = schedule.lessons[-1]
    trainer = Trainer(config, schedule, folder)
    trainer.step = schedule.steps - lesson.steps
    stream = QuestionBatches(
        load_shards(shards), processor, grid, seed=0, pictures=lesson.pictures_per_step,
        questions=schedule.questions_per_picture, absent_share=lesson.absent_share, short_share=lesson.short_share,
    )  # fmt: skip
    batches = iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=8))
    for _ in range(4):  # allocations, and the worker's start
        trainer.take_step(next(batches))
    inside_s, started = 0.0, time.perf_counter()
    for _ in range(steps):
        batch = next(batches)
        begun = time.perf_counter()
        trainer.take_step(batch)
        inside_s += time.perf_counter() - begun
    whole_s = time.perf_counter() - started
    return 100 * inside_s / whole_s, whole_s / steps


def measure(scenes: int, repeats: int, steps: int) -> list[Figure]:
    keep_freed_memory()
    torch.set_num_threads(CORES)
    config, _ = read_config(CONFIG)
    processor = build_processor(config)
    grid = Grid.of(processor.image_processor, tuple(config["scenes"]["render_size"][::-1]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rate, scene_s = drawing(config, grid, folder, scenes, repeats)
        shards = sorted((folder / "many0").glob("*.npz"))
        share, step_s = training_share(config, folder, shards, steps)
    return [
        Figure(
            f"scenes drawn on {CORES} cores at {SIZE[0]} px", rate, "scenes/s", SCENES_GOAL, at_least=True
        ),
        Figure("processor time of a scene", 1000 * scene_s, "ms"),
        Figure("forward, backward and step in the loop", share, "%", SHARE_GOAL, at_least=True),
        Figure("one step of the last lesson", step_s, "s"),
    ]


def main() -> int:
    arguments = parser(__doc__, "few scenes and steps").parse_args()
    figures = measure(120, 1, 8) if arguments.quick else measure(600, 3, 60)
    return report(figures, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
