"""The way of a goal after the model is done with it: an operator's word, where one is wanted, then the planner.

Each goal has a thread of its own, so that the model goes on meanwhile, and ends in one of these ways:

    confirm off, topic    never comes here: it is published at once
    confirm on            held until accepted; rejected, or late, it goes nowhere
    moveit, nav2          handed to the planner's action, which has one goal at a time, and followed to its end

Who called the service is answered when the goal is handed over; who called the action, when the goal has come to its
end. What came of it is on ~/hand_off in any case.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile

from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.answer_topics import AnswerTopics
from molmo_ros.nodes.confirmation import Confirmation
from molmo_ros.nodes.goal_on_its_way import GoalOnItsWay
from molmo_ros.nodes.hand_off_parameters import TOPIC
from molmo_ros.nodes.job import Job
from molmo_ros.nodes.planner_action import PlannerAction
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros_interfaces.msg import HandOff

#: Goals that may be on their way at once, nearly all of them waiting for an operator.
MOST_GOALS = 16


class HandOffs:
    """All goals on their way. `begin` and `end_all` may be called from any thread."""

    def __init__(
        self,
        node: Node,
        topics: AnswerTopics,
        carried_to_now: Callable[[Answer], Answer],
        reply: Callable[[Job, Answer], None],
    ) -> None:
        """`carried_to_now`: see `PointingPipeline`; `reply` answers the goal's caller."""
        self._logger = node.get_logger()
        self._topics = topics
        self._carried_to_now = carried_to_now
        self._reply = reply
        self._confirmation = Confirmation(node)
        self._said = node.create_publisher(HandOff, "~/hand_off", QoSProfile(depth=50))
        self._shown = node.create_publisher(PoseStamped, "~/planner_goal", QoSProfile(depth=10))
        self._lock = threading.Lock()
        self._goals: dict[str, tuple[GoalOnItsWay, threading.Thread]] = {}
        self._refusing: Outcome | None = Outcome(Code.NOT_ACTIVE, "the node is not active")
        self._planner: PlannerAction | None = None
        self._planner_is_free = threading.Lock()

    def open(self, planner: PlannerAction | None) -> None:
        """Take goals from now on, for this planner; None where they go to the topic."""
        with self._lock:
            self._planner, self._refusing = planner, None

    def takes(self, answer: Answer) -> bool:
        """Whether somebody is to be asked or told before the answer is given."""
        if not (answer.is_published and answer.outcome.ok):
            return False
        planner = answer.request.parameters.planner
        return planner.confirm if planner.hand_off == TOPIC else answer.goal is not None

    def begin(self, job: Job, answer: Answer) -> None:
        """Take the goal on its way, and the job with it, unless that has been answered."""
        goal = GoalOnItsWay(uuid.uuid4().hex[:12], job, answer, self._said.publish)
        if not job.hand_on(goal.call_back):
            return
        thread = threading.Thread(target=self._run, args=(goal,), name=f"goal {goal.goal_id}", daemon=True)
        with self._lock:
            refusal = self._refusing
            if refusal is None and len(self._goals) >= MOST_GOALS:
                refusal = Outcome(Code.BUSY, f"{MOST_GOALS} goals are on their way, which is as many as may be")
            if refusal is None:
                self._goals[goal.goal_id] = goal, thread
        if refusal is not None:
            self._answer(goal, refusal)
            return
        self._topics.show(answer)  # an operator wants to see what is asked
        thread.start()

    def end_all(self, outcome: Outcome, timeout_s: float) -> bool:
        """Take no more goals and call all back. Whether all have come to their end in time, the robot at rest."""
        with self._lock:
            self._refusing = outcome
            goals = list(self._goals.values())
        for goal, _ in goals:
            goal.call_back(outcome)
        end_s = time.monotonic() + timeout_s
        for _, thread in goals:
            if thread.ident is not None:
                thread.join(max(end_s - time.monotonic(), 0.0))
        return not any(thread.is_alive() for _, thread in goals)

    @property
    def count(self) -> int:
        return len(self._goals)

    # ------------------------------------------------------------------ one goal, on its own thread

    def _run(self, goal: GoalOnItsWay) -> None:
        try:
            outcome = self._go(goal)
        except PointingError as error:
            outcome = error.outcome
        except Exception as error:  # noqa: BLE001 - the caller gets an answer whatever happens
            outcome = Outcome(Code.INTERNAL, f"while {goal.job.doing}: {type(error).__name__}: {error}")
        with self._lock:
            del self._goals[goal.goal_id]
        goal.say("done", outcome)
        if goal.is_answered:
            log = self._logger.info if outcome.ok else self._logger.warning
            log(f"{goal.answer.request.words!r} (goal {goal.goal_id}): {outcome}")
        else:
            self._answer(goal, outcome)

    def _go(self, goal: GoalOnItsWay) -> Outcome:
        if goal.parameters.confirm:
            self._confirmation.wait(goal)
            goal.answer = self._carried_to_now(goal.answer)
            if not goal.answer.outcome.ok:
                return goal.answer.outcome
        if goal.parameters.hand_off == TOPIC:
            self._topics.hand_over(goal.answer)
            return goal.answer.outcome
        planner = self._planner
        assert planner is not None
        if not self._planner_is_free.acquire(blocking=False):
            raise PointingError(
                Code.BUSY, f"{planner.interface.name} has another goal; wait for its end, or cancel it"
            )
        try:
            return self._to_planner(goal, planner)
        finally:
            self._planner_is_free.release()

    def _to_planner(self, goal: GoalOnItsWay, planner: PlannerAction) -> Outcome:
        goal.say("hand_over")
        wanted, pose = planner.interface.goal(goal.answer)
        self._shown.publish(pose)
        if not (goal.parameters.execute or planner.interface.only_plans_if_told):
            return Outcome(
                Code.OK,
                f"{planner.interface.name} was not told: it would drive, and execute is false; the goal is on "
                "~/planner_goal",
            )
        handle = planner.hand_over(wanted, goal.why_stop, goal.say)
        self._topics.hand_over(goal.answer)
        if not goal.job.wants_progress:  # a service's caller cannot follow the motion
            self._answer(
                goal,
                Outcome(
                    Code.OK, f"{planner.interface.name} has goal {goal.goal_id}; how it goes is on ~/hand_off"
                ),
            )
        return planner.follow(handle, goal.why_stop)

    def _answer(self, goal: GoalOnItsWay, outcome: Outcome) -> None:
        goal.is_answered = True
        answer = replace(goal.answer, outcome=outcome, goal=goal.answer.goal if outcome.ok else None)
        self._reply(goal.job, answer)
