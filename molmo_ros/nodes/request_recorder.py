"""Keeps what was asked, seen and answered: each request as a bag of its own, within bounds of room and memory.

Answers are handed over after they were given, and written on a thread of their own: recording costs a caller nothing.
A disk that is slow, full or gone costs recordings, never answers; /diagnostics tells how many, and why.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.frame_rules import FrameRules

#: Answers that may wait to be written; each holds a frame in memory.
MOST_WAITING = 8
_PREFIX = "request_"

WriteRequest = Callable[[Path, Answer, str, tuple[FrameRules, ...]], None]


class RequestRecorder:
    """Writes into `folder`/NODE, whose requests take at most `max_bytes`: the oldest go first. Use from any thread."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        node: str,
        rules: tuple[FrameRules, ...],
        on_fault: Callable[[str], None],
    ) -> None:
        """`node`: its full name. `rules` of all cameras. `on_fault` hears why recordings fail, each reason once."""
        self.folder = folder.expanduser() / node.strip("/").replace("/", "_")
        self.max_bytes = max_bytes
        self._node = node
        self._rules = rules
        self._on_fault = on_fault
        self._changed = threading.Condition()
        self._waiting: deque[Answer] = deque()
        self._ended = False
        self._written = self._missed = self._nbytes = 0
        self._fault = ""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def record(self, answer: Answer) -> None:
        """Returns at once. An answer that finds as many waiting as may is not recorded."""
        with self._changed:
            if self._ended:
                return
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(answer)
                self._changed.notify()
                return
        self._miss(f"the disk is slower than the requests ({self.folder})")

    def close(self, timeout_s: float) -> bool:
        """Write what waits, as far as time allows. Whether it did."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def fault(self) -> str:
        """Why the last answer could not be recorded, "" when it was."""
        return self._fault

    def describe(self) -> tuple[str, dict[str, str]]:
        """How it is, in a sentence and in numbers."""
        with self._changed:
            values = {
                "recorded": str(self._written),
                "not recorded": str(self._missed),
                "waiting": str(len(self._waiting)),
                "room [MB]": f"{self._nbytes / 1e6:.1f}",
                "at most [MB]": f"{self.max_bytes / 1e6:.0f}",
            }
            return self._fault or f"recording into {self.folder}", values

    # ------------------------------------------------------------------ on its thread

    def _run(self) -> None:
        try:
            # Takes half a second to import, and is not everywhere: only who records needs it.
            from molmo_ros.nodes.request_bag import UNFINISHED, write_request
        except ImportError as error:
            fault = f"recording needs rosbags (pip install 'molmo_ros[recording]'): {error}"
            while self._next() is not None:
                self._miss(fault)
            return
        unfinished = self.folder / UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)  # of a node that was killed
        bags = deque(_sizes(self.folder))
        self._nbytes = sum(size for _, size in bags)
        while (answer := self._next()) is not None:
            self._write(write_request, answer, unfinished, bags)

    def _next(self) -> Answer | None:
        """Waited for as long as it takes; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._waiting)
            return self._waiting.popleft() if self._waiting else None

    def _write(
        self, write: WriteRequest, answer: Answer, folder: Path, bags: deque[tuple[Path, int]]
    ) -> None:
        """A bag appears in its place only when it is whole."""
        now_ns = time.time_ns()
        at = datetime.fromtimestamp(now_ns // 10**9, UTC)
        name = f"{_PREFIX}{at:%Y%m%dT%H%M%S}_{now_ns % 10**9:09d}_{answer.outcome.code.name}"
        unfinished = folder / name
        try:
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            write(unfinished, answer, self._node, self._rules)
            unfinished.rename(self.folder / name)
        except Exception as error:  # noqa: BLE001 - the answer is given; whatever a disk may do, the node goes on
            shutil.rmtree(unfinished, ignore_errors=True)
            why = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
            self._miss(f"requests cannot be recorded into {self.folder}: {why}")
            return
        size = _nbytes(self.folder / name)
        bags.append((self.folder / name, size))
        self._nbytes += size
        while self._nbytes > self.max_bytes and len(bags) > 1:
            oldest, size = bags.popleft()
            shutil.rmtree(oldest, ignore_errors=True)
            self._nbytes -= size
        with self._changed:
            self._written += 1
            self._fault = ""

    def _miss(self, fault: str) -> None:
        with self._changed:
            self._missed += 1
            new, self._fault = fault != self._fault, fault
        if new:
            self._on_fault(fault)


def _sizes(folder: Path) -> list[tuple[Path, int]]:
    """The requests recorded there and their sizes, the oldest first; what else is in the folder is not ours."""
    bags = sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "metadata.yaml").is_file())
    return [(path, _nbytes(path)) for path in bags]


def _nbytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
