"""Things that can be touched: each shape of the table as convex pieces for physics.

A mesh as it is would collide as its convex hull, and a bowl would be a lump. So walls of hollow things are made of
slabs around the axis, and slender ones of slices; everything else is its hull.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import mujoco
import numpy as np

from molmo_ros.sim.objects import Shape

_WALLS = 16
_FRICTION = (0.9, 0.005, 0.0001)
_HOLLOW_KG = {"mug": 0.20, "bowl": 0.15, "cup": 0.06, "ring": 0.05, "plate": 0.20}
_KG_PER_M3 = 450.0
_LEAST_KG, _MOST_KG = 0.03, 0.25

# (radius, height) of the outer profile and the wall's thickness, relative to the shape's radius and height.
_PROFILES = {
    "mug": ((1.0, 0.0), (1.0, 1.0)),
    "bowl": ((0.45, 0.0), (0.86, 0.28), (1.0, 1.0)),
    "cup": ((0.75, 0.0), (1.0, 1.0)),
}
_WALL_M = {"mug": 0.0036, "bowl": 0.0034, "cup": 0.0025}


def mass_kg(shape: Shape) -> float:
    """What such a thing weighs, within what a small arm lifts."""
    if shape.kind in _HOLLOW_KG:
        return _HOLLOW_KG[shape.kind]
    return float(np.clip(_KG_PER_M3 * shape.bulk_m**3, _LEAST_KG, _MOST_KG))


def add_solid(body: mujoco.MjsBody, spec: mujoco.MjSpec, shape: Shape, name: str) -> None:
    """Gives a body the pieces of a shape, whose masses add up to `mass_kg`."""
    pieces = list(_pieces(shape, spec, name))
    for i, piece in enumerate(pieces):
        body.add_geom(
            name=f"{name}/{i}",
            mass=mass_kg(shape) / len(pieces),
            friction=_FRICTION,
            condim=4,
            solref=[0.01, 1.0],
            **piece,
        )


def _pieces(shape: Shape, spec: mujoco.MjSpec, name: str) -> Iterator[dict[str, object]]:
    if shape.tipped:
        yield _hull(spec, name, shape.mesh.vertices_V3)
    elif shape.kind == "ball":
        yield {
            "type": mujoco.mjtGeom.mjGEOM_SPHERE,
            "size": [shape.radius_m, 0, 0],
            "pos": [0, 0, shape.radius_m],
        }
    elif shape.kind == "ring":
        tube = shape.height_m / 2
        yield from _torus(shape.radius_m - tube, tube)
    elif shape.kind in _PROFILES:
        yield from _vessel(shape)
    elif shape.kind == "bottle":
        yield from _slices(spec, name, shape.mesh.vertices_V3, (0.0, 0.6, 0.8, 1.0))
    else:
        yield _hull(spec, name, shape.mesh.vertices_V3)


def _torus(middle_m: float, tube_m: float) -> Iterator[dict[str, object]]:
    turns = np.linspace(0, 2 * np.pi, _WALLS + 1)
    points = np.stack([middle_m * np.cos(turns), middle_m * np.sin(turns), np.full_like(turns, tube_m)], 1)
    for start, end in pairwise(points):
        yield {
            "type": mujoco.mjtGeom.mjGEOM_CAPSULE,
            "size": [tube_m, 0, 0],
            "fromto": [*start, *end],
        }


def _vessel(shape: Shape) -> Iterator[dict[str, object]]:
    """A floor and walls of slabs around the axis; a mug's handle of capsules."""
    wall = _WALL_M[shape.kind]
    profile = [(shape.radius_m * r, shape.height_m * z) for r, z in _PROFILES[shape.kind]]
    yield {
        "type": mujoco.mjtGeom.mjGEOM_CYLINDER,
        "size": [profile[0][0], 0.0025, 0],
        "pos": [0, 0, 0.0025],
    }
    for (r0, z0), (r1, z1) in pairwise(profile):
        slope = np.arctan2(r1 - r0, z1 - z0)
        length = np.hypot(r1 - r0, z1 - z0)
        middle = (r0 + r1) / 2 - wall / 2 * np.cos(slope)
        width = np.pi * max(r0, r1) / _WALLS
        for k in range(_WALLS):
            around = 2 * np.pi * k / _WALLS
            R = _about_z(around) @ _about_y(slope)
            quat = np.zeros(4)
            mujoco.mju_mat2Quat(quat, R.ravel())
            yield {
                "type": mujoco.mjtGeom.mjGEOM_BOX,
                "size": [wall / 2, width, length / 2],
                "pos": [
                    middle * np.cos(around),
                    middle * np.sin(around),
                    (z0 + z1 + wall * np.sin(slope)) / 2,
                ],
                "quat": quat,
            }
    if shape.kind == "mug":
        turns = np.linspace(-np.pi / 2, np.pi / 2, 6)
        path = np.stack(
            [
                shape.radius_m - wall / 2 + 0.62 * shape.radius_m * np.cos(turns),
                np.zeros(6),
                0.52 * shape.height_m + 0.31 * shape.height_m * np.sin(turns),
            ],
            axis=1,
        )
        for start, end in pairwise(path):
            yield {
                "type": mujoco.mjtGeom.mjGEOM_CAPSULE,
                "size": [0.0052, 0, 0],
                "fromto": [*start, *end],
            }


def _slices(
    spec: mujoco.MjSpec, name: str, vertices_V3: np.ndarray, shares: tuple[float, ...]
) -> Iterator[dict[str, object]]:
    """Hulls of what lies between heights."""
    z = vertices_V3[:, 2] / vertices_V3[:, 2].max()
    for i, (low, high) in enumerate(pairwise(shares)):
        yield _hull(spec, f"{name}_{i}", vertices_V3[(z >= low - 1e-3) & (z <= high + 1e-3)])


def _hull(spec: mujoco.MjSpec, name: str, vertices_V3: np.ndarray) -> dict[str, object]:
    mesh = spec.add_mesh(name=name, uservert=vertices_V3.astype(np.float32).ravel(), maxhullvert=48)
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    return {"type": mujoco.mjtGeom.mjGEOM_MESH, "meshname": name}


def _about_z(angle_rad: float) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def _about_y(angle_rad: float) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
