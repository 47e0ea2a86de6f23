"""What came of a request: a number that a program can branch on and a sentence that a person can act on.

The numbers stand in reserved ranges (after Nav2's error codes) and are those of
`molmo_ros_interfaces/msg/Outcome`; a test keeps both equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Code(IntEnum):
    """Numbered outcomes: 0 good, 1xx pointing, 2xx sensing, 3xx geometry, 4xx goal and motion, 5xx service."""

    OK = 0

    NOT_FOUND = 100
    UNPARSEABLE = 101
    LOW_CONFIDENCE = 102
    EMPTY_TARGET = 103
    TARGET_TOO_LONG = 104

    NO_FRAME = 200
    STALE_FRAME = 201
    NO_CAMERA_INFO = 202
    NOT_SYNCHRONISED = 203
    BAD_IMAGE = 204
    UNKNOWN_CAMERA = 205
    BAD_CAMERA_INFO = 206
    FRAME_EXPIRED = 207
    FUTURE_STAMP = 208

    NO_DEPTH = 300
    AMBIGUOUS_DEPTH = 301
    OUT_OF_RANGE = 302
    TF_UNAVAILABLE = 303
    UNCERTAIN = 304
    TOO_WIDE = 305

    OUTSIDE_WORKSPACE = 400
    UNREACHABLE = 401
    PLANNER_UNAVAILABLE = 402
    PLANNING_FAILED = 403
    REJECTED_BY_OPERATOR = 404
    BLOCKED = 405
    START_IN_COLLISION = 406
    EXECUTION_FAILED = 407
    GRASP_FAILED = 408
    STATE_STALE = 409
    CONFIRM_TIMEOUT = 410

    BUSY = 500
    CANCELLED = 501
    TIMEOUT = 502
    MODEL_UNAVAILABLE = 503
    OUT_OF_MEMORY = 504
    REMOTE_ERROR = 505
    NOT_ACTIVE = 506
    INVALID_REQUEST = 507
    INTERNAL = 599


@dataclass(frozen=True)
class Outcome:
    """A code with the sentence that says what happened and what would work."""

    code: Code = Code.OK
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.code == Code.OK

    def __str__(self) -> str:
        return f"{self.code.name} ({int(self.code)}): {self.message}" if self.message else self.code.name


class PointingError(Exception):
    """A failure anywhere between words and goal, carrying its `Outcome`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code.name} ({int(code)}): {message}")
        self.outcome = Outcome(code, message)
