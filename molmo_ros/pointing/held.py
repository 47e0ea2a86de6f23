"""Pictures kept for follow-up questions, within bounds."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from molmo_ros.outcome import Code, PointingError


class HasBytes(Protocol):
    @property
    def nbytes(self) -> int:
        """Bytes that holding it costs."""
        ...


T = TypeVar("T", bound=HasBytes)


class Held(Generic[T]):
    """At most `max_count` things of together at most `max_bytes`; the one not used for longest goes first, and
    each goes `max_age_s` after it came.

    Each is known by a token, which is opaque and of which no two are alike, restarts included. Whoever got a
    thing may go on using it after it went. Safe to share between threads.
    """

    def __init__(
        self,
        max_count: int,
        max_bytes: int,
        max_age_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_count, self.max_bytes, self.max_age_s = max_count, max_bytes, max_age_s
        self._clock = clock
        self._things: OrderedDict[str, T] = OrderedDict()
        self._came_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def keep(self, thing: T) -> str:
        """Its token, "" if it is too large to be held at all."""
        with self._lock:
            if self.max_count < 1 or thing.nbytes > self.max_bytes:
                return ""
            token = secrets.token_hex(8)
            self._drop_the_old()
            self._things[token] = thing
            self._came_s[token] = self._clock()
            while len(self._things) > self.max_count or self._bytes() > self.max_bytes:
                self._drop(next(iter(self._things)))
            return token

    def get(self, token: str) -> T:
        """The thing of that token, which from now on is the one used last.

        Raises:
            PointingError: FRAME_EXPIRED when it is held no more, or never was.
        """
        with self._lock:
            self._drop_the_old()
            if token not in self._things:
                age = f" and all after {self.max_age_s:g} s" if math.isfinite(self.max_age_s) else ""
                raise PointingError(
                    Code.FRAME_EXPIRED,
                    f"no picture is held under {token!r}: of {self.max_count} pictures and {self.max_bytes / 1e6:.0f} "
                    f'MB the oldest go first{age}; ask with frame_token "" for a new picture',
                )
            self._things.move_to_end(token)
            return self._things[token]

    def release(self, token: str) -> None:
        """Let it go. Raises as `get`."""
        self.get(token)
        with self._lock:
            self._drop(token)

    def clear(self) -> None:
        with self._lock:
            self._things.clear()
            self._came_s.clear()

    def purge(self) -> None:
        """Let go of what is too old; otherwise that happens at the next call."""
        with self._lock:
            self._drop_the_old()

    def __len__(self) -> int:
        self.purge()
        return len(self._things)

    @property
    def nbytes(self) -> int:
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(thing.nbytes for thing in self._things.values())

    def _drop(self, token: str) -> None:
        self._things.pop(token, None)
        self._came_s.pop(token, None)

    def _drop_the_old(self) -> None:
        now_s = self._clock()
        for token in [token for token, came_s in self._came_s.items() if now_s - came_s > self.max_age_s]:
            self._drop(token)
