"""One request on its way through the node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.image_request import ImageRequest
from molmo_ros.outcome import Code, Outcome
from molmo_ros.pointing.point import Point2D

#: Names of stages, as feedback gives them, and what happens in them.
STAGES = {
    "queue": "waiting for its turn",
    "frame_wait": "waiting for a frame",
    "decode_image": "decoding the image",
    "vision": "pointing: the model was reading the picture",
    "prefill": "pointing: the model was reading the words",
    "decode": "pointing: the model was writing its answer",
    "geometry": "locating the points",
    "publish": "publishing",
    "confirm": "waiting for the operator's word",
    "hand_over": "handing the goal to the planner",
    "plan": "the planner was planning",
    "move": "the robot was moving",
}
# A frame that had to wait for the model longer than this may have become too old meanwhile.
_WAITED_S = 0.05


class Job:
    """Exactly one party may answer it: whoever claims it first."""

    def __init__(
        self,
        request: ImageRequest,
        reply: Callable[[Any], None],
        on_progress: Callable[[Job], None] | None = None,
        caller_left: Callable[[], bool] = lambda: False,
    ) -> None:
        """`reply` hands the answer over to whoever asked, `on_progress` hears that stage, tokens or points have
        changed, `caller_left` says that nobody is left to answer to; all may be called from any thread."""
        self.request = request
        self.reply = reply
        self.received_s = time.monotonic()
        self.deadline_s = self.received_s + request.timeout_s
        self.stage = "queue"
        self.tokens = 0
        self.points: tuple[Point2D, ...] = ()
        self.frame: Future[RawFrame] | None = None
        self.frame_asked_s = self.received_s
        self.caller_left = caller_left
        self._on_progress = on_progress
        self._call_back: Callable[[Outcome], None] | None = None
        self._claimed = False
        self._lock = threading.Lock()

    def claim(self) -> bool:
        """True for the first caller, who must then answer; False for all others, who must not."""
        with self._lock:
            first, self._claimed = not self._claimed, True
        if first and self.frame is not None:
            self.frame.cancel()
        return first

    def hand_on(self, call_back: Callable[[Outcome], None]) -> bool:
        """Claim it for somebody who answers it later, and hears by `call_back` that the answer is no longer wanted."""
        with self._lock:
            if self._claimed:
                return False
            self._claimed, self._call_back = True, call_back
        return True

    def call_back(self, outcome: Outcome) -> None:
        """Ask for an end with this outcome; whoever has the job then answers it in its own time."""
        if self._call_back is not None:
            self._call_back(outcome)

    @property
    def left_s(self) -> float:
        return self.deadline_s - time.monotonic()

    @property
    def doing(self) -> str:
        """What its stage is about, in words."""
        return STAGES[self.stage]

    @property
    def wants_progress(self) -> bool:
        return self._on_progress is not None

    def should_stop(self) -> bool:
        """Whether going on is pointless: the job was answered by somebody else, or its time is up."""
        return self._claimed or self.left_s <= 0

    def enter(self, stage: str, tokens: int = 0, points: tuple[Point2D, ...] = ()) -> None:
        """Say how far it is."""
        self.stage, self.tokens, self.points = stage, tokens, points
        if self._on_progress is not None and (self._call_back is not None or not self._claimed):
            self._on_progress(self)

    def timed_out(self) -> Outcome:
        """The outcome when its time is up, naming the stage that it had reached."""
        return Outcome(
            Code.TIMEOUT, f"no answer within {self.request.timeout_s:g} s; time ran out while {self.doing}"
        )

    # ------------------------------------------------------------------ its frame

    def await_frame(self, request_frame: Callable[[Job], Future[RawFrame]], wake: Callable[[], None]) -> None:
        """Ask for a frame, if it needs one and has none; `wake` is called when it is there."""
        if self.request.frame_token or self.frame is not None:
            return
        self.frame_asked_s = time.monotonic()
        self.enter("frame_wait")
        self.frame = request_frame(self)
        self.frame.add_done_callback(lambda _: wake())

    def is_ready(self) -> bool:
        """Whether the model can begin: the frame is there and still of the present, or known not to come.

        A frame that became too old while others had the model is dropped, so that a new one can be asked for.
        """
        if self.request.frame_token:
            return True
        if self.frame is None or not self.frame.done():
            return False
        if self.frame.cancelled() or self.frame.exception() is not None:
            return True
        raw = self.frame.result()
        waited_s = time.monotonic() - raw.complete_s
        if waited_s > _WAITED_S and raw.age_s + waited_s > self.request.max_frame_age_ns / 1e9:
            self.frame = None
            return False
        return True
