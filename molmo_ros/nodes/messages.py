"""What was found, as ROS messages."""

from __future__ import annotations

import math

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseArray, PoseStamped, Quaternion, Vector3
from std_msgs.msg import Header

from molmo_ros.geometry.locate import Located
from molmo_ros.geometry.rotation import quaternion_xyzw
from molmo_ros.nodes.answer import Answer, StageSeconds
from molmo_ros.outcome import Code, Outcome
from molmo_ros.pointing.point import Point2D
from molmo_ros_interfaces.msg import Outcome as OutcomeMessage
from molmo_ros_interfaces.msg import StageDurations as StageDurationsMessage
from molmo_ros_interfaces.msg import Target as TargetMessage
from molmo_ros_interfaces.msg import TargetArray

# REP 105 has no word for it; robot_localization and others read this as "anything is possible".
UNKNOWN_VARIANCE = 1e6
NANOSECONDS = 1_000_000_000


def durations_message(seconds: StageSeconds) -> StageDurationsMessage:
    return StageDurationsMessage(**{name: duration(spent) for name, spent in vars(seconds).items()})


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


def goal_message(answer: Answer) -> PoseStamped | None:
    """The goal of an answer, in target_frame; None when it has none."""
    if answer.goal is None:
        return None
    located = answer.found[answer.goal].located
    if not answer.found[answer.goal].outcome.ok:
        raise ValueError(f"a point that failed a check is no goal: {answer.found[answer.goal].outcome}")
    return PoseStamped(header=_pose_header(answer), pose=pose_from_matrix(located.T_base_target))


def goals_message(answer: Answer) -> PoseArray:
    """Every target that passed all checks, in the order of the answer."""
    good = [found for found in answer.found if found.outcome.ok]
    return PoseArray(
        header=_pose_header(answer), poses=[pose_from_matrix(found.located.T_base_target) for found in good]
    )


def targets_message(answer: Answer) -> TargetArray:
    """All targets, good or not; its header is the image's."""
    message = TargetArray(camera=answer.camera, query=answer.request.words, frame_token=answer.frame_token)
    if answer.frame is not None:
        message.header = stamped_header(answer.frame.stamp_ns, answer.frame.frame_id)
        message.targets = [
            target_message(found.point, found.located, found.outcome, _pose_header(answer))
            for found in answer.found
        ]
    return message


def point_so_far_message(point: Point2D) -> TargetMessage:
    """A point of an unfinished answer: it has no place in space, and is no goal."""
    nowhere = Located(Outcome(Code.UNCERTAIN, "not located yet"))
    return target_message(point, nowhere, nowhere.outcome, Header())


def _pose_header(answer: Answer) -> Header:
    return stamped_header(answer.pose_stamp_ns, answer.request.parameters.target_frame.lstrip("/"))


def target_message(point: Point2D, located: Located, outcome: Outcome, pose_header: Header) -> TargetMessage:
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
    message.pose.header = pose_header
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
