"""One RGB-D camera of the simulated tabletop on its topics. A picture that nobody listens to is not made, as camera
drivers do it; while one thread gives the colour picture its noise, another gives the depth image its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from molmo_ros.nodes.tabletop_messages import depth_message, image_message
from molmo_ros.sim.depth_noise import noisy_depth

if TYPE_CHECKING:
    from molmo_ros.sim.tabletop import TabletopScene

# Reliable serves best-effort subscribers too. The profile in config/fastdds_large_images.xml keeps it
# lossless.
IMAGE_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class TabletopCamera:
    """Topics `PREFIX/color/image_raw`, `PREFIX/depth/image_rect` (registered to colour) and `camera_info` of both."""

    def __init__(self, node: Node, prefix: str, name: str, depth_noise: str) -> None:
        """`name`: what the scene calls the camera; `depth_noise`: one of `depth_noise.NOISES`."""
        self._name, self._depth_noise = name, depth_noise
        self._color = node.create_publisher(Image, f"{prefix}/color/image_raw", IMAGE_QOS)
        self._depth = node.create_publisher(Image, f"{prefix}/depth/image_rect", IMAGE_QOS)
        self._infos = [
            node.create_publisher(CameraInfo, f"{prefix}/{image}/camera_info", IMAGE_QOS)
            for image in ("color", "depth")
        ]
        self._noise = ThreadPoolExecutor(1, thread_name_prefix=f"{prefix}_noise")

    def publish(self, tabletop: TabletopScene, frame: int, info: CameraInfo) -> None:
        """The scene as it was last moved, with the stamp and the frame of `info`; `frame` picks the noise."""
        for publisher in self._infos:
            publisher.publish(info)
        wants_color = self._color.get_subscription_count() > 0
        wants_depth = self._depth.get_subscription_count() > 0
        if not (wants_color or wants_depth):
            return
        state = tabletop.state
        assert state is not None  # what is published was shown
        noisy = None
        if wants_depth:
            rng = np.random.default_rng([state.seed, frame])
            clean_m = tabletop.depth_m(self._name)
            noisy = self._noise.submit(noisy_depth, clean_m, float(info.k[0]), rng, self._depth_noise)
        if wants_color:
            view = tabletop.render(frame=frame, camera=self._name)
            self._color.publish(image_message(view.color, "rgb8", info.header))
        if noisy:
            self._depth.publish(depth_message(noisy.result(), info.header))

    def close(self) -> None:
        """End its thread."""
        self._noise.shutdown()
