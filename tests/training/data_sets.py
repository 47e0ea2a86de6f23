"""Small data sets for tests, written file by file so that they can be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: (width, height) of the picture.
SIZE = (40, 30)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def square(left: int, top: int, side: int = 6) -> np.ndarray:
    """A mask of the picture's size."""
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def write_set(folder: Path, *rows: dict[str, Any] | str, masks: dict[str, np.ndarray] | None = None) -> Path:
    """A data set with one picture, `images/a.png`; rows are put into lines as they are."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    Image.fromarray(picture()).save(folder / "images" / "a.png")
    for name, mask in (masks or {}).items():
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / "masks" / name)
    lines = [row if isinstance(row, str) else json.dumps({"image": "images/a.png"} | row) for row in rows]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return folder
