"""A move_group that takes a goal, says that it moves, and never ends; to be killed."""

from __future__ import annotations

import rclpy
from moveit_msgs.action import MoveGroup
from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

rclpy.init()
node = rclpy.create_node("mortal_move_group")


async def execute(handle: ServerGoalHandle) -> MoveGroup.Result:
    # Again and again: what is said before the caller's reader is known is lost.
    node.create_timer(0.2, lambda: handle.publish_feedback(MoveGroup.Feedback(state="MONITOR")))
    await Future()
    return MoveGroup.Result()


server: ActionServer = ActionServer(node, MoveGroup, "/mortal", execute)
rclpy.spin(node)
