"""Every way of pointing that is known here, by name: what to ask, in which scale the answer comes, how to read it.

Which one a model speaks is a matter of configuration. It cannot be told from the numbers: (45, 60) may be
percent, per mille or pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from molmo_ros.pointing.grammar import admits_none, spoken_points, stated_total, tagged_points
from molmo_ros.pointing.json_grammar import is_empty_list, point_2d_points, point_yx_points, xy_object_points
from molmo_ros.pointing.location_token_grammar import box_points, outline_points
from molmo_ros.pointing.molmo2_grammar import compact_points, molmo2_points
from molmo_ros.pointing.prompts import pointing_prompt
from molmo_ros.pointing.spoken_point import FRACTION, PER_MILLE, PERCENT, Extent, SpokenPoint
from molmo_ros.pointing.tuple_grammar import tuple_points

#: In configurations: the only format that a family of models speaks.
AUTO = "auto"

_PLACE = re.compile(r"\{(request|target)\}")


@dataclass(frozen=True)
class Reading:
    """What an answer says. `absent`: no point, but words for "there is none"; `count`: as said, None if unsaid.

    Neither points nor `absent` means that the answer was not understood.
    """

    points: tuple[SpokenPoint, ...]
    absent: bool
    count: int | None


@dataclass(frozen=True)
class PointFormat:
    """One way of pointing.

    `template`: the question, with `{request}` for "Point to the red mug." or `{target}` for the bare words.
    Wordings that are no model's fixed task prompt are our own.
    `extent`: the numbers at the right and lower edge; None: the size in pixels of the model's resized input.
    `in_special_tokens`: the answer must be decoded with its special tokens, which this format is read from.
    `first_token_decides`: between pointing and "There are none.", so that its probability is that of absence.
    """

    name: str
    template: str
    extent: Extent | None
    reader: Callable[[str, Extent], list[SpokenPoint]]
    in_special_tokens: bool = False
    first_token_decides: bool = False

    def prompt(self, target: str) -> str:
        """The question for a cleaned target (`prompts.clean_target`)."""
        words = {"request": pointing_prompt(target), "target": target}
        return _PLACE.sub(lambda place: words[place.group(1)], self.template)

    def read(self, answer: str, input_size: tuple[int, int] | None = None) -> Reading:
        """What an answer says about one picture, its points in percent of the original. Any text can be read.

        Points that the answer places in a second picture, or at a time in a video, are dropped.

        Args:
            answer: what the model said, whole or cut off.
            input_size: width and height in pixels of the picture as the model saw it, after resizing; other
                formats than those in pixels ignore it.

        Raises:
            ValueError: a format in pixels was not given a positive size.
        """
        spoken = self.reader(answer, self.extent_of(input_size))
        points = [point for point in spoken if point.image in (None, 1) and point.time_s is None]
        absent = not points and (admits_none(answer) or is_empty_list(answer))
        return Reading(tuple(points), absent, 0 if absent else stated_total(answer))

    def extent_of(self, input_size: tuple[int, int] | None) -> Extent:
        """The numbers at the right and lower edge of a picture that the model saw at this width and height.

        Raises:
            ValueError: see `read`.
        """
        if self.extent:
            return self.extent
        if input_size is None or min(input_size) <= 0:
            raise ValueError(
                f"{self.name} points in pixels of the model's input: give its width and height, not {input_size}"
            )
        return Extent(*input_size)


WHY_NOT_MOLMO_POINT = (
    "MolmoPoint answers in special tokens that name patches of the preprocessed picture, not places in it, so its "
    "text alone cannot be read"
)

_JSON_PIXELS = '{request} Answer with JSON only: [{"point_2d": [x, y], "label": "..."}], x and y in pixels.'
_JSON_PER_MILLE = (
    '{request} Answer with JSON only: [{"point_2d": [x, y], "label": "..."}], x and y from 0 to 1000.'
)

FORMATS: dict[str, PointFormat] = {
    entry.name: entry
    for entry in (
        PointFormat(
            "molmo",
            "{request}",
            PERCENT,
            lambda answer, _: spoken_points(answer),
            first_token_decides=True,
        ),
        # The sentence GraspMolmo was trained with (abhaybd/GraspMolmo, grasp_predictor.py); its target is a task.
        PointFormat(
            "graspmolmo",
            "Point to the grasp that would accomplish the following task: {target}",
            PERCENT,
            lambda answer, _: spoken_points(answer),
            first_token_decides=True,
        ),
        PointFormat(
            "molmo2",
            "{request}",
            PER_MILLE,
            lambda answer, _: molmo2_points(answer),
            first_token_decides=True,
        ),
        PointFormat("molmo2_compact_v1", "{request}", PERCENT, compact_points),
        PointFormat("molmo2_compact_v2", "{request}", PER_MILLE, compact_points),
        PointFormat(
            "robopoint",
            "{request} Answer with a list of tuples, [(x1, y1), (x2, y2), ...], where x and y are fractions "
            "of the image's width and height between 0 and 1.",
            FRACTION,
            tuple_points,
        ),
        PointFormat("qwen2_5_vl", _JSON_PIXELS, None, point_2d_points),
        PointFormat(
            "qwen2_5_vl_xml",
            '{request} Answer in XML: <points x1="..." y1="..." alt="...">...</points>, x and y in pixels.',
            None,
            tagged_points,
        ),
        PointFormat("qwen2_vl", _JSON_PER_MILLE, PER_MILLE, point_2d_points),
        PointFormat("qwen3_vl", _JSON_PER_MILLE, PER_MILLE, point_2d_points),
        PointFormat(
            "gemini_robotics_er",
            '{request} Answer with JSON only: [{"point": [y, x], "label": "..."}], y and x from 0 to 1000.',
            PER_MILLE,
            point_yx_points,
        ),
        # Moondream and Florence-2 take the bare words behind a task of their own.
        PointFormat("moondream", "{target}", FRACTION, xy_object_points),
        PointFormat(
            "florence2_boxes",
            "<CAPTION_TO_PHRASE_GROUNDING>{target}",
            PER_MILLE,
            lambda answer, _: box_points(answer),
            in_special_tokens=True,
        ),
        PointFormat(
            "florence2_outlines",
            "<REFERRING_EXPRESSION_SEGMENTATION>{target}",
            PER_MILLE,
            lambda answer, _: outline_points(answer),
            in_special_tokens=True,
        ),
    )
}


def point_format(name: str) -> PointFormat:
    """The format of that name.

    Raises:
        ValueError: there is none; the message lists those there are. MolmoPoint is refused by name.
    """
    if name in FORMATS:
        return FORMATS[name]
    valid = ", ".join(FORMATS)
    if re.sub(r"\W|_", "", name).lower() == "molmopoint":
        raise ValueError(f"{WHY_NOT_MOLMO_POINT}; choose a model that speaks one of: {valid}")
    raise ValueError(f"unknown point format {name!r}; choose one of: {valid}")
