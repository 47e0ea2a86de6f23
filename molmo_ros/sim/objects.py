"""The kinds of things that lie on the table, each in several household sizes.

Everything is made here from a few numbers (no asset files): 3 to 9 cm across, bottles up to 16 cm high.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from molmo_ros.sim.meshes import Mesh, arc_profile, joined, revolved, rounded_box, rounded_profile, swept_tube

KINDS = ("cube", "ball", "cylinder", "cone", "ring", "mug", "bowl", "bottle")

SIZES_PER_KIND = 6


@dataclass(frozen=True)
class Shape:
    """One size of one kind, standing on z = 0 around the z axis.

    `radius_m` is the footprint's half width (without a mug's handle); `reach_m` holds everything, handle
    included.
    """

    kind: str
    variant: int
    mesh: Mesh
    radius_m: float
    reach_m: float
    height_m: float

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.variant}"


@cache
def all_shapes() -> tuple[Shape, ...]:
    """Every kind in every size, in the order of `KINDS`."""
    return tuple(_shape(kind, variant) for kind in KINDS for variant in range(SIZES_PER_KIND))


@cache
def shapes_of(kind: str) -> tuple[Shape, ...]:
    """The sizes of one kind, small to large."""
    return tuple(shape for shape in all_shapes() if shape.kind == kind)


def _shape(kind: str, variant: int) -> Shape:
    grow = variant / (SIZES_PER_KIND - 1)
    # The slim and the stout take turns, so that size alone does not tell proportions.
    stout = (0.0, 1.0, 0.5, 1.0, 0.0, 0.5)[variant]
    mesh = _BUILDERS[kind](grow, stout)
    radial = np.linalg.norm(mesh.vertices_V3[:, :2], axis=1)
    reach = float(radial.max())
    radius = reach if kind != "mug" else float(-mesh.vertices_V3[:, 0].min())
    return Shape(kind, variant, mesh, radius, reach, float(mesh.vertices_V3[:, 2].max()))


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _cube(grow: float, stout: float) -> Mesh:
    side = _between(0.038, 0.066, grow)
    return rounded_box((side, side, side), edge_m=0.07 * side)


def _ball(grow: float, stout: float) -> Mesh:
    radius = _between(0.020, 0.038, grow)
    return revolved(*arc_profile((0.0, radius), radius, -np.pi / 2, np.pi / 2, steps=16))


def _cylinder(grow: float, stout: float) -> Mesh:
    radius = _between(0.018, 0.029, grow) * _between(0.95, 1.15, stout)
    height = _between(0.052, 0.084, grow) * _between(1.1, 0.8, stout)
    edge = 0.0025
    return revolved(*rounded_profile([(0, 0, 0), (radius, 0, edge), (radius, height, edge), (0, height, 0)]))


def _cone(grow: float, stout: float) -> Mesh:
    radius = _between(0.025, 0.038, grow)
    height = _between(0.058, 0.09, grow) * _between(1.1, 0.9, stout)
    profile = rounded_profile([(0, 0, 0), (radius, 0, 0.002), (0.001, height, 0.0015), (0, height, 0)])
    return revolved(*profile)


def _ring(grow: float, stout: float) -> Mesh:
    tube = _between(0.0065, 0.0105, grow) * _between(0.95, 1.15, stout)
    middle = _between(0.024, 0.035, grow)
    return revolved(*arc_profile((middle, tube), tube, -np.pi / 2, 1.5 * np.pi, steps=16), around=36)


def _mug(grow: float, stout: float) -> Mesh:
    radius = _between(0.028, 0.041, grow) * _between(0.97, 1.03, stout)
    height = _between(0.066, 0.095, grow) * _between(1.05, 0.92, stout)
    wall, lip = 0.0036, 0.0017
    body = revolved(
        *rounded_profile(
            [
                (0, 0, 0),
                (radius, 0, 0.006),
                (radius, height, lip),
                (radius - wall, height, lip),
                (radius - wall, 0.006, 0.008),
                (0, 0.006, 0),
            ]
        )
    )
    turn = np.linspace(-np.pi / 2, np.pi / 2, 13)
    out, up = 0.62 * radius, 0.31 * height
    path = np.stack(
        [radius - wall / 2 + out * np.cos(turn), 0 * turn, 0.52 * height + up * np.sin(turn)], axis=1
    )
    handle = swept_tube(path, radius_m=0.0048, flatten=1.35)
    return joined(body, handle)


def _bowl(grow: float, stout: float) -> Mesh:
    radius = _between(0.035, 0.047, grow)
    height = radius * _between(0.85, 0.65, stout)
    foot = 0.45 * radius
    wall, lip = 0.0034, 0.0016
    bend = 0.75 * height
    profile = rounded_profile(
        [
            (0, 0, 0),
            (foot, 0, 0.001),
            (0.86 * radius, 0.28 * height, bend),
            (radius, height, lip),
            (radius - wall, height, lip),
            (0.86 * radius - wall, 0.32 * height, bend),
            (foot, 0.004, 0.01),
            (0, 0.004, 0),
        ],
        steps=6,
    )
    return revolved(*profile)


def _bottle(grow: float, stout: float) -> Mesh:
    radius = _between(0.021, 0.033, grow) * _between(0.95, 1.05, stout)
    height = _between(0.11, 0.158, grow) * _between(1.01, 0.95, stout)
    neck, cap = 0.34 * radius, 0.44 * radius
    shoulder, collar, cap_z = 0.6 * height, 0.78 * height, 0.87 * height
    profile = rounded_profile(
        [
            (0, 0, 0),
            (radius, 0, 0.004),
            (radius, shoulder, 0.6 * radius),
            (neck, collar, 0.5 * radius),
            (neck, cap_z, 0.0),
            (cap, cap_z, 0.0015),
            (cap, height, 0.002),
            (0, height, 0),
        ],
        steps=5,
    )
    return revolved(*profile)


_BUILDERS = {
    "cube": _cube,
    "ball": _ball,
    "cylinder": _cylinder,
    "cone": _cone,
    "ring": _ring,
    "mug": _mug,
    "bowl": _bowl,
    "bottle": _bottle,
}
