"""Rigid transforms as plain tuples (x, y, z, qx, qy, qz, qw): for single transforms faster than numpy."""

from __future__ import annotations

import math

Rigid = tuple[float, float, float, float, float, float, float]

IDENTITY: Rigid = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def compose(a: Rigid, b: Rigid) -> Rigid:
    """a after b: maps what b maps into b's parent on into a's parent."""
    ax, ay, az, aw = a[3:]
    bx, by, bz, bw = b[3:]
    px, py, pz = rotate((ax, ay, az, aw), (b[0], b[1], b[2]))
    return (
        a[0] + px,
        a[1] + py,
        a[2] + pz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def inverse(a: Rigid) -> Rigid:
    conjugate = (-a[3], -a[4], -a[5], a[6])
    x, y, z = rotate(conjugate, (a[0], a[1], a[2]))
    return (-x, -y, -z, *conjugate)


def rotate(q: tuple[float, float, float, float], p: tuple[float, float, float]) -> tuple[float, float, float]:
    qx, qy, qz, qw = q
    tx = 2.0 * (qy * p[2] - qz * p[1])
    ty = 2.0 * (qz * p[0] - qx * p[2])
    tz = 2.0 * (qx * p[1] - qy * p[0])
    return (
        p[0] + qw * tx + qy * tz - qz * ty,
        p[1] + qw * ty + qz * tx - qx * tz,
        p[2] + qw * tz + qx * ty - qy * tx,
    )


def interpolate(a: Rigid, b: Rigid, ratio: float) -> Rigid:
    """Linear in position, spherical the short way round in rotation (Shoemake 1985), as tf2 does."""
    dot = a[3] * b[3] + a[4] * b[4] + a[5] * b[5] + a[6] * b[6]
    sign = -1.0 if dot < 0.0 else 1.0
    angle = math.acos(min(1.0, abs(dot)))
    if angle < 1e-9:
        wa, wb = 1.0 - ratio, ratio
    else:
        wa = math.sin((1.0 - ratio) * angle) / math.sin(angle)
        wb = math.sin(ratio * angle) / math.sin(angle)
    wb *= sign
    q = [wa * a[i] + wb * b[i] for i in range(3, 7)]
    norm = math.sqrt(sum(c * c for c in q))
    x, y, z = ((1.0 - ratio) * a[i] + ratio * b[i] for i in range(3))
    return (x, y, z, q[0] / norm, q[1] / norm, q[2] / norm, q[3] / norm)
