"""A camera in a process of its own, so that it can die: `python camera_process.py [field=no ...] [--ros-args ...]`.

The fields are those of `Behaviour`: `depth=no` is a camera whose depth never comes.
"""

from __future__ import annotations

import sys

import rclpy
from rclpy.executors import SingleThreadedExecutor
from ros_graph import Camera

if __name__ == "__main__":
    rclpy.init()
    node = rclpy.create_node("mortal_camera")
    camera = Camera(node)
    for word in sys.argv:
        if word.endswith("=no"):
            setattr(camera.behaviour, word.removesuffix("=no"), False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.spin()
