"""What was found, as ROS messages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from std_msgs.msg import Header

from molmo_ros.geometry.locate import Located
from molmo_ros.geometry.pose import quaternion_xyzw
from molmo_ros.outcome import Outcome
from molmo_ros.pointing.point import Point2D
from molmo_ros_interfaces.msg import Outcome as OutcomeMessage
from molmo_ros_interfaces.msg import StageDurations as StageDurationsMessage
from molmo_ros_interfaces.msg import Target as TargetMessage

# REP 105 has no word for it; robot_localization and others read this as "anything is possible".
UNKNOWN_VARIANCE = 1e6
NANOSECONDS = 1_000_000_000


@dataclass
class StageSeconds:
    """Wall-clock seconds of each stage of one request; the fields of StageDurations.msg."""

    frame_wait: float = 0.0
    decode_image: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    geometry: float = 0.0
    publish: float = 0.0
    total: float = 0.0

    def to_message(self) -> StageDurationsMessage:
        return StageDurationsMessage(**{name: duration(seconds) for name, seconds in vars(self).items()})


def duration(seconds: float) -> Duration:
    nanoseconds = round(max(seconds, 0.0) * NANOSECONDS)
    return Duration(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


def stamped_header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=Time(sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS), frame_id=frame_id)


def outcome_message(outcome: Outcome) -> OutcomeMessage:
    return OutcomeMessage(code=int(outcome.code), message=outcome.message)


def pose_from_matrix(T: np.ndarray) -> Pose:
    """Pose of a 4x4 transform; NaN wherever the matrix is not known."""
    x, y, z = (float(value) for value in T[:3, 3])
    rotation = quaternion_xyzw(T[:3, :3]) if np.isfinite(T[:3, :3]).all() else np.full(4, math.nan)
    qx, qy, qz, qw = (float(value) for value in rotation)
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def goal_message(located: Located, stamp_ns: int, target_frame: str) -> PoseStamped:
    """The goal of a located point, with the image's stamp; only for points whose outcome is OK."""
    if not located.outcome.ok:
        raise ValueError(f"a point that failed a check is no goal: {located.outcome}")
    return PoseStamped(
        header=stamped_header(stamp_ns, target_frame), pose=pose_from_matrix(located.T_base_target)
    )


def target_message(
    point: Point2D, located: Located, outcome: Outcome, stamp_ns: int, target_frame: str
) -> TargetMessage:
    """One target. The orientation is chosen, not measured: its variance says "unknown"."""
    message = TargetMessage(
        label=point.label,
        u=float(point.u),
        v=float(point.v),
        confidence=float(point.confidence),
        sigma_px=float(point.sigma_px),
        width=located.width_m,
        outcome=outcome_message(outcome),
    )
    message.pose.header = stamped_header(stamp_ns, target_frame)
    message.pose.pose.pose = pose_from_matrix(located.T_base_target)
    covariance = np.diag(np.full(6, UNKNOWN_VARIANCE))
    if np.isfinite(located.position_cov_m2).all():
        covariance[:3, :3] = located.position_cov_m2
    message.pose.pose.covariance = covariance.reshape(-1)
    x, y, z = (float(value) for value in located.normal_base)
    message.normal = Vector3(x=x, y=y, z=z)
    message.depth_valid_ratio = located.depth.valid_ratio if located.depth else math.nan
    message.depth_spread = located.depth.spread_m if located.depth else math.nan
    return message
