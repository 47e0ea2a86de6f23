"""What people ask about a table, and Molmo's words for the answer.

Wordings follow the families PixMo-Points trains ("Point to ...", "Where is ...?"), labels are lower case,
coordinates are percent of width and height with one decimal, points are sorted by x, then y, after
rounding, and what is not there gets "There are none." (Deitke et al. 2024, arXiv:2409.17146).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ABSENT_ANSWER = " There are none."

#: The wording the pointing node uses by default comes first and is drawn most often.
TEMPLATES = (
    "Point to the {label}.",
    "Point to {label}.",
    "Point to a {label}.",
    "Point to the {label}",
    "point to the {label}",
    "Where is the {label}?",
    "Show me the {label}.",
    "Find the {label}.",
    "Locate the {label}",
    "Can you see the {label} in the image? Point to it.",
    "pointing: {label}",
)
PLURAL_TEMPLATES = (
    "Point to all the {label}.",
    "Point to the {label}.",
    "Point to every {label}.",
    "Where are the {label}?",
    "Find all {label}.",
)


@dataclass(frozen=True)
class Thing:
    """One object seen in a picture: its words and the point on it, in percent of width and height.

    What relations need beside that, 0 where it is not known: `bulk_m` (how large it is, see `Shape`), its
    `distance_m` from the camera, and the `pixels` that show it.
    """

    colour: str
    kind: str
    x: float
    y: float
    bulk_m: float = 0.0
    distance_m: float = 0.0
    pixels: int = 0

    @property
    def label(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Question:
    """A question with its true answer; `targets` are indices of the things asked about in the answer's order.

    `points`: the answer's points in percent, not yet rounded; those of the targets, or of a free spot.
    `colour`, `kind`: what the words name, None where they leave it open. `task`: what sort of question it is.
    """

    text: str
    answer: str
    label: str
    targets: tuple[int, ...]
    colour: str | None
    kind: str | None
    points: tuple[tuple[float, float], ...] = ()
    task: str = "point"


def plural(kind: str) -> str:
    return kind + ("es" if kind.endswith(("s", "x", "ch")) else "s")


def points_answer(xy: Sequence[tuple[float, float]], label: str) -> str:
    """Molmo's words for these points (percent), leading space included; none give the absent answer."""
    rounded = sorted((round(x, 1), round(y, 1)) for x, y in xy)
    if not rounded:
        return ABSENT_ANSWER
    if len(rounded) == 1:
        (x, y), tag, places = rounded[0], "point", ""
        places = f'x="{x:.1f}" y="{y:.1f}"'
    else:
        tag = "points"
        places = " ".join(f'x{i}="{x:.1f}" y{i}="{y:.1f}"' for i, (x, y) in enumerate(rounded, 1))
    return f' <{tag} {places} alt="{label}">{label}</{tag}>'


def counting_answer(xy: Sequence[tuple[float, float]], label: str) -> str:
    """Molmo's words for counting by pointing."""
    points = points_answer(xy, label)
    return f" Counting the{points} shows a total of {len(xy)}." if xy else points


def ask_about(things: Sequence[Thing], index: int, rng: np.random.Generator) -> Question:
    """A question naming one thing by colour and kind; all things of the same words are its targets."""
    label = things[index].label
    targets = in_answer_order(things, [i for i, thing in enumerate(things) if thing.label == label])
    words = _Words(label, things[index].colour, things[index].kind)
    return _question(draw_template(TEMPLATES, rng), words, things, targets)


def ask_by_kind(things: Sequence[Thing], kind: str, rng: np.random.Generator) -> Question:
    """A question naming only the kind, in the singular or plural as the picture has it."""
    targets = in_answer_order(things, [i for i, thing in enumerate(things) if thing.kind == kind])
    if len(targets) > 1:
        return _question(
            draw_template(PLURAL_TEMPLATES, rng), _Words(plural(kind), None, kind), things, targets
        )
    return _question(draw_template(TEMPLATES, rng), _Words(kind, None, kind), things, targets)


def ask_by_colour(things: Sequence[Thing], colour: str, rng: np.random.Generator) -> Question:
    """A question naming only the colour ("the red thing")."""
    targets = in_answer_order(things, [i for i, thing in enumerate(things) if thing.colour == colour])
    word = str(rng.choice(["thing", "object"]))
    if len(targets) > 1:
        words = _Words(f"{colour} {plural(word)}", colour, None)
        return _question(draw_template(PLURAL_TEMPLATES, rng), words, things, targets)
    return _question(draw_template(TEMPLATES, rng), _Words(f"{colour} {word}", colour, None), things, targets)


def ask_absent(
    things: Sequence[Thing], colours: Sequence[str], kinds: Sequence[str], rng: np.random.Generator
) -> Question:
    """A question for something that is not there; mostly a near miss: a kind or a colour that is there."""
    present = {thing.label for thing in things}
    near = [(c, t.kind) for t in things for c in colours] + [(t.colour, k) for t in things for k in kinds]
    far = [(c, k) for c in colours for k in kinds]
    candidates = [(c, k) for c, k in (near if rng.random() < 0.7 else far) if f"{c} {k}" not in present]
    colour, kind = candidates[int(rng.integers(len(candidates)))]
    return _question(draw_template(TEMPLATES, rng), _Words(f"{colour} {kind}", colour, kind), things, ())


def in_answer_order(things: Sequence[Thing], indices: Sequence[int]) -> tuple[int, ...]:
    """Those things as Molmo sorts points: by x, then y, after rounding."""
    return tuple(sorted(indices, key=lambda i: (round(things[i].x, 1), round(things[i].y, 1))))


class _Words(NamedTuple):
    label: str
    colour: str | None
    kind: str | None


def _question(template: str, words: _Words, things: Sequence[Thing], targets: tuple[int, ...]) -> Question:
    points = tuple((things[i].x, things[i].y) for i in targets)
    answer = points_answer(points, words.label)
    return Question(
        template.format(label=words.label), answer, words.label, targets, words.colour, words.kind, points
    )


def draw_template(templates: Sequence[str], rng: np.random.Generator) -> str:
    """The first template four times as often as each other one."""
    index = int(rng.integers(len(templates) + 3))
    return templates[max(index - 3, 0)]


def every_wording(colours: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """All words of the world in all wordings: what the tokenizer learns from."""
    nouns = [*kinds, "thing", "object"]
    labels = [f"{c} {k}" for c in colours for k in nouns] + list(kinds)
    plurals = [f"{c} {plural(k)}" for c in colours for k in nouns] + [plural(k) for k in kinds]
    texts = [f" User: {t.format(label=x)} Assistant:" for x in labels for t in TEMPLATES]
    texts += [f" User: {t.format(label=x)} Assistant:" for x in plurals for t in PLURAL_TEMPLATES]
    texts += [points_answer([(12.3, 45.6)], x) for x in labels] + [ABSENT_ANSWER] * 50
    texts += [points_answer([(12.3, 45.6), (45.6, 78.9), (66.6, 9.0)], x) for x in plurals]
    return texts
