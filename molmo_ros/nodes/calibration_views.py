"""What `molmo_ros calibrate` hears: pictures of the board with the hand's pose at their stamps, clicks, and TF.

The operator's terminal is in charge: nothing is spun but while something is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from geometry_msgs.msg import PointStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.pose import inverse
from molmo_ros.nodes.compressed_images import rgb_from_compressed
from molmo_ros.nodes.frame_reading import camera_model_of
from molmo_ros.nodes.image_conversion import rgb_from_message
from molmo_ros.nodes.messages import NANOSECONDS
from molmo_ros.nodes.transforms import TransformWindow
from molmo_ros.outcome import Code, PointingError

#: Two pictures this far apart must show the hand at rest, to within so much.
REST_S = 0.3
MOST_MOVED_M, MOST_TURNED_RAD = 0.001, np.radians(0.1)
_SPIN_S = 0.05
_TF_WAIT_S = 1.0
# A click that was made is queued; it only has to be read.
_CLICK_WAIT_S = 1.0
Found = TypeVar("Found")
_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture (HxWx3 uint8 RGB) with its camera, and where the hand was at its stamp (4x4)."""

    color: np.ndarray
    camera: CameraModel
    frame_id: str
    stamp_ns: int
    T_base_hand: np.ndarray


class CalibrationViews:
    """Use from one thread; `node` must not be spun by anybody else."""

    def __init__(
        self,
        node: Node,
        base_frame: str,
        hand_frame: str,
        image_topic: str,
        info_topic: str,
        click_topic: str,
        *,
        rectified: bool,
        timeout_s: float,
    ) -> None:
        self._node = node
        self._base, self._hand = base_frame.lstrip("/"), hand_frame.lstrip("/")
        self._rectified, self._timeout_s = rectified, timeout_s
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._transforms = TransformWindow(node)
        self._transforms.open("calibration", lambda: None)
        self._image: Image | CompressedImage | None = None
        self._info: CameraInfo | None = None
        self._click: PointStamped | None = None
        self._image_topic, self._info_topic = map(node.resolve_topic_name, (image_topic, info_topic))
        kind = CompressedImage if image_topic.endswith("/compressed") else Image
        node.create_subscription(kind, image_topic, self._hear_image, _QOS)
        node.create_subscription(CameraInfo, info_topic, self._hear_info, _QOS)
        node.create_subscription(PointStamped, click_topic, self._hear_click, 1)  # the newest counts

    def take(self) -> Shot:
        """A picture taken from now on, with the hand at rest.

        Raises PointingError: NO_FRAME, NO_CAMERA_INFO, BAD_IMAGE, BAD_CAMERA_INFO, TF_UNAVAILABLE, and BUSY while the
        hand moves.
        """
        first = self._next(self._now_ns())
        second = self._next(first.stamp_ns + round(REST_S * NANOSECONDS))
        T = inverse(first.T_base_hand) @ second.T_base_hand
        moved_m, turned = float(np.linalg.norm(T[:3, 3])), Rotation.from_matrix(T[:3, :3]).magnitude()
        if moved_m > MOST_MOVED_M or turned > MOST_TURNED_RAD:
            raise PointingError(
                Code.BUSY,
                f"the hand moved by {1e3 * moved_m:.1f} mm and {np.degrees(turned):.2f} deg within {REST_S:g} s; let "
                "it rest, then take the view",
            )
        return second

    def tip(self) -> np.ndarray:
        """T_base_hand now."""
        asked_ns = self._now_ns()

        def found() -> np.ndarray:
            stamp_ns = self._transforms.newest_ns(self._base, self._hand)
            if 0 < stamp_ns < asked_ns:
                raise PointingError(
                    Code.TF_UNAVAILABLE,
                    f"the newest transform from {self._hand} to {self._base} is "
                    f"{(self._now_ns() - stamp_ns) / NANOSECONDS:.1f} s old; is the robot's driver running?",
                )
            return self._transforms.matrix_at(self._base, self._hand, stamp_ns)

        return self._until(found)

    def click(self) -> tuple[np.ndarray, str]:
        """The newest click (3,; metres) and its frame, once.

        Raises PointingError(NOT_FOUND) when there is none since the last time.
        """
        end_s = time.monotonic() + _CLICK_WAIT_S
        while self._click is None and time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=_SPIN_S)
        click, self._click = self._click, None
        if click is None:
            raise PointingError(
                Code.NOT_FOUND,
                "no click since the last spot; click at it with RViz's Publish Point, in the camera's frame",
            )
        return np.array([click.point.x, click.point.y, click.point.z]), click.header.frame_id.lstrip("/")

    def attached_frame(self, camera_frame: str, mount_frame: str) -> str:
        """The frame to be placed: the uppermost one that moves with the camera and is no part of what carries it."""
        above_mount = set(self._transforms.chain(mount_frame))
        own = [frame for frame in self._transforms.chain(camera_frame) if frame not in above_mount]
        return own[-1] if own else camera_frame

    def parent_of(self, frame: str) -> str:
        """Who carries a frame in TF so far; "" when nobody does."""
        chain = self._transforms.chain(frame)
        return chain[1] if len(chain) > 1 else ""

    def T_between(self, target_frame: str, source_frame: str) -> np.ndarray:
        """T_target_source of two frames that do not move against each other."""
        stamp_ns = self._transforms.newest_ns(target_frame, source_frame)
        return self._transforms.matrix_at(target_frame, source_frame, stamp_ns)

    def close(self) -> None:
        self._executor.shutdown()
        self._transforms.destroy()
        self._node.destroy_node()

    # ------------------------------------------------------------

    def _hear_image(self, message: Image | CompressedImage) -> None:
        self._image = message

    def _hear_info(self, message: CameraInfo) -> None:
        self._info = message

    def _hear_click(self, message: PointStamped) -> None:
        self._click = message

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _next(self, after_ns: int) -> Shot:
        """The first picture stamped later than that, once TF covers its stamp."""
        waiting: list[tuple[Image | CompressedImage, int, float]] = []

        def found() -> Shot:
            if self._image is None:
                raise PointingError(Code.NO_FRAME, f"no picture on {self._image_topic}")
            if self._info is None:
                raise PointingError(Code.NO_CAMERA_INFO, f"pictures, but no CameraInfo on {self._info_topic}")
            stamp_ns = _stamp_ns(self._image)
            if not waiting or time.monotonic() - waiting[0][2] > _TF_WAIT_S:
                if stamp_ns <= after_ns:
                    raise PointingError(
                        Code.NO_FRAME,
                        f"the newest picture on {self._image_topic} is {(self._now_ns() - stamp_ns) / NANOSECONDS:.1f} "
                        "s old by this machine's clock; is the camera running, and do the clocks agree?",
                    )
                waiting[:] = [(self._image, stamp_ns, time.monotonic())]
            message, stamp_ns, _ = waiting[0]
            T_base_hand = self._transforms.matrix_at(self._base, self._hand, stamp_ns)
            return self._shot(message, self._info, stamp_ns, T_base_hand)

        return self._until(found)

    def _shot(
        self, message: Image | CompressedImage, info: CameraInfo, stamp_ns: int, T_base_hand: np.ndarray
    ) -> Shot:
        color = rgb_from_message(message) if isinstance(message, Image) else rgb_from_compressed(message)
        camera = camera_model_of(info, rectified=self._rectified)
        if color.shape[:2] != (camera.height, camera.width):
            raise PointingError(
                Code.BAD_CAMERA_INFO,
                f"the picture is {color.shape[1]}x{color.shape[0]}, its CameraInfo of {camera.width}x{camera.height}",
            )
        return Shot(color, camera, message.header.frame_id.lstrip("/"), stamp_ns, T_base_hand)

    def _until(self, found: Callable[[], Found]) -> Found:
        """Spin until it is there; the last reason why it is not is raised when time is up."""
        end_s = time.monotonic() + self._timeout_s
        while True:
            self._executor.spin_once(timeout_sec=_SPIN_S)
            try:
                return found()
            except PointingError:
                if time.monotonic() > end_s:
                    raise


def _stamp_ns(message: Image | CompressedImage) -> int:
    return int(message.header.stamp.sec * NANOSECONDS + message.header.stamp.nanosec)
