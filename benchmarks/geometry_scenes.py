"""Simulated tables with points on their things: what the geometry gets to see, and the truth to judge it by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from molmo_ros.geometry import CameraModel, Frame
from molmo_ros.sim.depth_noise import noisy_depth
from molmo_ros.sim.meshes import Mesh
from molmo_ros.sim.objects import shape_of
from molmo_ros.sim.scene import SceneObject, SceneRecipe
from molmo_ros.sim.tabletop import TabletopScene
from molmo_ros.sim.truth import scene_truth
from molmo_ros.sim.worlds import world_named

SIZE = (640, 480)
# Things that show less than this many pixels are not asked for.
LEAST_PIXELS = 50
SLAB_M = 0.009
SAMPLES_PER_M2 = 4e6
# A top counts as seen when this share of it is.
SEEN_TOP = 0.85
# Kinds whose top has a direction, and those of them that look the same after a quarter turn.
DIRECTED = ("cube", "box", "carton", "stapler")
SQUARE = ("cube", "carton")


@dataclass(frozen=True, eq=False)
class Top:
    """The rectangle around a thing's top slab: `centre_base_m` (2,), sizes and the shorter side's direction.

    `turns_rad`: it looks the same after this turn; None when it has no direction.
    """

    centre_base_m: np.ndarray
    width_m: float
    length_m: float
    height_m: float
    yaw_rad: float
    turns_rad: float | None


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing in view: the pixel nearest to its visible middle and one picked blindly, as (u, v). `top` is None
    where it is hidden or round.
    """

    kind: str
    mask_HW: np.ndarray
    centroid_uv: np.ndarray
    random_uv: np.ndarray
    top: Top | None


@dataclass(frozen=True, eq=False)
class SceneCase:
    """A noisy `frame` and where its camera is; `true_depth_m` (HxW) and `things` are for judging only."""

    frame: Frame
    T_base_camera: np.ndarray
    true_depth_m: np.ndarray
    things: tuple[Thing, ...]


def scene_cases(seeds: range, noise: str, world: str) -> Iterator[SceneCase]:
    """The tables of these seeds, each with six to eight things where they find room."""
    tabletop = TabletopScene(SIZE, SceneRecipe(objects=(6, 8), world=world_named(world)))
    try:
        for seed in seeds:
            rng = np.random.default_rng(seed)
            state = tabletop.reset(seed)
            view = tabletop.render(segmentation=True)
            assert view.ids is not None
            K = state.camera.K(SIZE)
            camera = CameraModel.from_info(width=SIZE[0], height=SIZE[1], k=K, rectified=True)
            T = state.camera.T_base_camera
            depth_m = noisy_depth(view.depth_m, camera.fx, rng, noise)
            objects = {each.id: each for each in state.objects}
            things = []
            for truth in scene_truth(state, view.ids, LEAST_PIXELS):
                rows, columns = np.nonzero(truth.mask_HW & np.isfinite(view.depth_m))
                pick = int(rng.integers(len(rows)))
                thing = Thing(
                    truth.kind,
                    truth.mask_HW,
                    np.array(truth.inside_uv),
                    np.array([columns[pick], rows[pick]], dtype=float),
                    top_of(objects[truth.id], truth.mask_HW, camera, T),
                )
                things.append(thing)
            frame = Frame(view.color, depth_m, camera, stamp_ns=seed, frame_id="camera_color_optical_frame")
            yield SceneCase(frame, T, view.depth_m, tuple(things))
    finally:
        tabletop.close()


def top_of(
    thing: SceneObject, mask_HW: np.ndarray, camera: CameraModel, T_base_camera: np.ndarray
) -> Top | None:
    """The true rectangle around the top slab, from the mesh; None when the camera does not see the top."""
    T = thing.T_base_object
    points = _points_of(thing.kind, thing.variant, thing.tipped) @ T[:3, :3].T + T[:3, 3]
    height = float(points[:, 2].max())
    topmost = points[points[:, 2] > height - 0.002]
    uv = camera.project((topmost - T_base_camera[:3, 3]) @ T_base_camera[:3, :3])
    on_image = (
        (uv[:, 0] > 0) & (uv[:, 0] < camera.width - 1) & (uv[:, 1] > 0) & (uv[:, 1] < camera.height - 1)
    )
    pixels = np.rint(uv[on_image]).astype(int)
    if mask_HW[pixels[:, 1], pixels[:, 0]].sum() < SEEN_TOP * len(uv):
        return None
    slab = points[points[:, 2] > height - SLAB_M, :2].astype(np.float32)
    (x, y), (first, second), degrees = cv2.minAreaRect(slab)
    yaw = np.radians(degrees) + (np.pi / 2 if first > second else 0.0)
    turns = None
    if thing.kind in DIRECTED and not thing.tipped:
        turns = np.pi / 2 if thing.kind in SQUARE else np.pi
    return Top(np.array([x, y]), min(first, second), max(first, second), height, yaw, turns)


@cache
def _points_of(kind: str, variant: int, tipped: bool) -> np.ndarray:
    shape = shape_of(kind, variant, tipped)
    return np.vstack([_on_surface(mesh) for mesh in (shape.mesh, shape.accent) if mesh is not None])


def _on_surface(mesh: Mesh) -> np.ndarray:
    """Points (N, 3) spread over a mesh, its vertices included."""
    corners = mesh.vertices_V3[mesh.faces_F3]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    counts = np.ceil(areas * SAMPLES_PER_M2).astype(int)
    of_face = np.repeat(np.arange(len(corners)), counts)
    a, b = np.random.default_rng(0).random((2, len(of_face), 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    first, second, third = (corners[of_face, n] for n in range(3))
    points: np.ndarray = np.vstack([mesh.vertices_V3, first + a * (second - first) + b * (third - first)])
    return points
