"""Ground truth of a rendered scene, for training and tests only: nothing that answers may read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmo_ros.sim.scene import SceneState


@dataclass(frozen=True, eq=False)
class ObjectTruth:
    """What is true of one visible thing.

    `centroid_uv` is the middle of the visible mask and `inside_uv` the pixel of the mask nearest to it (the
    two differ for a ring); `centre_uv` is the projected 3D centre; `box_uv` is the visible part's (left, top,
    right, bottom), the outermost pixels included. Pixels of the rendered image, (0, 0) = centre of the top-left
    pixel. `centre_m` is in the base frame, `distance_m` from the camera. `bulk_m`: see `Shape.bulk_m`.
    """

    id: int
    kind: str
    colour: str
    ids_HW: NDArray[np.int32]
    visible_pixels: int
    centroid_uv: tuple[float, float]
    inside_uv: tuple[float, float]
    centre_uv: tuple[float, float]
    centre_m: tuple[float, float, float]
    box_uv: tuple[int, int, int, int]
    distance_m: float
    bulk_m: float

    @property
    def label(self) -> str:
        """Its name in words: "red cube"."""
        return f"{self.colour} {self.kind}"

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """Where the thing is visible."""
        return self.ids_HW == self.id


def scene_truth(state: SceneState, ids_HW: NDArray[np.int32], min_pixels: int = 1) -> tuple[ObjectTruth, ...]:
    """The truth of every thing with at least `min_pixels` visible pixels, in the order of the scene."""
    height, width = ids_HW.shape
    centres_uv = state.camera.project(np.array([o.centre_m for o in state.objects]), (width, height))
    rows_of_all, columns_of_all = np.nonzero(ids_HW)
    ids = ids_HW[rows_of_all, columns_of_all]
    truths = []
    for thing, centre_uv in zip(state.objects, centres_uv, strict=True):
        here = ids == thing.id
        rows, columns = rows_of_all[here], columns_of_all[here]
        if len(rows) < max(min_pixels, 1):
            continue
        u, v = float(columns.mean()), float(rows.mean())
        nearest = int(np.argmin((columns - u) ** 2 + (rows - v) ** 2))
        truths.append(
            ObjectTruth(
                thing.id,
                thing.kind,
                thing.colour,
                ids_HW,
                len(rows),
                (u, v),
                (float(columns[nearest]), float(rows[nearest])),
                (float(centre_uv[0]), float(centre_uv[1])),
                thing.centre_m,
                (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())),
                float(np.linalg.norm(state.camera.T_base_camera[:3, 3] - thing.centre_m)),
                thing.shape.bulk_m,
            )
        )
    return tuple(truths)
