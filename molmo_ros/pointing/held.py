"""Pictures kept for follow-up questions, within bounds."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from molmo_ros.outcome import Code, PointingError


class HasBytes(Protocol):
    @property
    def nbytes(self) -> int:
        """Bytes that holding it costs."""
        ...


T = TypeVar("T", bound=HasBytes)


class Held(Generic[T]):
    """At most `max_count` things of together at most `max_bytes`; the one not used for longest goes first.

    Each is known by a token, which is opaque and of which no two are alike, restarts included. Whoever got a
    thing may go on using it after it went. Safe to share between threads.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count, self.max_bytes = max_count, max_bytes
        self._things: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, thing: T) -> str:
        """Its token, "" if it is too large to be held at all."""
        with self._lock:
            if self.max_count < 1 or thing.nbytes > self.max_bytes:
                return ""
            token = secrets.token_hex(8)
            self._things[token] = thing
            while len(self._things) > self.max_count or self._bytes() > self.max_bytes:
                self._things.popitem(last=False)
            return token

    def get(self, token: str) -> T:
        """The thing of that token, which from now on is the one used last.

        Raises:
            PointingError: FRAME_EXPIRED when it is held no more, or never was.
        """
        with self._lock:
            if token not in self._things:
                raise PointingError(
                    Code.FRAME_EXPIRED,
                    f"no picture is held under {token!r}: of {self.max_count} pictures and {self.max_bytes / 1e6:.0f} "
                    'MB the oldest go first; ask with frame_token "" for a new picture',
                )
            self._things.move_to_end(token)
            return self._things[token]

    def release(self, token: str) -> None:
        """Let it go. Raises as `get`."""
        self.get(token)
        with self._lock:
            self._things.pop(token, None)

    def clear(self) -> None:
        with self._lock:
            self._things.clear()

    def __len__(self) -> int:
        return len(self._things)

    @property
    def nbytes(self) -> int:
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(thing.nbytes for thing in self._things.values())
