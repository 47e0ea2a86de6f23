"""Small recorded bags for tests, as a robot's recorder writes them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

INTERFACES = Path(__file__).parents[2] / "molmo_ros_interfaces" / "msg"
NODE, COLOR = "/pointing_node", "/camera/color/image_raw"
SIZE = (40, 30)


def typestore() -> Any:
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name in ("Outcome", "Target", "TargetArray"):
        types |= get_types_from_msg(
            (INTERFACES / f"{name}.msg").read_text(), f"molmo_ros_interfaces/msg/{name}"
        )
    store.register(types)
    return store


STORE = typestore()


def of(name: str, *fields: Any) -> Any:
    return STORE.types[name](*fields)


def header(stamp_ns: int) -> Any:
    stamp = of("builtin_interfaces/msg/Time", stamp_ns // 10**9, stamp_ns % 10**9)
    return of("std_msgs/msg/Header", stamp, "camera_optical")


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def raw_image(stamp_ns: int, rgb: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> Any:
    pixels = rgb[..., ::-1] if encoding == "bgr8" else rgb
    rows = np.pad(pixels.reshape(len(rgb), -1), ((0, 0), (0, padding)))
    return of(
        "sensor_msgs/msg/Image", header(stamp_ns), rgb.shape[0], rgb.shape[1], encoding, 0, rows.shape[1],
        np.ascontiguousarray(rows).reshape(-1),
    )  # fmt: skip


def compressed_image(stamp_ns: int, rgb: np.ndarray) -> Any:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    return of("sensor_msgs/msg/CompressedImage", header(stamp_ns), "png", data)


def targets(stamp_ns: int, query: str, *points_uv: tuple[float, float]) -> Any:
    nowhere = of("geometry_msgs/msg/Point", 0.0, 0.0, 0.0)
    pose = of("geometry_msgs/msg/Pose", nowhere, of("geometry_msgs/msg/Quaternion", 0.0, 0.0, 0.0, 1.0))
    with_covariance = of("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36))
    stamped = of("geometry_msgs/msg/PoseWithCovarianceStamped", header(stamp_ns), with_covariance)
    outcome = of("molmo_ros_interfaces/msg/Outcome", 0, "")
    normal = of("geometry_msgs/msg/Vector3", 0.0, 0.0, 1.0)
    each = [
        of(
            "molmo_ros_interfaces/msg/Target",
            "thing",
            u,
            v,
            0.9,
            1.0,
            stamped,
            normal,
            0.1,
            1.0,
            0.0,
            outcome,
        )
        for u, v in points_uv
    ]
    return of("molmo_ros_interfaces/msg/TargetArray", header(stamp_ns), "camera", query, "", each)


def click(u: float, v: float) -> Any:
    return of("geometry_msgs/msg/Point", u, v, 0.0)


TOPICS = {
    "answer": (f"{NODE}/targets", "molmo_ros_interfaces/msg/TargetArray"),
    "review": (f"{NODE}/reviewed_targets", "molmo_ros_interfaces/msg/TargetArray"),
    "click": (f"{NODE}/annotated_image_mouse_left", "geometry_msgs/msg/Point"),
}


def write_bag(
    path: Path, events: Sequence[tuple[str, Any]], plugin: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    """`events`: ("image" | "answer" | "review" | "click", message), in the order of recording."""
    images = [message for kind, message in events if kind == "image"]
    image_type = images[0].__msgtype__ if images else "sensor_msgs/msg/Image"
    topics = TOPICS | {"image": (COLOR, image_type)}
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        wanted = [kind for kind in topics if any(kind == k for k, _ in events)]
        connections = {
            kind: writer.add_connection(topics[kind][0], topics[kind][1], typestore=STORE) for kind in wanted
        }
        for time_ns, (kind, message) in enumerate(events, 1):
            raw = STORE.serialize_cdr(message, topics[kind][1])
            writer.write(connections[kind], time_ns, raw)
    return path
