"""Data sets of pointing questions on disk: one JSON line a question, pictures and masks as image files.

    python -m molmo_ros.training.dataset draw --world tabletop --scenes 100 --out sets/tabletop
    python -m molmo_ros.training.dataset convert --from where2place where2place/ --out sets/where2place
    python -m molmo_ros.training.dataset check sets/tabletop

docs/datasets.md describes the format. Coordinates are percent of a picture's width and height, (0, 0) = top left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

QUESTIONS, ABOUT = "questions.jsonl", "about.json"

#: What sort of answer is right: one point on the one target; a point on each of several; as many points as there
#: are; no point; any point in a region, such as free space.
TASKS = ("point", "set", "count", "absent", "region")


class DatasetError(Exception):
    """What is wrong with a data set: the file, the line (0 = the file as a whole), and what would be right."""

    def __init__(self, file: Path, line: int, message: str) -> None:
        # Names out of a broken file may hold what no terminal takes.
        message = message.encode(errors="backslashreplace").decode()
        super().__init__(f"{file}:{line}: {message}" if line else f"{file}: {message}")
        self.file, self.line, self.message = file, line, message


@dataclass(frozen=True)
class Sample:
    """One question about one picture, and what is true of it.

    `target`: words to point at ("the red mug", "all the cups"). `points`: true points in percent, None where
    only a region is known. `masks`: files of where each target is, in the order of `points`; empty if there are
    none. `count`: how many there are. `tag`: what results are listed by. `label`, `question`, `answer`: a
    model's own words, for training; None leaves them to the usual wording.
    """

    folder: Path
    line: int
    image: str
    target: str
    task: str
    points: tuple[tuple[float, float], ...] | None
    masks: tuple[str, ...] = ()
    count: int | None = None
    tag: str = ""
    label: str | None = None
    question: str | None = None
    answer: str | None = None

    def read_image(self) -> np.ndarray:
        """HxWx3 uint8 RGB. Raises DatasetError for a file that cannot be read as a picture."""
        return np.array(self._open(self.image, "RGB"))

    def read_masks(self, size: tuple[int, int]) -> list[np.ndarray]:
        """HxW bool for each mask; `size` is the picture's (width, height). Raises DatasetError."""
        masks = []
        for name in self.masks:
            mask = self._open(name, "L")
            if mask.size != size:
                raise self.error(f"mask {name} is {mask.size}, its picture {size} (width, height)")
            masks.append(np.asarray(mask) > 127)
        return masks

    def error(self, message: str) -> DatasetError:
        """That this question cannot be used, with its file and line."""
        return DatasetError(self.folder / QUESTIONS, self.line, message)

    def _open(self, name: str, mode: str) -> Image.Image:
        try:
            with Image.open(self.folder / name) as image:
                return image.convert(mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise self.error(f"{name} cannot be read as a picture: {error}") from error


@dataclass(frozen=True)
class Dataset:
    """A data set: `about` it (name, source, licence, world ...), its questions, and the lines that were skipped."""

    folder: Path
    about: Mapping[str, Any]
    samples: tuple[Sample, ...]
    skipped: tuple[DatasetError, ...] = ()

    @property
    def name(self) -> str:
        return str(self.about.get("name", self.folder.name))


def read_dataset(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """Read all questions; pictures are opened only when they are asked for.

    With `skip_bad`, lines that cannot be used are left out and listed in `skipped`.

    Raises:
        DatasetError: no data set there, no usable question, or (without `skip_bad`) the first bad line.
    """
    path = folder / QUESTIONS
    if not path.is_file():
        raise DatasetError(path, 0, "not found; a data set is a folder with this file, see docs/datasets.md")
    samples: list[Sample] = []
    skipped: list[DatasetError] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            samples.append(_sample(folder, number, line))
        except DatasetError as error:
            if not skip_bad:
                raise
            skipped.append(error)
    if not samples:
        raise DatasetError(path, 0, f"holds no question that can be used ({len(skipped)} bad lines)")
    return Dataset(folder, _about(folder), tuple(samples), tuple(skipped))


def _about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DatasetError(path, 0, f"is not JSON: {error}") from error
    if not isinstance(about, dict):
        raise DatasetError(path, 0, "must be one JSON object")
    return about


def _sample(folder: Path, number: int, line: bytes) -> Sample:
    def bad(message: str) -> DatasetError:
        return DatasetError(folder / QUESTIONS, number, message)

    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise bad(f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise bad("must be a JSON object")
    unknown = set(row) - _FIELDS
    if unknown:
        raise bad(f"unknown field {', '.join(sorted(unknown))}; there are {', '.join(sorted(_FIELDS))}")
    texts = {
        name: row.get(name) for name in ("image", "target", "label", "question", "answer", "tag", "task")
    }
    for name, value in texts.items():
        required = name in ("image", "target")
        if not (isinstance(value, str) and value.strip()) and (required or value is not None):
            raise bad(f"{name} must be words, not {json.dumps(value)}")
    points = _points(row.get("points"), bad)
    masks = row.get("masks", [])
    if not isinstance(masks, list) or not all(isinstance(mask, str) for mask in masks):
        raise bad("masks must be a list of file names")
    count = row.get("count")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        raise bad(f"count must be a whole number from 0, not {json.dumps(count)}")
    for name in (row["image"], *masks):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise bad(f"{name} must be a file of the data set itself, without '..'")
        if not _is_file(folder / name):
            raise bad(f"{name} not found")
    task = row.get("task") or _usual_task(points, masks, count)
    wrong = _disagreement(task, points, masks, count)
    if wrong:
        raise bad(wrong)
    return Sample(
        folder,
        number,
        row["image"],
        row["target"],
        task,
        points,
        tuple(masks),
        count,
        row.get("tag") or "",
        row.get("label"),
        row.get("question"),
        row.get("answer"),
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False


_FIELDS = {
    "image", "target", "task", "points", "masks", "count", "tag", "label", "question", "answer", "source",
}  # fmt: skip


def _points(value: Any, bad: Any) -> tuple[tuple[float, float], ...] | None:
    if value is None:
        return None
    pairs = []
    for pair in value if isinstance(value, list) else [value]:
        if isinstance(pair, list) and len(pair) == 2 and all(_is_percent(number) for number in pair):
            pairs.append((float(pair[0]), float(pair[1])))
        else:
            raise bad(f"points must be [x, y] pairs in percent, 0 to 100; this one is {json.dumps(pair)}")
    return tuple(pairs)


def _is_percent(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def _usual_task(points: Sequence[object] | None, masks: Sequence[str], count: int | None) -> str:
    if points is None:
        return "region" if masks else "count" if count else "absent" if count == 0 else "region"
    return "absent" if not points else "point" if len(points) == 1 else "set"


def _disagreement(
    task: str, points: Sequence[object] | None, masks: Sequence[str], count: int | None
) -> str | None:
    """What keeps a question from being judged, or None."""
    targets = len(masks) if points is None else len(points)
    if task not in TASKS:
        return f"no task is called {task!r}; there are {', '.join(TASKS)}"
    if task == "absent":
        return (
            "what is absent has no points, no masks and no count but 0" if targets or masks or count else None
        )
    if task == "region":
        return None if masks or points else "a region needs a mask, or points in it"
    if points is not None and masks and len(masks) != len(points) and task != "count":
        return f"{len(points)} points with {len(masks)} masks: each target has one of both, in the same order"
    if not targets and not count:
        return "nothing is known of the answer: give points, masks or a count; no points at all mean absent"
    if task == "point" and targets != 1:
        return f"task 'point' has one target, not {targets}; several are a 'set'"
    if task == "set" and count is not None and count != targets:
        return f"count {count} for {targets} targets"
    return None


def refuse_existing(folder: Path) -> None:
    """Raises DatasetError: the folder holds a data set already."""
    if (folder / QUESTIONS).exists():
        raise DatasetError(folder / QUESTIONS, 0, "exists already; choose another folder")


class DatasetWriter:
    """Writes a data set; what is in the folder becomes readable when the `with` block ends without an error.

    Raises:
        DatasetError: the folder holds a data set already.
    """

    def __init__(self, folder: Path, **about: Any) -> None:
        refuse_existing(folder)
        self.folder, self.about, self.count = folder, about, 0
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._part = folder / f"{QUESTIONS}.part"
        self._file = self._part.open("w")

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            (self.folder / ABOUT).write_text(json.dumps(self.about, indent=1) + "\n")
            self._part.rename(self.folder / QUESTIONS)

    def add_image(self, name: str, image_HW3: np.ndarray, *, quality: int = 95) -> str:
        """Save a picture under `images/`: JPEG of that quality for names that end so, else without loss."""
        Image.fromarray(image_HW3).save(self.folder / "images" / name, quality=quality, subsampling=0)
        return f"images/{name}"

    def add_mask(self, name: str, mask_HW: np.ndarray) -> str:
        """Save where a target is, as a PNG of one bit a pixel under `masks/`."""
        Image.fromarray(np.where(mask_HW, 255, 0).astype(np.uint8)).convert("1").save(
            self.folder / "masks" / name, optimize=True
        )
        return f"masks/{name}"

    def add(self, image: str, target: str, **fields: Any) -> None:
        """Add a question; `fields` as in docs/datasets.md, None left out. Raises DatasetError for a bad one."""
        row = {"image": image, "target": target} | {k: v for k, v in fields.items() if v is not None}
        line = json.dumps(row)
        _sample(self.folder, self.count + 1, line.encode())
        self._file.write(line + "\n")
        self.count += 1


def problems(dataset: Dataset) -> Iterator[DatasetError]:
    """Everything that is wrong with it, its pictures and masks included."""
    yield from dataset.skipped
    sizes: dict[str, tuple[int, int] | None] = {}
    for sample in dataset.samples:
        try:
            if sample.image not in sizes:
                sizes[sample.image] = None  # a broken picture is named once
                height, width = sample.read_image().shape[:2]
                sizes[sample.image] = (width, height)
            size = sizes[sample.image]
            if size is not None:
                sample.read_masks(size)
        except DatasetError as error:
            yield error


def main(arguments: Sequence[str] | None = None) -> int:
    """See `dataset_commands`."""
    from molmo_ros.training.dataset_commands import run

    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
