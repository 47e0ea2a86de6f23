"""What a depth camera sees, as obstacles: one image, taken when a plan is made, without the arm and the target."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from molmo_ros.geometry.camera_model import CameraModel, RegionOfInterest
from molmo_ros.nodes.image_conversion import depth_from_message
from molmo_ros.nodes.messages import NANOSECONDS
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.obstacles import Voxels, voxels_from_points
from molmo_ros.planning.roboplan_scene import RoboplanScene

_QOS = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
_LOOK_S = 0.02
# Pixels of a depth image that are looked at: about this many across.
_ACROSS = 320

LookUp = Callable[[str, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class DepthPoints:
    """Points (N, 3) of one depth image in the frame `frame_id`, seen at `stamp_ns`."""

    points_cam_N3: np.ndarray
    frame_id: str
    stamp_ns: int


class DepthSource:
    """Takes one depth image on demand; subscribed only while somebody waits. Called from one worker thread."""

    def __init__(self, node: Node, topic: str, info_topic: str, max_age_s: float) -> None:
        self._node = node
        self._topic, self._info_topic = topic, info_topic
        self._max_age_ns = round(max_age_s * NANOSECONDS)

    def take(self, timeout_s: float, cancelled: Callable[[], bool]) -> DepthPoints:
        """The next image. Raises PointingError: NO_FRAME, NO_CAMERA_INFO, STALE_FRAME, BAD_IMAGE,
        BAD_CAMERA_INFO, CANCELLED."""
        heard = threading.Condition()
        newest: dict[str, Image | CameraInfo] = {}

        def keep(name: str) -> Callable[[Image | CameraInfo], None]:
            def hear(message: Image | CameraInfo) -> None:
                with heard:
                    newest[name] = message
                    heard.notify_all()

            return hear

        subscriptions = [
            self._node.create_subscription(Image, self._topic, keep("depth"), _QOS),
            self._node.create_subscription(CameraInfo, self._info_topic, keep("info"), _QOS),
        ]
        end_s = time.monotonic() + timeout_s
        try:
            with heard:
                while len(newest) < 2 and time.monotonic() < end_s:
                    if cancelled():
                        raise PointingError(Code.CANCELLED, "cancelled while waiting for a depth image")
                    heard.wait(_LOOK_S)
        finally:
            for subscription in subscriptions:
                self._node.destroy_subscription(subscription)
        depth, info = newest.get("depth"), newest.get("info")
        if not isinstance(depth, Image):
            raise PointingError(
                Code.NO_FRAME, f"no depth image on {self._resolved(self._topic)} within {timeout_s:g} s"
            )
        if not isinstance(info, CameraInfo):
            raise PointingError(
                Code.NO_CAMERA_INFO,
                f"depth images, but no CameraInfo on {self._resolved(self._info_topic)} within {timeout_s:g} s",
            )
        return self._points(depth, info)

    def _resolved(self, topic: str) -> str:
        return self._node.resolve_topic_name(topic)

    def _points(self, depth: Image, info: CameraInfo) -> DepthPoints:
        stamp_ns = depth.header.stamp.sec * NANOSECONDS + depth.header.stamp.nanosec
        age_ns = self._node.get_clock().now().nanoseconds - stamp_ns
        if age_ns > self._max_age_ns:
            raise PointingError(
                Code.STALE_FRAME,
                f"the newest depth image is {age_ns / NANOSECONDS:.2f} s old; at most "
                f"{self._max_age_ns / NANOSECONDS:g} s are allowed (max_depth_age_s)",
            )
        depth_m = depth_from_message(depth)
        if (info.height, info.width) != depth_m.shape:
            raise PointingError(
                Code.BAD_CAMERA_INFO,
                f"depth is {depth.width}x{depth.height} but its CameraInfo is of {info.width}x{info.height}",
            )
        roi = info.roi
        camera = CameraModel.from_info(
            width=info.width,
            height=info.height,
            k=info.k,
            distortion_model=info.distortion_model,
            d=info.d,
            r=info.r,
            p=info.p,
            binning_x=info.binning_x,
            binning_y=info.binning_y,
            roi=RegionOfInterest(roi.x_offset, roi.y_offset, roi.height, roi.width, roi.do_rectify),
            rectified=True,
        )
        stride = max(1, depth_m.shape[1] // _ACROSS)
        v, u = np.mgrid[0 : depth_m.shape[0] : stride, 0 : depth_m.shape[1] : stride]
        z = depth_m[v, u].ravel()
        seen = np.isfinite(z) & (z > 0)
        pixels = np.column_stack([u.ravel()[seen], v.ravel()[seen]])
        return DepthPoints(camera.deproject(pixels, z[seen]), depth.header.frame_id, stamp_ns)


def obstacles_seen(
    seen: DepthPoints,
    look_up: LookUp,
    scene: RoboplanScene,
    joints: np.ndarray,
    goals: list[np.ndarray],
    *,
    voxel_m: float,
    padding_m: float,
    target_radius_m: float,
) -> Voxels:
    """Cells filled by what was seen, without the arm (at `joints`) and without what stands at a goal.

    `look_up(frame, stamp_ns)` gives T_base_frame. What is at a goal: within `target_radius_m` of the line of its
    approach, from a little behind the goal backwards.
    """
    T = look_up(seen.frame_id, seen.stamp_ns)
    points = seen.points_cam_N3 @ T[:3, :3].T + T[:3, 3]
    points = points[~scene.on_robot(joints, points, padding_m)]
    for goal in goals:
        along = (points - goal[:3, 3]) @ goal[:3, 2]
        aside = np.linalg.norm((points - goal[:3, 3]) - along[:, None] * goal[:3, 2], axis=1)
        points = points[~((aside < target_radius_m) & (along < target_radius_m))]
    return voxels_from_points(points, voxel_m)
