"""The thread that the model lives in: it loads it, then serves one job after the other from a bounded queue.

Jobs that need a frame wait for it side by side, and whichever has its frame first is served first: a camera that
is dead holds up only those who ask for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.job import Job
from molmo_ros.outcome import Code, PointingError

if TYPE_CHECKING:
    from molmo_ros.pointing.protocol import Pointer

Tell = Callable[[str], None]


class ModelWorker:
    """`load` and `serve` run on the worker's thread; `serve` must answer its job and not raise."""

    def __init__(
        self,
        load: Callable[[Tell], Pointer],
        serve: Callable[[Pointer, Job], None],
        request_frame: Callable[[Job], Future[RawFrame]],
        max_queue: Callable[[], int],
    ) -> None:
        """`load` may tell what it is at; `request_frame` and `max_queue` are asked for each job."""
        self._load = load
        self._serve = serve
        self._request_frame = request_frame
        self._max_queue = max_queue
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._at_work: Job | None = None
        self._stopping = False
        self._loaded = threading.Event()
        self._started_s = time.monotonic()
        self._load_s = 0.0
        self._progress = "beginning"
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_until_loaded(self) -> None:
        """Returns when the model is there or the worker was stopped; raises what loading raised."""
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def is_ready(self) -> bool:
        return self._loaded.is_set() and self._failure is None and not self._stopping

    def describe(self) -> str:
        """What it is at, for people."""
        if not self._loaded.is_set():
            return f"still loading, for {time.monotonic() - self._started_s:.1f} s so far ({self._progress})"
        if self._failure is not None:
            return f"not there: {failure_line(self._failure)}"
        return f"loaded in {self._load_s:.1f} s"

    def submit(self, job: Job) -> None:
        """Queue a job. Raises PointingError: MODEL_UNAVAILABLE, BUSY when the queue is full, NOT_ACTIVE
        at the end."""
        with self._changed:
            if self._stopping:
                raise PointingError(Code.NOT_ACTIVE, "the node is shutting down")
            if not self._loaded.is_set():
                raise PointingError(
                    Code.MODEL_UNAVAILABLE, f"the model is {self.describe()}; ask again in a moment"
                )
            if self._failure is not None:
                raise PointingError(Code.MODEL_UNAVAILABLE, f"the model is {self.describe()}")
            self._forget_the_answered()
            most = self._max_queue()
            if len(self._waiting) + (self._at_work is not None) > most:
                raise PointingError(
                    Code.BUSY,
                    f"one request is at work and {most} wait, which is as many as may (max_queue); ask again later",
                )
            self._waiting.append(job)
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
        self._loaded.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def unfinished(self) -> list[Job]:
        """The job at work and those waiting."""
        with self._changed:
            return [*([self._at_work] if self._at_work else []), *self._waiting]

    @property
    def queue_length(self) -> int:
        with self._changed:
            return len(self._waiting) + (self._at_work is not None)

    def _tell(self, progress: str) -> None:
        self._progress = progress

    def _run(self) -> None:
        try:
            pointer = self._load(self._tell)
        except Exception as error:  # noqa: BLE001 - whatever a model folder may hold, the node stays up and says so
            self._failure = error
            self._loaded.set()
            return
        self._load_s = time.monotonic() - self._started_s
        self._loaded.set()
        while (job := self._next()) is not None:
            self._serve(pointer, job)

    def _next(self) -> Job | None:
        """The first job that can go on, waited for as long as it takes; None at the end."""
        with self._changed:
            self._at_work = None
            while not self._stopping:
                self._forget_the_answered()
                for job in self._waiting:
                    if job.is_ready():
                        self._waiting.remove(job)
                        self._at_work = job
                        return job
                for job in self._waiting:
                    job.await_frame(self._request_frame, self._wake)
                # A frame may have been there at once, and called before anybody waited.
                if not any(job.is_ready() for job in self._waiting):
                    self._changed.wait()
            return None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _forget_the_answered(self) -> None:
        self._waiting = [job for job in self._waiting if not job.should_stop()]


def failure_line(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, PointingError):
        return error.outcome.message
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
