"""TF at an image's stamp, listened to only while a request waits.

/tf_static is always subscribed (it speaks once). /tf is subscribed while anybody has the window open: at 100 Hz
it would cost a Python node a tenth of a core for nothing. Each first opening starts with a fresh buffer that holds
the static transforms, because interpolating between what was heard in an earlier window and now would invent
motion. `keep_recent` is for streaming cameras, whose frames are older than the request: /tf stays subscribed then,
its messages kept as bytes, and read only when a request opens the window.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.time import Time
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformException

from molmo_ros.geometry.pose import transform as rigid_transform
from molmo_ros.outcome import Code, PointingError

_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_DYNAMIC_QOS = QoSProfile(depth=100)
_NAMED_FRAMES = 12
# A frame that streaming has kept is at most about this old, and its transforms may be a little older.
_RECENT_S = 2.0


@dataclass
class _Edge:
    """What has been heard about one child frame; static edges hold at every time."""

    parent: str
    static: bool
    first_ns: int
    last_ns: int


class TransformWindow:
    """Use from the thread of the executor that spins `node`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._users: dict[Hashable, Callable[[], None]] = {}
        self._static: dict[str, TransformStamped] = {}
        self._edges: dict[str, _Edge] = {}
        self._buffer: Buffer | None = None
        self._recent: deque[tuple[float, bytes]] = deque()
        self._keeps_recent = False
        self._dynamic_subscription: Subscription | None = None
        self._static_subscription = node.create_subscription(
            TFMessage, "/tf_static", self._hear_static, _STATIC_QOS
        )

    def open(self, user: Hashable, on_change: Callable[[], None]) -> None:
        """Listen for `user` until its `close`; `on_change` is called after every transform message."""
        self._users[user] = on_change
        if self._buffer is not None:
            return
        self._buffer = Buffer()
        self._edges = {}
        for transform in self._static.values():
            self._add(transform, static=True)
        for _, data in self._recent:
            self._take_in(data)
        self._subscribe()

    def close(self, user: Hashable) -> None:
        """Stop listening for this user, if it does."""
        self._users.pop(user, None)
        if not self._users:
            self._buffer = None
            self._unsubscribe_if_idle()

    def keep_recent(self, keep: bool) -> None:
        """Whether to listen to /tf all the time."""
        self._keeps_recent = keep
        if keep:
            self._subscribe()
        else:
            self._recent.clear()
            self._unsubscribe_if_idle()

    def forget(self) -> None:
        """Time has jumped back: what was heard belongs to another run of the clock. Static transforms hold."""
        self._recent.clear()
        if self._buffer is not None:
            self._buffer = Buffer()
            self._edges = {}
            for transform in self._static.values():
                self._add(transform, static=True)

    def destroy(self) -> None:
        self._users.clear()
        self._buffer = None
        self.keep_recent(False)
        self._node.destroy_subscription(self._static_subscription)

    def _subscribe(self) -> None:
        if self._dynamic_subscription is None:
            # A group of its own each time: rclpy's groups never forget what was in them.
            self._dynamic_subscription = self._node.create_subscription(
                TFMessage,
                "/tf",
                self._hear_dynamic,
                _DYNAMIC_QOS,
                callback_group=MutuallyExclusiveCallbackGroup(),
                raw=True,
            )

    def _unsubscribe_if_idle(self) -> None:
        if self._dynamic_subscription is not None and not self._users and not self._keeps_recent:
            self._node.destroy_subscription(self._dynamic_subscription)
            self._dynamic_subscription = None

    def matrix_at(self, target_frame: str, source_frame: str, stamp_ns: int) -> np.ndarray:
        """4x4 `T_target_source` at the stamp: takes points of source_frame to target_frame.

        Raises PointingError(TF_UNAVAILABLE) that says what is known instead: the frames, or the interval of
        time.
        """
        if self._buffer is None:
            raise RuntimeError("TransformWindow.matrix_at needs an open window")
        if target_frame == source_frame:
            return np.eye(4)
        self._require_cover(target_frame, source_frame, stamp_ns)
        try:
            found = self._buffer.lookup_transform(target_frame, source_frame, Time(nanoseconds=stamp_ns))
        except TransformException as error:
            raise PointingError(
                Code.TF_UNAVAILABLE, f"no transform from {source_frame} to {target_frame}: {error}"
            ) from error
        return _matrix(found.transform)

    def _require_cover(self, target_frame: str, source_frame: str, stamp_ns: int) -> None:
        """Look at what was heard before asking the buffer: cheap enough for every message, and it
        explains."""
        source_root, source_path = self._path_to_root(source_frame)
        target_root, target_path = self._path_to_root(target_frame)
        known = self._known_frames()
        for frame in (source_frame, target_frame):
            if frame not in known:
                names = ", ".join(sorted(known)[:_NAMED_FRAMES]) or "none"
                more = f" and {len(known) - _NAMED_FRAMES} more" if len(known) > _NAMED_FRAMES else ""
                raise PointingError(
                    Code.TF_UNAVAILABLE, f"TF has no frame {frame!r}; frames heard of: {names}{more}"
                )
        if source_root != target_root:
            raise PointingError(
                Code.TF_UNAVAILABLE,
                f"{source_frame} and {target_frame} are not connected in TF: their trees end in "
                f"{source_root} and {target_root}",
            )
        moving = {
            child: self._edges[child]
            for child in set(source_path) ^ set(target_path)
            if not self._edges[child].static
        }
        if not moving:
            return
        latest_start = max(moving, key=lambda child: moving[child].first_ns)
        earliest_end = min(moving, key=lambda child: moving[child].last_ns)
        first_ns, last_ns = moving[latest_start].first_ns, moving[earliest_end].last_ns
        if first_ns <= stamp_ns <= last_ns:
            return
        if stamp_ns > last_ns:
            where, limiting = f"{(stamp_ns - last_ns) / 1e9:.3f} s after", earliest_end
        else:
            where, limiting = f"{(first_ns - stamp_ns) / 1e9:.3f} s before", latest_start
        raise PointingError(
            Code.TF_UNAVAILABLE,
            f"the image's stamp lies {where} what TF covers from {source_frame} to {target_frame} "
            f"({_seconds(first_ns)} to {_seconds(last_ns)}, heard while this request waited; "
            f"the limit is {moving[limiting].parent} -> {limiting})",
        )

    def newest_ns(self, target_frame: str, source_frame: str) -> int:
        """The newest stamp (ns) at which both frames are known in one another; 0 when nothing between them moves.

        Raises PointingError(TF_UNAVAILABLE) as `matrix_at`.
        """
        _, source_path = self._path_to_root(source_frame)
        _, target_path = self._path_to_root(target_frame)
        moving = [self._edges[child] for child in set(source_path) ^ set(target_path)]
        return min((edge.last_ns for edge in moving if not edge.static), default=0)

    def chain(self, frame: str) -> list[str]:
        """A frame and those above it up to the root, as heard so far; only while the window is open."""
        root, path = self._path_to_root(_plain(frame))
        return [*path, root]

    def _known_frames(self) -> set[str]:
        return set(self._edges) | {edge.parent for edge in self._edges.values()}

    def _path_to_root(self, frame: str) -> tuple[str, list[str]]:
        """The root above a frame, and the child frames of the edges on the way."""
        path: list[str] = []
        while frame in self._edges:
            if frame in path:
                raise PointingError(
                    Code.TF_UNAVAILABLE,
                    f"TF runs in a loop: {' -> '.join([*path, frame])}; two nodes publish it",
                )
            path.append(frame)
            frame = self._edges[frame].parent
        return frame, path

    def _hear_static(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._static[_plain(transform.child_frame_id)] = transform
            if self._buffer is not None:
                self._add(transform, static=True)
        self._tell()

    def _hear_dynamic(self, data: bytes) -> None:
        if self._keeps_recent:
            now_s = time.monotonic()
            self._recent.append((now_s, data))
            while now_s - self._recent[0][0] > _RECENT_S:
                self._recent.popleft()
        if self._buffer is not None:
            self._take_in(data)
            self._tell()

    def _take_in(self, data: bytes) -> None:
        for transform in deserialize_message(data, TFMessage).transforms:
            self._add(transform, static=False)

    def _tell(self) -> None:
        for on_change in list(self._users.values()):
            on_change()

    def _add(self, transform: TransformStamped, *, static: bool) -> None:
        assert self._buffer is not None
        child, parent = _plain(transform.child_frame_id), _plain(transform.header.frame_id)
        if not child or not parent or child == parent or not _is_finite(transform.transform):
            self._node.get_logger().warning(
                f"TF from {parent!r} to {child!r} is malformed and left out", throttle_duration_sec=10.0
            )
            return
        stamp = transform.header.stamp
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        if static:
            self._buffer.set_transform_static(transform, "molmo_ros")
        else:
            self._buffer.set_transform(transform, "molmo_ros")
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            self._edges[child] = _Edge(parent, static, stamp_ns, stamp_ns)
        else:
            edge.first_ns, edge.last_ns = min(edge.first_ns, stamp_ns), max(edge.last_ns, stamp_ns)


def _matrix(transform: Transform) -> np.ndarray:
    t, q = transform.translation, transform.rotation
    return rigid_transform([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])


def _plain(frame: str) -> str:
    """tf2 names frames without the leading slash that tf1 used."""
    return frame.lstrip("/")


def _is_finite(transform: Transform) -> bool:
    """Without numpy: this runs eight hundred times a second while a request waits."""
    t, q = transform.translation, transform.rotation
    squares = q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w
    return math.isfinite(t.x + t.y + t.z + squares) and squares > 1e-12


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns / 1e9:.3f}"
