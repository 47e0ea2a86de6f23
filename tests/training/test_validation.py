"""Hit rates count what a robot would: one point, on the thing or near its middle."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from molmo_ros.molmo import MolmoProcessor
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.protocol import ModelDurations, Pointing
from molmo_ros.sim.worlds import TABLETOP
from molmo_ros.training.batches import QuestionBatches
from molmo_ros.training.scenes import Grid, Shard, Words
from molmo_ros.training.schedule import read_config
from molmo_ros.training.tabletop_model import build_image_processor, build_model
from molmo_ros.training.train import build_processor
from molmo_ros.training.validation import _hits, hit_rates

CONFIG = Path(__file__).parents[2] / "config" / "training" / "tabletop.yaml"


@cache
def processor() -> MolmoProcessor:
    return build_processor(read_config(CONFIG)[0])


@cache
def batches() -> QuestionBatches:
    """Two grey pictures, each with a red cube at (25, 50) percent that covers one patch, and a blue ball."""
    sizes = yaml.safe_load(CONFIG.read_text())["model"]
    grid = Grid.of(build_image_processor(sizes), (480, 640))
    words, (rows, cols) = Words.of(TABLETOP), grid.patches
    shard = Shard.empty(2, grid, 0, TABLETOP)
    for slot, (colour, kind, x) in enumerate((("red", "cube", 25.0), ("blue", "ball", 75.0))):
        shard.colours[:, slot], shard.kinds[:, slot] = words.codes(colour, kind)
        shard.points[:, slot] = x, 50.0
        shard.patch_things[:, rows // 2 * cols + int(x / 100 * cols)] = slot + 1
    pictures = np.full((2, *grid.size, 3), 128, np.uint8)
    return QuestionBatches(
        Shard(**{**vars(shard), "pictures": pictures}), processor(), grid, seed=0, pictures=1, questions=1
    )


def pointing(*uv: tuple[float, float]) -> Pointing:
    points = tuple(Point2D(u, v, "thing", 1.0, 1.0, index) for index, (u, v) in enumerate(uv))
    return Pointing(points, "", not uv, ModelDurations(), 0.5)


@pytest.mark.parametrize(
    ("answer", "hits"),
    [
        (pointing((84.0, 126.0)), True),
        (pointing((84.0 + 13.0, 126.0 + 13.0)), True),  # in the patch that the cube covers
        (pointing((84.0, 126.0 - 9.0)), True),  # beside it, within 3 % of the width of the middle
        (pointing((84.0, 126.0 - 12.0)), False),
        (pointing((252.0, 126.0)), False),  # the ball
        (pointing(), False),
        (pointing((84.0, 126.0), (252.0, 126.0)), False),
        (PointingError(Code.UNPARSEABLE, "no point"), False),
    ],
)
def test_a_hit_is_one_point_on_the_thing_or_near_its_middle(
    answer: Pointing | PointingError, hits: bool
) -> None:
    assert _hits(answer, batches(), 0, 0) is hits


def test_a_model_that_failed_is_no_miss() -> None:
    with pytest.raises(PointingError, match="memory"):
        _hits(PointingError(Code.OUT_OF_MEMORY, "no memory"), batches(), 0, 0)


def test_a_model_that_has_learnt_nothing_hits_nothing() -> None:
    model = build_model(yaml.safe_load(CONFIG.read_text())["model"]).eval()
    rates = hit_rates(model, batches(), [0, 1])
    assert rates["hit"] == 0.0
    assert 0.0 <= rates["absent"] <= 1.0
