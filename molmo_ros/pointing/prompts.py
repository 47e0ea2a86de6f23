"""From what somebody wants to the question a model was trained on."""

from __future__ import annotations

import re
import unicodedata

from molmo_ros.outcome import Code, PointingError

#: Longest target, in characters. Molmo's labels are a few words; what is longer is a mistake, not a wish.
MAX_TARGET_CHARACTERS = 256

_ARTICLE = re.compile(r"^(?:the|a|an|any|all|every)\s+", re.IGNORECASE)
_QUANTIFIER = re.compile(r"^(?:(?:the|a|an|any|all|every)\s+)+", re.IGNORECASE)
_COMMAND = re.compile(r"^(?:please\s+)?point\s+(?:to|at)(?:\s+|$)", re.IGNORECASE)


def clean_target(target: str, max_characters: int = MAX_TARGET_CHARACTERS) -> str:
    """The target's words: one line, single spaces, lower case, no command around them, no full stop after them.

    "Point to the  Red mug." -> "the red mug". Labels in Molmo's training data are lower case.

    Raises:
        PointingError: EMPTY_TARGET without a letter or digit in it, TARGET_TOO_LONG beyond `max_characters`.
    """
    if len(target) > max_characters:
        raise PointingError(
            Code.TARGET_TOO_LONG,
            f"the target has {len(target)} characters; name the thing in at most {max_characters}",
        )
    visible = "".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in target)
    words = " ".join(visible.split())
    words = _COMMAND.sub("", words).rstrip(" .!?").lower()
    if not any(c.isalnum() for c in words):
        raise PointingError(Code.EMPTY_TARGET, 'the target is empty; name a thing, such as "the red mug"')
    return words


def pointing_prompt(target: str) -> str:
    """Molmo's plain pointing question for a cleaned target, with an article where there is none."""
    return f"Point to {target}." if _ARTICLE.match(target) else f"Point to the {target}."


def label_of(target: str) -> str:
    """A cleaned target as a label: without articles and the like ("the red mug" -> "red mug")."""
    return _QUANTIFIER.sub("", target) or target
