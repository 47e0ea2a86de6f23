"""The command line of data sets: draw simulated ones, convert other people's, check any."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from molmo_ros.sim.worlds import DEFAULT_WORLD, WORLDS, world_named
from molmo_ros.training.convert import convert_pixmo, convert_point_bench, convert_where2place
from molmo_ros.training.dataset import DatasetError, problems, read_dataset

LAYOUTS = ("pixmo", "point-bench", "where2place")
SPLIT_NAMES = ("train", "validation", "test")


def parser() -> argparse.ArgumentParser:
    """`draw`, `convert` and `check`."""
    whole = argparse.ArgumentParser(
        prog="python -m molmo_ros.training.dataset",
        description="Data sets of pointing questions; the format is described in docs/datasets.md.",
    )
    commands = whole.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("draw", help="simulated tables, with masks")
    draw.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    draw.add_argument("--scenes", type=int, default=100, metavar="N")
    draw.add_argument("--world", default=DEFAULT_WORLD.name, choices=WORLDS, help="what is drawn from")
    draw.add_argument("--split", default="test", choices=SPLIT_NAMES, help="whose seeds (default: test)")
    draw.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the split's first N scenes")
    draw.add_argument("--showing", metavar="KIND", help="only scenes with such a thing, and questions for it")
    draw.add_argument("--held-out", action="store_true", help="table textures and lenses never trained on")
    draw.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    convert = commands.add_parser("convert", help="other people's data")
    convert.add_argument("--from", dest="layout", required=True, choices=LAYOUTS)
    convert.add_argument("source", type=Path, help="its folder; for pixmo the file with its rows")
    convert.add_argument(
        "--images", type=Path, metavar="DIR", help="pixmo: the pictures that its rows link to"
    )
    convert.add_argument("--pixels", action="store_true", help="pixmo: points are pixels (PixMo-Count)")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    convert.add_argument("--skip-bad", action="store_true", help="leave out and list what cannot be used")
    check = commands.add_parser("check", help="read everything and name what is wrong")
    check.add_argument("dataset", type=Path, metavar="DIR")
    return whole


def run(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 found or met something bad, which is printed with its file and line."""
    options = parser()
    chosen = options.parse_args(arguments)
    try:
        return {"draw": _draw, "convert": _convert, "check": _check}[chosen.command](chosen, options)
    except DatasetError as error:
        print(error)
        return 1


def _draw(chosen: argparse.Namespace, options: argparse.ArgumentParser) -> int:
    from molmo_ros.training.draw_dataset import SPLITS, draw_dataset, recipe_of, seeds_with

    world, split = world_named(chosen.world), SPLITS[chosen.split][chosen.skip :]
    if chosen.held_out and not world.held_out_textures:
        options.error(f"the world {world.name} keeps nothing out of its training")
    if chosen.showing and chosen.showing not in world.kinds:
        options.error(f"the world {world.name} has no {chosen.showing}; it has {', '.join(world.kinds)}")
    seeds: Sequence[int] = split[: chosen.scenes]
    if chosen.showing:
        recipe = recipe_of(world, held_out=chosen.held_out)
        seeds = seeds_with(chosen.showing, recipe, split, chosen.scenes)
    if len(seeds) != chosen.scenes or not seeds:
        options.error(f"the split {chosen.split} has {len(SPLITS[chosen.split])} scenes")
    counts = draw_dataset(
        chosen.out, world, seeds, held_out=chosen.held_out, render_size=(chosen.size[0], chosen.size[1]),
        about=chosen.showing,
    )  # fmt: skip
    listed = ", ".join(f"{count} {tag}" for tag, count in sorted(counts.items()))
    print(f"{sum(counts.values())} questions about {len(seeds)} scenes in {chosen.out}: {listed}")
    return 0


def _convert(chosen: argparse.Namespace, options: argparse.ArgumentParser) -> int:
    if chosen.layout == "pixmo":
        if chosen.images is None:
            options.error("pixmo rows only link to their pictures: give their folder with --images")
        bad = convert_pixmo(
            chosen.source, chosen.images, chosen.out, in_pixels=chosen.pixels, skip_bad=chosen.skip_bad
        )
    else:
        convert = convert_point_bench if chosen.layout == "point-bench" else convert_where2place
        bad = convert(chosen.source, chosen.out, skip_bad=chosen.skip_bad)
    for error in bad:
        print(error)
    print(f"{len(read_dataset(chosen.out).samples)} questions in {chosen.out}, {len(bad)} left out")
    return 0


def _check(chosen: argparse.Namespace, options: argparse.ArgumentParser) -> int:
    dataset = read_dataset(chosen.dataset, skip_bad=True)
    found = list(problems(dataset))
    for error in found:
        print(error)
    print(f"{len(dataset.samples) + len(dataset.skipped)} questions, {len(found)} that cannot be used")
    return 1 if found else 0
