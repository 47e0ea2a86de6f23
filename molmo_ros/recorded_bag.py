"""Open a recorded bag, MCAP or SQLite, without ROS; and say what is wrong with one that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError


class BagError(Exception):
    """What is wrong with a bag, and what would be right."""


@contextmanager
def opened_bag(path: Path) -> Iterator[AnyReader]:
    """A bag to read: its folder, or a single .mcap file. Raises BagError."""
    try:
        reader = AnyReader([path])
        reader.open()
    except (AnyReaderError, OSError) as error:
        old = "type definitions" in str(error)
        hint = "; before ROS 2 Iron bags did not carry their message types: convert it to MCAP" if old else ""
        raise BagError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}{hint}") from error
    try:
        yield reader
    finally:
        reader.close()


def raw_messages(reader: AnyReader, topics: set[str]) -> Iterator[tuple[str, str, bytes]]:
    """Topic, type and bytes (CDR) of the messages on these topics, in the order of recording. Raises BagError."""
    wanted = [each for each in reader.connections if each.topic in topics]
    if not wanted:
        return
    try:
        for connection, _, raw in reader.messages(connections=wanted):
            yield connection.topic, connection.msgtype, bytes(raw)
    except (AnyReaderError, ValueError, OSError) as error:
        raise BagError(f"the bag is broken: {' '.join(str(error).split())[:300]}") from error


def messages(reader: AnyReader, topics: set[str]) -> Iterator[tuple[str, Any]]:
    """Topic and message, read by the definitions that the bag carries. Raises BagError."""
    try:
        for topic, kind, raw in raw_messages(reader, topics):
            yield topic, reader.deserialize(raw, kind)
    except (AnyReaderError, ValueError) as error:
        raise BagError(f"the bag is broken: {' '.join(str(error).split())[:300]}") from error
