"""Does a model learn a new kind of thing from 200 pictures, and keep what it knew?

    tools/run python benchmarks/new_kind.py [--model DIR] [--quick] [--check] [--json FILE] [--work DIR]

Draws the sets (pictures that show the new kind, old pictures without it, and test sets of both from seeds that no
training shows), fine-tunes the bundled model by config/training/stapler.yaml, and asks both models the same questions.
Takes about an hour on 2 CPU cores. With --work everything is kept, and a run that was cut goes on. --quick shows that
all parts work, on a few pictures, and says nothing about learning: its figures have no goals.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from figures import Figure, parser, report

from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.loading import load_pointer
from molmo_ros.sim.worlds import DEFAULT_WORLD, World
from molmo_ros.training.dataset import QUESTIONS, read_dataset
from molmo_ros.training.draw_dataset import SPLITS, draw_dataset, recipe_of, seeds_with
from molmo_ros.training.evaluate_data import Answered, evaluate_data
from molmo_ros.training.finetune import finetune
from molmo_ros.training.relations import RELATIONS
from molmo_ros.training.tuning_settings import Source, read_settings

CONFIG = Path(__file__).parents[1] / "config" / "training" / "stapler.yaml"
KIND = "stapler"
HIT_GOAL, LOSS_GOAL_POINTS = 80.0, 2.0

#: Scenes before this one steered or calibrated other trainings.
FIRST_SCENE = 200_000


@dataclass(frozen=True)
class Sizes:
    """Numbers of scenes and steps; pictures to learn from are drawn at the size of the first training."""

    new: int = 200
    old: int = 1500
    test_new: int = 200
    test_old: int = 300
    steps: int | None = None
    size: tuple[int, int] = (480, 360)


QUICK = Sizes(new=6, old=6, test_new=4, test_old=4, steps=3, size=(320, 240))


def with_new_kind(world: World) -> World:
    """The world of the bundled model and one kind more."""
    return replace(world, name="workshop", kinds=(*world.kinds, KIND))


def draw_sets(folder: Path, sizes: Sizes) -> None:
    """The four sets, each once."""
    old, new = DEFAULT_WORLD, with_new_kind(DEFAULT_WORLD)
    train, test = SPLITS["train"][FIRST_SCENE:], SPLITS["test"][FIRST_SCENE:]
    orders: dict[str, tuple[World, Sequence[int], tuple[int, int]]] = {
        "new": (new, seeds_with(KIND, recipe_of(new), train, sizes.new), sizes.size),
        "old": (old, train[: sizes.old], sizes.size),
        "test_new": (new, seeds_with(KIND, recipe_of(new), test, sizes.test_new), (640, 480)),
        "test_old": (old, test[: sizes.test_old], (640, 480)),
    }
    for name, (world, seeds, size) in orders.items():
        if not (folder / name / QUESTIONS).exists():
            # Old pictures to learn from are asked for the new kind, too, which is not there.
            words = new if name == "old" else world
            about = KIND if name in ("new", "test_new") else None
            draw_dataset(folder / name, world, seeds, render_size=size, words=words, about=about)


def learn(base: Path, work: Path, sizes: Sizes) -> Path:
    """The fine-tuned model's folder."""
    settings = read_settings(CONFIG)
    sources = tuple(
        Source(str(work / "sets" / Path(source.folder).name), source.pictures_per_step)
        for source in settings.data
    )
    steps = sizes.steps or settings.steps
    return finetune(replace(settings, data=sources, steps=steps), base, work / "run")


def hit_share(answers: Sequence[Answered]) -> float:
    """Percent of the single targets, not by relation, that were hit."""
    single = [a for a in answers if a.sample.task == "point" and a.sample.tag not in RELATIONS]
    return 100 * sum(a.score.right for a in single) / len(single)


def right_share(answers: Sequence[Answered]) -> float:
    """Percent of all questions that were answered rightly."""
    return 100 * sum(a.score.right for a in answers) / len(answers)


def measure(base: Path, tuned: Path, sets: Path, with_goals: bool) -> list[Figure]:
    models = {"before": load_pointer(base), "after": load_pointer(tuned)}
    new, _ = evaluate_data(models, read_dataset(sets / "test_new"))
    old, _ = evaluate_data(models, read_dataset(sets / "test_old"))
    about = {name: [a for a in answers if KIND in a.sample.target.split()] for name, answers in new.items()}
    hits = {name: hit_share(answers) for name, answers in about.items()}
    old_hits = {name: hit_share(answers) for name, answers in old.items()}
    old_right = {name: right_share(answers) for name, answers in old.items()}
    single = sum(a.sample.task == "point" and a.sample.tag not in RELATIONS for a in about["after"])
    hit_goal, loss_goal = (HIT_GOAL, LOSS_GOAL_POINTS) if with_goals else (None, None)
    return [
        Figure(f"{KIND}: hit before, of {single}", hits["before"], "%"),
        Figure(f"{KIND}: hit after", hits["after"], "%", hit_goal, at_least=True),
        Figure("old test set: one target, hit before", old_hits["before"], "%"),
        Figure("old test set: one target, hit after", old_hits["after"], "%"),
        Figure("old test set: one target, lost", old_hits["before"] - old_hits["after"], "points", loss_goal),
        Figure(f"old test set: all right before, of {len(old['after'])}", old_right["before"], "%"),
        Figure("old test set: all right after", old_right["after"], "%"),
        Figure(
            "old test set: all right, lost", old_right["before"] - old_right["after"], "points", loss_goal
        ),
    ]


@contextmanager
def work_folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


def options() -> argparse.ArgumentParser:
    chosen = parser(__doc__, "a few pictures and three steps")
    chosen.add_argument("--model", type=Path, default=bundled_model_folder(), metavar="DIR")
    chosen.add_argument("--work", type=Path, metavar="DIR", help="keep the sets, the run and the model here")
    return chosen


def main() -> int:
    chosen = options().parse_args()
    sizes = QUICK if chosen.quick else Sizes()
    with work_folder(chosen.work) as work:
        draw_sets(work / "sets", sizes)
        tuned = learn(chosen.model, work, sizes)
        figures = measure(chosen.model, tuned, work / "sets", with_goals=not chosen.quick)
    return report(figures, chosen, f"{chosen.model.name}, a new kind: {KIND}")


if __name__ == "__main__":
    raise SystemExit(main())
