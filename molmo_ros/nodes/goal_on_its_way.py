"""One goal between the model and its end: who waits for it, who may stop it, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

from geometry_msgs.msg import PoseStamped

from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.hand_off_parameters import HandOffParameters
from molmo_ros.nodes.job import Job
from molmo_ros.nodes.messages import goal_message, goals_message, outcome_message
from molmo_ros.outcome import Outcome
from molmo_ros_interfaces.msg import HandOff


class GoalOnItsWay:
    """`answer` is what it was made from, carried on where the base drives; `is_answered`: its caller has a reply.

    `decided` is set when the operator has spoken, `accepted` says which way.
    """

    def __init__(self, goal_id: str, job: Job, answer: Answer, publish: Callable[[HandOff], None]) -> None:
        self.goal_id = goal_id
        self.job = job
        self.answer = answer
        self.is_answered = False
        self.decided = threading.Event()
        self.accepted = False
        self.stage = ""
        self._publish = publish
        self._stop: Outcome | None = None
        self._lock = threading.Lock()

    @property
    def parameters(self) -> HandOffParameters:
        """Those of its request, whatever is set meanwhile."""
        return self.answer.request.parameters.planner

    def call_back(self, outcome: Outcome) -> None:
        """It is no longer wanted; the first reason counts."""
        if self._stop is None:
            self._stop = outcome

    def why_stop(self) -> Outcome | None:
        return self._stop

    def say(self, stage: str, outcome: Outcome | None = None) -> None:
        """Tell everybody how far it is, once for each stage; after "done" nothing more. "" says nothing new."""
        with self._lock:
            if stage in ("", self.stage) or self.stage == "done":
                return
            self.stage = stage
            self._publish(self.message(outcome or Outcome()))
            if stage != "done" and not self.is_answered:
                self.job.enter(stage, self.job.tokens, self.job.points)

    def message(self, outcome: Outcome) -> HandOff:
        pose = goal_message(self.answer)
        if pose is None:
            goals = goals_message(self.answer)
            pose = PoseStamped(header=goals.header)
            if goals.poses:
                pose.pose = goals.poses[0]
        return HandOff(
            goal_id=self.goal_id,
            query=self.answer.request.words,
            goal=pose,
            stage=self.stage,
            outcome=outcome_message(outcome),
        )
