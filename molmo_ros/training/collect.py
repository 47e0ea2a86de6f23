"""`molmo_ros collect`: answers that people confirmed or corrected, from a bag to a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molmo_ros.recorded_bag import BagError
from molmo_ros.training.bag_answers import Topics, open_bag, rgb_of, truth_in
from molmo_ros.training.dataset import DatasetError, DatasetWriter
from molmo_ros.training.reviewed_answers import Reviewed, write_reviewed

__all__ = ["BagError", "DatasetError", "Topics", "collect_bag"]


def collect_bag(
    bag_path: Path, out: Path, topics: Topics, *, everything: bool = False
) -> tuple[int, list[str]]:
    """How many questions were written, and what was left out, with the reasons.

    Raises:
        BagError: the bag cannot be read, or holds no answer that anybody stood for.
        DatasetError: there is a data set in `out` already.
    """
    with open_bag(bag_path, topics) as bag:
        truth, unreviewed = truth_in(bag, everything=everything)
        left_out = [f"{unreviewed} answers that nobody confirmed or corrected"] if unreviewed else []
        if not truth:
            raise BagError(
                f"{bag_path} holds no answer that anybody confirmed or corrected: nothing on {topics.reviews} and no "
                f"clicks on {topics.clicks}"
                + (f", though {unreviewed} answers; see --all" if unreviewed else "")
            )
        of_picture: dict[int, list[Reviewed]] = {}
        for reviewed in truth:
            of_picture.setdefault(reviewed.stamp_ns, []).append(reviewed)
        with DatasetWriter(out, name=out.name, source=f"collected from {bag_path.name}") as writer:
            for stamp_ns, message in bag.pictures(set(of_picture)):
                for reviewed in of_picture.pop(stamp_ns, []):
                    _write(writer, reviewed, message, left_out)
            for reviewed in (r for missed in of_picture.values() for r in missed):
                _write(writer, reviewed, None, left_out)
            if not writer.count:
                raise BagError(f"nothing of {bag_path} can be used: {'; '.join(left_out)}")
    return writer.count, left_out


def _write(writer: DatasetWriter, reviewed: Reviewed, message: object | None, left_out: list[str]) -> None:
    def read(_: int) -> np.ndarray | None:
        return None if message is None else rgb_of(message)

    problem = write_reviewed(writer, reviewed, read)
    if problem:
        left_out.append(f"{reviewed.query!r} at {reviewed.stamp_ns}: {problem}")
