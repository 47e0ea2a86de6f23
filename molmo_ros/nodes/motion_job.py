"""One goal on its way through the planner: what is asked, who may stop it, and what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from molmo_ros.outcome import Outcome
from molmo_ros.planning.trajectory import Trajectory
from molmo_ros_interfaces.action import MoveToGoal


@dataclass(eq=False)
class MotionJob:
    """A request and its fate. `finish` is called once, on the worker's thread, when all fields are final.

    `waits`: there is a plan, and an operator's word on it is asked for.
    """

    request: MoveToGoal.Goal
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
