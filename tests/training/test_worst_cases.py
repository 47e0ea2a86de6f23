"""The contact sheet shows what was most surely wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from test_evaluate_data import answered

from molmo_ros.training.worst_cases import TILE_PX, contact_sheet, worst_cases


def test_wrong_answers_come_surest_first_and_right_ones_never(tmp_path: Path) -> None:
    answers = answered(tmp_path)
    wrong = [a for a in answers if not a.score.right]
    assert len(wrong) == 2 < len(answers)
    mixed = [replace(wrong[0], confidence=c) for c in (0.2, 0.9, float("nan"), 0.6)] + answers
    order = [a.confidence for a in worst_cases(mixed)]
    assert order[:4] == [0.9, 0.9, 0.6, 0.2]
    assert len(worst_cases(mixed, most=2)) == 2
    assert not any(a.score.right for a in worst_cases(mixed))


def test_the_sheet_has_a_tile_for_each_and_shows_truth_and_answer(tmp_path: Path) -> None:
    answers = answered(tmp_path)
    sheet = contact_sheet({"it": answers})
    assert sheet is not None
    assert sheet.shape == (TILE_PX[1], 2 * TILE_PX[0], 3)
    green = (sheet[..., 1] > 180) & (sheet[..., 0] < 120) & (sheet[..., 2] < 140)
    assert green[:, : TILE_PX[0]].sum() > 20  # the true mask's outline
    both = contact_sheet({"a": answers, "b": answers}, across=2)
    assert both is not None
    assert both.shape == (2 * TILE_PX[1], 2 * TILE_PX[0], 3)
    assert not np.array_equal(both[: TILE_PX[1]], both[TILE_PX[1] :])  # the model's name differs


def test_without_mistakes_there_is_no_sheet(tmp_path: Path) -> None:
    right = [a for a in answered(tmp_path) if a.score.right]
    assert contact_sheet({"it": right}) is None
