"""Things without a name: blocks and odd parts that lie about and are never asked for.

A model that has only seen things with names points at the nearest shape of the right colour. These are there to
be left alone.
"""

from __future__ import annotations

import numpy as np

from molmo_ros.sim.household import STEEL, Parts
from molmo_ros.sim.meshes import (
    FloatArray,
    arc_profile,
    extruded,
    joined,
    moved,
    revolved,
    rounded_box,
    rounded_profile,
    turned,
)


def star(grow: float, stout: float) -> Parts:
    """A five-pointed prism."""
    tip = 0.030 + 0.012 * grow
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, tip, 0.45 * tip)
    return Parts(extruded(_polar(radius, angle), 0.012 + 0.010 * stout))


def ell(grow: float, stout: float) -> Parts:
    """A block in the shape of an L."""
    arm, thick = 0.056 + 0.022 * grow, 0.018 + 0.006 * stout
    outline = np.array([(0, 0), (arm, 0), (arm, thick), (thick, thick), (thick, 0.75 * arm), (0, 0.75 * arm)])
    middle = (arm / 2, 0.375 * arm)
    return Parts(moved(extruded(outline, thick, (thick / 2, thick / 2)), (-middle[0], -middle[1], 0)))


def comb(grow: float, stout: float) -> Parts:
    """A back with three teeth, flat, as a capital E."""
    tooth, long = 0.0085 + 0.002 * stout, 0.052 + 0.020 * grow
    high = 0.016
    reach = 0.6 * long
    back = moved(rounded_box((tooth, long, high), edge_m=0.0015), ((tooth - reach) / 2, 0, 0))
    teeth = [
        moved(rounded_box((reach, tooth, high), edge_m=0.0015), (0, y * (long - tooth) / 2, 0))
        for y in (-1, 0, 1)
    ]
    return Parts(joined(back, *teeth))


def arch(grow: float, stout: float) -> Parts:
    """Half a thick ring, flat, as a capital C."""
    outer, high = 0.032 + 0.012 * grow, 0.018 + 0.008 * stout
    angle = np.linspace(0, 1.1 * np.pi, 15)
    ring = [_polar(np.full(15, r), angle) for r in (outer, 0.55 * outer)]
    parts = []
    for i in range(14):  # no point sees the whole outline, so it is made of blocks
        block = np.array([ring[0][i], ring[0][i + 1], ring[1][i + 1], ring[1][i]])
        parts.append(extruded(block, high, (float(block[:, 0].mean()), float(block[:, 1].mean()))))
    return Parts(moved(joined(*parts), (0, -0.3 * outer, 0)))


def cross(grow: float, stout: float) -> Parts:
    """A plus sign lying flat."""
    half, thick = 0.028 + 0.012 * grow, 0.010 + 0.003 * stout
    corner = np.array([(half, -thick), (half, thick), (thick, thick)])
    outline = []
    for quarter in range(4):
        c, s = np.cos(quarter * np.pi / 2), np.sin(quarter * np.pi / 2)
        outline.append(corner @ np.array([[c, s], [-s, c]]))
    return Parts(extruded(np.concatenate(outline), 0.014 + 0.008 * stout))


def dumbbell(grow: float, stout: float) -> Parts:
    """Two balls on a bar, lying."""
    ball, half = 0.015 + 0.006 * grow, 0.034 + 0.010 * grow
    ends = [
        moved(revolved(*arc_profile((0.0, 0.0), ball, -np.pi / 2, np.pi / 2, 12), 20), (0, 0, z))
        for z in (-half, half)
    ]
    bar = revolved(
        *rounded_profile([(0, -half, 0), (0.35 * ball, -half, 0), (0.35 * ball, half, 0), (0, half, 0)]),
        around=12,
    )
    return Parts(moved(turned(joined(*ends, bar), (0, 1, 0), np.pi / 2), (0, 0, ball)))


def hammer(grow: float, stout: float) -> Parts:
    """A handle in colour with a steel head across it, lying."""
    long, high = 0.10 + 0.03 * grow, 0.020 + 0.004 * stout
    handle = moved(rounded_box((long, 0.016, 0.013), edge_m=0.004), (-0.010, 0, (high - 0.013) / 2))
    head = moved(rounded_box((high, 0.056 + 0.012 * grow, high), edge_m=0.002), (long / 2 - 0.010, 0, 0))
    return Parts(handle, head, STEEL)


def tripod(grow: float, stout: float) -> Parts:
    """Three bars through one middle, as a toy jack."""
    long, thick = 0.050 + 0.016 * grow, 0.010 + 0.003 * stout
    bar = moved(rounded_box((long, thick, thick), edge_m=0.002), (0, 0, -thick / 2))
    bars = joined(bar, turned(bar, (0, 0, 1), np.pi / 2), turned(bar, (0, 1, 0), np.pi / 2))
    # Stood on the ends of three bars: one diagonal of the cube that the bars span points up.
    stood = turned(turned(bars, (1, 0, 0), np.pi / 4), (0, 1, 0), -np.arctan(np.sqrt(0.5)))
    return Parts(moved(stood, (0, 0, -stood.vertices_V3[:, 2].min())))


def _polar(radius_N: FloatArray, angle_N: FloatArray) -> FloatArray:
    return np.stack([radius_N * np.cos(angle_N), radius_N * np.sin(angle_N)], axis=1)


BUILDERS = {
    "star": star,
    "ell": ell,
    "comb": comb,
    "arch": arch,
    "cross": cross,
    "dumbbell": dumbbell,
    "hammer": hammer,
    "tripod": tripod,
}
