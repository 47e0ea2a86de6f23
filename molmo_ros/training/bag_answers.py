"""Reviewed answers from a recorded bag, MCAP or SQLite, without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.image import ImageError, message_to_cvimage
from rosbags.image.image import to_cvtype

from molmo_ros.outcome import Code, PointingError
from molmo_ros.recorded_bag import BagError, messages, opened_bag
from molmo_ros.training.reviewed_answers import CLICKS, REVIEWS, TARGETS, Reviewed, Reviews, Uv

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Topics:
    """Where the messages are: the node's answers, what people say of them, and the pictures."""

    targets: str
    reviews: str
    clicks: str
    color: str

    @classmethod
    def of(cls, node: str, color: str) -> Topics:
        """Those of a pointing node and its camera; rqt_image_view names the topic of its clicks itself."""
        name = node.rstrip("/")
        return cls(f"{name}/{TARGETS}", f"{name}/{REVIEWS}", f"{name}/{CLICKS}", color)


class AnswerBag:
    """An open bag. Raises BagError: it cannot be read, or lacks the answers or the pictures."""

    def __init__(self, reader: AnyReader, topics: Topics) -> None:
        self._reader, self._topics = reader, topics
        there = {connection.topic: connection.msgtype for connection in reader.connections}
        if topics.color not in there:
            pictures = sorted(name for name, kind in there.items() if kind in IMAGE_TYPES)
            raise BagError(
                f"no messages on {topics.color}; topics with pictures: {', '.join(pictures) or 'none'}"
            )
        if there[topics.color] not in IMAGE_TYPES:
            raise BagError(
                f"{topics.color} has {there[topics.color]}; pictures are {' or '.join(IMAGE_TYPES)}"
            )
        if topics.targets not in there and topics.reviews not in there:
            answers = sorted(name for name, kind in there.items() if kind.endswith("/TargetArray"))
            raise BagError(
                f"no messages on {topics.targets} nor {topics.reviews}; topics with answers: "
                f"{', '.join(answers) or 'none'}"
            )

    def reviews(self) -> Reviews:
        """Everything that was said, in the order of recording."""
        reviews = Reviews()
        for topic, message in self._messages(self._topics.targets, self._topics.reviews, self._topics.clicks):
            if topic == self._topics.clicks:
                # rviz's and rqt's clicks come as a bare point or one with a header.
                point = getattr(message, "point", message)
                reviews.click(float(point.x), float(point.y))
                continue
            heard = reviews.answer if topic == self._topics.targets else reviews.review
            heard(stamp_ns_of(message), str(message.query), points_of(message))
        return reviews

    def pictures(self, stamps_ns: set[int]) -> Iterator[tuple[int, Any]]:
        """Stamp and message of each of these pictures that the bag holds; `rgb_of` makes an array of a message."""
        for _, message in self._messages(self._topics.color):
            stamp_ns = stamp_ns_of(message)
            if stamp_ns in stamps_ns:
                yield stamp_ns, message

    def _messages(self, *topics: str) -> Iterator[tuple[str, Any]]:
        return messages(self._reader, set(topics))


@contextmanager
def open_bag(path: Path, topics: Topics) -> Iterator[AnswerBag]:
    """Open a bag: its folder, or a single .mcap file. Raises BagError."""
    with opened_bag(path) as reader:
        yield AnswerBag(reader, topics)


def stamp_ns_of(message: Any) -> int:
    """The stamp in a message's header."""
    stamp = message.header.stamp
    return int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)


def points_of(message: Any) -> tuple[Uv, ...]:
    """(u, v) in pixels of a TargetArray's targets."""
    return tuple((float(target.u), float(target.v)) for target in message.targets)


def rgb_of(message: Any) -> np.ndarray:
    """HxWx3 uint8 RGB of a recorded picture. Raises PointingError(BAD_IMAGE)."""
    try:
        if hasattr(message, "format"):
            picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
            if picture is None:
                raise ValueError(f"{message.format!r} cannot be decoded")
            return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        return np.array(message_to_cvimage(_without_row_padding(message), "rgb8"))
    except (ImageError, ValueError, TypeError, AssertionError, cv2.error) as error:
        raise PointingError(Code.BAD_IMAGE, f"its picture cannot be read: {error}") from error


def _without_row_padding(message: Any) -> Any:
    """rosbags takes rows to follow each other closely."""
    _, _, kind, channels = to_cvtype(message.encoding)
    row_bytes = message.width * channels * np.dtype(kind).itemsize
    if message.step <= row_bytes:
        return message
    rows = np.asarray(message.data, np.uint8)[: message.step * message.height]
    message.data = np.ascontiguousarray(rows.reshape(message.height, message.step)[:, :row_bytes]).reshape(-1)
    message.step = row_bytes
    return message


def truth_in(bag: AnswerBag, *, everything: bool = False) -> tuple[list[Reviewed], int]:
    """What people stood for, and how many answers nobody did; with `everything` those count as confirmed."""
    reviews = bag.reviews()
    unreviewed = reviews.unreviewed()
    if everything:
        for answer in unreviewed:
            reviews.review(*answer)
    return reviews.reviewed(), 0 if everything else len(unreviewed)
