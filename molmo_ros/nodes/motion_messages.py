"""Motions as goals of MoveToGoal, and what such a goal says besides its poses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, PoseStamped, Vector3
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_msgs.msg import Header

from molmo_ros.nodes.messages import pose_from_matrix
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.motion import HeldBox, Motion
from molmo_ros_interfaces.action import MoveToGoal

_POINT_BYTES = 12
# What a hand measures of its fingers may be so far beyond what is possible.
_OPENING_SLACK_M = 0.002


def goal_of(
    motion: Motion, header: Header, joint_names: Sequence[str], speed_scale: float, *, plan_only: bool
) -> MoveToGoal.Goal:
    """The goal that asks for a motion; `header` is of now and of the arm's base."""
    goal = MoveToGoal.Goal(
        goals=[PoseStamped(header=header, pose=pose_from_matrix(T)) for T in motion.goals],
        approach_offset=motion.approach_m,
        retreat_offset=motion.retreat_m,
        back=motion.back,
        one_way_round=not motion.half_turns,
        gripper_opening=motion.opening_m or 0.0,
        plan_only=plan_only,
        speed_scale=speed_scale,
        attempts=motion.attempts,
    )
    if motion.posture is not None:
        goal.posture = JointState(name=list(joint_names), position=[float(q) for q in motion.posture])
    if motion.held is not None:
        x, y, z = motion.held.size_m
        goal.held_size = Vector3(x=float(x), y=float(y), z=float(z))
        x, y, z = motion.held.centre_goal_m
        goal.held_centre = Point(x=float(x), y=float(y), z=float(z))
    if motion.around is not None and len(motion.around):
        goal.obstacles = cloud_message(motion.around.centres_N3, header)
    return goal


def posture_of(message: JointState, joint_names: Sequence[str]) -> np.ndarray | None:
    """Positions (D,) in the order of `joint_names`, None when it names none.

    Raises PointingError(INVALID_REQUEST) when joints are missing or positions are no numbers."""
    if not message.name:
        return None
    named = dict(zip(message.name, message.position, strict=False))
    missing = [name for name in joint_names if name not in named]
    posture = np.array([named.get(name, np.nan) for name in joint_names])
    if missing or not np.isfinite(posture).all():
        raise PointingError(
            Code.INVALID_REQUEST,
            f"the posture takes a finite position of each of {', '.join(joint_names)}; "
            f"missing: {', '.join(missing) or 'none'}",
        )
    return posture


def opening_of(opening_m: float, most_m: float) -> float | None:
    """How far apart the fingers are on the way; None: as they are now. Raises PointingError(INVALID_REQUEST)."""
    if not -_OPENING_SLACK_M <= opening_m <= most_m + _OPENING_SLACK_M:
        raise PointingError(
            Code.INVALID_REQUEST,
            f"gripper_opening is {opening_m:g} m: it takes 0 (as joint_states say) to {most_m:g} m",
        )
    return min(max(opening_m, 0.0), most_m) or None


def held_of(size: Vector3, centre: Point) -> HeldBox | None:
    """What the hand carries, None for a size of zeros. Raises PointingError(INVALID_REQUEST)."""
    edges = (size.x, size.y, size.z)
    if edges == (0.0, 0.0, 0.0):
        return None
    if not (np.isfinite([*edges, centre.x, centre.y, centre.z]).all() and min(edges) > 0):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"held_size is {edges}: three lengths above zero, or three zeros for an empty hand",
        )
    return HeldBox(edges, (centre.x, centre.y, centre.z))


def cloud_message(points_N3: np.ndarray, header: Header) -> PointCloud2:
    """Points as float32 x, y, z."""
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(points_N3),
        fields=fields,
        is_bigendian=False,
        point_step=_POINT_BYTES,
        row_step=_POINT_BYTES * len(points_N3),
        data=np.ascontiguousarray(points_N3, dtype="<f4").tobytes(),
        is_dense=bool(np.isfinite(points_N3).all()),
    )


def points_of(cloud: PointCloud2) -> np.ndarray:
    """The points (N, 3) of a cloud with float32 x, y, z, and whatever else.

    Raises PointingError(INVALID_REQUEST)."""
    offsets = {field.name: field.offset for field in cloud.fields if field.datatype == PointField.FLOAT32}
    count = cloud.width * cloud.height
    if count == 0:
        return np.empty((0, 3))
    if not {"x", "y", "z"} <= set(offsets):
        raise PointingError(Code.INVALID_REQUEST, "the obstacles' cloud has no x, y, z of float32")
    if len(cloud.data) < count * cloud.point_step or cloud.row_step not in (0, cloud.width * cloud.point_step):
        raise PointingError(Code.INVALID_REQUEST, "the obstacles' cloud is shorter than it says")
    kind = np.dtype(
        {
            "names": ["x", "y", "z"],
            "formats": [">f4" if cloud.is_bigendian else "<f4"] * 3,
            "offsets": [offsets[name] for name in "xyz"],
            "itemsize": cloud.point_step,
        }
    )
    data = np.frombuffer(bytes(cloud.data), kind, count)
    return np.stack([data[name] for name in "xyz"], axis=-1).astype(float)
