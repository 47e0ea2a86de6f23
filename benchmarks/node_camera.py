"""The camera that benchmarks/node.py looks through: 1280x720 RGB-D at 30 Hz, and /tf at 100 Hz with 8 transforms.

The camera hangs at the end of the chain of transforms, as on an arm. A second depth topic is of a depth camera of its
own, 848x480, beside the colour camera. Run by benchmarks/node.py.
"""

from __future__ import annotations

import sys
from array import array
from itertools import pairwise
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

COLOR_FRAME, DEPTH_FRAME = "bench_color", "bench_depth"
RATE_HZ, TF_RATE_HZ, JOINTS = 30.0, 100.0, 8
COLOR_SIZE, DEPTH_SIZE = (1280, 720), (848, 480)
COLOR_FOCAL_PX, DEPTH_FOCAL_PX = 920.0, 425.0
DEPTH_MM = 800


class BenchCamera(Node):
    def __init__(self) -> None:
        super().__init__("bench_camera")
        rng = np.random.default_rng(1)
        width, height = COLOR_SIZE
        self._messages = [
            (
                self._topic(Image, "color/image_raw"),
                self._image(rng.integers(0, 255, (height, width, 3), np.uint8)),
            ),
            (self._topic(CameraInfo, "color/camera_info"), _info(COLOR_SIZE, COLOR_FOCAL_PX, COLOR_FRAME)),
            (self._topic(Image, "depth/image_rect"), self._depth(COLOR_SIZE, COLOR_FRAME)),
            (self._topic(Image, "depth_own/image_rect"), self._depth(DEPTH_SIZE, DEPTH_FRAME)),
            (
                self._topic(CameraInfo, "depth_own/camera_info"),
                _info(DEPTH_SIZE, DEPTH_FOCAL_PX, DEPTH_FRAME),
            ),
        ]
        self._tf = TransformBroadcaster(self)
        self._static = StaticTransformBroadcaster(self)
        self._static.sendTransform(_transform(COLOR_FRAME, DEPTH_FRAME, 0.05))
        names = ["base_link", *(f"link_{n}" for n in range(1, JOINTS)), COLOR_FRAME]
        self._chain = [_transform(a, b, 0.1) for a, b in pairwise(names)]
        self.create_timer(1 / RATE_HZ, self._publish)
        self.create_timer(1 / TF_RATE_HZ, self._publish_tf)

    def _topic(self, kind: type, name: str) -> Any:
        return self.create_publisher(kind, f"camera/{name}", 5)

    def _publish(self) -> None:
        stamp = self.get_clock().now().to_msg()
        for publisher, message in self._messages:
            message.header.stamp = stamp
            # As camera drivers do: what nobody listens to is not sent. What is small always is.
            if isinstance(message, CameraInfo) or publisher.get_subscription_count():
                publisher.publish(message)

    def _publish_tf(self) -> None:
        stamp = self.get_clock().now().to_msg()
        for transform in self._chain:
            transform.header.stamp = stamp
        self._tf.sendTransform(self._chain)

    @staticmethod
    def _image(pixels: np.ndarray) -> Image:
        height, width = pixels.shape[:2]
        encoding = "rgb8" if pixels.ndim == 3 else "16UC1"
        image = Image(height=height, width=width, encoding=encoding, step=pixels.strides[0])
        image.data = array("B", pixels.tobytes())
        image.header.frame_id = COLOR_FRAME
        return image

    def _depth(self, size: tuple[int, int], frame_id: str) -> Image:
        rows, columns = np.mgrid[: size[1], : size[0]]
        depth = self._image((DEPTH_MM + (rows + columns) // 40 % 7).astype(np.uint16))
        depth.header.frame_id = frame_id
        return depth


def _info(size: tuple[int, int], focal_px: float, frame_id: str) -> CameraInfo:
    cx, cy = (size[0] - 1) / 2, (size[1] - 1) / 2
    info = CameraInfo(width=size[0], height=size[1], distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [focal_px, 0.0, cx, 0.0, focal_px, cy, 0.0, 0.0, 1.0]
    info.p = [focal_px, 0.0, cx, 0.0, 0.0, focal_px, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.header.frame_id = frame_id
    return info


def _transform(parent: str, child: str, x_m: float) -> TransformStamped:
    transform = TransformStamped(child_frame_id=child)
    transform.header.frame_id = parent
    transform.transform.translation.x = x_m
    transform.transform.rotation.w = 1.0
    return transform


def main() -> int:
    rclpy.init()
    executor = SingleThreadedExecutor()
    executor.add_node(BenchCamera())
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
