"""Recorded requests once more through the same pipeline: is the answer the same today, with this model?

Needs the ROS messages, but no graph: cameras and TF come from the bag. What differs is named by what a person would
look at: the outcome, how many points, how far they moved in the picture and in space, the words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from molmo_ros.nodes.answer import Answer, HeldFrame
from molmo_ros.nodes.base_motion import BaseNow
from molmo_ros.nodes.frame_reading import FrameReader
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.image_request import PointingRequest
from molmo_ros.nodes.job import Job
from molmo_ros.nodes.model_choice import LoadPointer, load_pointer_of
from molmo_ros.nodes.parameter_files import check_values
from molmo_ros.nodes.parameter_table import Value
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.pointing_pipeline import PointingPipeline
from molmo_ros.nodes.request_bag import RecordedRequest
from molmo_ros.pointing.held import Held


@dataclass(frozen=True)
class Tolerance:
    """How far points may move and still be the same: in the picture and in space."""

    pixels: float = 0.5
    metres: float = 0.001


@dataclass(frozen=True, eq=False)
class Replayed:
    """`again` None: it could not be run again, and `difference` says why. `difference` "": the answer is the same.
    `moved_px`, `moved_m`: of the point that moved furthest, NaN where points cannot be paired or have no place."""

    recorded: RecordedRequest
    again: Answer | None
    difference: str
    moved_px: float = math.nan
    moved_m: float = math.nan

    @property
    def same(self) -> bool:
        return self.again is not None and not self.difference


def replay(
    requests: Iterable[RecordedRequest],
    changes: Mapping[str, Value] | None = None,
    tolerance: Tolerance = Tolerance(),
    load: LoadPointer = load_pointer_of,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Replayed]:
    """Run each again, with parameters that differ from the recorded ones by `changes`; a model is loaded once for all
    requests in a row that mean the same one.

    Raises PointingError(MODEL_UNAVAILABLE) when the model is not there, ParameterError for changes that cannot be.
    """
    pointer, loaded = None, None
    for recorded in requests:
        if recorded.raw is None:
            yield Replayed(recorded, None, "there was no frame")
            continue
        parameters = _changed(recorded.request.parameters, changes or {})
        if pointer is None or parameters.model_choice() != loaded:
            pointer, loaded = load(parameters, tell), parameters.model_choice()
        job = _job(recorded, recorded.raw, parameters)
        answer = _pipeline(recorded, parameters).run(pointer, job)
        yield compared(recorded, answer, tolerance)


def compared(recorded: RecordedRequest, answer: Answer, tolerance: Tolerance) -> Replayed:
    """What differs, in words."""
    differences = []
    if answer.outcome.code != recorded.outcome.code:
        differences.append(f"was {recorded.outcome.code.name}, is {answer.outcome.code.name}")
    moved_px = moved_m = math.nan
    if not isinstance(answer.request, PointingRequest):
        if answer.words != recorded.words:
            differences.append(f"was {recorded.words!r}, is {answer.words!r}")
    elif len(answer.found) != len(recorded.targets):
        differences.append(f"{len(recorded.targets)} points then, {len(answer.found)} now")
    else:
        moves_px, moves_m = [], []
        for found, target in zip(answer.found, recorded.targets, strict=True):
            moves_px.append(math.hypot(found.point.u - target.u, found.point.v - target.v))
            position_m = found.located.T_base_target[:3, 3]
            moves_m.append(float(np.linalg.norm(position_m - np.asarray(target.position_m))))
            was_known, is_known = np.isfinite(target.position_m).all(), np.isfinite(position_m).all()
            if was_known != is_known:
                differences.append(f"{target.label!r} has a place only {'then' if was_known else 'now'}")
            if found.outcome.code != target.code and len(answer.found) > 1:
                differences.append(f"{target.label!r} was {target.code.name}, is {found.outcome.code.name}")
        moved_px, moved_m = _largest(moves_px), _largest(moves_m)
        if moved_px > tolerance.pixels:
            differences.append(f"moved {moved_px:.1f} px in the picture")
        if moved_m > tolerance.metres:
            differences.append(f"moved {1000 * moved_m:.1f} mm in space")
    return Replayed(recorded, answer, "; ".join(differences), moved_px, moved_m)


def _largest(moves: list[float]) -> float:
    known = [move for move in moves if not math.isnan(move)]
    return max(known, default=math.nan)


def _changed(parameters: PointingParameters, changes: Mapping[str, Value]) -> PointingParameters:
    """A change without a camera's name holds for all cameras, whatever was recorded for one."""
    check_values(changes, tuple(camera.name for camera in parameters.cameras))
    values = parameters.values()
    for name, value in changes.items():
        values = {key: old for key, old in values.items() if not key.endswith(f".{name}")}
        values[name] = value
    return PointingParameters.from_values(values)


def _job(recorded: RecordedRequest, raw: RawFrame, parameters: PointingParameters) -> Job:
    camera = parameters.camera_called(recorded.camera)
    assert camera is not None
    job = Job(replace(recorded.request, parameters=parameters, camera=camera), reply=lambda _: None)
    job.frame = Future()
    job.frame.set_result(raw)
    return job


def _pipeline(recorded: RecordedRequest, parameters: PointingParameters) -> PointingPipeline:
    camera = parameters.camera_called(recorded.camera)
    assert camera is not None
    reader = FrameReader(
        FrameRules.of(camera, parameters, lambda name: name),
        color_is_rectified=camera.color_is_rectified,
        depth_is_rectified=camera.depth_is_rectified,
    )
    nothing_held: Held[HeldFrame] = Held(0, 0)
    base = recorded.base
    return PointingPipeline(
        {camera.name: reader}, nothing_held, None if base is None else lambda: _known(base)
    )


def _known(base: BaseNow) -> Future[BaseNow]:
    answer: Future[BaseNow] = Future()
    answer.set_result(base)
    return answer

