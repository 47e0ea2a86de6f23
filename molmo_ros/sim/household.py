"""More kinds of things, each told from the others by its outline alone: boxes, tableware, fruit, a tool.

`grow` (0..1) takes a thing from its smallest to its largest size, `stout` from slim to stout. Some have a part
in a colour of its own, a can its bright lid, a carton its cap: the colour word means the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmo_ros.sim.colours import RGB
from molmo_ros.sim.meshes import (
    FloatArray,
    Mesh,
    extruded,
    joined,
    moved,
    revolved,
    rounded_box,
    rounded_profile,
    swept_tube,
    turned,
)

STEEL: RGB = (0.74, 0.76, 0.78)
PALE: RGB = (0.93, 0.91, 0.86)
DARK: RGB = (0.10, 0.09, 0.09)
TAPE: RGB = (0.80, 0.67, 0.45)


@dataclass(frozen=True)
class Parts:
    """The mesh that wears the colour, and a second one of `accent_rgb` where the thing has two."""

    body: Mesh
    accent: Mesh | None = None
    accent_rgb: RGB = STEEL


def box(grow: float, stout: float) -> Parts:
    """A parcel: longer than wide, wider than high, with tape around it both ways, so that every side shows some."""
    long = _between(0.078, 0.118, grow)
    wide, high = long * _between(0.58, 0.72, stout), long * _between(0.34, 0.44, stout)
    proud = 0.0007
    along = rounded_box((long + 2 * proud, 0.14 * long, high + 2 * proud), edge_m=0.001)
    across = rounded_box((0.14 * long, wide + 2 * proud, high + 2 * proud), edge_m=0.001)
    tape = moved(joined(along, across), (0, 0, -proud))
    return Parts(rounded_box((long, wide, high), edge_m=0.0025), tape, TAPE)


def cup(grow: float, stout: float) -> Parts:
    """Without a handle, wider at the lip than at the foot."""
    lip = _between(0.032, 0.044, grow)
    foot, high = lip * _between(0.58, 0.64, stout), lip * _between(2.5, 2.2, stout)
    wall = 0.0026
    profile = rounded_profile(
        [
            (0, 0, 0),
            (foot, 0, 0.002),
            (lip, high - 0.005, 0.001),
            (lip + 0.0022, high - 0.004, 0.001),
            (lip + 0.0022, high, 0.0018),
            (lip - wall, high, 0.0012),
            (foot - wall, 0.004, 0.003),
            (0, 0.004, 0),
        ]
    )
    return Parts(revolved(*profile))


def plate(grow: float, stout: float) -> Parts:
    """A flat well inside a wide, rising rim."""
    rim = _between(0.062, 0.092, grow)
    well, high = 0.62 * rim, _between(0.013, 0.018, stout)
    profile = rounded_profile(
        [
            (0, 0, 0),
            (0.58 * rim, 0, 0.002),
            (rim, high, 0.0015),
            (rim - 0.002, high + 0.0015, 0.001),
            (well + 0.006, 0.0065, 0.004),
            (well, 0.0032, 0.003),
            (0, 0.0032, 0),
        ]
    )
    return Parts(revolved(*profile, around=40))


def can(grow: float, stout: float) -> Parts:
    """A drink can: drawn in at both ends, far enough to show its colour from above, with a bright lid and a tab."""
    radius = _between(0.025, 0.034, grow)
    high = radius * _between(3.7, 3.1, stout)
    neck = 0.70 * radius
    body = [
        (neck, 0.002, 0),
        (radius, 0.1 * high, 0.004),
        (radius, 0.84 * high, 0.006),
        (neck, 0.955 * high, 0),
    ]
    rim = [
        (neck, 0.955 * high, 0),
        (neck + 0.0015, high, 0.001),
        (neck - 0.002, high, 0.001),
        (neck - 0.003, high - 0.006, 0.001),
        (0, high - 0.006, 0),
    ]
    foot = [(0, 0.004, 0), (neck - 0.005, 0.004, 0.001), (neck - 0.003, 0, 0.001), (neck, 0.002, 0)]
    tab = moved(rounded_box((0.7 * neck, 0.34 * neck, 0.002), edge_m=0.0008), (0.15 * neck, 0, high - 0.005))
    ends = joined(revolved(*rounded_profile(rim)), revolved(*rounded_profile(foot)), tab)
    return Parts(revolved(*rounded_profile(body)), ends, STEEL)


def carton(grow: float, stout: float) -> Parts:
    """A milk carton: square, with a gabled roof, a fin along the ridge and a screw cap on one slope."""
    side = _between(0.048, 0.068, grow)
    half, wall = side / 2, side * _between(1.5, 1.2, stout)
    ridge = wall + 0.46 * side
    house = np.array([(-half, 0), (half, 0), (half, wall), (0, ridge), (-half, wall)])
    # Drawn in the plane, then stood up: the outline's second axis becomes z, its height runs along y.
    block = turned(moved(extruded(house, side, (0, wall / 2)), (0, 0, -half)), (1, 0, 0), np.pi / 2)
    fin = moved(rounded_box((0.003, 0.98 * side, 0.17 * side), edge_m=0.0008), (0, 0, ridge - 0.002))
    slope = np.arctan2(ridge - wall, half)
    cap = rounded_profile(
        [(0, 0, 0), (0.19 * side, 0, 0), (0.19 * side, 0.13 * side, 0.002), (0, 0.13 * side, 0)]
    )
    tilted = turned(revolved(*cap, around=16), (0, 1, 0), slope)
    return Parts(joined(block, fin), moved(tilted, (0.5 * half, 0, (wall + ridge) / 2)), PALE)


def banana(grow: float, stout: float) -> Parts:
    """Curved, lying on its side, with dark tips."""
    thick = _between(0.0135, 0.0185, grow) * _between(0.95, 1.08, stout)
    bend, span = _between(0.068, 0.088, grow), np.radians(_between(112, 100, stout))
    share = np.linspace(0, 1, 17)
    radius = thick * np.clip(np.sin(np.pi * (0.055 + 0.89 * share)), 0, 1) ** 0.55
    radius[share > 0.9] *= np.interp(share[share > 0.9], (0.9, 1.0), (1.0, 0.72))  # the stalk
    body = swept_tube(_arc(bend, span, share), radius, around=12)
    tips = joined(
        swept_tube(_arc(bend, span, np.linspace(-0.03, 0.03, 4)), 0.36 * thick, around=8),
        swept_tube(_arc(bend, span, np.linspace(0.97, 1.11, 5)), 0.34 * thick, around=8),
    )
    return Parts(_laid_down(body, thick), _laid_down(tips, thick), DARK)


def _arc(bend_m: float, span_rad: float, share: FloatArray) -> FloatArray:
    """Points (N, 3) along an arc in the x-z plane, open towards +z, around the origin."""
    angle = span_rad * (share - 0.5)
    middle = (1 + np.cos(span_rad / 2)) / 2
    return bend_m * np.stack([np.sin(angle), 0 * angle, middle - np.cos(angle)], axis=1)


def _laid_down(mesh: Mesh, thick_m: float) -> Mesh:
    """From the x-z plane onto the table, resting on a side `thick_m` from its middle."""
    return moved(turned(mesh, (1, 0, 0), -np.pi / 2), (0, 0, thick_m))


def lemon(grow: float, stout: float) -> Parts:
    """Long and round, with a nub at both ends, lying."""
    half = _between(0.034, 0.046, grow)
    thick = half * _between(0.60, 0.68, stout)
    t = np.linspace(-1, 1, 45)
    belly = thick * np.sqrt(np.clip(1 - (t / 0.93) ** 2, 0, None))
    nub = 0.24 * thick * np.sqrt(np.clip(1 - ((np.abs(t) - 0.82) / 0.18) ** 2, 0, None))
    radius = np.maximum(belly, nub)
    radius[[0, -1]] = 0.0
    profile = np.stack([radius, half * t], axis=1)
    slope = np.gradient(profile, axis=0)
    normals = np.stack([slope[:, 1], -slope[:, 0]], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Parts(moved(turned(revolved(profile, normals, around=20), (0, 1, 0), np.pi / 2), (0, 0, thick)))


def screwdriver(grow: float, stout: float) -> Parts:
    """A thick grip in colour and a thin steel shaft with a flat tip, lying."""
    grip, shaft = _between(0.066, 0.086, grow), _between(0.060, 0.078, grow)
    thick = _between(0.0125, 0.0165, grow) * _between(0.95, 1.1, stout)
    handle = rounded_profile(
        [
            (0, 0, 0),
            (0.86 * thick, 0, 0.004),
            (thick, 0.35 * grip, 0.02),
            (0.92 * thick, 0.72 * grip, 0.01),
            (0.55 * thick, 0.82 * grip, 0.004),
            (0.72 * thick, 0.93 * grip, 0.003),
            (0.5 * thick, grip, 0.001),
            (0, grip, 0),
        ]
    )
    rod = rounded_profile([(0, grip, 0), (0.0042, grip, 0), (0.0042, grip + shaft, 0), (0, grip + shaft, 0)])
    blade = moved(rounded_box((0.0115, 0.003, 0.016), edge_m=0.0008), (0, 0, grip + shaft - 0.010))
    middle = (grip + shaft + 0.006) / 2

    def lying(mesh: Mesh) -> Mesh:
        return moved(turned(mesh, (0, 1, 0), np.pi / 2), (-middle, 0, thick))

    steel = joined(revolved(*rod, around=12), turned(blade, (0, 0, 1), np.pi / 2))
    return Parts(lying(revolved(*handle, around=20)), lying(steel), STEEL)


def stapler(grow: float, stout: float) -> Parts:
    """A long low base and an arm above it that opens like a beak; no world of the bundled model has it."""
    long, wide = _between(0.092, 0.132, grow), _between(0.024, 0.030, stout)
    base = rounded_box((long, wide, 0.011), edge_m=0.003)
    arm = turned(
        moved(rounded_box((0.94 * long, 0.92 * wide, 0.018), edge_m=0.005), (0.47 * long, 0, 0)),
        (0, 1, 0),
        -0.20,
    )
    hinge = moved(rounded_box((0.2 * long, wide + 0.002, 0.026), edge_m=0.004), (-0.40 * long, 0, 0))
    rail = moved(rounded_box((0.9 * long, 0.6 * wide, 0.004), edge_m=0.001), (0, 0, 0.010))
    return Parts(joined(base, moved(arm, (-0.47 * long, 0, 0.013)), hinge), rail, STEEL)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share
