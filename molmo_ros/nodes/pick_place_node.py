"""pick_place_node: words in, a thing moved. The task `PickPlace` of `planning/pick_place.py` as an action.

Two threads: the executor's, on which everything is heard, and one that works on one task at a time; a task that comes
while another is at work is answered BUSY. The node commands no arm: it asks planner_node for every motion.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from geometry_msgs.msg import Point, PointStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future

from molmo_ros.nodes.graph_robot import GraphRobot
from molmo_ros.nodes.messages import NANOSECONDS, duration, outcome_message, stamped_header
from molmo_ros.nodes.node_process import let_replies_out, serve_until_signal
from molmo_ros.nodes.pick_place_parameters import PickPlaceParameters
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.planning.pick_place import PickPlace, PickReport
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.robot import RobotError, load_robot
from molmo_ros.planning.task_words import EmptySpot
from molmo_ros_interfaces.action import PickPlace as PickPlaceAction
from molmo_ros_interfaces.msg import TargetArray


@dataclass(eq=False)
class _Task:
    """A goal of the action on its way. `finish` is called once, on the worker's thread, when `done` is final."""

    goal: PickPlaceAction.Goal
    finish: Callable[[], None]
    tell: Callable[[PickReport], None]
    is_cancelled: Callable[[], bool]
    done: PickReport = field(default_factory=PickReport)
    place_words: str = ""


class PickPlaceNode(Node):
    """The action `~/pick_place`."""

    def __init__(self, executor: Executor) -> None:
        """Raises ParameterError or RobotError for a configuration that cannot work."""
        super().__init__("pick_place_node")
        self._executor_of_calls = executor
        self._settings = settings = PickPlaceParameters.declare(self)
        robot = load_robot(settings.robot)
        self._base_frame = (settings.base_frame or robot.base).lstrip("/")
        self._robot = GraphRobot(self, executor, settings, RoboplanScene(robot))
        self._tasks: queue.Queue[_Task | None] = queue.Queue()
        self._current: _Task | None = None
        self._claim = threading.Lock()
        self._ending = threading.Event()
        self._action = ActionServer(
            self,
            PickPlaceAction,
            "~/pick_place",
            self._on_pick_place,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )
        executor.add_node(self)
        self._thread = threading.Thread(target=self._work, name="task", daemon=True)
        self._thread.start()
        eyes = f"{settings.camera} and {settings.wrist_camera}" if settings.wrist_camera else settings.camera
        self.get_logger().info(f"{robot.name}, seen by {eyes}")

    # ------------------------------------------------------------ what is heard, on the executor's thread

    async def _on_pick_place(self, handle: ServerGoalHandle) -> PickPlaceAction.Result:
        executor = self._executor_of_calls
        answered: Future[None] = Future(executor=executor)
        began_s = time.monotonic()

        def finish() -> None:
            answered.set_result(None)
            executor.wake()  # an idle executor does not notice a future completed elsewhere

        def tell(done: PickReport) -> None:
            handle.publish_feedback(
                PickPlaceAction.Feedback(
                    stage=done.stage, tries=done.tries, elapsed=duration(time.monotonic() - began_s)
                )
            )

        task = _Task(handle.request, finish, tell, lambda: bool(handle.is_cancel_requested))
        refusal = self._claimed(task)
        if refusal:
            task.done.outcome = refusal
        else:
            await answered
        outcome = task.done.outcome
        if outcome.ok:
            handle.succeed()
        elif outcome.code == Code.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        self.get_logger().info(f"{handle.request.pick!r}: {task.done.stage}, {outcome}")
        return self._result(task)

    def _claimed(self, task: _Task) -> Outcome | None:
        """Give the task to the worker, or say why not."""
        if self._ending.is_set():
            return Outcome(Code.CANCELLED, "the node is shutting down")
        with self._claim:
            if self._current is not None:
                return Outcome(Code.BUSY, "another task is at work; wait for its end, or cancel it")
            self._current = task
        self._tasks.put(task)
        return None

    def _result(self, task: _Task) -> PickPlaceAction.Result:
        done, answers = task.done, self._robot.answers
        result = PickPlaceAction.Result(
            outcome=outcome_message(done.outcome),
            stage=done.stage,
            pick_targets=answers.get(task.goal.pick, TargetArray()),
            place_targets=answers.get(task.place_words, TargetArray()),
            tries=done.tries,
            width=done.width_m,
            notes=done.notes,
        )
        if done.place_base is not None:
            x, y, z = (float(value) for value in done.place_base)
            now = stamped_header(self.get_clock().now().nanoseconds, self._base_frame)
            result.placed_at = PointStamped(header=now, point=Point(x=x, y=y, z=z))
        return result

    # ------------------------------------------------------------ one task after the other, on the worker's thread

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._run(task)
            except PointingError as error:
                task.done.outcome = error.outcome
            except Exception as error:  # noqa: BLE001 - the caller gets an answer whatever happens, and the node stays up
                task.done.outcome = Outcome(Code.INTERNAL, f"{type(error).__name__}: {error}")
            with self._claim:
                self._current = None
            task.finish()

    def _run(self, task: _Task) -> None:
        goal = task.goal

        def why_stop() -> str:
            if self._ending.is_set():
                return "the node is shutting down"
            return "cancelled by the caller" if task.is_cancelled() else ""

        self._robot.begin(goal.camera, why_stop)
        if not goal.pick.strip():
            raise PointingError(Code.EMPTY_TARGET, "no words for what to pick")
        place = self._place(goal)
        task.place_words = place if isinstance(place, str) else ""

        def tell(done: PickReport) -> None:
            task.done = done
            task.tell(done)

        sequence = PickPlace(self._robot, self._settings.options(), report=tell, stop=why_stop)
        task.done = sequence.run(goal.pick, place, dry_run=goal.dry_run)

    def _place(self, goal: PickPlaceAction.Goal) -> str | np.ndarray | EmptySpot | None:
        """Where to: words for the model, a point of the arm's base, an empty spot, or nowhere.

        Raises PointingError: INVALID_REQUEST, TF_UNAVAILABLE.
        """
        if goal.place.strip():
            return self._settings.place_words().read(goal.place)
        pose = goal.place_pose
        if not pose.header.frame_id:
            return None
        at = pose.pose.position
        place = np.array([at.x, at.y, at.z, 1.0])
        if not np.isfinite(place).all():
            raise PointingError(Code.INVALID_REQUEST, "the place's position is not three finite numbers")
        stamp = pose.header.stamp
        in_base: np.ndarray = (
            self._robot.T_base(pose.header.frame_id, stamp.sec * NANOSECONDS + stamp.nanosec) @ place
        )
        return in_base[:3]

    # ------------------------------------------------------------ the end

    def shut_down(self, patience_s: float = 10.0) -> bool:
        """Stop what moves, answer the open goal with CANCELLED, and end the worker; False when it is stuck."""
        self._ending.set()
        self._tasks.put(None)
        self._thread.join(patience_s)
        let_replies_out(self._executor_of_calls, 1.0)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Destroy the node; nothing may spin it any more."""
        self._action.destroy()
        self._robot.destroy()
        self.destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """See `serve_until_signal`."""
    return serve_until_signal(
        "pick_place_node",
        args,
        ("executor",),
        lambda executors: PickPlaceNode(executors[0]),
        (RobotError,),
    )


if __name__ == "__main__":
    sys.exit(main())
