"""The transform buffer: a tree of frames over time, walked as tf2's BufferCore walks it."""

from __future__ import annotations

import math
import threading
import time as clock
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time

from tf2_ros.cache import OutOfRange, StaticCache, TimeCache
from tf2_ros.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)
from tf2_ros.rigid import IDENTITY, Rigid, compose, inverse


class Buffer:
    """Keeps what was said about frames and answers where one frame was in another at a time.

    `cache_time` is how far back it remembers (10 s). Safe to use from several threads. `node` is accepted as
    tf2's signature has it; the `tf2_frames` service that tf2 opens with it is not part of this subset.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        del node
        self._length_ns = int(cache_time.nanoseconds) if cache_time else 10_000_000_000
        self._frames: dict[str, TimeCache | StaticCache] = {}
        self._parents: set[str] = set()
        self._changed = threading.Condition()

    # ------------------------------------------------------------ in

    def set_transform(self, transform: TransformStamped, authority: str) -> bool:
        """Take in one transform; False (and a line in the log) when it cannot be true."""
        return self._set(transform, authority, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> bool:
        """Take in one transform that holds at all times."""
        return self._set(transform, authority, static=True)

    def _set(self, transform: TransformStamped, authority: str, static: bool) -> bool:
        parent = transform.header.frame_id.removeprefix("/")
        child = transform.child_frame_id.removeprefix("/")
        t, q = transform.transform.translation, transform.transform.rotation
        rigid: Rigid = (t.x, t.y, t.z, q.x, q.y, q.z, q.w)
        norm = math.sqrt(q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w)
        wrong = ""
        if child == parent:
            wrong = f'TF_SELF_TRANSFORM: frame_id and child_frame_id are both "{child}"'
        elif not child:
            wrong = "TF_NO_CHILD_FRAME_ID: child_frame_id not set"
        elif not parent:
            wrong = f'TF_NO_FRAME_ID: frame_id not set for child_frame_id "{child}"'
        elif not all(map(math.isfinite, rigid)):
            wrong = f'TF_NAN_INPUT: a value is not a number for child_frame_id "{child}"'
        elif abs(norm - 1.0) > 1e-6 and abs(norm * norm - 1.0) >= 1e-3:
            wrong = f'TF_DENORMALIZED_QUATERNION: norm {norm:.6g} for child_frame_id "{child}"'
        if wrong:
            get_logger("tf2_buffer").error(f'{wrong}; transform from authority "{authority}" ignored')
            return False
        rigid = (*rigid[:3], q.x / norm, q.y / norm, q.z / norm, q.w / norm)
        stamp = transform.header.stamp
        with self._changed:
            cache = self._frames.get(child)
            if cache is None or isinstance(cache, StaticCache) != static:
                cache = self._frames[child] = StaticCache() if static else TimeCache(self._length_ns)
            self._parents.add(parent)
            kept = cache.insert(stamp.sec * 1_000_000_000 + stamp.nanosec, (parent, rigid))
            self._changed.notify_all()
        if not kept:
            get_logger("tf2_buffer").warning(f'TF_OLD_DATA ignoring data from the past for frame "{child}"')
        return kept

    def clear(self) -> None:
        """Forget all but the static transforms."""
        with self._changed:
            self._frames = {k: v for k, v in self._frames.items() if isinstance(v, StaticCache)}

    # ------------------------------------------------------------ out

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008
    ) -> TransformStamped:
        """The transform that takes coordinates in `source_frame` into `target_frame`, at `time`.

        Time 0 is the latest at which all of the chain is known; the answer's header has the time used.
        """
        self._wait(timeout, lambda: self._lookup(target_frame, source_frame, time.nanoseconds))
        with self._changed:
            rigid, stamp_ns = self._lookup(target_frame, source_frame, time.nanoseconds)
        return _message(target_frame, source_frame, stamp_ns, rigid)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),  # noqa: B008
    ) -> TransformStamped:
        """From `source_frame` at `source_time` to `target_frame` at `target_time`, through a still frame."""

        def chain() -> tuple[Rigid, int]:
            source, _ = self._lookup(fixed_frame, source_frame, source_time.nanoseconds)
            target, stamp_ns = self._lookup(target_frame, fixed_frame, target_time.nanoseconds)
            return compose(target, source), stamp_ns

        self._wait(timeout, chain)
        with self._changed:
            rigid, stamp_ns = chain()
        return _message(target_frame, source_frame, stamp_ns, rigid)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008
        return_debug_tuple: bool = False,
    ) -> Any:
        """Whether `lookup_transform` would answer; with `return_debug_tuple` (bool, why not)."""
        self._wait(timeout, lambda: self._lookup(target_frame, source_frame, time.nanoseconds))
        try:
            with self._changed:
                self._lookup(target_frame, source_frame, time.nanoseconds)
        except TransformException as error:
            return (False, str(error)) if return_debug_tuple else False
        return (True, "") if return_debug_tuple else True

    def all_frames_as_string(self) -> str:
        """One line per frame, for people."""
        with self._changed:
            parents = {child: cache.latest()[1] for child, cache in self._frames.items()}
        return "".join(f"Frame {child} exists with parent {parent}.\n" for child, parent in parents.items())

    def _wait(self, timeout: Duration, attempt: Any) -> None:
        """Return when the attempt succeeds or the time is over, trying again only when something came in."""
        deadline = clock.monotonic() + timeout.nanoseconds / 1e9
        with self._changed:
            while True:
                try:
                    attempt()
                    return
                except InvalidArgumentException:
                    return
                except TransformException:
                    left = deadline - clock.monotonic()
                    if left <= 0.0 or not self._changed.wait(left):
                        return

    # ------------------------------------------------------------ the walk

    def _lookup(self, target: str, source: str, time_ns: int) -> tuple[Rigid, int]:
        """Source in target, and the time used. Called with the lock held."""
        for argument, frame in (("target_frame", target), ("source_frame", source)):
            self._require(argument, frame)
        if target == source:
            latest = self._frames[target].latest()[0] if target in self._frames else 0
            return IDENTITY, time_ns or latest
        time_ns = time_ns or self._latest_common_ns(target, source)
        gap = ""
        source_to: dict[str, Rigid] = {source: IDENTITY}  # every ancestor -> source in it
        frame, rigid = source, IDENTITY
        while frame in self._frames:
            try:
                frame_parent, step = self._frames[frame].at(time_ns)
            except OutOfRange as error:
                gap = str(error)
                break
            frame, rigid = frame_parent, compose(step, rigid)
            if frame in source_to:
                raise LookupException("The tf tree is invalid because it contains a loop.")
            source_to[frame] = rigid
        frame, rigid, seen = target, IDENTITY, {target}
        while frame != source and frame not in source_to and frame in self._frames:
            try:
                frame_parent, step = self._frames[frame].at(time_ns)
            except OutOfRange as error:
                gap = gap or str(error)
                break
            frame, rigid = frame_parent, compose(step, rigid)
            if frame in seen:
                raise LookupException("The tf tree is invalid because it contains a loop.")
            seen.add(frame)
        if frame in source_to:
            return compose(inverse(rigid), source_to[frame]), time_ns
        if gap:
            raise ExtrapolationException(
                f"{gap}, when looking up transform from frame [{source}] to frame [{target}]"
            )
        raise _unconnected(target, source)

    def _latest_common_ns(self, target: str, source: str) -> int:
        """The newest time at which every moving link between both frames is known; 0 if none moves."""
        stamps: dict[str, list[int]] = {source: []}  # every ancestor of source -> stamps on the way to it
        frame = source
        way: list[int] = []
        while frame in self._frames and len(stamps) <= len(self._frames) + 1:
            stamp_ns, frame = self._frames[frame].latest()
            way = [*way, stamp_ns]
            stamps.setdefault(frame, way)
            if frame == target:
                break
        frame, way = target, []
        while frame not in stamps:
            if frame not in self._frames or len(way) > len(self._frames):
                raise _unconnected(target, source)
            stamp_ns, frame = self._frames[frame].latest()
            way.append(stamp_ns)
        return min((s for s in [*way, *stamps[frame]] if s), default=0)

    def _require(self, argument: str, frame: str) -> None:
        where = f"lookupTransform argument {argument}"
        if not frame:
            raise InvalidArgumentException(
                f"Invalid argument passed to {where} in tf2 frame_ids cannot be empty"
            )
        if frame.startswith("/"):
            raise InvalidArgumentException(
                f"Invalid argument \"{frame}\" passed to {where} in tf2 frame_ids cannot start with a '/'"
            )
        if frame not in self._frames and frame not in self._parents:
            raise LookupException(f'"{frame}" passed to {where} does not exist. ')


def _unconnected(target: str, source: str) -> ConnectivityException:
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the "
        "same tree. Tf has two or more unconnected trees."
    )


def _message(target: str, source: str, stamp_ns: int, rigid: Rigid) -> TransformStamped:
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = target, source
    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z, q.x, q.y, q.z, q.w = rigid
    return message
