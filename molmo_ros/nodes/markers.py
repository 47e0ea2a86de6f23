"""An answer as RViz markers: each target's point, axes, label, and the ellipsoid it lies in."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from molmo_ros.geometry.rotation import quaternion_xyzw
from molmo_ros.nodes.answer import Answer, Found
from molmo_ros.nodes.messages import pose_from_matrix, stamped_header

AXIS_M = 0.06
POINT_M = 0.012
LABEL_M = 0.02
#: Half axes of the ellipsoid, in standard deviations: 95 % of a normal distribution in space lie within.
ELLIPSOID_SIGMAS = 2.795
_GOAL = ColorRGBA(r=0.0, g=0.78, b=0.55, a=1.0)
_GOOD = ColorRGBA(r=0.34, g=0.71, b=0.91, a=1.0)
_REFUSED = ColorRGBA(r=0.6, g=0.6, b=0.6, a=1.0)
_AXES = (
    ColorRGBA(r=0.9, g=0.2, b=0.2, a=1.0),
    ColorRGBA(r=0.2, g=0.8, b=0.2, a=1.0),
    ColorRGBA(r=0.25, g=0.4, b=1.0, a=1.0),
)


def markers_message(answer: Answer) -> MarkerArray:
    """Replaces what was shown before; targets that have no place in space are left out."""
    header = stamped_header(answer.pose_stamp_ns, answer.request.parameters.target_frame.lstrip("/"))
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for n, found in enumerate(answer.found):
        if np.isfinite(found.located.position_base_m).all():
            markers += _markers_of(found, n, header, is_goal=n == answer.goal)
    return MarkerArray(markers=markers)


def _markers_of(found: Found, n: int, header: Header, *, is_goal: bool) -> list[Marker]:
    colour = _GOAL if is_goal else _GOOD if found.outcome.ok else _REFUSED
    x, y, z = (float(value) for value in found.located.position_base_m)
    at = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=1.0))

    def marker(namespace: str, kind: int, pose: Pose, scale: Vector3, color: ColorRGBA) -> Marker:
        return Marker(header=header, ns=namespace, id=n, type=kind, pose=pose, scale=scale, color=color)

    sphere = Vector3(x=POINT_M, y=POINT_M, z=POINT_M)
    markers = [marker("point", Marker.SPHERE, at, sphere, colour)]
    T = found.located.T_base_target
    if np.isfinite(T).all():
        axes = marker("axes", Marker.LINE_LIST, pose_from_matrix(T), Vector3(x=POINT_M / 3), colour)
        for axis, of_axis in zip(np.eye(3) * AXIS_M, _AXES, strict=True):
            axes.points += [Point(), Point(x=float(axis[0]), y=float(axis[1]), z=float(axis[2]))]
            axes.colors += [of_axis, of_axis]
        markers.append(axes)
    above = Pose(position=Point(x=x, y=y, z=z + 2 * LABEL_M), orientation=Quaternion(w=1.0))
    label = marker("label", Marker.TEXT_VIEW_FACING, above, Vector3(z=LABEL_M), colour)
    label.text = _label(found)
    markers.append(label)
    if np.isfinite(found.located.position_cov_m2).all():
        variance, axes_33 = np.linalg.eigh(found.located.position_cov_m2)
        if np.linalg.det(axes_33) < 0:
            axes_33[:, 0] *= -1
        qx, qy, qz, qw = (float(value) for value in quaternion_xyzw(axes_33))
        place = Pose(position=at.position, orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        sx, sy, sz = (2 * ELLIPSOID_SIGMAS * math.sqrt(max(float(v), 1e-10)) for v in variance)
        faint = ColorRGBA(r=colour.r, g=colour.g, b=colour.b, a=0.3)
        markers.append(marker("covariance", Marker.SPHERE, place, Vector3(x=sx, y=sy, z=sz), faint))
    return markers


def _label(found: Found) -> str:
    sure = f" {100 * found.point.confidence:.0f} %" if math.isfinite(found.point.confidence) else ""
    refused = "" if found.outcome.ok else f" {found.outcome.code.name}"
    return f"{found.point.label}{sure}{refused}"
