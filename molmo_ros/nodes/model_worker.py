"""The thread that the model lives in: it loads it, then serves one job after the other from a bounded
queue."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from molmo_ros.outcome import Code, PointingError

if TYPE_CHECKING:
    from molmo_ros.pointing.protocol import Pointer


class Job:
    """One request on its way. Exactly one party may answer it: whoever claims it first."""

    def __init__(self, request: Any, timeout_s: float, reply: Callable[[Any], None]) -> None:
        """`reply` hands the response over to whoever asked; it may be called from any thread."""
        self.request = request
        self.timeout_s = timeout_s
        self.reply = reply
        self.received_s = time.monotonic()
        self.deadline_s = self.received_s + timeout_s
        self.stage = "waiting for its turn"
        self._claimed = False
        self._lock = threading.Lock()

    def claim(self) -> bool:
        """True for the first caller, who must then answer; False for all others, who must not."""
        with self._lock:
            first, self._claimed = not self._claimed, True
            return first

    @property
    def left_s(self) -> float:
        return self.deadline_s - time.monotonic()

    def should_stop(self) -> bool:
        """Whether going on is pointless: the job was answered by somebody else, or its time is up."""
        return self._claimed or self.left_s <= 0


class ModelWorker:
    """`load` and `serve` run on the worker's thread; `serve` must answer its job and not raise."""

    def __init__(
        self,
        load: Callable[[], Pointer],
        serve: Callable[[Pointer, Job], None],
        on_loaded: Callable[[float], None],
        on_failed: Callable[[str], None],
        max_queue: int,
    ) -> None:
        """`on_loaded` hears the seconds that loading took, `on_failed` why it failed; both on the
        worker's thread."""
        self._load = load
        self._serve = serve
        self._on_loaded = on_loaded
        self._on_failed = on_failed
        self._max_queue = max_queue
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._at_work: Job | None = None
        self._stopping = False
        self._loading_since_s = time.monotonic()
        self._ready = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises PointingError: MODEL_UNAVAILABLE, BUSY when the queue is full, NOT_ACTIVE
        at the end."""
        with self._changed:
            if self._stopping:
                raise PointingError(Code.NOT_ACTIVE, "the node is shutting down")
            if self._failure:
                raise PointingError(Code.MODEL_UNAVAILABLE, self._failure)
            if not self._ready:
                loading_s = time.monotonic() - self._loading_since_s
                raise PointingError(
                    Code.MODEL_UNAVAILABLE,
                    f"the model is still loading, for {loading_s:.1f} s so far; ask again in a moment",
                )
            waiting = [queued for queued in self._waiting if not queued.should_stop()]
            if len(waiting) + (self._at_work is not None) > self._max_queue:
                raise PointingError(
                    Code.BUSY,
                    f"one request is at work and {self._max_queue} wait, which is as many as may "
                    f"(max_queue); "
                    "ask again later",
                )
            self._waiting = deque([*waiting, job])
            self._changed.notify()

    def stop(self, timeout_s: float) -> bool:
        """Take no more jobs and end. Whether the thread ended in time; it cannot be interrupted while it
        loads.

        Jobs are ended by claiming and answering them: the one at work notices that it `should_stop`.
        """
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def unfinished(self) -> list[Job]:
        """The job at work and those waiting."""
        with self._changed:
            return [*([self._at_work] if self._at_work else []), *self._waiting]

    def _run(self) -> None:
        try:
            pointer = self._load()
        except Exception as error:  # noqa: BLE001 - whatever a model folder may hold, the node stays up and says so
            reason = error.outcome.message if isinstance(error, PointingError) else _one_line(error)
            with self._changed:
                self._failure = f"the model could not be loaded: {reason}"
            self._on_failed(self._failure)
            return
        with self._changed:
            self._ready = True
        self._on_loaded(time.monotonic() - self._loading_since_s)
        while True:
            with self._changed:
                self._at_work = None
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                job = self._at_work = self._waiting.popleft()
            if not job.should_stop():
                self._serve(pointer, job)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
