"""Triangle meshes made by revolving and sweeping, with exact normals (metres; z up; standing on z = 0).

Every function gives a `Mesh`; normals are known from the construction, so that round things look round with
few triangles and flat faces stay flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """Vertices (V, 3) in metres, unit normals (V, 3) and counter-clockwise triangles (F, 3)."""

    vertices_V3: FloatArray
    normals_V3: FloatArray
    faces_F3: NDArray[np.int32]


def joined(*parts: Mesh) -> Mesh:
    """One mesh of several parts, each with its own vertices."""
    starts = np.cumsum([0] + [len(part.vertices_V3) for part in parts[:-1]])
    return Mesh(
        np.concatenate([part.vertices_V3 for part in parts]),
        np.concatenate([part.normals_V3 for part in parts]),
        np.concatenate([part.faces_F3 + start for part, start in zip(parts, starts, strict=True)]).astype(
            np.int32
        ),
    )


def rounded_profile(
    corners: list[tuple[float, float, float]], steps: int = 4
) -> tuple[FloatArray, FloatArray]:
    """A polyline in the (radius, z) half-plane with filleted corners.

    `corners` are (radius_m, z_m, fillet_m), walked so that the outside lies to the right: along the bottom
    away from the axis, then up. Returns points (N, 2) and outward normals (N, 2).
    """
    corner_points = np.array([corner[:2] for corner in corners])
    points: list[FloatArray] = [corner_points[0]]
    normals: list[FloatArray] = []

    def right_of(direction: FloatArray) -> FloatArray:
        return np.array([direction[1], -direction[0]])

    directions = np.diff(corner_points, axis=0)
    lengths = np.linalg.norm(directions, axis=1)
    directions = directions / lengths[:, None]
    normals.append(right_of(directions[0]))
    for i in range(1, len(corners) - 1):
        before, after = directions[i - 1], directions[i]
        turn = float(np.arctan2(before[0] * after[1] - before[1] * after[0], before @ after))
        tangent = corners[i][2] * np.tan(abs(turn) / 2)
        tangent = min(tangent, 0.49 * lengths[i - 1], 0.49 * lengths[i])
        start, end = corner_points[i] - tangent * before, corner_points[i] + tangent * after
        if tangent < 1e-6:  # a sharp corner: the vertex twice, once with each face's normal
            points += [corner_points[i], corner_points[i]]
            normals += [right_of(before), right_of(after)]
            continue
        radius = tangent / np.tan(abs(turn) / 2)
        side = np.sign(turn)
        centre = start - side * radius * right_of(before)
        for k in range(steps + 1):
            angle = turn * k / steps
            rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            normal = rotation @ right_of(before)
            points.append(centre + side * radius * normal if k < steps else end)
            normals.append(normal)
    points.append(corner_points[-1])
    normals.append(right_of(directions[-1]))
    return np.array(points), np.array(normals)


def arc_profile(
    centre: tuple[float, float], radius_m: float, from_rad: float, to_rad: float, steps: int
) -> tuple[FloatArray, FloatArray]:
    """An arc in the (radius, z) half-plane, counter-clockwise; points (N, 2) and outward normals (N, 2)."""
    angle = np.linspace(from_rad, to_rad, steps + 1)
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.array(centre) + radius_m * normals, normals


def revolved(points_N2: FloatArray, normals_N2: FloatArray, around: int = 32) -> Mesh:
    """The surface made by turning a profile around the z axis, in `around` steps."""
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def turned(rz_N2: FloatArray) -> FloatArray:
        r, z = rz_N2[:, 0][None], rz_N2[:, 1][None]
        return np.stack([r * cos, r * sin, np.broadcast_to(z, (around, len(rz_N2)))], axis=-1).reshape(-1, 3)

    faces = _grid_faces(around, len(points_N2), wrap_rows=True)
    return _without_slivers(Mesh(turned(points_N2), turned(normals_N2), faces))


def swept_tube(
    path_N3: FloatArray, radius_m: float | FloatArray, around: int = 10, flatten: float = 1.0
) -> Mesh:
    """A tube of circular (with `flatten`, elliptic) section along a path in a plane of constant y.

    `radius_m` is one radius, or one for each point of the path, as it tapers. The ends stay open.
    """
    tangent = np.gradient(path_N3, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.broadcast_to(np.array([0.0, 1.0, 0.0]), path_N3.shape)
    outward = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)[None, :, None]
    across = np.cos(angle) * outward[:, None] + np.sin(angle) * flatten * side[:, None]
    normals = np.cos(angle) * outward[:, None] + np.sin(angle) / flatten * side[:, None]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    vertices = path_N3[:, None] + np.reshape(radius_m, (-1, 1, 1)) * across
    faces = _grid_faces(len(path_N3), around, wrap_columns=True)
    mesh = Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), faces)
    return _facing_outward(mesh)


def rounded_box(size_m: tuple[float, float, float], edge_m: float, steps: int = 3) -> Mesh:
    """A box standing on z = 0 with rounded edges of radius `edge_m`."""
    half = np.array(size_m) / 2
    inner = half - edge_m
    bend = np.tan(np.linspace(np.pi / 4, 0, steps + 1))  # 1 at the edge, 0 where the flat begins
    parts = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            along = [
                np.concatenate([-(inner[a] + edge_m * bend), (inner[a] + edge_m * bend)[::-1]])
                for a in (u, v)
            ]
            grid = np.empty((len(along[0]), len(along[1]), 3))
            grid[..., u], grid[..., v] = along[0][:, None], along[1][None]
            grid[..., axis] = sign * half[axis]
            core = np.clip(grid, -inner, inner)
            normals = grid - core
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
            vertices = core + edge_m * normals + np.array([0, 0, half[2]])
            faces = _grid_faces(*grid.shape[:2])
            parts.append(_facing_outward(Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), faces)))
    return joined(*parts)


def extruded(outline_N2: FloatArray, height_m: float, seen_from: tuple[float, float] = (0.0, 0.0)) -> Mesh:
    """A prism standing on z = 0 over a counter-clockwise outline, with sharp edges.

    `seen_from` is a point that sees all of the outline, from which both caps are fanned out.
    """
    outline = np.asarray(outline_N2, dtype=np.float64)
    count = len(outline)
    after = np.roll(outline, -1, axis=0)
    along = after - outline
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    corners = np.stack([outline, after, after, outline], axis=1)
    z = np.broadcast_to(np.array([0.0, 0.0, height_m, height_m]), (count, 4))
    sides = Mesh(
        np.concatenate([corners, z[..., None]], axis=2).reshape(-1, 3),
        np.repeat(np.concatenate([outward, np.zeros((count, 1))], axis=1), 4, axis=0),
        (np.arange(count)[:, None, None] * 4 + np.array([[0, 1, 2], [0, 2, 3]]))
        .reshape(-1, 3)
        .astype(np.int32),
    )
    around = np.arange(count)
    fan = np.stack([np.full(count, count), around, (around + 1) % count], axis=1).astype(np.int32)
    caps = []
    for z_m, up in ((0.0, -1.0), (height_m, 1.0)):
        points = np.concatenate([outline, [seen_from]])
        vertices = np.concatenate([points, np.full((count + 1, 1), z_m)], axis=1)
        normals = np.broadcast_to(np.array([0.0, 0.0, up]), vertices.shape).copy()
        caps.append(_facing_outward(Mesh(vertices, normals, fan)))
    return joined(_facing_outward(sides), *caps)


def turned(mesh: Mesh, axis: tuple[float, float, float], angle_rad: float) -> Mesh:
    """The mesh turned about an axis through the origin (right-handed)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    R = np.eye(3) + np.sin(angle_rad) * cross + (1 - np.cos(angle_rad)) * cross @ cross
    return Mesh(mesh.vertices_V3 @ R.T, mesh.normals_V3 @ R.T, mesh.faces_F3)


def moved(mesh: Mesh, by_m: FloatArray | tuple[float, float, float]) -> Mesh:
    """The mesh shifted."""
    return Mesh(mesh.vertices_V3 + np.asarray(by_m), mesh.normals_V3, mesh.faces_F3)


def _grid_faces(
    rows: int, columns: int, wrap_rows: bool = False, wrap_columns: bool = False
) -> NDArray[np.int32]:
    """Two triangles for every cell of a grid of vertices numbered row by row."""
    row = np.arange(rows if wrap_rows else rows - 1)[:, None]
    column = np.arange(columns if wrap_columns else columns - 1)[None]
    a = row * columns + column
    b = (row + 1) % rows * columns + column
    c = (row + 1) % rows * columns + (column + 1) % columns
    d = row * columns + (column + 1) % columns
    return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3).astype(np.int32)


def _face_normals(mesh: Mesh) -> FloatArray:
    a, b, c = (mesh.vertices_V3[mesh.faces_F3[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _without_slivers(mesh: Mesh) -> Mesh:
    """Drops the triangles without area that a profile's points on the axis make."""
    keep = np.linalg.norm(_face_normals(mesh), axis=1) > 1e-12
    return _facing_outward(Mesh(mesh.vertices_V3, mesh.normals_V3, mesh.faces_F3[keep]))


def _facing_outward(mesh: Mesh) -> Mesh:
    """Turns the triangles whose winding disagrees with their vertices' normals."""
    wrong = (_face_normals(mesh) * mesh.normals_V3[mesh.faces_F3].sum(axis=1)).sum(axis=1) < 0
    faces = mesh.faces_F3.copy()
    faces[wrong] = faces[wrong][:, ::-1]
    return Mesh(mesh.vertices_V3, mesh.normals_V3, faces)
