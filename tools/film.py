"""A film of a pick and place, as the standing camera saw it: the points, the plan and the arm, as an animated GIF."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from point_client import POINTING
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from tf2_ros import Buffer, TransformException, TransformListener
from trajectory_msgs.msg import JointTrajectory

from molmo_ros.geometry.pose import inverse, transform
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.robot import load_robot

CAMERA, PLANNER = "/camera", "/planner_node"
SIZE = (320, 240)
#: One picture in so many seconds is kept, and shown for so many milliseconds: three times as fast as it was.
EVERY_S, SHOWN_MS = 0.4, 130
ANSWER_SHOWN_MS = 1200
COLOURS = 96
_PLAN_POINTS = 40
_TEAL, _DARK = (0, 190, 170), (20, 20, 20)


class Film:
    """Keeps pictures while its node spins; `stage` is written below them."""

    def __init__(self, node: Node) -> None:
        self.stage = ""
        self._node = node
        self._scene = RoboplanScene(load_robot("fr3"))
        self._pictures: list[tuple[Image.Image, int]] = []
        self._last_s = 0.0
        self._plan_base_N3: np.ndarray | None = None
        self._info: CameraInfo | None = None
        self._tf = Buffer()
        self._listener = TransformListener(self._tf, node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(ImageMessage, f"{CAMERA}/color/image_raw", self._on_picture, 1),
            node.create_subscription(CameraInfo, f"{CAMERA}/color/camera_info", self._on_info, 1),
            node.create_subscription(ImageMessage, f"{POINTING}/annotated_image", self._on_answer, 5),
            node.create_subscription(JointTrajectory, f"{PLANNER}/planned_trajectory", self._on_plan, latched),
        ]

    def end(self) -> None:
        """Keep no more pictures."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._listener.unregister()

    def save(self, path: Path) -> int:
        """Write what was kept; how many pictures that was."""
        if not self._pictures:
            return 0
        palette = _palette([picture for picture, _ in self._pictures])
        drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture, _ in self._pictures]
        durations = [shown_ms for _, shown_ms in self._pictures]
        drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=False)
        return len(drawn)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_plan(self, message: JointTrajectory) -> None:
        chosen = np.linspace(0, len(message.points) - 1, _PLAN_POINTS).astype(int)
        postures = [np.array(message.points[i].positions) for i in np.unique(chosen)]
        self._plan_base_N3 = np.array([self._scene.goal_pose(posture)[:3, 3] for posture in postures])

    def _on_answer(self, message: ImageMessage) -> None:
        self._keep(Image.fromarray(_pixels(message)).resize(SIZE), ANSWER_SHOWN_MS)

    def _on_picture(self, message: ImageMessage) -> None:
        if time.monotonic() - self._last_s < EVERY_S:
            return
        self._last_s = time.monotonic()
        picture = Image.fromarray(_pixels(message))
        self._draw_plan(picture, message.header.frame_id)
        self._keep(picture.resize(SIZE), SHOWN_MS)

    def _keep(self, picture: Image.Image, shown_ms: int) -> None:
        if self.stage:
            draw = ImageDraw.Draw(picture)
            draw.rectangle((0, SIZE[1] - 22, SIZE[0], SIZE[1]), fill=_DARK)
            draw.text((8, SIZE[1] - 18), self.stage, fill=(255, 255, 255), font_size=11)
        self._pictures.append((picture, shown_ms))

    def _draw_plan(self, picture: Image.Image, camera_frame: str) -> None:
        """The way of the tool's tip that the planner has planned."""
        if self._plan_base_N3 is None or self._info is None:
            return
        try:
            found = self._tf.lookup_transform(self._scene.robot.base, camera_frame, Time()).transform
        except TransformException:
            return  # TF has not come yet; later pictures show it
        t, q = found.translation, found.rotation
        T_camera_base = inverse(transform([t.x, t.y, t.z], [q.x, q.y, q.z, q.w]))
        points = self._plan_base_N3 @ T_camera_base[:3, :3].T + T_camera_base[:3, 3]
        if (points[:, 2] < 0.05).any():
            return
        K = np.array(self._info.k).reshape(3, 3)
        pixels = points[:, :2] / points[:, 2:] @ K[:2, :2].T + K[:2, 2]
        draw = ImageDraw.Draw(picture)
        draw.line([tuple(map(float, pixel)) for pixel in pixels], fill=_TEAL, width=4, joint="curve")
        u, v = pixels[-1]
        draw.ellipse((u - 6, v - 6, u + 6, v + 6), fill=_TEAL)


def _palette(pictures: list[Image.Image]) -> Image.Image:
    """One palette for all, which keeps what stands still, still. By coverage: a small yellow cube is no brown wood."""
    some = pictures[:: max(len(pictures) // 8, 1)]
    strip = Image.new("RGB", (SIZE[0], SIZE[1] * len(some)))
    for row, picture in enumerate(some):
        strip.paste(picture, (0, SIZE[1] * row))
    return strip.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)


def _pixels(message: ImageMessage) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
