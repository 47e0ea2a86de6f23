"""Other people's pointing data in the layouts in which they are published, as data sets of ours.

    pixmo        rows of PixMo-Points, PixMo-Points-Eval or PixMo-Count (JSON or JSON lines, as written by the
                 `datasets` library's `to_json`), and a folder with the pictures, which the rows only link to
    point-bench  `data.json`, `images/CATEGORY/FILE`, `masks/FILE`
    where2place  `point_questions.jsonl`, `images/FILE`, `masks/NN.jpg`, numbered as the questions

docs/datasets.md says where each layout was read and what was not verified. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from molmo_ros.training.dataset import DatasetError, DatasetWriter

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

#: What RoboPoint asks for behind each question: a format, not a place.
_ANSWER_FORMAT = re.compile(r"\s*Your answer should be formatted.*", re.DOTALL | re.IGNORECASE)
#: What stands before the place itself: "Identify several spots within the vacant space ...".
_COMMAND = re.compile(
    r"^(?:please\s+)?(?:identify|locate|find|pinpoint|mark|highlight|point\s+(?:out|to|at))\s+"
    r"(?:(?:(?:several|some|multiple|many|a\s+few|few|one\s+or\s+more|a|the)\s+)?"
    r"(?:points?|spots?|locations?|places?|positions?)\s+(?:that\s+(?:are|lie)\s+)?"
    r"(?:within|inside|in|on|at|of|from)\s+)?",
    re.IGNORECASE,
)

Bad = list[DatasetError]


def convert_pixmo(
    rows_file: Path, images: Path, out: Path, *, in_pixels: bool = False, skip_bad: bool = False
) -> Bad:
    """PixMo rows: `label`, `points` [{x, y}], `image_url`, `image_sha256`, and in the evaluation part `masks`.

    Args:
        rows_file: JSON list, or one JSON object a line.
        images: folder of pictures named by `image_sha256`, or as the link ends.
        out: where to.
        in_pixels: the points are pixels, as in PixMo-Count; else percent, as in PixMo-Points.
        skip_bad: leave out rows that cannot be used.

    Returns:
        What was left out.

    Raises:
        DatasetError: nothing to read, or a bad row without `skip_bad`.
    """
    known = {path.stem: path for path in images.rglob("*") if path.suffix.lower() in PICTURES}
    known |= {path.name: path for path in known.values()}
    with _Conversion(out, "PixMo-Points", rows_file, skip_bad) as writing:
        for line, entry in _rows(rows_file):
            with writing.row(line):
                row = _entry(entry)
                link = unquote(urlsplit(str(row.get("image_url", ""))).path)
                sha, base = str(row.get("image_sha256", "")), Path(link).name
                source = known.get(sha) or known.get(base) or known.get(Path(link).stem)
                if source is None:
                    raise ValueError(f"no picture {sha or base!r} in {images}")
                image, size = writing.image(source, sha[:16] or base)
                points = [(float(point["x"]), float(point["y"])) for point in row["points"]]
                if in_pixels:
                    points = [(100 * x / size[0], 100 * y / size[1]) for x, y in points]
                label = " ".join(str(row["label"]).lower().split())
                number = len(points)
                counting = row.get("collection_method") == "counting" and number > 0
                task = "absent" if not number else "count" if counting else "point" if number == 1 else "set"
                masks = [
                    writing.mask(np.asarray(mask, dtype=bool), f"{line:06d}_{k:02d}", size)
                    for k, mask in enumerate(row.get("masks") or [])
                ]
                writing.add(
                    image, label, task=task, points=[list(point) for point in points],
                    masks=masks if len(masks) == number else [], tag=task, label=label,
                )  # fmt: skip
    return writing.bad


def convert_point_bench(folder: Path, out: Path, *, skip_bad: bool = False) -> Bad:
    """Point-Bench: each entry has `image_filename`, `category`, `user_input`, `mask_filename`, and for counting
    `count`. One mask holds all targets, so what is judged is whether all points are inside. As `convert_pixmo`."""
    entries_file = folder / "data.json"
    with _Conversion(out, "Point-Bench", entries_file, skip_bad) as writing:
        for line, given in _rows(entries_file):
            if isinstance(given, dict) and "mask_filename" not in given:
                continue  # as its own evaluation does
            with writing.row(line):
                entry = _entry(given)
                category = str(entry.get("category", ""))
                image, size = writing.image(
                    folder / "images" / category / entry["image_filename"],
                    f"{category}_{entry['image_filename']}",
                )
                mask = writing.mask(folder / "masks" / entry["mask_filename"], f"{line:06d}", size)
                counting = category == "counting"
                writing.add(
                    image, str(entry["user_input"]), task="count" if counting else "region", masks=[mask],
                    tag=category, count=int(entry.get("count", 1)) if counting else None,
                )  # fmt: skip
    return writing.bad


def convert_where2place(folder: Path, out: Path, *, skip_bad: bool = False) -> Bad:
    """Where2Place: each line has `image` and `text`; the mask is numbered as the line. As `convert_pixmo`."""
    questions_file = folder / "point_questions.jsonl"
    with _Conversion(out, "Where2Place", questions_file, skip_bad) as writing:
        for line, entry in _rows(questions_file):
            with writing.row(line):
                row = _entry(entry)
                image, size = writing.image(folder / "images" / row["image"], row["image"])
                number = f"{line - 1:02d}"
                there = [folder / "masks" / f"{number}{suffix}" for suffix in PICTURES]
                source = next((path for path in there if path.is_file()), there[0])
                mask = writing.mask(source, number, size)
                text = str(row["text"])
                writing.add(
                    image, place_of(text), task="region", masks=[mask],
                    tag=str(row.get("category") or "free space"), question=text,
                )  # fmt: skip
    return writing.bad


def place_of(text: str) -> str:
    """The place that a RoboPoint question is about: "Identify several spots within the vacant space behind the
    mug. Your answer should be formatted ..." -> "the vacant space behind the mug"."""
    place = _ANSWER_FORMAT.sub("", text).strip().rstrip(".").strip()
    return _COMMAND.sub("", place) or place


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Numbered from 1: the lines of a file of JSON lines, or the entries of one JSON list; see `_entry`."""
    if not file.is_file():
        raise DatasetError(file, 0, "not found")
    if file.suffix == ".parquet":
        raise DatasetError(file, 0, "is parquet; write it as JSON lines first: datasets.Dataset.to_json")
    text = file.read_text(encoding="utf-8", errors="replace")
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), 1)
        except (ValueError, RecursionError) as error:
            raise DatasetError(file, 0, f"is not JSON: {error}") from error
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _entry(given: Any) -> dict[str, Any]:
    """One entry, from JSON if it is still a line. Raises ValueError for what is none."""
    try:
        entry = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise ValueError("must be a JSON object")
    return entry


class _Conversion:
    """A data set in the making: pictures and masks are copied once, what is bad is raised or noted by its line."""

    def __init__(self, out: Path, name: str, source: Path, skip_bad: bool) -> None:
        self._writer = DatasetWriter(out, name=name, source=name)
        self._source, self._skip_bad, self._line = source, skip_bad, 0
        self._images: dict[Path, tuple[str, tuple[int, int]]] = {}
        self._taken: set[str] = set()
        self.bad: Bad = []

    def __enter__(self) -> _Conversion:
        self._writer.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        if reason[0] is None and not self._writer.count:
            self._writer.__exit__(DatasetError, None, None)
            raise DatasetError(self._source, 0, f"holds nothing to convert ({len(self.bad)} bad entries)")
        self._writer.__exit__(*reason)

    def row(self, line: int) -> _Row:
        return _Row(self, line)

    def note(self, line: int, error: Exception) -> bool:
        """Whether to go on after an entry that cannot be used."""
        message = f"no field {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, DatasetError):
            message = error.message  # the line in our own file, which is not there yet, says nothing
        bad = DatasetError(self._source, line, message)
        if not self._skip_bad:
            raise bad from error
        self.bad.append(bad)
        return True

    def image(self, source: Path, name: str) -> tuple[str, tuple[int, int]]:
        """Copied as it is, once; its name in the data set and its (width, height)."""
        if source not in self._images:
            with Image.open(source) as image:
                image.load()
                size = image.size
            stored = self._free_name(re.sub(r"[^\w.-]", "_", Path(name).stem), source.suffix.lower())
            (self._writer.folder / "images" / stored).write_bytes(source.read_bytes())
            self._images[source] = (f"images/{stored}", size)
        return self._images[source]

    def _free_name(self, stem: str, suffix: str) -> str:
        """Not that of another picture, which may differ only in signs that file systems do not take."""
        names = (f"{stem}{suffix}" if n == 0 else f"{stem}_{n}{suffix}" for n in count())
        name = next(name for name in names if name not in self._taken)
        self._taken.add(name)
        return name

    def mask(self, source: Path | np.ndarray, name: str, size: tuple[int, int]) -> str:
        """As a PNG; from a picture, what is brighter than half."""
        if isinstance(source, Path):
            with Image.open(source) as image:
                source = np.asarray(image.convert("L")) > 127
        if source.shape != (size[1], size[0]):
            raise ValueError(f"mask {source.shape[::-1]} for a picture of {size} (width, height)")
        return self._writer.add_mask(f"{name}.png", source)

    def add(self, image: str, target: str, **fields: Any) -> None:
        self._writer.add(image, target, **fields)


class _Row:
    """Turns what goes wrong with one entry into a `DatasetError` with its line."""

    def __init__(self, conversion: _Conversion, line: int) -> None:
        self._conversion, self._line = conversion, line

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        """Pillow says SyntaxError of some broken files."""
        known = (
            KeyError,
            ValueError,
            TypeError,
            OSError,
            SyntaxError,
            Image.DecompressionBombError,
            DatasetError,
        )
        if isinstance(error, known):
            return self._conversion.note(self._line, error)
        return False
