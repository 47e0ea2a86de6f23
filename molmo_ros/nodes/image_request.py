"""A request that has been checked: what the caller asked for, with the parameters' values where it left
them out."""

from __future__ import annotations

from dataclasses import dataclass

from builtin_interfaces.msg import Duration

from molmo_ros.nodes.camera_parameters import CameraParameters
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, PointingError
from molmo_ros_interfaces.action import PointToTarget
from molmo_ros_interfaces.srv import Ask, PointTo

NANOSECONDS = 1_000_000_000
LONGEST_S = 24 * 3600.0
#: A question may be so many times as long as a target.
QUESTION_LENGTH = 8


@dataclass(frozen=True)
class ImageRequest:
    """Words about a picture: single spaces, no control characters.

    `frame_token` "" means a new frame of `camera`; else it names a held one. `names_camera`: whether the caller named
    the camera, or left it to the node. `parameters` are those that hold for
    this request, whatever is set meanwhile.
    """

    words: str
    camera: CameraParameters
    names_camera: bool
    frame_token: str
    max_frame_age_ns: int
    timeout_s: float
    parameters: PointingParameters


@dataclass(frozen=True)
class PointingRequest(ImageRequest):
    """Point at what the words name. `max_points` 0 means no limit; `dry_run`: nothing goes to a planner."""

    max_points: int
    dry_run: bool

    @classmethod
    def from_message(
        cls, message: PointTo.Request | PointToTarget.Goal, parameters: PointingParameters
    ) -> PointingRequest:
        """Raises PointingError with the code of the first thing that is wrong."""
        camera = _camera(message.camera, parameters)
        return cls(
            words=_checked_words("target", message.target, parameters.max_target_length, "the red mug"),
            camera=camera,
            names_camera=bool(message.camera),
            frame_token=message.frame_token,
            max_frame_age_ns=_max_frame_age_ns(message, camera),
            timeout_s=_seconds("timeout", message.timeout, parameters.request_timeout_s),
            parameters=parameters,
            max_points=message.max_points or parameters.max_points,
            dry_run=message.dry_run,
        )


@dataclass(frozen=True)
class Question(ImageRequest):
    """Answer the words in words."""

    @classmethod
    def from_message(cls, message: Ask.Request, parameters: PointingParameters) -> Question:
        """Raises PointingError with the code of the first thing that is wrong."""
        camera = _camera(message.camera, parameters)
        longest = QUESTION_LENGTH * parameters.max_target_length
        return cls(
            words=_checked_words("question", message.question, longest, "What is on the table?"),
            camera=camera,
            names_camera=bool(message.camera),
            frame_token=message.frame_token,
            max_frame_age_ns=_max_frame_age_ns(message, camera),
            timeout_s=_seconds("timeout", message.timeout, parameters.request_timeout_s),
            parameters=parameters,
        )


def _camera(name: str, parameters: PointingParameters) -> CameraParameters:
    camera = parameters.camera_called(name)
    if camera is None:
        there = ", ".join(repr(each.name) for each in parameters.cameras)
        raise PointingError(
            Code.UNKNOWN_CAMERA,
            f"no camera is called {name!r}; there is {there} (or leave it empty; parameter cameras)",
        )
    return camera


def _max_frame_age_ns(
    message: PointTo.Request | PointToTarget.Goal | Ask.Request, camera: CameraParameters
) -> int:
    return round(_seconds("max_frame_age", message.max_frame_age, camera.max_frame_age_s) * NANOSECONDS)


def _checked_words(name: str, words: str, max_length: int, example: str) -> str:
    if len(words) > max_length:
        raise PointingError(
            Code.TARGET_TOO_LONG,
            f"the {name} has {len(words)} characters; at most {max_length} are taken (max_target_length)",
        )
    target = " ".join(words.split())
    if not target:
        raise PointingError(Code.EMPTY_TARGET, f'the {name} is empty; say what is meant, e.g. "{example}"')
    if not target.isprintable():
        strange = next(character for character in target if not character.isprintable())
        raise PointingError(
            Code.INVALID_REQUEST, f"the {name} holds the unprintable character {strange!r}; send plain words"
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
