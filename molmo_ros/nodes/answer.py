"""What came of a request: everything that is known when it ends, in one frozen record."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.locate import Located
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.image_request import ImageRequest, PointingRequest
from molmo_ros.outcome import Code, Outcome
from molmo_ros.pointing.point import Point2D


@dataclass(frozen=True)
class StageSeconds:
    """Wall-clock seconds of each stage of one request; the fields of StageDurations.msg."""

    frame_wait: float = 0.0
    decode_image: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    geometry: float = 0.0
    publish: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, eq=False)
class Found:
    """A point, its place in space (in target_frame), and the verdict of all checks together."""

    point: Point2D
    located: Located
    outcome: Outcome


@dataclass(frozen=True, eq=False)
class HeldFrame:
    """A frame kept for later questions: `T_still_camera` (4x4) at its stamp, and what the model made of it.

    `support`: the level plane (camera frame) that things stand on, None where none is in view, which is no failure;
    it is looked for while the model is at work. `raw`: as it came, kept only while requests are recorded.
    """

    camera: str
    frame: Frame
    T_still_camera: np.ndarray
    support: Future[SupportPlane | None]
    look: Any = None
    raw: RawFrame | None = None

    @property
    def nbytes(self) -> int:
        depth = 0 if self.frame.depth_m is None else self.frame.depth_m.nbytes
        look = 0 if self.look is None else int(self.look.nbytes)
        raw = 0 if self.raw is None else self.raw.nbytes
        return self.frame.color_HW3.nbytes + depth + look + raw


@dataclass(frozen=True, eq=False)
class Answer:
    """`goal`: position in `found` of the target that is the goal, None for none. `raw`: the frame as it came; None
    where there was none, and for a held one that was not kept so. `frame_token`: under which the frame is held now, ""
    for none. `pose_stamp_ns`: the time at which the poses in target_frame hold. `T_target_fixed` (4x4) at that time,
    None where the base stands still. `support`: what the things stand on, in target_frame, None where it is not seen.
    `confidence`: of an answer in words, NaN if not known.
    """

    request: ImageRequest
    outcome: Outcome = field(default_factory=Outcome)
    words: str = ""
    confidence: float = math.nan
    found: tuple[Found, ...] = ()
    goal: int | None = None
    camera: str = ""
    frame: Frame | None = None
    raw: RawFrame | None = None
    frame_token: str = ""
    pose_stamp_ns: int = 0
    T_target_fixed: np.ndarray | None = None
    support: SupportPlane | None = None
    seconds: StageSeconds = field(default_factory=StageSeconds)

    @property
    def is_published(self) -> bool:
        """Whether it concerns anybody but its caller: points, and not on a dry run."""
        return isinstance(self.request, PointingRequest) and not self.request.dry_run and bool(self.found)


def goal_among(found: tuple[Found, ...], select: str) -> int | None:
    """Position of the target that becomes the goal: only ever one that passed every check."""
    good = [n for n, target in enumerate(found) if target.outcome.ok]
    if not good or (select == "single" and len(found) > 1):
        return None
    if select in ("first", "single"):
        return good[0]
    return max(
        good, key=lambda n: -1.0 if math.isnan(found[n].point.confidence) else found[n].point.confidence
    )


def outcome_of(found: tuple[Found, ...], target: str, absence: float, goal: int | None) -> Outcome:
    """OK when at least one target is good; else why not, in the words of the first.

    `absence`: probability that the target is not there, NaN when the model gives none.
    """
    if not found:
        sure = "" if math.isnan(absence) else f" ({100 * absence:.0f} % sure)"
        return Outcome(Code.NOT_FOUND, f"the model sees no {target!r} in the image{sure}")
    if goal is not None:
        return Outcome()
    if any(each.outcome.ok for each in found):
        return Outcome(
            Code.OK,
            f"{len(found)} targets, none of them the goal (select is single); name one more closely, set "
            "max_points to 1, or set select to best or first",
        )
    first = found[0].outcome
    more = f" (and {len(found) - 1} more points, none good)" if len(found) > 1 else ""
    return Outcome(first.code, first.message + more)
