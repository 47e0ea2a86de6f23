"""The arm of tabletop_sim that moves: its controller on a thread of its own, and the camera on its wrist."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from molmo_ros.nodes.tabletop_messages import (
    camera_info_message,
    depth_message,
    image_message,
    transform_message,
)
from molmo_ros.sim.scene import SceneState
from molmo_ros.sim.surroundings import SceneCamera

if TYPE_CHECKING:
    from molmo_ros.nodes.arm_server import ArmServer
    from molmo_ros.sim.tabletop import TabletopScene

WRIST_FRAME = "wrist_camera_color_optical_frame"
STATE_RATE_HZ = 100.0
Noise = Callable[[NDArray[np.float32], float], NDArray[np.float32]]


class MovingArm:
    """Everything that tabletop_sim does only for an arm with physics."""

    def __init__(self, node: Node) -> None:
        """Raises RobotError or ImportError where roboplan and its models are missing."""
        # Imported here: nothing of this is needed for an arm at rest.
        from molmo_ros.nodes.arm_server import ArmServer
        from molmo_ros.planning.roboplan_scene import RoboplanScene
        from molmo_ros.sim.fr3 import robot

        self._executor = SingleThreadedExecutor()
        heartbeat = str(node.get_parameter("heartbeat_topic").value)
        self._server: ArmServer = ArmServer(
            self._executor,
            RoboplanScene(robot()).limits,
            STATE_RATE_HZ,
            node.resolve_topic_name(heartbeat) if heartbeat else "",
            node.get_namespace(),
        )
        reliable = QoSProfile(depth=5)
        self._color = node.create_publisher(Image, "wrist_camera/color/image_raw", reliable)
        self._depth = node.create_publisher(Image, "wrist_camera/depth/image_rect", reliable)
        self._info = node.create_publisher(CameraInfo, "wrist_camera/color/camera_info", reliable)
        self._thread = threading.Thread(target=self._spin, name="arm_controller", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def load(self, state: SceneState) -> None:
        """Another scene, the arm at rest again."""
        from molmo_ros.sim.physics import TablePhysics

        self._server.load(TablePhysics(state))

    def now(self) -> tuple[dict[str, float], list[np.ndarray]]:
        """Positions of all joints by name, and poses (4x4) of the things."""
        return self._server.now()

    def static_transforms(self, base_frame: str, stamp: Time) -> list[TransformStamped]:
        """The arm on its table, and the camera on its hand."""
        from molmo_ros.sim.fr3 import T_HAND_WRIST_CAMERA

        return [
            transform_message(base_frame, "fr3_link0", np.eye(4), stamp),
            transform_message("fr3_hand", WRIST_FRAME, T_HAND_WRIST_CAMERA, stamp),
        ]

    def publish_wrist(self, tabletop: TabletopScene, frame: int, with_noise: Noise, stamp: Time) -> None:
        """The picture from the wrist, if anybody listens; the scene is as it was last moved."""
        from molmo_ros.sim.fr3 import WRIST_FOVY_DEG

        header = Header(stamp=stamp, frame_id=WRIST_FRAME)
        width, height = tabletop.render_size
        K = SceneCamera(np.eye(4), float(np.radians(WRIST_FOVY_DEG))).K((width, height))
        self._info.publish(camera_info_message(K, (width, height), header))
        wants_color = self._color.get_subscription_count() > 0
        wants_depth = self._depth.get_subscription_count() > 0
        if wants_color or wants_depth:
            view = tabletop.render(frame=frame, camera="wrist")
            if wants_color:
                self._color.publish(image_message(view.color, "rgb8", header))
            if wants_depth:
                self._depth.publish(depth_message(with_noise(view.depth_m, K[0, 0]), header))

    def close(self) -> None:
        """End the controller and its thread."""
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(2.0)
        self._server.close()
