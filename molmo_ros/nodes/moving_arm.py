"""The arm of tabletop_sim that moves: its controller on a thread of its own, and the camera on its wrist."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Header

from molmo_ros.nodes.tabletop_camera import TabletopCamera
from molmo_ros.nodes.tabletop_messages import camera_info_message, transform_message
from molmo_ros.sim.scene import SceneState
from molmo_ros.sim.surroundings import SceneCamera

if TYPE_CHECKING:
    from molmo_ros.nodes.arm_server import ArmServer
    from molmo_ros.sim.tabletop import TabletopScene

WRIST_FRAME = "wrist_camera_color_optical_frame"
STATE_RATE_HZ = 100.0


class MovingArm:
    """Everything that tabletop_sim does only for an arm with physics."""

    def __init__(self, node: Node, depth_noise: str) -> None:
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
        self._wrist = TabletopCamera(node, "wrist_camera", "wrist", depth_noise)
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

    def publish_wrist(self, tabletop: TabletopScene, frame: int, stamp: Time) -> None:
        """The picture from the wrist, if anybody listens; the scene is as it was last moved."""
        from molmo_ros.sim.fr3 import WRIST_FOVY_DEG

        K = SceneCamera(np.eye(4), float(np.radians(WRIST_FOVY_DEG))).K(tabletop.render_size)
        header = Header(stamp=stamp, frame_id=WRIST_FRAME)
        self._wrist.publish(tabletop, frame, camera_info_message(K, tabletop.render_size, header))

    def close(self) -> None:
        """End the controller and its thread."""
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(2.0)
        self._server.close()
        self._wrist.close()
