"""static_transform_publisher: says once, latched, where one frame is in another. Options of the official program.

static_transform_publisher --x 0.1 --yaw 1.57 --frame-id base_link --child-frame-id camera_link
"""

from __future__ import annotations

import argparse
import math
import sys

import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from tf2_ros.broadcaster import StaticTransformBroadcaster


def transform_of(arguments: list[str]) -> TransformStamped:
    """Angles in radians, about the fixed axes x, y, z in this order; or a quaternion instead of them."""
    parser = argparse.ArgumentParser(prog="static_transform_publisher")
    for name in ("x", "y", "z", "roll", "pitch", "yaw"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    for name in ("qx", "qy", "qz", "qw"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--frame-id", required=True)
    parser.add_argument("--child-frame-id", required=True)
    given = parser.parse_args(arguments)
    quaternion = (given.qx, given.qy, given.qz, given.qw)
    if any(part is not None for part in quaternion):
        if None in quaternion or any((given.roll, given.pitch, given.yaw)):
            parser.error("a rotation is given by all of qx, qy, qz, qw, or by roll, pitch, yaw")
    else:
        quaternion = _quaternion(given.roll, given.pitch, given.yaw)
    transform = TransformStamped(child_frame_id=given.child_frame_id)
    transform.header.frame_id = given.frame_id
    t, q = transform.transform.translation, transform.transform.rotation
    t.x, t.y, t.z = given.x, given.y, given.z
    q.x, q.y, q.z, q.w = quaternion
    return transform


def _quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """x, y, z, w of Rz(yaw) Ry(pitch) Rx(roll)."""
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(a / 2), math.cos(a / 2)) for a in (roll, pitch, yaw))
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def main() -> int:
    transform = transform_of(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    try:
        node = Node("static_transform_publisher")
        transform.header.stamp = node.get_clock().now().to_msg()
        StaticTransformBroadcaster(node).sendTransform(transform)
        rclpy.spin(node)
    except (ExternalShutdownException, KeyboardInterrupt):
        return 0
    finally:
        rclpy.try_shutdown()
    return 0
