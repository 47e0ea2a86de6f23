"""How the node is, on /diagnostics: its state, its model, its cameras, its requests, and the frames it holds."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from molmo_ros.nodes.answer import Answer, StageSeconds
from molmo_ros.outcome import Code, Outcome

_REMEMBERED = 200
OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
# Outcomes that are nobody's fault.
_FINE = {Code.OK, Code.NOT_FOUND, Code.CANCELLED}


@dataclass
class _OfCamera:
    outcome: Outcome = field(default_factory=lambda: Outcome(Code.OK, "not asked yet"))
    asked: int = 0


class RequestLog:
    """What came of the requests so far. Any thread may write and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Code] = Counter()
        self._seconds: deque[StageSeconds] = deque(maxlen=_REMEMBERED)
        self._cameras: dict[str, _OfCamera] = {}

    def note(self, answer: Answer) -> None:
        with self._lock:
            self._counts[answer.outcome.code] += 1
            if answer.frame is not None:
                self._seconds.append(answer.seconds)
            camera = self._cameras.setdefault(answer.camera, _OfCamera())
            if answer.frame is not None or 200 <= answer.outcome.code < 300:
                camera.asked += 1
                sensing = 200 <= answer.outcome.code < 400
                camera.outcome = answer.outcome if sensing else Outcome()

    def note_refused(self, outcome: Outcome) -> None:
        with self._lock:
            self._counts[outcome.code] += 1

    def statuses(self, node: str, cameras: Sequence[str]) -> list[DiagnosticStatus]:
        with self._lock:
            counts, seconds = dict(self._counts), list(self._seconds)
            of_camera = {name: self._cameras.get(name, _OfCamera()) for name in cameras}
        bad = sum(count for code, count in counts.items() if code not in _FINE)
        total = sum(counts.values())
        values = {code.name: str(count) for code, count in sorted(counts.items())}
        for stage in StageSeconds.__dataclass_fields__ if seconds else ():
            times = [getattr(each, stage) for each in seconds]
            values[f"{stage} p50 [s]"] = f"{np.percentile(times, 50):.3f}"
            values[f"{stage} p95 [s]"] = f"{np.percentile(times, 95):.3f}"
        message = f"{total} requests, {bad} not answered well" if total else "no requests yet"
        statuses = [status(f"{node}: requests", OK, message, values)]
        for name, camera in of_camera.items():
            level = OK if camera.outcome.ok else WARN
            statuses.append(
                status(
                    f"{node}: camera {name}",
                    level,
                    camera.outcome.message or "good",
                    {"asked": str(camera.asked), "last outcome": camera.outcome.code.name},
                )
            )
        return statuses


def status(name: str, level: bytes, message: str, values: dict[str, str] | None = None) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id="molmo_ros",
        values=[KeyValue(key=key, value=value) for key, value in (values or {}).items()],
    )


def array(statuses: list[DiagnosticStatus], stamp: object) -> DiagnosticArray:
    message = DiagnosticArray(status=statuses)
    message.header.stamp = stamp
    return message
