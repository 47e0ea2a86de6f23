"""tabletop_sim: a simulated table, arm and RGB-D camera on a real ROS graph.

Publishes (names relative to the node's namespace)
    camera/color/image_raw      sensor_msgs/Image, rgb8
    camera/depth/image_rect     sensor_msgs/Image, 16UC1 in mm, 0 = no return, registered to the colour image
    camera/color/camera_info, camera/depth/camera_info
    joint_states, /tf           the arm, base_link ... tool0
    /tf_static                  base_link -> camera_link -> camera_color_optical_frame, anew for each scene
    ~/truth, ~/truth_ids        what really stands there, latched, once per scene; for tests and demo only
Serves
    ~/reset_scene               ResetScene.srv; answers when the new scene's first frame is out
With the parameter arm: fr3 also
    joint_trajectory_controller/follow_joint_trajectory, gripper_controller/gripper_cmd (see arm_server)
    wrist_camera/...            a second camera, on the hand

Everything of one instant carries one stamp. All drawing happens on one thread, which the GL context needs
anyway: a frame takes some 15 ms, so the service never waits long.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from molmo_ros.nodes.tabletop_camera import TabletopCamera
from molmo_ros.nodes.tabletop_messages import (
    T_LINK_OPTICAL,
    camera_info_message,
    image_message,
    transform_message,
    truth_message,
)
from molmo_ros.sim.depth_noise import NOISES
from molmo_ros.sim.scene import ARM_JOINTS, SceneRecipe
from molmo_ros.sim.truth import scene_truth
from molmo_ros.sim.worlds import DEFAULT_WORLD, WORLDS, world_named
from molmo_ros_interfaces.msg import SceneTruth
from molmo_ros_interfaces.srv import ResetScene

if TYPE_CHECKING:
    from molmo_ros.sim.arm import ArmModel

LATCHED_QOS = QoSProfile(
    depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
)


class TabletopSim(Node):
    """The node; raises SimulatorUnavailable where MuJoCo or a GL driver is missing."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__("tabletop_sim", **node_options)
        # Imported here: the import itself needs MuJoCo and a GL driver.
        from molmo_ros.nodes.moving_arm import MovingArm
        from molmo_ros.sim.tabletop import TabletopScene

        self._declare_parameters()
        self._base_frame = self._text("base_frame")
        self._link_frame = self._text("camera_frame")
        self._optical_frame = self._text("optical_frame")
        depth_noise = self._text("depth_noise")
        if depth_noise not in NOISES:
            raise ValueError(f"depth_noise is '{depth_noise}'; valid are {', '.join(NOISES)}")
        things = (self._whole("min_objects"), self._whole("max_objects"))
        recipe = SceneRecipe(objects=things, world=world_named(self._text("world")))
        self._size = (self._whole("width"), self._whole("height"))
        arm = _arm_model(self._text("arm"))
        self._tabletop = TabletopScene(self._size, recipe, self._whole("antialiasing"), arm)
        self._camera = TabletopCamera(self, "camera", "camera", depth_noise)
        self._moving = MovingArm(self, depth_noise) if arm.name == "fr3" else None
        self._joints = None if self._moving else self.create_publisher(JointState, "joint_states", 10)
        self._truth = self.create_publisher(SceneTruth, "~/truth", LATCHED_QOS)
        self._truth_ids = self.create_publisher(Image, "~/truth_ids", LATCHED_QOS)
        self._tf = TransformBroadcaster(self)
        self._tf_static = StaticTransformBroadcaster(self)
        self._show_scene(self._whole("seed"))
        self.create_service(ResetScene, "~/reset_scene", self._on_reset_scene)
        self.create_timer(1.0 / self._number("rate_hz"), self._publish_frame)
        self.create_timer(1.0 / self._number("tf_rate_hz"), self._publish_arm)

    def close(self) -> None:
        """Frees the GL context, then the ROS side."""
        if self._moving:
            self._moving.close()
        self._camera.close()
        self._tabletop.close()
        self.destroy_node()

    def _declare_parameters(self) -> None:
        most = max(world.most_objects for world in WORLDS.values())
        whole = (
            ("seed", 1, 0, 2**63 - 1, "scene to start with; the service ~/reset_scene changes it"),
            ("width", 640, 64, 1920, "[pixel] width of both images"),
            ("height", 480, 48, 1080, "[pixel] height of both images"),
            ("min_objects", 4, 1, most, "fewest things in a scene"),
            ("max_objects", 8, 1, most, "most things in a scene"),
            (
                "antialiasing",
                4,
                0,
                16,
                "samples per pixel for smooth edges, 0 = off; costs time once per scene",
            ),
        )
        for name, default, low, high, text in whole:
            self._declare(
                name, default, text, integer_range=[IntegerRange(from_value=low, to_value=high, step=1)]
            )
        for name, rate, high_hz, text in (
            ("rate_hz", 10.0, 60.0, "[Hz] images and camera_info"),
            (
                "tf_rate_hz",
                30.0,
                200.0,
                "[Hz] the arm's transforms and joint_states, besides those of each frame",
            ),
        ):
            bounds_hz = [FloatingPointRange(from_value=0.1, to_value=high_hz)]
            self._declare(name, rate, text, floating_point_range=bounds_hz)
        self._declare(
            "depth_noise", "d435", f"what the depth looks like: {', '.join(NOISES)} (none = perfect)"
        )
        self._declare(
            "world",
            DEFAULT_WORLD.name,
            f"what stands on the table, and how it is seen: {', '.join(WORLDS)}",
        )
        self._declare(
            "arm",
            "plain",
            "which arm stands at the table: plain (at rest, as in the training pictures), or fr3 (moves, with "
            "physics, by its controllers' actions; needs the extra planning)",
        )
        self._declare(
            "heartbeat_topic",
            "",
            "fr3: a motion is braked when this topic (std_msgs/Empty) falls silent. Empty: no heartbeat is asked for",
        )
        self._declare("base_frame", "base_link", "frame of the arm's base, on the table top")
        self._declare("camera_frame", "camera_link", "frame of the camera's body (x forward, z up)")
        self._declare(
            "optical_frame", "camera_color_optical_frame", "frame of both images (z forward, y down)"
        )

    def _declare(self, name: str, default: Any, text: str, **ranges: Any) -> None:
        self.declare_parameter(name, default, ParameterDescriptor(description=text, read_only=True, **ranges))

    def _whole(self, name: str) -> int:
        return int(self.get_parameter(name).get_parameter_value().integer_value)

    def _number(self, name: str) -> float:
        return float(self.get_parameter(name).get_parameter_value().double_value)

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).get_parameter_value().string_value)

    def _on_reset_scene(
        self, request: ResetScene.Request, response: ResetScene.Response
    ) -> ResetScene.Response:
        response.message = self._show_scene(request.seed)
        response.success = True
        return response

    def _show_scene(self, seed: int) -> str:
        """Sets up a scene, publishes its camera pose, first frame and truth, and says what stands there."""
        state = self._tabletop.reset(seed)
        self._frame = 0
        T_base_optical = state.camera.T_base_camera
        stamp = self._now()
        T_base_link = T_base_optical @ np.linalg.inv(T_LINK_OPTICAL)
        self._tf_static.sendTransform(
            [
                transform_message(self._base_frame, self._link_frame, T_base_link, stamp),
                transform_message(self._link_frame, self._optical_frame, T_LINK_OPTICAL, stamp),
            ]
        )
        if self._moving:
            self._moving.load(state)
            self._tf_static.sendTransform(self._moving.static_transforms(self._base_frame, stamp))
        # A resting arm's messages are made once and stamped anew each time.
        self._arm_tf = self._arm_transforms(stamp)
        still = [0.0] * len(ARM_JOINTS)
        self._arm_joints = JointState(name=list(ARM_JOINTS), position=list(state.arm_rad), velocity=still)
        self._camera_info = camera_info_message(self._tabletop.K(), self._size, self._header("", stamp))
        first_stamp = self._publish_frame()
        ids = self._tabletop.render(segmentation=True).ids
        assert ids is not None  # segmentation was asked for
        truths = scene_truth(state, ids)
        self._truth.publish(truth_message(state, truths, self._header(self._base_frame, first_stamp)))
        self._truth_ids.publish(
            image_message(ids.astype(np.uint16), "mono16", self._header(self._optical_frame, first_stamp))
        )
        labels = ", ".join(thing.label for thing in state.named)
        self.get_logger().info(f"scene {seed}: {labels}")
        return labels

    def _publish_frame(self) -> Time:
        """Colour, depth, both infos and the arm, all of one instant; returns its stamp."""
        stamp = self._now()
        self._frame += 1
        self._publish_arm(stamp)
        if self._moving:
            self._moving.publish_wrist(self._tabletop, self._frame, stamp)
        self._camera_info.header = self._header(self._optical_frame, stamp)
        self._camera.publish(self._tabletop, self._frame, self._camera_info)
        return stamp

    def _publish_arm(self, stamp: Time | None = None) -> None:
        stamp = stamp or self._now()
        if self._moving:
            self._tabletop.move(*self._moving.now())
            self._arm_tf = self._arm_transforms(stamp)
        for transform in self._arm_tf:
            transform.header.stamp = stamp
        self._tf.sendTransform(self._arm_tf)
        if self._joints:
            self._arm_joints.header.stamp = stamp
            self._joints.publish(self._arm_joints)

    def _arm_transforms(self, stamp: Time) -> list[TransformStamped]:
        """Of every link that moves: an FR3's base is fixed to the table's frame for good."""
        return [
            transform_message(self._base_frame if parent == "base_link" else parent, child, T, stamp)
            for parent, child, T in self._tabletop.arm_transforms()
            if not (self._moving and parent == "base_link")
        ]

    def _now(self) -> Time:
        return self.get_clock().now().to_msg()

    @staticmethod
    def _header(frame_id: str, stamp: Time) -> Header:
        return Header(stamp=stamp, frame_id=frame_id)


def _arm_model(name: str) -> ArmModel:
    if name == "plain":
        from molmo_ros.sim.arm import PLAIN_ARM

        return PLAIN_ARM
    if name == "fr3":
        from molmo_ros.sim.fr3 import FR3_ARM

        return FR3_ARM
    raise ValueError(f"arm is '{name}'; valid are plain, fr3")


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM; 0 then, 1 when it could not start."""
    stop = False

    def on_signal(signum: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    # Own handlers: rclpy's would end the context under a callback that is publishing.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    node: TabletopSim | None = None
    executor = SingleThreadedExecutor()
    try:
        node = TabletopSim()
        executor.add_node(node)
        while not stop:
            executor.spin_once(timeout_sec=0.2)
    except (ImportError, ParameterException, ValueError) as error:
        if node is not None:
            raise
        sys.stderr.write(f"tabletop_sim cannot start: {error}\n")
        return 1
    except (ExternalShutdownException, RuntimeError):  # rclpy's own errors are RuntimeErrors
        if rclpy.ok():
            raise
        # Someone else shut the context down: that is a request to end, too.
    finally:
        executor.shutdown()
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
