"""From one request to its answer: frame, pixels, points, places in space, and which of them may be a goal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from molmo_ros.geometry.checks import Limits
from molmo_ros.geometry.depth_profile import PROFILES, DepthProfile
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.locate import Located, locate
from molmo_ros.geometry.motion import MotionError, carried
from molmo_ros.geometry.pose import Approach, inverse
from molmo_ros.geometry.support_plane import PlanePrior, SupportPlane, fit_support_plane
from molmo_ros.geometry.uncertainty import ExtrinsicError
from molmo_ros.nodes.answer import Answer, Found, HeldFrame, StageSeconds, goal_among, outcome_of
from molmo_ros.nodes.base_motion import BaseNow
from molmo_ros.nodes.camera_parameters import CameraParameters
from molmo_ros.nodes.frame_reading import FrameReader
from molmo_ros.nodes.image_request import ImageRequest, PointingRequest
from molmo_ros.nodes.job import Job
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.pointing.held import Held
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.protocol import AskablePointer, LookingPointer, ModelDurations

if TYPE_CHECKING:
    from molmo_ros.pointing.protocol import Pointer

# TF bounds its own wait; this is how much longer its answer may take before it counts as lost.
LOST_AFTER_S = 5.0


class _Draft:
    """An answer while its stages run: each gives it more than the one before, and adds to the seconds."""

    def __init__(self, job: Job) -> None:
        self.answer = Answer(job.request, camera=job.request.camera.name)
        self._job = job
        self._seconds: dict[str, float] = {}

    def took(self, **seconds: float) -> None:
        """Add to stages, by their names in StageSeconds."""
        for stage, spent in seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + spent

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall-clock time of a with-block to one stage."""
        begin_s = time.perf_counter()
        try:
            yield
        finally:
            self.took(**{stage: time.perf_counter() - begin_s})

    def done(self) -> Answer:
        """Only what went well all the way has a goal."""
        total_s = time.monotonic() - self._job.received_s
        goal = self.answer.goal if self.answer.outcome.ok else None
        return replace(self.answer, goal=goal, seconds=StageSeconds(**self._seconds, total=total_s))


class PointingPipeline:
    """The stages in order. Runs on the model's thread; knows no topics and publishes nothing."""

    def __init__(
        self,
        readers: Mapping[str, FrameReader],
        held: Held[HeldFrame],
        base_now: Callable[[], Future[BaseNow]] | None,
    ) -> None:
        """`readers` by camera; `base_now` is given where the base may move (fixed_frame)."""
        self._readers = readers
        self._held = held
        self._base_now = base_now
        self._beside = ThreadPoolExecutor(
            1, thread_name_prefix="support_plane"
        )  # ends with the last reference

    def run(self, pointer: Pointer, job: Job) -> Answer:
        """The answer to the job's request; what goes wrong on the way becomes its outcome, never an
        exception."""
        draft = _Draft(job)
        try:
            self._run(pointer, job, draft)
        except Exception as error:  # noqa: BLE001 - the caller gets an answer whatever happens, and the node stays up
            draft.answer = replace(draft.answer, outcome=_outcome_of_fault(error, job))
        return draft.done()

    def carried_to_now(self, answer: Answer) -> Answer:
        """The answer with its targets where they are by now, checked anew: its base may have driven on since.

        Where the base stands still it is the same answer. Raises PointingError(TF_UNAVAILABLE).
        """
        request = answer.request
        if (
            self._base_now is None
            or answer.T_target_fixed is None
            or not isinstance(request, PointingRequest)
        ):
            return answer
        base = self._base(self._base_now, request.parameters.tf_timeout_s)
        then, now = inverse(answer.T_target_fixed), inverse(base.T_target_fixed)
        camera = _camera_called(answer.camera, request)
        limits = _Checks(request.parameters, camera).limits
        found = tuple(
            _moved(each, carried(each.located, then, now, MotionError(), limits=limits))
            for each in answer.found
        )
        goal = answer.goal
        outcome = outcome_of(found, request.words, math.nan, None) if goal is None else found[goal].outcome
        return replace(
            answer,
            found=found,
            goal=goal if outcome.ok else None,
            outcome=outcome,
            pose_stamp_ns=base.stamp_ns,
            T_target_fixed=base.T_target_fixed,
            support=answer.support.moved(base.T_target_fixed @ then) if answer.support else None,
        )

    def _run(self, pointer: Pointer, job: Job, draft: _Draft) -> None:
        held = self._frame(job, draft)
        stamp_ns = held.frame.stamp_ns
        raw = draft.answer.raw or held.raw
        draft.answer = replace(
            draft.answer, frame=held.frame, camera=held.camera, raw=raw, pose_stamp_ns=stamp_ns
        )
        if held.look is None and isinstance(pointer, LookingPointer):
            job.enter("vision")
            look = pointer.look(held.frame.color_HW3, should_stop=job.should_stop)
            draft.took(vision=look.vision_s, prefill=look.prefill_s)
            held = replace(held, look=look)
        # Held as soon as it is read: an answer that means nothing may be asked for again in other words.
        draft.answer = replace(draft.answer, frame_token=job.request.frame_token or self._held.keep(held))
        if isinstance(job.request, PointingRequest):
            self._point(pointer, job, job.request, held, draft)
        else:
            self._ask(pointer, job, held, draft)

    def _frame(self, job: Job, draft: _Draft) -> HeldFrame:
        if job.request.frame_token:
            return self._held.get(job.request.frame_token)
        assert job.frame is not None
        if job.frame.exception(0) is not None:
            draft.took(frame_wait=time.monotonic() - job.frame_asked_s)
        raw = job.frame.result(0)
        draft.took(frame_wait=raw.complete_s - job.frame_asked_s)
        draft.answer = replace(draft.answer, raw=raw)
        job.enter("decode_image")
        with draft.timed("decode_image"):
            frame = self._readers[draft.answer.camera].read(raw)
        profile = PROFILES[_camera_called(draft.answer.camera, job.request).depth_noise]
        return HeldFrame(
            draft.answer.camera,
            frame,
            raw.T_still_camera,
            support=self._beside.submit(_support, frame, raw.T_still_camera, profile),
            raw=raw if job.request.parameters.record else None,
        )

    def _point(
        self, pointer: Pointer, job: Job, request: PointingRequest, held: HeldFrame, draft: _Draft
    ) -> None:
        if held.look is not None and isinstance(pointer, LookingPointer):
            pointing = pointer.point_in(
                held.look,
                request.words,
                max_points=request.max_points,
                should_stop=job.should_stop,
                on_progress=job.enter if job.wants_progress else None,
            )
        else:
            job.enter("decode")
            pointing = pointer.point(
                held.frame.color_HW3,
                request.words,
                max_points=request.max_points,
                should_stop=job.should_stop,
            )
        draft.answer = replace(draft.answer, words=pointing.answer)
        _add(draft, pointing.durations)
        job.enter("geometry", job.tokens, pointing.points)
        with draft.timed("geometry"):
            T_target_camera, pose_stamp_ns = held.T_still_camera, held.frame.stamp_ns
            if self._base_now is not None and pointing.points:
                base = self._base(self._base_now, request.parameters.tf_timeout_s)
                T_target_camera, pose_stamp_ns = base.T_target_fixed @ held.T_still_camera, base.stamp_ns
                draft.answer = replace(draft.answer, T_target_fixed=base.T_target_fixed)
            checks = _Checks(request.parameters, _camera_called(held.camera, request))
            support = held.support.result() if pointing.points else None
            if support is not None:
                draft.answer = replace(draft.answer, support=support.moved(T_target_camera))
            found = tuple(
                checks.found(held.frame, point, T_target_camera, support) for point in pointing.points
            )
        goal = goal_among(found, request.parameters.select)
        draft.answer = replace(
            draft.answer,
            found=found,
            pose_stamp_ns=pose_stamp_ns,
            goal=goal,
            outcome=outcome_of(found, request.words, pointing.absence, goal),
        )

    def _ask(self, pointer: Pointer, job: Job, held: HeldFrame, draft: _Draft) -> None:
        question = job.request.words
        if held.look is not None and isinstance(pointer, LookingPointer):
            reply = pointer.ask_in(held.look, question, should_stop=job.should_stop)
        elif not isinstance(pointer, AskablePointer):
            raise PointingError(Code.INVALID_REQUEST, "this model points and does not answer in words")
        else:
            job.enter("decode")
            reply = pointer.ask(held.frame.color_HW3, question, should_stop=job.should_stop)
        draft.answer = replace(draft.answer, words=reply.answer.strip(), confidence=reply.confidence)
        _add(draft, reply.durations)

    def _base(self, base_now: Callable[[], Future[BaseNow]], tf_timeout_s: float) -> BaseNow:
        try:
            return base_now().result(tf_timeout_s + LOST_AFTER_S)
        except TimeoutError as error:
            raise PointingError(
                Code.INTERNAL, "the thread of cameras and TF did not answer; see the node's log"
            ) from error


class _Checks:
    """What a target of this request must satisfy."""

    def __init__(self, parameters: PointingParameters, camera: CameraParameters) -> None:
        low, high = parameters.workspace_min, parameters.workspace_max
        self.limits = Limits(
            min_range_m=camera.depth_min_m,
            max_range_m=camera.depth_max_m,
            workspace_min_m=(low[0], low[1], low[2]),
            workspace_max_m=(high[0], high[1], high[2]),
            sigma_px_if_unknown=parameters.sigma_px_if_unknown,
        )
        self._extrinsic = ExtrinsicError(camera.extrinsic_sigma_m, camera.extrinsic_sigma_rad)
        self._approach: Approach = "surface_normal" if parameters.approach == "surface_normal" else "top_down"
        self._profile = PROFILES[camera.depth_noise]
        self._radius_px = camera.depth_radius_px or None
        self._gripper = parameters.gripper
        self._min_confidence = parameters.min_confidence

    def found(
        self, frame: Frame, point: Point2D, T_target_camera: np.ndarray, support: SupportPlane | None
    ) -> Found:
        located = locate(
            frame,
            point,
            T_target_camera,
            profile=self._profile,
            limits=self.limits,
            approach=self._approach,
            extrinsic=self._extrinsic,
            radius_px=self._radius_px,
            support=support,
            gripper=self._gripper,
        )
        lowest = self._min_confidence
        if lowest > 0 and not point.confidence >= lowest:
            sure = "has no confidence" if math.isnan(point.confidence) else f"is {point.confidence:.2f} sure"
            unsure = Outcome(
                Code.LOW_CONFIDENCE, f"the model {sure}; at least {lowest:.2f} is asked (min_confidence)"
            )
            return Found(point, located, unsure)
        return Found(point, located, located.outcome)


def _moved(found: Found, located: Located) -> Found:
    """What was refused for more than its place stays refused."""
    of_place = found.outcome == found.located.outcome
    return Found(found.point, located, located.outcome if of_place else found.outcome)


def _camera_called(name: str, request: ImageRequest) -> CameraParameters:
    """The camera that a frame is of, which need not be the one that the request names."""
    return request.parameters.camera_called(name) or request.camera


def _support(frame: Frame, T_still_camera: np.ndarray, profile: DepthProfile) -> SupportPlane | None:
    if frame.depth_m is None:
        return None
    prior = PlanePrior.from_gravity(T_still_camera)
    try:
        return fit_support_plane(frame.depth_m, frame.camera, prior, profile=profile)
    except PointingError:
        return None


def _outcome_of_fault(error: Exception, job: Job) -> Outcome:
    if isinstance(error, PointingError):
        if error.outcome.code == Code.CANCELLED and job.left_s <= 0:
            return job.timed_out()
        return error.outcome
    if isinstance(error, MemoryError):
        return Outcome(Code.OUT_OF_MEMORY, f"while {job.doing}: {error}")
    return Outcome(Code.INTERNAL, f"while {job.doing}: {type(error).__name__}: {error}")


def _add(draft: _Draft, durations: ModelDurations) -> None:
    draft.took(vision=durations.vision_s, prefill=durations.prefill_s, decode=durations.decode_s)
