"""The simulated tabletop's pictures, poses and truth as ROS messages. No node, no state."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion, TransformStamped, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from molmo_ros.geometry.rotation import quaternion_xyzw
from molmo_ros.sim.scene import SceneState
from molmo_ros.sim.truth import ObjectTruth
from molmo_ros_interfaces.msg import SceneTruth

# Optical frame (x right, y down, z forward) in camera_link (x forward, y left, z up): REP 103.
T_LINK_OPTICAL = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])


def image_message(pixels: NDArray[np.generic], encoding: str, header: Header) -> Image:
    """An image of any encoding from an array HxW or HxWxC of the matching dtype, in native byte order."""
    pixels = np.ascontiguousarray(pixels)
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.is_bigendian = int(not np.little_endian)
    message.step = pixels.strides[0]
    # array('B') is taken as it is; bytes would be checked one by one.
    message.data = array("B", pixels.tobytes())
    return message


def depth_message(depth_m_HW: NDArray[np.float32], header: Header) -> Image:
    """16UC1 in millimetres, 0 = no return (REP 118)."""
    depth_mm = np.clip(np.rint(np.nan_to_num(depth_m_HW, nan=0.0) * 1000.0), 0, 65535).astype(np.uint16)
    return image_message(depth_mm, "16UC1", header)


def camera_info_message(K_33: NDArray[np.float64], size: tuple[int, int], header: Header) -> CameraInfo:
    """A pinhole camera without distortion; `size` is (width, height)."""
    info = CameraInfo(header=header, width=size[0], height=size[1], distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = K_33.ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([K_33, np.zeros((3, 1))]).ravel()
    return info


def transform_message(
    parent: str, child: str, T_parent_child: NDArray[np.float64], stamp: Time
) -> TransformStamped:
    """A 4x4 pose as TF wants it."""
    message = TransformStamped(header=Header(stamp=stamp, frame_id=parent), child_frame_id=child)
    x, y, z = (float(value) for value in T_parent_child[:3, 3])
    message.transform.translation = Vector3(x=x, y=y, z=z)
    x, y, z, w = (float(value) for value in quaternion_xyzw(T_parent_child[:3, :3]))
    message.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
    return message


def truth_message(state: SceneState, truths: tuple[ObjectTruth, ...], header: Header) -> SceneTruth:
    """Every thing with a name; a hidden one has 0 visible pixels and NaN for its place in the image."""
    message = SceneTruth(header=header)
    visible = {truth.id: truth for truth in truths}
    for thing in state.named:
        truth = visible.get(thing.id)
        u, v = truth.centroid_uv if truth else (np.nan, np.nan)
        message.labels.append(thing.label)
        x, y, z = thing.centre_m
        message.positions.append(Point(x=x, y=y, z=z))
        message.visible_u.append(u)
        message.visible_v.append(v)
        message.visible_pixels.append(truth.visible_pixels if truth else 0)
    return message
