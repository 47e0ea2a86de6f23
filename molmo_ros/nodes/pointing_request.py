"""A request that has been checked: what the caller asked for, with the parameters' values where it left
them out."""

from __future__ import annotations

from dataclasses import dataclass

from builtin_interfaces.msg import Duration

from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, PointingError
from molmo_ros_interfaces.srv import PointTo

NANOSECONDS = 1_000_000_000
LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class PointingRequest:
    """`target` has single spaces and no control characters; `max_points` 0 means no limit."""

    target: str
    max_points: int
    max_frame_age_ns: int
    timeout_s: float
    dry_run: bool

    @classmethod
    def from_message(cls, message: PointTo.Request, parameters: PointingParameters) -> PointingRequest:
        """Raises PointingError with the code of the first thing that is wrong."""
        if message.camera not in ("", parameters.camera_name):
            raise PointingError(
                Code.UNKNOWN_CAMERA,
                f"no camera is called {message.camera!r}; there is {parameters.camera_name!r} (or leave "
                f"it empty)",
            )
        if message.frame_token:
            raise PointingError(
                Code.FRAME_EXPIRED,
                f"no frame is held under {message.frame_token!r}: this node keeps no frames; leave "
                f"frame_token "
                "empty to use the newest",
            )
        max_frame_age_s = _seconds("max_frame_age", message.max_frame_age, parameters.max_frame_age_s)
        return cls(
            target=_checked_target(message.target, parameters.max_target_length),
            max_points=message.max_points or parameters.max_points,
            max_frame_age_ns=round(max_frame_age_s * NANOSECONDS),
            timeout_s=_seconds("timeout", message.timeout, parameters.request_timeout_s),
            dry_run=message.dry_run,
        )


def _checked_target(words: str, max_length: int) -> str:
    if len(words) > max_length:
        raise PointingError(
            Code.TARGET_TOO_LONG,
            f"the target has {len(words)} characters; at most {max_length} are taken (max_target_length)",
        )
    target = " ".join(words.split())
    if not target:
        raise PointingError(
            Code.EMPTY_TARGET, 'the target is empty; say what to point at, e.g. "the red mug"'
        )
    if not target.isprintable():
        strange = next(character for character in target if not character.isprintable())
        raise PointingError(
            Code.INVALID_REQUEST, f"the target holds the unprintable character {strange!r}; send plain words"
        )
    return target


def _seconds(name: str, given: Duration, default_s: float) -> float:
    """Seconds of a Duration, or the default for zero; INVALID_REQUEST for one that cannot be meant."""
    seconds = given.sec + given.nanosec / NANOSECONDS
    if seconds == 0:
        return default_s
    if seconds < 0 or given.nanosec >= NANOSECONDS or seconds > LONGEST_S:
        raise PointingError(
            Code.INVALID_REQUEST,
            f"{name} is {given.sec} s + {given.nanosec} ns; it takes 0 (= {default_s:g} s) to "
            f"{LONGEST_S:g} s",
        )
    return seconds
