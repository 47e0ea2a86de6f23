"""From one request to its answer: frame, pixels, points, places in space, and which of them may be a goal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image

from molmo_ros.geometry.camera_model import CameraModel, RegionOfInterest
from molmo_ros.geometry.checks import Limits
from molmo_ros.geometry.depth_profile import PROFILES
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.gripper_room import DEFAULT_GRIPPER
from molmo_ros.geometry.locate import Located, locate
from molmo_ros.geometry.pose import Approach
from molmo_ros.geometry.support_plane import PlanePrior, SupportPlane, fit_support_plane
from molmo_ros.geometry.uncertainty import ExtrinsicError
from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.image_conversion import depth_from_message, rgb_from_message
from molmo_ros.nodes.messages import StageSeconds
from molmo_ros.nodes.model_worker import Job
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.pointing_request import PointingRequest
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.pointing.point import Point2D

if TYPE_CHECKING:
    from molmo_ros.pointing.protocol import Pointer

RequestFrame = Callable[[int, float], "Future[RawFrame]"]
# The frame source bounds its own wait; this is how much longer its answer may take before it counts as lost.
LOST_AFTER_S = 5.0


@dataclass(frozen=True, eq=False)
class Found:
    """A point, its place in space (in target_frame), and the verdict of all checks together."""

    point: Point2D
    located: Located
    outcome: Outcome


@dataclass(eq=False)
class Answer:
    """All that is known when a request ends, well or not; filled in as the stages run."""

    request: PointingRequest
    outcome: Outcome = field(default_factory=Outcome)
    words: str = ""
    found: tuple[Found, ...] = ()
    goal: int | None = None
    frame: Frame | None = None
    seconds: StageSeconds = field(default_factory=StageSeconds)


class PointingPipeline:
    """The stages in order. Runs on the model's thread; knows no topics and publishes nothing."""

    def __init__(self, parameters: PointingParameters, request_frame: RequestFrame) -> None:
        self._parameters = parameters
        self._request_frame = request_frame
        self._profile = PROFILES[parameters.depth_noise]
        low, high = parameters.workspace_min, parameters.workspace_max
        self._limits = Limits(
            min_range_m=parameters.depth_min_m,
            max_range_m=parameters.depth_max_m,
            workspace_min_m=(low[0], low[1], low[2]),
            workspace_max_m=(high[0], high[1], high[2]),
            sigma_px_if_unknown=parameters.sigma_px_if_unknown,
        )
        self._extrinsic = ExtrinsicError(parameters.extrinsic_sigma_m, parameters.extrinsic_sigma_rad)
        self._approach: Approach = "surface_normal" if parameters.approach == "surface_normal" else "top_down"

    def run(self, pointer: Pointer, job: Job) -> Answer:
        """The answer to the job's request; what goes wrong on the way becomes its outcome, never an
        exception."""
        answer = Answer(job.request)
        try:
            self._run(pointer, job, answer)
        except PointingError as error:
            answer.outcome = error.outcome
            if error.outcome.code == Code.CANCELLED and job.left_s <= 0:
                answer.outcome = timed_out(job)
        except MemoryError as error:
            answer.outcome = Outcome(Code.OUT_OF_MEMORY, f"while {job.stage}: {error}")
        except Exception as error:  # noqa: BLE001 - the caller gets an answer whatever happens, and the node stays up
            answer.outcome = Outcome(Code.INTERNAL, f"while {job.stage}: {type(error).__name__}: {error}")
        return answer

    def _run(self, pointer: Pointer, job: Job, answer: Answer) -> None:
        seconds = answer.seconds
        job.stage = "waiting for a frame"
        with _Timed(seconds, "frame_wait"):
            raw = self._wait_for_frame(job)
        job.stage = "decoding the image"
        with _Timed(seconds, "decode_image"):
            answer.frame = frame = frame_from_raw(raw, rectified=self._parameters.color_is_rectified)
        job.stage = "pointing"
        pointing = pointer.point(
            frame.color_HW3,
            job.request.target,
            max_points=job.request.max_points,
            should_stop=job.should_stop,
        )
        answer.words = pointing.answer
        seconds.vision = pointing.durations.vision_s
        seconds.prefill = pointing.durations.prefill_s
        seconds.decode = pointing.durations.decode_s
        job.stage = "locating the points"
        with _Timed(seconds, "geometry"):
            support = self._support(frame, raw.T_target_camera) if pointing.points else None
            answer.found = tuple(
                self._found(frame, point, raw.T_target_camera, support) for point in pointing.points
            )
        answer.goal = goal_among(answer.found, self._parameters.select)
        answer.outcome = outcome_of(answer.found, job.request.target, pointing.absence)

    def _wait_for_frame(self, job: Job) -> RawFrame:
        timeout_s = max(job.left_s, 0.0)
        waiting = self._request_frame(job.request.max_frame_age_ns, timeout_s)
        try:
            return waiting.result(timeout_s + LOST_AFTER_S)
        except TimeoutError as error:
            raise PointingError(
                Code.INTERNAL, "the camera thread did not answer; see the node's log"
            ) from error

    def _support(self, frame: Frame, T_target_camera: np.ndarray) -> SupportPlane | None:
        """The level plane that things stand on; None where none is in view, which is no failure."""
        if frame.depth_m is None:
            return None
        prior = PlanePrior.from_gravity(T_target_camera)
        try:
            return fit_support_plane(frame.depth_m, frame.camera, prior, profile=self._profile)
        except PointingError:
            return None

    def _found(
        self, frame: Frame, point: Point2D, T_target_camera: np.ndarray, support: SupportPlane | None
    ) -> Found:
        located = locate(
            frame,
            point,
            T_target_camera,
            profile=self._profile,
            limits=self._limits,
            approach=self._approach,
            extrinsic=self._extrinsic,
            radius_px=self._parameters.depth_radius_px or None,
            support=support,
            gripper=DEFAULT_GRIPPER,
        )
        lowest = self._parameters.min_confidence
        if lowest > 0 and not point.confidence >= lowest:
            sure = "has no confidence" if math.isnan(point.confidence) else f"is {point.confidence:.2f} sure"
            return Found(
                point,
                located,
                Outcome(
                    Code.LOW_CONFIDENCE, f"the model {sure}; at least {lowest:.2f} is asked (min_confidence)"
                ),
            )
        return Found(point, located, located.outcome)


def frame_from_raw(raw: RawFrame, *, rectified: bool) -> Frame:
    """Pixels and camera model from the bytes of one instant; PointingError for what does not fit together."""
    info = _deserialised(raw.color_info, CameraInfo, "CameraInfo")
    color = _deserialised(raw.color, Image, "colour image")
    depth = _deserialised(raw.depth, Image, "depth image") if raw.depth is not None else None
    for name, frame_id in (("CameraInfo", info.header.frame_id), ("depth", depth and depth.header.frame_id)):
        if frame_id and frame_id.lstrip("/") != raw.frame_id:
            raise PointingError(
                Code.BAD_CAMERA_INFO if name == "CameraInfo" else Code.BAD_IMAGE,
                f"{name} is of frame {frame_id!r} but the colour image of {raw.frame_id!r}; give the "
                f"colour camera's "
                "own CameraInfo and depth registered to colour",
            )
    roi = info.roi
    camera = CameraModel.from_info(
        width=info.width,
        height=info.height,
        k=info.k,
        d=info.d,
        r=info.r,
        p=info.p,
        distortion_model=info.distortion_model,
        binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=RegionOfInterest(roi.x_offset, roi.y_offset, roi.height, roi.width, roi.do_rectify),
        rectified=rectified,
    )
    return Frame(
        color_HW3=rgb_from_message(color),
        depth_m=depth_from_message(depth) if depth is not None else None,
        camera=camera,
        stamp_ns=raw.stamp_ns,
        frame_id=raw.frame_id,
    )


def timed_out(job: Job) -> Outcome:
    """The outcome of a job whose time is up, naming the stage that it had reached."""
    return Outcome(Code.TIMEOUT, f"no answer within {job.timeout_s:g} s; time ran out while {job.stage}")


def goal_among(found: tuple[Found, ...], select: str) -> int | None:
    """Position of the target that becomes the goal: only ever one that passed every check."""
    good = [n for n, target in enumerate(found) if target.outcome.ok]
    if not good:
        return None
    if select == "first":
        return good[0]
    return max(
        good, key=lambda n: -1.0 if math.isnan(found[n].point.confidence) else found[n].point.confidence
    )


def outcome_of(found: tuple[Found, ...], target: str, absence: float = math.nan) -> Outcome:
    """OK when at least one target is good; else why not, in the words of the first.

    `absence`: probability that the target is not there, NaN when the model gives none.
    """
    if not found:
        sure = "" if math.isnan(absence) else f" ({100 * absence:.0f} % sure)"
        return Outcome(Code.NOT_FOUND, f"the model sees no {target!r} in the image{sure}")
    if any(each.outcome.ok for each in found):
        return Outcome()
    first = found[0].outcome
    more = f" (and {len(found) - 1} more points, none good)" if len(found) > 1 else ""
    return Outcome(first.code, first.message + more)


def _deserialised(data: bytes, message_type: type[Any], name: str) -> Any:
    try:
        return deserialize_message(data, message_type)
    except Exception as error:  # rclpy's typesupport raises bare errors for broken bytes
        raise PointingError(Code.BAD_IMAGE, f"the {name} message cannot be read: {error}") from error


class _Timed:
    """Adds the wall-clock time of a with-block to one stage."""

    def __init__(self, seconds: StageSeconds, stage: str) -> None:
        self._seconds = seconds
        self._stage = stage

    def __enter__(self) -> None:
        self._begin_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._begin_s
        setattr(self._seconds, self._stage, getattr(self._seconds, self._stage) + spent)
