"""One goal on its way through the planner: what is asked, who may stop it, and what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from geometry_msgs.msg import PoseStamped

from molmo_ros.outcome import Outcome
from molmo_ros.planning.trajectory import Trajectory


@dataclass(frozen=True)
class MotionRequest:
    """Alternatives to reach, lengths in metres, and `speed_scale` (0..1]."""

    goals: tuple[PoseStamped, ...]
    approach_m: float
    retreat_m: float
    plan_only: bool
    speed_scale: float


@dataclass(eq=False)
class MotionJob:
    """A request and its fate. `finish` is called once, on the worker's thread, when all fields are final.

    `waits`: there is a plan, and an operator's word on it is asked for.
    """

    request: MotionRequest
    goal_id: str
    finish: Callable[[MotionJob], None]
    report: Callable[[str, float], None] = lambda stage, progress: None
    is_cancelled: Callable[[], bool] = lambda: False
    outcome: Outcome = field(default_factory=Outcome)
    goal_index: int = 0
    trajectory: Trajectory | None = None
    planning_s: float = 0.0
    execution_s: float = 0.0
    waits: bool = False
    confirmed: threading.Event = field(default_factory=threading.Event)
    accepted: bool = False
