"""The node's door: services and action take requests in, jobs go through, answers go out as messages.

Runs on the services' thread. A call awaits its answer without blocking that thread, so calls, cancels and
diagnostics are served while the model works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future

from molmo_ros.nodes.answer import Answer, StageSeconds
from molmo_ros.nodes.image_request import ImageRequest, PointingRequest, Question
from molmo_ros.nodes.job import Job
from molmo_ros.nodes.messages import (
    duration,
    durations_message,
    outcome_message,
    point_so_far_message,
    targets_message,
)
from molmo_ros.nodes.one_shot import OneShot
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros_interfaces.action import PointToTarget
from molmo_ros_interfaces.srv import Ask, PointTo, ReleaseFrame

# Between two pieces of feedback that only count tokens.
FEEDBACK_EVERY_S = 0.05
# The default keeps ten requests; of more callers at once some would wait for ever.
SERVICE_QOS = QoSProfile(depth=200)


class RequestServer:
    """Serves `~/point_to`, `~/ask` and `~/release_frame`, and the action `~/point_to_target`."""

    def __init__(
        self,
        node: Node,
        executor: Executor,
        parameters: Callable[[], PointingParameters],
        submit: Callable[[Job], None],
        release: Callable[[str], None],
        on_refused: Callable[[Outcome], None],
        on_ended: Callable[[Answer], None],
    ) -> None:
        """`submit` takes a job or raises PointingError, `release` frees a held frame or raises it. `on_ended` hears of
        jobs that are answered here before their stages are through, from any thread."""
        self._node = node
        self._executor = executor
        self._parameters = parameters
        self._submit = submit
        self._release = release
        self._on_refused = on_refused
        self._on_ended = on_ended
        self._of_goal: dict[bytes, Job] = {}
        # Reentrant, because a call that awaits its answer must not keep the next one out.
        group = ReentrantCallbackGroup()
        for kind, name, serve in (
            (PointTo, "~/point_to", self._point_to),
            (Ask, "~/ask", self._ask),
            (ReleaseFrame, "~/release_frame", self._release_frame),
        ):
            node.create_service(kind, name, serve, qos_profile=SERVICE_QOS, callback_group=group)
        self._action: ActionServer = ActionServer(
            node,
            PointToTarget,
            "~/point_to_target",
            self._point_to_target,
            callback_group=group,
            cancel_callback=self._cancel,
            goal_service_qos_profile=SERVICE_QOS,
            result_service_qos_profile=SERVICE_QOS,
            cancel_service_qos_profile=SERVICE_QOS,
        )

    def destroy(self) -> None:
        self._action.destroy()

    def end(self, job: Job, outcome: Outcome) -> None:
        """Answer a job before its stages are through; they stop when they notice. From any thread.

        Whose goal is with the operator or the planner already is called back, and answered when that is done.
        """
        if not self._answer_instead(job, outcome):
            job.call_back(outcome)

    def _answer_instead(self, job: Job, outcome: Outcome) -> bool:
        first = job.claim()
        if first:
            answer = Answer(
                job.request,
                outcome,
                camera=job.request.camera.name,
                seconds=StageSeconds(total=time.monotonic() - job.received_s),
            )
            job.reply(answer)
            self._on_ended(answer)
            self._node.get_logger().warning(f"{job.request.words!r}: {outcome}")
        return first

    # ------------------------------------------------------------------ what is served

    async def _point_to(self, message: PointTo.Request, response: PointTo.Response) -> PointTo.Response:
        return await self._pointed(message, response, self._leaving("~/point_to"))

    async def _ask(self, message: Ask.Request, response: Ask.Response) -> Ask.Response:
        try:
            question = Question.from_message(message, self._parameters())
            answer = await self._answer(question, self._leaving("~/ask"))
        except PointingError as error:
            response.outcome = self._refused(message.question, error.outcome)
            response.confidence = float("nan")
            return response
        response.outcome = outcome_message(answer.outcome)
        response.answer = answer.words
        response.confidence = answer.confidence
        response.frame_token = answer.frame_token
        response.durations = durations_message(answer.seconds)
        return response

    def _release_frame(
        self, message: ReleaseFrame.Request, response: ReleaseFrame.Response
    ) -> ReleaseFrame.Response:
        try:
            self._release(message.frame_token)
        except PointingError as error:
            response.outcome = outcome_message(error.outcome)
        return response

    async def _point_to_target(self, goal: ServerGoalHandle) -> PointToTarget.Result:
        key = bytes(goal.goal_id.uuid)
        feedback = _Feedback(goal)

        def keep(job: Job) -> None:
            self._of_goal[key] = job

        try:
            leaving = self._leaving("~/point_to_target/_action/send_goal")
            result = await self._pointed(goal.request, PointToTarget.Result(), leaving, feedback, keep)
        finally:
            self._of_goal.pop(key, None)
        # That there are none is an answer.
        if result.outcome.code in (Code.OK, Code.NOT_FOUND):
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return result

    def _cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        job = self._of_goal.get(bytes(goal.goal_id.uuid))
        if job is not None:
            self.end(job, Outcome(Code.CANCELLED, f"cancelled by the caller while {job.doing}"))
        return CancelResponse.ACCEPT

    # ------------------------------------------------------------------ from a request to its answer

    async def _pointed(
        self,
        message: Any,
        response: Any,
        caller_left: Callable[[], bool],
        on_progress: Callable[[Job], None] | None = None,
        keep: Callable[[Job], None] = lambda _: None,
    ) -> Any:
        """The reply to a service call or an action's goal, which have the same fields."""
        try:
            request = PointingRequest.from_message(message, self._parameters())
            answer = await self._answer(request, caller_left, on_progress, keep)
        except PointingError as error:
            response.outcome = self._refused(message.target, error.outcome)
            return response
        response.outcome = outcome_message(answer.outcome)
        response.targets = targets_message(answer)
        response.answer = answer.words
        response.frame_token = answer.frame_token
        response.durations = durations_message(answer.seconds)
        return response

    async def _answer(
        self,
        request: ImageRequest,
        caller_left: Callable[[], bool],
        on_progress: Callable[[Job], None] | None = None,
        keep: Callable[[Job], None] = lambda _: None,
    ) -> Answer:
        """Raises PointingError when the request is not taken."""
        executor = self._executor
        answered: Future[Answer] = Future(executor=executor)

        def reply(answer: Answer) -> None:
            answered.set_result(answer)
            executor.wake()  # an idle executor does not notice a future completed elsewhere

        job = Job(request, reply, on_progress, caller_left)
        keep(job)
        self._submit(job)
        # Once there is a goal, other times bound its way.
        deadline = OneShot(self._node, lambda: self._answer_instead(job, job.timed_out()))
        deadline.start(job.left_s)
        try:
            answer: Answer = await answered
        finally:
            deadline.call_off()
        return answer

    def _leaving(self, service: str) -> Callable[[], bool]:
        """Whether whoever asks now has left: this service had callers since, and has none.

        DDS tells at once of a process that ended, and after 20 s of one that was killed; who of several left it does
        not tell. A request may come a little before it tells of its caller.
        """
        most = 0

        def left() -> bool:
            nonlocal most
            now = self._node.count_clients(service)
            most = max(most, now)
            return now < min(most, 1)

        left()
        return left

    def _refused(self, words: str, outcome: Outcome) -> Any:
        self._on_refused(outcome)
        self._node.get_logger().info(f"refused {words[:60]!r}: {outcome}")
        return outcome_message(outcome)


class _Feedback:
    """Tells an action's caller how far its goal is; not more often than somebody can read."""

    def __init__(self, goal: ServerGoalHandle) -> None:
        self._goal = goal
        self._said: tuple[str, int] = ("", 0)
        self._said_s = 0.0

    def __call__(self, job: Job) -> None:
        """May be called from any thread."""
        state, now_s = (job.stage, len(job.points)), time.monotonic()
        if state == self._said and now_s - self._said_s < FEEDBACK_EVERY_S:
            return
        self._said, self._said_s = state, now_s
        self._goal.publish_feedback(
            PointToTarget.Feedback(
                stage=job.stage,
                tokens=job.tokens,
                elapsed=duration(now_s - job.received_s),
                points=[point_so_far_message(point) for point in job.points],
            )
        )
