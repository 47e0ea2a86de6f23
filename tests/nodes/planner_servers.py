"""Planners that do as a test tells them: real action servers of MoveIt's and Nav2's interfaces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from moveit_msgs.action import MoveGroup
from moveit_msgs.msg import MoveItErrorCodes
from nav2_msgs.action import NavigateToPose
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future


class PlannerServer:
    """Takes goals and keeps each until `finish`, or a cancel if it `obeys`."""

    def __init__(self, node: Node, action_type: Any, name: str, cancelled_result: Any) -> None:
        self.accepts = True
        self.obeys = True
        self.goals: list[Any] = []
        self.cancels = 0
        self._node = node
        self._cancelled_result = cancelled_result
        self._changed = threading.Condition()
        self._handle: Any = None
        self._end: Future[Any] | None = None
        self.server: ActionServer = ActionServer(
            node,
            action_type,
            name,
            self._execute,
            goal_callback=lambda _: GoalResponse.ACCEPT if self.accepts else GoalResponse.REJECT,
            cancel_callback=self._cancel,
            callback_group=ReentrantCallbackGroup(),
        )

    def reset(self) -> None:
        """Good again, and free."""
        if self._end is not None and not self._end.done():
            self.finish(self._cancelled_result, "abort")
        self.accepts = self.obeys = True
        self.cancels = 0
        with self._changed:
            self.goals.clear()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def has_goal(self, timeout_s: float = 20.0) -> bool:
        return self.wait_for(lambda: len(self.goals) == 1, timeout_s)

    def tell(self, feedback: Any) -> None:
        self._handle.publish_feedback(feedback)

    def finish(self, result: Any, how: str = "succeed") -> None:
        """`how`: succeed, abort, or canceled (as if somebody else had asked for it)."""
        assert self._end is not None
        self._end.set_result((how, result))
        executor = self._node.executor
        assert executor is not None
        executor.wake()

    async def _execute(self, handle: Any) -> Any:
        end: Future[Any] = Future(executor=self._node.executor)
        with self._changed:
            self._handle, self._end = handle, end
            self.goals.append(handle.request)
            self._changed.notify_all()
        how, result = await end
        getattr(handle, how)()
        return result

    def _cancel(self, _: Any) -> CancelResponse:
        with self._changed:
            self.cancels += 1
            self._changed.notify_all()
        if self.obeys:
            self.finish(self._cancelled_result, "canceled")
        return CancelResponse.ACCEPT


def moveit_result(val: int, message: str = "") -> MoveGroup.Result:
    return MoveGroup.Result(error_code=MoveItErrorCodes(val=val, message=message))


class MoveItServer(PlannerServer):
    def __init__(self, node: Node, name: str = "/move_action") -> None:
        super().__init__(node, MoveGroup, name, moveit_result(MoveItErrorCodes.PREEMPTED))

    def succeed(self) -> None:
        self.finish(moveit_result(MoveItErrorCodes.SUCCESS))


class Nav2Server(PlannerServer):
    def __init__(self, node: Node, name: str = "/navigate_to_pose") -> None:
        super().__init__(node, NavigateToPose, name, NavigateToPose.Result())
