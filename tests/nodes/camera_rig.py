"""Cameras of every make on one rig: one of them looks down on a plane at a time, all in frames of their own."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_ros import StaticTransformBroadcaster

from molmo_ros.nodes.rvl import encode_rvl

WIDTH, HEIGHT, FOCAL_PX, DEPTH_M = 160, 120, 150.0, 0.8
COLOR_FRAME, DEPTH_FRAME = "rig_color", "rig_depth"
#: The depth camera sits this much behind the colour camera, so the plane is nearer to colour.
BEHIND_M = 0.05
COLOR_RGB = (10, 20, 200)
PLANE_Z_M = 1.0 - DEPTH_M


@dataclass
class Shot:
    """How the next pictures are sent. `parts`: which topics speak; `halved`: every second instant at half the size."""

    parts: set[str] = field(default_factory=lambda: {"color", "info", "depth", "depth_info"})
    depth_late_s: float = 0.0
    zero_stamp: bool = False
    encoding: str = "rgb8"
    padding: int = 0
    big_endian: bool = False
    depth_codec: str = "rvl"
    wrong_depth_size: bool = False
    halved: bool = False


class CameraRig:
    """The camera called `name` speaks, at 20 Hz: raw, "packed" compressed, "own" with its own depth camera."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name, self.shot = node, name, Shot()
        packed = name == "packed"
        kind = CompressedImage if packed else Image
        color = f"{name}/color/image_raw" + ("/compressed" if packed else "")
        depth = f"{name}/depth/image_rect" + ("/compressedDepth" if packed else "")
        self.publishers = {
            "color": node.create_publisher(kind, color, 5),
            "info": node.create_publisher(CameraInfo, f"{name}/color/camera_info", 5),
            "depth": node.create_publisher(kind, depth, 5),
            "depth_info": node.create_publisher(CameraInfo, f"{name}/depth/camera_info", 5),
        }
        self._instant = 0
        self._timer = node.create_timer(0.05, self._publish)

    @property
    def subscribers(self) -> int:
        return sum(publisher.get_subscription_count() for publisher in self.publishers.values())

    def _publish(self) -> None:
        shot, own = self.shot, self.name == "own"
        now_ns = 0 if shot.zero_stamp else self.node.get_clock().now().nanoseconds
        late_ns = now_ns - round(shot.depth_late_s * 1e9)
        self._instant += 1
        halving = 2 if shot.halved and self._instant % 2 else 1
        width, height, focal_px = WIDTH // halving, HEIGHT // halving, FOCAL_PX / halving
        scale = 2 if own else 1
        depth_mm = np.full((height // scale, width // scale), round(1000 * DEPTH_M), np.uint16)
        if shot.wrong_depth_size:
            depth_mm = depth_mm[: HEIGHT // 4]
        messages = {
            "color": self._color(np.full((height, width, 3), COLOR_RGB, np.uint8)),
            "info": _info(width, height, focal_px),
            "depth": self._depth(depth_mm),
            "depth_info": _info(width // scale, height // scale, focal_px / scale),
        }
        for part in shot.parts:
            of_depth = part.startswith("depth")
            messages[part].header.stamp = Time(nanoseconds=late_ns if of_depth else now_ns).to_msg()
            messages[part].header.frame_id = DEPTH_FRAME if own and of_depth else COLOR_FRAME
            self.publishers[part].publish(messages[part])

    def _color(self, picture: np.ndarray) -> Any:
        if self.name == "packed":
            jpeg = cv2.imencode(".jpg", picture[..., ::-1])[1]
            return CompressedImage(format="rgb8; jpeg compressed bgr8", data=array("B", jpeg.tobytes()))
        return _image(picture, self.shot.encoding, self.shot.padding, False)

    def _depth(self, depth_mm: np.ndarray) -> Any:
        if self.name != "packed":
            return _image(depth_mm, "16UC1", self.shot.padding, self.shot.big_endian)
        header = struct.pack("<iff", 0, 0.0, 0.0)
        if self.shot.depth_codec == "rvl":
            header += struct.pack("<II", depth_mm.shape[1], depth_mm.shape[0])
            payload = encode_rvl(depth_mm)
        else:
            payload = cv2.imencode(".png", depth_mm)[1].tobytes()
        form = f"16UC1; compressedDepth {self.shot.depth_codec}"
        return CompressedImage(format=form, data=array("B", header + payload))


def send_poses(broadcaster: StaticTransformBroadcaster) -> None:
    """Both cameras look straight down; the colour camera from 1 m."""
    color = pose("base_link", COLOR_FRAME, (0.5, 0.1, 1.0))
    color.transform.rotation.x, color.transform.rotation.w = 1.0, 0.0
    broadcaster.sendTransform([color, pose(COLOR_FRAME, DEPTH_FRAME, (0.0, 0.0, -BEHIND_M))])


def pose(
    parent: str, child: str, position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> TransformStamped:
    """Not turned."""
    transform = TransformStamped(child_frame_id=child)
    transform.header.frame_id = parent
    t = transform.transform.translation
    t.x, t.y, t.z = position_m
    transform.transform.rotation.w = 1.0
    return transform


def _info(width: int, height: int, focal_px: float) -> CameraInfo:
    cx, cy = (width - 1) / 2, (height - 1) / 2
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [focal_px, 0.0, cx, 0.0, focal_px, cy, 0.0, 0.0, 1.0]
    info.p = [focal_px, 0.0, cx, 0.0, 0.0, focal_px, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    return info


def _image(pixels: np.ndarray, encoding: str, padding: int, big_endian: bool) -> Image:
    pixels = encoded(pixels, encoding)
    if big_endian:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    image = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    image.step, image.is_bigendian = rows.shape[1], int(big_endian)
    image.data = array("B", rows.tobytes())
    return image


def encoded(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """HxWx3 uint8 RGB in another order of 8 bits; depth as it is."""
    if encoding.startswith("bgr"):
        return pixels[..., ::-1]
    if encoding.startswith("bayer_"):  # one channel per pixel: "rggb" is red at the top left
        mosaic = np.empty(pixels.shape[:2], np.uint8)
        for place, channel in enumerate(encoding.removeprefix("bayer_")[:4]):
            cells = np.s_[place // 2 :: 2, place % 2 :: 2]
            mosaic[cells] = pixels[(*cells, "rgb".index(channel))]
        return mosaic
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):  # ITU-R BT.601, 16..235; two pixels share U and V
        to_yuv = [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
        yuv = np.rint(pixels @ np.transpose(to_yuv) / 255 + (16, 128, 128)).astype(np.uint8)
        chroma = yuv[..., 1].copy()
        chroma[:, 1::2] = yuv[:, ::2, 2]
        first_is_y = encoding in ("yuv422_yuy2", "yuyv")
        return np.stack([yuv[..., 0], chroma] if first_is_y else [chroma, yuv[..., 0]], axis=-1)
    return pixels


def info_message() -> CameraInfo:
    """Of the colour camera."""
    return _info(WIDTH, HEIGHT, FOCAL_PX)


def plain_image(encoding: str, value: int) -> Image:
    """One value everywhere: rgb8, or 16UC1 in mm."""
    shape, kind = ((HEIGHT, WIDTH, 3), np.uint8) if encoding == "rgb8" else ((HEIGHT, WIDTH), np.uint16)
    return _image(np.full(shape, value, kind), encoding, 0, False)
