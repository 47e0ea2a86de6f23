"""The kinds of things that lie on the table, each in several household sizes.

Everything is made from a few numbers (no asset files): 3 to 9 cm across, bottles and cartons up to 16 cm high,
plates and lying things longer. Which world has which kinds stands in `worlds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from molmo_ros.sim import clutter, household
from molmo_ros.sim.colours import RGB
from molmo_ros.sim.household import Parts
from molmo_ros.sim.meshes import (
    Mesh,
    arc_profile,
    joined,
    moved,
    revolved,
    rounded_box,
    rounded_profile,
    swept_tube,
    turned,
)

#: The kinds of the first world.
KINDS = ("cube", "ball", "cylinder", "cone", "ring", "mug", "bowl", "bottle")

#: Kinds that also lie on their side.
TIPPING = ("box", "cone", "mug", "cup", "bottle", "can", "carton")

SIZES_PER_KIND = 6

#: Where the slim and the stout take turns, so that size alone does not tell proportions.
_STOUT = (0.0, 1.0, 0.5, 1.0, 0.0, 0.5)


@dataclass(frozen=True)
class Shape:
    """One size of one kind, resting on z = 0 around the z axis, upright or `tipped` onto its side.

    `radius_m` is the footprint's half width (without a mug's handle); `reach_m` holds everything, handle
    included. `half_m` is half the footprint along x and y, for what is longer than wide, else None.
    `bulk_m` says how large it is, whichever way it lies: the geometric mean of its three extents. `accent` is
    the part in a colour of its own.
    """

    kind: str
    variant: int
    mesh: Mesh
    radius_m: float
    reach_m: float
    height_m: float
    bulk_m: float
    half_m: tuple[float, float] | None = None
    tipped: bool = False
    accent: Mesh | None = None
    accent_rgb: RGB = household.STEEL

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.variant}" + ("_tipped" if self.tipped else "")


@cache
def shape_of(kind: str, variant: int, tipped: bool = False) -> Shape:
    """One shape. Raises KeyError for a kind that there is not, ValueError for one that does not lie on its side."""
    if tipped and kind not in TIPPING:
        raise ValueError(f"a {kind} does not lie on its side; {', '.join(TIPPING)} do")
    grow = variant / (SIZES_PER_KIND - 1)
    parts = _BUILDERS[kind](grow, _STOUT[variant])
    if isinstance(parts, Mesh):
        parts = Parts(parts)
    if tipped:
        parts = _tipped(kind, variant, parts)
    low, high = _bounds(parts)
    radial = np.linalg.norm(_vertices(parts)[:, :2], axis=1)
    reach = float(radial.max())
    radius = reach if kind != "mug" or tipped else float(-parts.body.vertices_V3[:, 0].min())
    half = (high - low)[:2] / 2
    return Shape(
        kind,
        variant,
        parts.body,
        radius,
        reach,
        float(high[2]),
        bulk_m=float(np.prod(high - low) ** (1 / 3)),
        half_m=(float(half[0]), float(half[1])) if half.max() > 1.25 * half.min() and kind != "mug" else None,
        tipped=tipped,
        accent=parts.accent,
        accent_rgb=parts.accent_rgb,
    )


def shapes_of(kind: str) -> tuple[Shape, ...]:
    """The sizes of one kind, small to large, upright."""
    return tuple(shape_of(kind, variant) for variant in range(SIZES_PER_KIND))


def all_shapes(kinds: tuple[str, ...] = KINDS, tipping: bool = False) -> tuple[Shape, ...]:
    """Every kind in every size, in the order of `kinds`; with `tipping` also as they lie on their side."""
    upright = [shape for kind in kinds for shape in shapes_of(kind)]
    lying = [shape_of(s.kind, s.variant, tipped=True) for s in upright if tipping and s.kind in TIPPING]
    return (*upright, *lying)


def _tipped(kind: str, variant: int, parts: Parts) -> Parts:
    """The same thing after it fell over: at rest on its side, its middle over the origin."""
    low, high = _bounds(parts)
    lean, roll = 0.0, 0.0
    if kind in ("cone", "cup"):  # which rest along their slanting side
        at_foot = parts.body.vertices_V3[:, 2] < 0.05 * high[2]
        foot = float(np.linalg.norm(parts.body.vertices_V3[at_foot, :2], axis=1).max())
        top = 0.001 if kind == "cone" else high[0]
        lean = float(np.arctan2(foot - top, high[2]))
    elif kind == "mug":  # rolled until the handle stops it, or halfway there
        roll = np.radians(90 + (38, 15, -20, 38, 0, 25)[variant])

    def laid(mesh: Mesh) -> Mesh:
        return turned(turned(mesh, (0, 0, 1), roll), (0, 1, 0), np.pi / 2 + lean)

    if kind == "box":  # onto its long narrow side
        body, accent = (
            turned(parts.body, (1, 0, 0), np.pi / 2),
            parts.accent and turned(parts.accent, (1, 0, 0), np.pi / 2),
        )
    else:
        body, accent = laid(parts.body), parts.accent and laid(parts.accent)
    low, high = _bounds(Parts(body, accent))
    back = (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2])
    return Parts(moved(body, back), accent and moved(accent, back), parts.accent_rgb)


def _vertices(parts: Parts) -> np.ndarray:
    meshes = [parts.body] if parts.accent is None else [parts.body, parts.accent]
    return np.concatenate([mesh.vertices_V3 for mesh in meshes])


def _bounds(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    vertices = _vertices(parts)
    return vertices.min(axis=0), vertices.max(axis=0)


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


_BUILDERS: dict[str, Callable[[float, float], Mesh | Parts]] = {
    "cube": _cube,
    "ball": _ball,
    "cylinder": _cylinder,
    "cone": _cone,
    "ring": _ring,
    "mug": _mug,
    "bowl": _bowl,
    "bottle": _bottle,
    "box": household.box,
    "cup": household.cup,
    "plate": household.plate,
    "can": household.can,
    "carton": household.carton,
    "banana": household.banana,
    "lemon": household.lemon,
    "screwdriver": household.screwdriver,
    "stapler": household.stapler,
    **clutter.BUILDERS,
}
