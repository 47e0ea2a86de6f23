"""Which pixels are the thing that is pointed at: everything of it that the camera sees, and nothing else.

Seen from one side a thing falls apart: the near wall of a mug hides its inside, a bottle's cap stands before
its shoulder. Pieces without a step in depth inside them are found in the image (`surfaces.py`); whether two
pieces are one thing is then decided in plan view, looking down on the support, where things that stand beside
each other do not overlap: pieces are one when they touch there, or when they lie near each other at the same
height or one around the other, as the parts of a rim do, and no support is seen between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth import DepthSample
from molmo_ros.geometry.depth_image import check_depth_m
from molmo_ros.geometry.depth_profile import D435, DepthProfile
from molmo_ros.geometry.pose import cross
from molmo_ros.geometry.quantile import quantile
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.geometry.surfaces import connected, link_step_m, stands
from molmo_ros.outcome import Code, PointingError

# Things up to about this size are seen whole.
MOST_EXTENT_M = 0.32
# Pieces smaller than this are flying pixels, and a thing smaller than this has no extent.
SMALLEST_PIECE = 10
SMALLEST_THING = 25
# A pixel is no speck when so many of the 25 around it belong to things too.
COMPANY_OF_25 = 13
# Plan view: cells of this size, pieces touch within one cell, and the gap in a rim is at most this many.
CELL_M = 0.003
RIM_GAP_CELLS = 4
# From above, a thing's upright sides are strips of so many pixels along its top that a step in depth cuts off;
# in plan view they lie under its edge, this share of them within so many cells of it.
SLIVER_PX = 8
SLIVER_CELLS = 1
SLIVER_SHARE = 0.9
SAME_HEIGHT_M = 0.010
# This share of a piece (and at least so many cells) must lie within the gap of the others.
TOUCHING_SHARE = 0.01
TOUCHING_CELLS = 2
MARGIN_CELLS = 6
# Support is seen in a cell with so many pixels of it.
SUPPORT_PIXELS = 2
# Things side by side show this share of support in the strip between them, the parts of a rim less.
SUPPORT_BETWEEN = 0.3
_ALL_AROUND = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class ObjectRegion:
    """The visible part of one thing on a support: `points_cam` (N, 3) metres, and `height_m` (N,) above it.

    `surroundings_cam` (M, 3): the other points that stand near it. `cut_off`: it reaches to the edge of the
    image, or further than was looked, so its extent is unknown.
    """

    points_cam: np.ndarray
    height_m: np.ndarray
    surroundings_cam: np.ndarray
    cut_off: bool


def object_region(
    depth_m: np.ndarray,
    camera: CameraModel,
    support: SupportPlane,
    sample: DepthSample,
    *,
    profile: DepthProfile = D435,
) -> ObjectRegion:
    """The thing on `support` (camera frame) whose surface `depth_at` measured in the same depth image.

    Raises PointingError: BAD_IMAGE for what is no depth image of this camera, NO_DEPTH when the point is on
    the support itself or the thing is too small to have an extent.
    """
    check_depth_m(depth_m, camera)
    half_px = int(
        np.clip(camera.fx * MOST_EXTENT_M / 2 / sample.depth_m, 8, max(camera.width, camera.height))
    )
    row, column = sample.pixel
    left, top = max(column - half_px, 0), max(row - half_px, 0)
    window = depth_m[top : row + half_px + 1, left : column + half_px + 1].astype(np.float32)
    window[~(window > 0) | np.isinf(window)] = np.nan
    xy = camera.normalised_window(left, top, window.shape[1], window.shape[0])
    sigma_z = np.asarray(profile.sigma_z_m(window, camera.fx), dtype=np.float32)
    height, standing = stands(window, xy, sigma_z, camera, support)

    blobs = cv2.connectedComponents(cv2.dilate(standing.astype(np.uint8), np.ones((5, 5), np.uint8)))[1]
    seat = _seat(standing, blobs, row - top, column - left)
    if seat is None:
        raise PointingError(
            Code.NO_DEPTH,
            f"nothing stands on the support at pixel ({column}, {row}); point at a thing, or use the point "
            "itself as the goal",
        )
    blob = standing & (blobs == blobs[seat])
    part = _bounding_slices(blob)
    pieces = connected(window[part], blob[part], link_step_m(sigma_z[part]), None)
    seed = int(pieces[seat[0] - part[0].start, seat[1] - part[1].start])
    axes_23 = _plan_axes(support)
    plan = _PlanView.of(
        pieces, seed, height[part], _points_cam(window[part], xy[part], pieces > 0, camera) @ axes_23.T
    )
    seen_support = _seen_support(standing, blob, part) & np.isfinite(window[part])
    support_plan = _points_cam(window[part], xy[part], seen_support, camera) @ axes_23.T
    joined = plan.joined(seed, support_plan)
    is_joined = np.zeros(int(pieces.max()) + 1, bool)
    is_joined[joined] = True
    thing = is_joined[pieces]
    if np.count_nonzero(thing) < SMALLEST_THING:
        raise PointingError(
            Code.NO_DEPTH,
            f"the thing at pixel ({column}, {row}) shows only {np.count_nonzero(thing)} pixels, too few for "
            f"its extent (needs {SMALLEST_THING}); move the camera nearer",
        )
    return ObjectRegion(
        points_cam=_points_cam(window[part], xy[part], thing, camera),
        height_m=height[part][thing].astype(float),
        surroundings_cam=_surroundings_cam(window, xy, standing, thing, part, plan, joined, axes_23, camera),
        cut_off=_reaches_the_edge(thing, part, window.shape),
    )


def _seat(standing: np.ndarray, blobs: np.ndarray, row: int, column: int) -> tuple[int, int] | None:
    """The pixel of a thing that a pixel belongs to: itself or, in the low middle of a bowl, the nearest around."""
    if standing[row, column]:
        return row, column
    own = standing & (blobs == blobs[row, column])
    if blobs[row, column] == 0:
        hollow = cv2.connectedComponents((blobs == 0).astype(np.uint8), connectivity=4)[1]
        hollow = hollow == hollow[row, column]
        if hollow[0].any() or hollow[-1].any() or hollow[:, 0].any() or hollow[:, -1].any():
            return None
        own = standing
    rows, columns = np.nonzero(own)
    nearest = int(((rows - row) ** 2 + (columns - column) ** 2).argmin())
    return int(rows[nearest]), int(columns[nearest])


@dataclass(frozen=True, eq=False)
class _PlanView:
    """The pieces as seen from above: cells (n, 2) and top height of each, on a grid of `shape`."""

    cells: dict[int, np.ndarray]
    top_m: dict[int, float]
    first_cell: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, pieces: np.ndarray, seed: int, height_m: np.ndarray, plan_m_N2: np.ndarray) -> _PlanView:
        """From labels and heights (h, w) and plan positions of the labelled pixels."""
        label, height = pieces[pieces > 0], height_m[pieces > 0]
        large = np.bincount(label) >= SMALLEST_PIECE
        large[seed] = True
        of_kept = large[label]
        label, height = label[of_kept], height[of_kept]
        kept = np.unique(label)
        cell = np.floor(plan_m_N2[of_kept] / CELL_M).astype(np.int64)
        first = cell.min(axis=0) - MARGIN_CELLS
        cell -= first
        shape = cell.max(axis=0) + 1 + MARGIN_CELLS
        order = np.argsort(label, kind="stable")
        ends = np.searchsorted(label[order], kept, side="right")
        starts = np.searchsorted(label[order], kept, side="left")
        cells, top_m = {}, {}
        for piece, start, end in zip(kept.tolist(), starts, ends, strict=True):
            own = order[start:end]
            flat = np.unique(cell[own] @ [int(shape[1]), 1])
            cells[piece] = np.stack([flat // shape[1], flat % shape[1]], axis=1)
            top_m[piece] = quantile(height[own], 0.95)
        return cls(cells, top_m, first, (int(shape[0]), int(shape[1])))

    def joined(self, seed: int, support_plan_m: np.ndarray) -> list[int]:
        """The pieces that are one thing with `seed`."""
        free = self._free_of_support(support_plan_m)
        taken = [seed]
        grid = np.zeros(self.shape, np.uint8)
        self._paint(grid, seed)
        left = {piece for piece in self.cells if piece != seed}
        while True:
            touching = cv2.dilate(grid, _ALL_AROUND)
            nearby = grid
            for _ in range(RIM_GAP_CELLS):
                nearby = cv2.dilate(nearby, _ALL_AROUND) & (free | grid)
            added = [
                piece
                for piece in left
                if self._reaches(piece, touching)
                or (
                    self._may_be_a_rim(piece, taken)
                    and self._reaches(piece, nearby)
                    and not self._support_between(piece, grid, free)
                )
            ]
            if not added:
                return taken
            for piece in added:
                self._paint(grid, piece)
                left.remove(piece)
            taken += added

    def near(self, pieces: list[int], plan_m_M2: np.ndarray, cells: int) -> np.ndarray:
        """Which positions (M,) in plan view lie in the pieces or within so many cells of them."""
        grid = np.zeros(self.shape, np.uint8)
        for piece in pieces:
            self._paint(grid, piece)
        grid = cv2.dilate(grid, np.ones((2 * cells + 1,) * 2, np.uint8))
        cell = np.floor(plan_m_M2 / CELL_M).astype(np.int64) - self.first_cell
        on_grid = ((cell >= 0) & (cell < self.shape)).all(axis=1)
        near = np.zeros(len(cell), bool)
        near[on_grid] = grid[cell[on_grid, 0], cell[on_grid, 1]] > 0
        return near

    def _paint(self, grid: np.ndarray, piece: int) -> None:
        rows, columns = self.cells[piece].T
        grid[rows, columns] = 1

    def _reaches(self, piece: int, ground: np.ndarray) -> bool:
        rows, columns = self.cells[piece].T
        within = int(np.count_nonzero(ground[rows, columns]))
        return within >= max(TOUCHING_CELLS, TOUCHING_SHARE * len(rows))

    def _support_between(self, piece: int, grid: np.ndarray, free: np.ndarray) -> bool:
        """Whether the strip between a piece and what is taken shows much support: two things side by side."""
        own = np.zeros_like(grid)
        self._paint(own, piece)
        wide = np.ones((2 * RIM_GAP_CELLS - 1,) * 2, np.uint8)
        strip = (cv2.dilate(own, wide) & cv2.dilate(grid, wide)) > (own | grid)
        return bool(strip.any() and (free[strip] == 0).mean() > SUPPORT_BETWEEN)

    def _may_be_a_rim(self, piece: int, taken: list[int]) -> bool:
        """Same height, or one lies around the other in plan view."""
        if any(abs(self.top_m[piece] - self.top_m[other]) < SAME_HEIGHT_M for other in taken):
            return True
        others = np.concatenate([self.cells[other] for other in taken])
        return _surrounds(self.cells[piece], others) or _surrounds(others, self.cells[piece])

    def _free_of_support(self, support_plan_m: np.ndarray) -> np.ndarray:
        """1 in cells in which no support is seen; a single pixel of it is noise, a single missing cell too."""
        cell = np.floor(support_plan_m / CELL_M).astype(np.int64) - self.first_cell
        cell = cell[((cell >= 0) & (cell < self.shape)).all(axis=1)]
        counts = np.bincount(cell @ [self.shape[1], 1], minlength=self.shape[0] * self.shape[1])
        seen = (counts.reshape(self.shape) >= SUPPORT_PIXELS).astype(np.uint8)
        free: np.ndarray = 1 - cv2.morphologyEx(seen, cv2.MORPH_CLOSE, _ALL_AROUND)
        return free


def _surrounds(outer_cells: np.ndarray, inner_cells: np.ndarray) -> bool:
    """Whether the middle of one set of cells lies within the convex hull of another."""
    hull = cv2.convexHull(outer_cells.astype(np.float32))
    middle = inner_cells.mean(axis=0)
    return len(hull) >= 3 and cv2.pointPolygonTest(hull, (float(middle[0]), float(middle[1])), False) >= 0


def _plan_axes(support: SupportPlane) -> np.ndarray:
    """Two unit vectors (2, 3; camera frame) that span the support."""
    normal = support.normal_cam
    first = cross(normal, np.eye(3)[np.abs(normal).argmin()])
    first /= np.linalg.norm(first)
    return np.stack([first, cross(normal, first)])


def _points_cam(depth_m: np.ndarray, xy: np.ndarray, chosen: np.ndarray, camera: CameraModel) -> np.ndarray:
    """Points (N, 3) of the chosen pixels (h, w)."""
    at = np.flatnonzero(chosen)
    points: np.ndarray = np.empty((len(at), 3))
    points[:, 2] = depth_m.ravel()[at]
    np.multiply(xy.reshape(-1, 2)[at], points[:, 2:], out=points[:, :2])
    if camera.rectified:  # no turn, and where rays start only a shift
        points += camera.ray_origin_cam
        return points
    return points @ camera.R_cam_image.T + camera.ray_origin_cam


def _surroundings_cam(
    window: np.ndarray,
    xy: np.ndarray,
    standing: np.ndarray,
    thing: np.ndarray,
    part: tuple[slice, slice],
    plan: _PlanView,
    joined: list[int],
    axes_23: np.ndarray,
    camera: CameraModel,
) -> np.ndarray:
    """Points (M, 3) of what stands and is not the thing, without specks around its outline and its own sides."""
    others = standing.astype(np.uint8)
    others[part][thing] = 0
    neighbours = cv2.boxFilter(others, -1, (5, 5), normalize=False, borderType=cv2.BORDER_CONSTANT)
    mask = (others > 0) & (neighbours >= COMPANY_OF_25)
    points = _points_cam(window, xy, mask, camera)
    own = np.zeros_like(others)
    own[part][thing] = 1
    beside = cv2.dilate(own, np.ones((2 * SLIVER_PX + 1,) * 2, np.uint8))[mask] > 0
    piece = cv2.connectedComponents(mask.astype(np.uint8))[1][mask]
    under_its_edge = plan.near(joined, points[beside] @ axes_23.T, SLIVER_CELLS)
    pixels = np.bincount(piece)
    is_sliver = np.bincount(piece[beside], minlength=len(pixels)) == pixels
    is_sliver &= np.bincount(piece[beside], under_its_edge, len(pixels)) >= SLIVER_SHARE * pixels
    return points[~is_sliver[piece]]


def _bounding_slices(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _seen_support(standing: np.ndarray, blob: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
    """Pixels that are not of things, and not in the hollow of one: a bowl's low floor looks like support."""
    wide = cv2.dilate(np.pad(blob.astype(np.uint8), 4), np.ones((5, 5), np.uint8))
    outside = cv2.connectedComponents(1 - wide, connectivity=4)[1]
    around = cv2.dilate((outside == outside[0, 0]).astype(np.uint8), np.ones((5, 5), np.uint8))[4:-4, 4:-4]
    near_things = cv2.dilate(standing[part].astype(np.uint8), _ALL_AROUND)
    seen: np.ndarray = (around[part] == 1) & (near_things == 0)
    return seen


def _reaches_the_edge(thing: np.ndarray, part: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    rows, columns = np.nonzero(thing)
    top, left = part[0].start, part[1].start
    return bool(
        rows.min() + top == 0
        or columns.min() + left == 0
        or rows.max() + top == shape[0] - 1
        or columns.max() + left == shape[1] - 1
    )
