"""What is asked about a table of the later worlds: things, sets, counts, relations, free space, what is not there.

The first world's questions stand in `batches.draw_question`; both share their wording (`questions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from molmo_ros.sim.worlds import World
from molmo_ros.training.questions import (
    TEMPLATES,
    Question,
    Thing,
    counting_answer,
    draw_template,
    in_answer_order,
    plural,
    points_answer,
)
from molmo_ros.training.relations import RELATIONS, SIDES, SUPERLATIVES, SYNONYMS, beside, standing_out

#: The kind of a thing without a name, and the noun for whatever has a colour.
UNNAMED = "thing"
NOUNS = (UNNAMED, "object")

#: More points make every sequence of the batch longer.
MOST_POINTS = 6

COUNTING_TEMPLATES = (
    "How many {label} are there?",
    "How many {label} are on the table?",
    "Count the {label}.",
    "Count all the {label}.",
    "Point to every {label} and count them.",
    "point_count: {label}",
)
SET_TEMPLATES = (
    "Point to all the {label}.",
    "Point to the {label}.",
    "Point to all {label}.",
    "Point to any {label}.",
    "Where are the {label}?",
    "Find all {label}.",
    "Show me all the {label}.",
    "Locate all the {label}.",
    "pointing: {label}",
)
FREE_TEMPLATES = (
    "Point to {label}.",
    "Point to {label}.",
    "Where is {label}?",
    "Find {label}.",
    "Show me {label}.",
    "pointing: {label}",
)
FREE_LABELS = (
    "an empty spot on the table",
    "a free spot on the table",
    "free space on the table",
    "an empty space on the table",
    "a free place on the table",
    "an empty spot",
    "free space",
)
#: Asked so, the point stands in a sentence.
POINT_QA = "point_qa: Where is the {label}?"
POINT_QA_SHARE = 0.04

#: How often each sort of question is drawn among those whose answer is a point; where a scene does not allow it,
#: one thing is asked for instead.
SHARES = {
    "point": 0.40,
    "kind": 0.12,
    "colour": 0.08,
    "several": 0.10,
    "count": 0.10,
    "relation": 0.13,
    "free": 0.07,
}


@dataclass(frozen=True)
class Seen:
    """What is true of one picture.

    `hidden`: (colour, kind) of things that are there, but hardly to be seen: nothing is asked that turns on
    them. `free_spot`: the middle of the widest free place on the table, in percent, None where it is full.
    """

    things: tuple[Thing, ...]
    hidden: tuple[tuple[str, str], ...] = ()
    free_spot: tuple[float, float] | None = None

    def mirrored(self) -> Seen:
        """The same table in a mirror: left is right."""
        spot = None if self.free_spot is None else (100.0 - self.free_spot[0], self.free_spot[1])
        return replace(self, things=tuple(replace(t, x=100.0 - t.x) for t in self.things), free_spot=spot)

    def group(self, colour: str | None, kind: str | None) -> list[int]:
        """Indices of the things that the words fit; None leaves a word open."""
        return [i for i, t in enumerate(self.things) if _fits(t.colour, t.kind, colour, kind)]

    def sure(self, colour: str | None, kind: str | None) -> bool:
        """Whether no hidden thing fits the words."""
        return not any(_fits(*words, colour, kind) for words in self.hidden)


def _fits(own_colour: str, own_kind: str, colour: str | None, kind: str | None) -> bool:
    return (colour is None or own_colour == colour) and (kind is None or own_kind == kind)


def draw_question(seen: Seen, world: World, rng: np.random.Generator, absent_share: float = 0.25) -> Question:
    """One question, in the shares that training uses."""
    if rng.random() < absent_share:
        return ask(seen, world, "absent", rng) or _ask_kind_that_is_not_there(seen, world, rng)
    task = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    for wanted in (task, "point", "kind", "free", "absent"):
        question = ask(seen, world, wanted, rng)
        if question is not None:
            return question
    return _ask_kind_that_is_not_there(seen, world, rng)


def ask(seen: Seen, world: World, task: str, rng: np.random.Generator) -> Question | None:
    """A question of one sort (a key of `SHARES`, "absent", or one of `RELATIONS`); None where there is none to ask."""
    if task in RELATIONS:
        return _ask_relation(seen, world, rng, task)
    return _ASKERS[task](seen, world, rng)


def _ask_one(seen: Seen, world: World, rng: np.random.Generator) -> Question | None:
    """By colour and kind; where several share both, for all of them."""
    words = {(t.colour, t.kind) for t in seen.things if t.kind in world.kinds}
    return _ask_for(seen, sorted(words), rng)


def _ask_kind(seen: Seen, world: World, rng: np.random.Generator) -> Question | None:
    kinds = {t.kind for t in seen.things if t.kind in world.kinds}
    return _ask_for(seen, [(None, kind) for kind in sorted(kinds)], rng)


def _ask_colour(seen: Seen, world: World, rng: np.random.Generator) -> Question | None:
    colours = {t.colour for t in seen.things if t.colour in world.colours}
    return _ask_for(seen, [(colour, None) for colour in sorted(colours)], rng)


def _ask_several(seen: Seen, world: World, rng: np.random.Generator) -> Question | None:
    return _ask_for(seen, _sets(seen, world), rng)


Words = tuple[str | None, str | None]


def _sets(seen: Seen, world: World) -> list[Words]:
    """Words that fit more than one thing."""
    named = [t for t in seen.things if t.kind in world.kinds]
    words: set[Words] = {(None, t.kind) for t in named} | {(t.colour, t.kind) for t in named}
    words |= {(t.colour, None) for t in seen.things if t.colour in world.colours}
    return [pair for pair in sorted(words, key=str) if len(seen.group(*pair)) > 1]


def _ask_for(seen: Seen, candidates: Sequence[Words], rng: np.random.Generator) -> Question | None:
    words = _pick(seen, candidates, rng)
    if words is None:
        return None
    group = seen.group(*words)
    noun = _noun(words, rng)
    if len(group) > 1 and rng.random() < 0.85:
        return _pointing(draw_template(SET_TEMPLATES, rng), plural(noun), words, seen, group, "several")
    template = draw_template(TEMPLATES, rng)
    task = "point" if len(group) == 1 else "several"
    if len(group) == 1 and rng.random() < POINT_QA_SHARE:
        template = POINT_QA
    return _pointing(template, noun, words, seen, group, task)


def _pick(seen: Seen, candidates: Sequence[Words], rng: np.random.Generator) -> Words | None:
    """Words that fit no hidden thing and not too many visible ones."""
    fit = [words for words in candidates if seen.sure(*words) and 0 < len(seen.group(*words)) <= MOST_POINTS]
    return fit[int(rng.integers(len(fit)))] if fit else None


def _noun(words: Words, rng: np.random.Generator) -> str:
    """The words as a label: "red cube", "cube", "red thing"."""
    colour, kind = words
    noun = kind or str(rng.choice(NOUNS))
    return f"{colour} {noun}" if colour else noun


def _ask_count(seen: Seen, world: World, rng: np.random.Generator) -> Question | None:
    """Mostly of more than one; sometimes of one, sometimes of none."""
    candidates: list[Words] = _sets(seen, world)
    if not candidates or rng.random() < 0.2:
        candidates = [(None, kind) for kind in world.kinds if len(seen.group(None, kind)) <= 1]
    fit = [words for words in candidates if seen.sure(*words) and len(seen.group(*words)) <= MOST_POINTS]
    if not fit:
        return None
    words = fit[int(rng.integers(len(fit)))]
    label = plural(_noun(words, rng))
    question = _pointing(
        draw_template(COUNTING_TEMPLATES, rng), label, words, seen, seen.group(*words), "count"
    )
    return replace(question, answer=counting_answer(question.points, label))


def _ask_relation(seen: Seen, world: World, rng: np.random.Generator, relation: str = "") -> Question | None:
    """A thing among others by where it is or how large; of any sort, or of one."""
    sorts = [relation] if relation else [str(r) for r in rng.permutation(RELATIONS)]
    for sort in sorts:
        question = (
            _superlative(seen, world, rng, sort) if sort in SUPERLATIVES else _beside(seen, world, rng, sort)
        )
        if question is not None:
            return question
    return None


def _superlative(seen: Seen, world: World, rng: np.random.Generator, relation: str) -> Question | None:
    groups = _sets(seen, world)
    if relation in ("largest", "smallest"):  # what is larger, a plate or a bottle?
        groups = [words for words in groups if words[1] is not None]
    elif len(seen.things) > 1:
        groups = [*groups, (None, None)]
    for place in rng.permutation(len(groups)):
        words = groups[int(place)]
        target = standing_out(relation, seen.things, seen.group(*words))
        if target is not None and seen.sure(*words):
            label = f"{_said(relation, rng)} {_noun(words, rng)}"
            return _pointing(draw_template(TEMPLATES, rng), label, words, seen, [target], relation)
    return None


def _beside(seen: Seen, world: World, rng: np.random.Generator, relation: str) -> Question | None:
    unique: list[Words] = [
        words
        for t in seen.things
        if t.kind in world.kinds
        for words in ((None, t.kind), (t.colour, t.kind))
        if len(seen.group(*words)) == 1 and seen.sure(*words)
    ]
    groups = [words for words in [*_sets(seen, world), *unique] if seen.sure(*words) and words[1] is not None]
    pairs = [(words, anchor) for words in groups for anchor in unique]
    for place in rng.permutation(len(pairs))[:12]:
        words, anchor = pairs[int(place)]
        if words[1] == anchor[1]:
            continue
        target = beside(relation, seen.things, seen.group(*words), seen.group(*anchor)[0])
        if target is not None:
            label = f"{_noun(words, rng)} {_said(relation, rng)} the {_noun(anchor, rng)}"
            return _pointing(draw_template(TEMPLATES, rng), label, words, seen, [target], relation)
    return None


def _said(relation: str, rng: np.random.Generator) -> str:
    words = SYNONYMS.get(relation, (relation,))
    return words[0] if rng.random() < 0.7 else words[-1]


def _ask_free(seen: Seen, world: World, rng: np.random.Generator) -> Question | None:
    if seen.free_spot is None:
        return None
    label = draw_template(FREE_LABELS, rng)
    text = draw_template(FREE_TEMPLATES, rng).format(label=label)
    bare = label.removeprefix("an ").removeprefix("a ")
    points = (seen.free_spot,)
    return Question(text, points_answer(points, bare), bare, (), None, None, points, "free")


def _ask_absent(seen: Seen, world: World, rng: np.random.Generator) -> Question | None:
    """Mostly a near miss, best of a colour and a kind that are both there; also words that fit nothing at all."""
    kinds = sorted({t.kind for t in seen.things if t.kind in world.kinds})
    colours = sorted({t.colour for t in seen.things if t.colour in world.colours})
    crossed: list[Words] = [(c, k) for c in colours for k in kinds]
    near: list[Words] = [(c, k) for c in world.colours for k in kinds]
    near += [(c, k) for c in colours for k in world.kinds]
    kind_alone: list[Words] = [(None, kind) for kind in world.kinds]
    colour_alone: list[Words] = [(colour, None) for colour in world.colours]
    far: list[Words] = [(c, k) for c in world.colours for k in world.kinds]
    sorts = (crossed, near, kind_alone, colour_alone, far)
    first = int(rng.choice(len(sorts), p=(0.3, 0.25, 0.2, 0.1, 0.15)))
    for candidates in (sorts[first], near, far):
        fit = sorted({w for w in candidates if seen.sure(*w) and not seen.group(*w)}, key=str)
        if fit:
            return _absence(fit[int(rng.integers(len(fit)))], seen, rng)
    return None


def _ask_kind_that_is_not_there(seen: Seen, world: World, rng: np.random.Generator) -> Question:
    """There is always one: no table holds all kinds."""
    kinds = [kind for kind in world.kinds if seen.sure(None, kind) and not seen.group(None, kind)]
    return _absence((None, kinds[int(rng.integers(len(kinds)))]), seen, rng)


def _absence(words: Words, seen: Seen, rng: np.random.Generator) -> Question:
    noun = _noun(words, rng)
    if rng.random() < 0.25:
        template, noun = draw_template(SET_TEMPLATES, rng), plural(noun)
    else:
        template = draw_template(TEMPLATES, rng)
    return _pointing(template, noun, words, seen, [], "absent")


def _pointing(
    template: str, label: str, words: Words, seen: Seen, group: Sequence[int], task: str
) -> Question:
    targets = in_answer_order(seen.things, group)
    points = tuple((seen.things[i].x, seen.things[i].y) for i in targets)
    answer = points_answer(points, label)
    if template == POINT_QA:
        answer = f" The{answer} is here."
    return Question(template.format(label=label), answer, label, targets, *words, points, task)


_ASKERS: dict[str, Callable[[Seen, World, np.random.Generator], Question | None]] = {
    "point": _ask_one,
    "kind": _ask_kind,
    "colour": _ask_colour,
    "several": _ask_several,
    "count": _ask_count,
    "relation": _ask_relation,
    "free": _ask_free,
    "absent": _ask_absent,
}


def every_wording(world: World) -> list[str]:
    """All words of the world in many wordings: what the tokenizer learns from."""
    nouns = [*world.kinds, *NOUNS]
    labels = [f"{colour} {noun}" for colour in world.colours for noun in nouns] + nouns
    texts: list[str] = []
    for label in labels:
        texts += [t.format(label=label) for t in (*TEMPLATES, POINT_QA)]
        texts += [t.format(label=plural(label)) for t in (*SET_TEMPLATES, *COUNTING_TEMPLATES)]
        points = [(12.3, 45.6), (45.6, 78.9), (66.6, 9.0)]
        texts += [points_answer(points[:1], label), counting_answer(points, plural(label))]
    said = {word for relation in RELATIONS for word in SYNONYMS.get(relation, (relation,))}
    for noun in nouns:
        for word in sorted(said):
            aside = any(word.endswith(side) for side in SIDES)
            label = f"{noun} {word} the {noun}" if aside else f"{word} {noun}"
            texts += [t.format(label=label) for t in TEMPLATES[:4]] + [points_answer([(12.3, 45.6)], label)]
    for label in FREE_LABELS:
        texts += [t.format(label=label) for t in FREE_TEMPLATES] * 4
    answers = [" There are none."] * 50
    return [text if text.startswith(" ") else f" User: {text} Assistant:" for text in texts] + answers
