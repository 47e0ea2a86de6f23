"""Simulated tables as a data set: every sort of question, with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from rich.progress import track

from molmo_ros.sim.free_space import emptiest_spot, free_table
from molmo_ros.sim.scene import SceneRecipe, SceneState, draw_scene
from molmo_ros.sim.tabletop import TabletopScene, View
from molmo_ros.sim.truth import ObjectTruth, scene_truth
from molmo_ros.sim.worlds import World
from molmo_ros.training.dataset import DatasetWriter
from molmo_ros.training.questions import Question, Thing
from molmo_ros.training.relations import RELATIONS
from molmo_ros.training.scenes import (
    LEAST_VISIBLE_SHARE,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    aim_point,
)
from molmo_ros.training.tabletop_questions import UNNAMED, Seen, ask

SPLITS = {"train": TRAIN_SEEDS, "validation": VALIDATION_SEEDS, "test": TEST_SEEDS}

#: What is asked in every scene that allows it; relations take turns besides, two in a scene.
ASKED = ("point", "point", "kind", "several", "count", "free", "absent", "absent")

#: As the simulator node draws its pictures.
ANTIALIASING = 4

_JPEG_QUALITY = 95

#: Tries to draw a question about a certain kind; with ten things on the table one in a thousand scenes has none.
_DRAWS = 60


def draw_dataset(
    folder: Path,
    world: World,
    seeds: Sequence[int],
    *,
    objects: tuple[int, int] | None = None,
    held_out: bool = False,
    render_size: tuple[int, int] = (640, 480),
    words: World | None = None,
    about: str | None = None,
) -> Counter[str]:
    """Write the scenes of `seeds` as a data set; how many questions there are of each sort.

    Args:
        folder: where to; must not hold a data set yet.
        world: what to draw from.
        seeds: of the scenes; see `SPLITS` for those that no training shows.
        objects: fewest and most things with names, by default 2 to as many as the world has.
        held_out: with table textures and fields of view that no training shows.
        render_size: (width, height) of the pictures.
        words: the world whose words the questions use, if it knows more than `world`: what is never there, too.
        about: a kind that is asked for besides, in every scene that shows it.
    """
    recipe = recipe_of(world, objects, held_out)
    tabletop = TabletopScene(render_size, recipe, samples=ANTIALIASING)
    counts: Counter[str] = Counter()
    name = f"{world.name}, held out" if held_out else world.name
    described = {"name": name, "source": "molmo_ros.sim", "world": world.name, "held_out": held_out}
    with DatasetWriter(folder, **described, seeds=[min(seeds), max(seeds) + 1]) as writer:
        for seed in track(seeds, description="drawing", transient=True):
            state = tabletop.reset(seed)
            view = tabletop.render(segmentation=True)
            counts += _write_scene(writer, words or world, state, view, about)
    tabletop.close()
    return counts


def recipe_of(world: World, objects: tuple[int, int] | None = None, held_out: bool = False) -> SceneRecipe:
    """How the scenes of a data set are drawn; see `draw_dataset`."""
    return SceneRecipe(objects or (2, world.most_objects), True, 0.5, world, held_out)


def seeds_with(kind: str, recipe: SceneRecipe, seeds: Iterable[int], count: int) -> list[int]:
    """The first `count` seeds whose scenes have a thing of this kind, fewer if there are not so many."""

    def having() -> Iterator[int]:
        return (seed for seed in seeds if any(o.kind == kind for o in draw_scene(seed, recipe).objects))

    return list(islice(having(), count))


def _write_scene(
    writer: DatasetWriter, world: World, state: SceneState, view: View, about: str | None
) -> Counter[str]:
    assert view.ids is not None
    seed = state.seed
    image = writer.add_image(f"{seed:07d}.jpg", view.color, quality=_JPEG_QUALITY)
    truths = scene_truth(state, view.ids, int(LEAST_VISIBLE_SHARE * view.ids.size))
    free = free_table(state, view.depth_m, view.ids)
    seen = seen_in(world, state, truths, view.ids.shape, emptiest_spot(free))
    masks: dict[str, str] = {}

    def mask_of(target: int | None) -> str:
        key = "free" if target is None else f"{truths[target].id:02d}"
        if key not in masks:
            there = free if target is None else truths[target].mask_HW
            masks[key] = writer.add_mask(f"{seed:07d}_{key}.png", there)
        return masks[key]

    counts: Counter[str] = Counter()
    for question in questions_about(seen, world, seed, about):
        is_free = question.task == "free"
        task, tag = _task_and_tag(question)
        writer.add(
            image,
            target_of(question),
            task=task,
            tag=tag,
            points=[[round(x, 2), round(y, 2)] for x, y in question.points],
            masks=[mask_of(None)] if is_free else [mask_of(i) for i in question.targets],
            count=len(question.points) if task == "count" else None,
            label=question.label,
            question=question.text,
            answer=question.answer,
            source=f"seed {seed}",
        )
        counts[tag] += 1
    return counts


def seen_in(
    world: World,
    state: SceneState,
    truths: tuple[ObjectTruth, ...],
    shape: tuple[int, ...],
    spot_uv: tuple[float, float] | None,
) -> Seen:
    """What questions may turn on, from the truth about a picture of `shape` (height, width)."""
    height, width = shape[:2]
    things = []
    for truth in truths:
        u, v = aim_point(truth.mask_HW)
        kind = truth.kind if truth.kind in world.kinds else UNNAMED
        colour = truth.colour if truth.colour in world.colours else ""
        x, y = 100 * u / width, 100 * v / height
        things.append(Thing(colour, kind, x, y, truth.bulk_m, truth.distance_m, truth.visible_pixels))
    visible = {truth.id for truth in truths}
    hidden = tuple((o.colour, o.kind) for o in state.objects if o.id not in visible)
    spot = None if spot_uv is None else (100 * spot_uv[0] / width, 100 * spot_uv[1] / height)
    return Seen(tuple(things), hidden, spot)


def questions_about(seen: Seen, world: World, seed: int, kind: str | None = None) -> list[Question]:
    """One question of each sort in `ASKED`, and of two relations; with `kind` also for its things, by colour and
    kind and by kind alone; none twice."""
    rng = np.random.default_rng((seed, 13))
    tasks = [*ASKED, RELATIONS[seed % len(RELATIONS)], RELATIONS[(3 * seed + 1) % len(RELATIONS)]]
    questions: dict[tuple[str, str], Question] = {}
    for task in tasks:
        for _ in range(6):
            question = ask(seen, world, task, rng)
            if question is None:
                break
            key = (question.task, question.label)
            # One thing by its words; where several share them, that is another sort, and asked in the plural.
            other = question.task == "several" and (task != "several" or not question.label.endswith("s"))
            if key not in questions and not other:
                questions[key] = question
                break
    if kind is not None:
        # Which thing is asked for is drawn: some draws will be of this kind.
        drawn = [ask(seen, world, task, rng) for task in ("point", "kind") for _ in range(_DRAWS)]
        for question in (q for q in drawn if q is not None and q.kind == kind):
            questions.setdefault((question.task, question.label), question)
    return list(questions.values())


def target_of(question: Question) -> str:
    """What to ask a model to point at."""
    if question.task == "free":
        article = (
            "" if question.label.startswith("free space") else "a " if question.label[0] == "f" else "an "
        )
        return article + question.label
    if question.task in ("several", "count"):
        return f"all the {question.label}"
    return f"the {question.label}"


def _task_and_tag(question: Question) -> tuple[str, str]:
    if question.task in RELATIONS:
        return "point", question.task
    if question.task == "free":
        return "region", "free space"
    if question.task == "several":
        return "set" if len(question.points) > 1 else "point", "several"
    if question.task == "count":
        return ("count", "count") if question.points else ("absent", "count of none")
    if question.task == "absent":
        return "absent", "absent"
    by = "colour and kind" if question.colour and question.kind else "kind" if question.kind else "colour"
    return "point", by
