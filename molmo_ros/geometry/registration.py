"""Depth from a depth camera's own image into the colour image: other lens, other resolution, other place.

Every depth pixel is a small patch; the rectangle of colour pixels between two of its corners gets its depth,
measured from the colour camera, and where patches overlap the nearest wins, so that what colour does not see
does not shine through. That is what depth_image_proc's register node does with `fill_upsampling_holes`, and
the result is the same pixel by pixel, but that patches which reach over the image's edge are kept as far as
they are on it.

Written for speed: where a surface goes on from patch to patch it does not matter whether one ends a pixel
earlier or later. There all patches are drawn as squares of one size, by a minimum filter over their first
corners; only those at the edges of surfaces are drawn pixel by pixel. Depth may thus differ from
depth_image_proc's by the step to the neighbouring pixel of the same surface, at most one percent.
"""

from __future__ import annotations

import cv2
import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth_image import check_depth_m
from molmo_ros.geometry.pose import check_rigid

# Patches larger than this many colour pixels are cut: the depth camera is far coarser, or the thing touches it.
LARGEST_PATCH = 12
# Around the image, room for what reaches over its edge, and for what is not seen at all (the first cell).
BORDER = LARGEST_PATCH + 1
# Nearer to the colour camera than this nothing is seen.
NEAREST_M = 0.01
# The table of the lens: so many entries, even in radius squared, up to here where the lens sees that far.
LENS_ENTRIES = 32768
LARGEST_R2 = 25.0
# Directions that the lens does not know go this much too far, and nothing on an image is so far from its middle.
OFF_IMAGE = 1e6
FURTHEST_PX = 2e4
# The usual size of a patch is that of so many.
SAMPLED = 4000
# A neighbour that is further away by no more than this share is the same surface.
SAME_SURFACE = 0.01
# Pixels worked on at once, so that they stay in the processor's cache.
BLOCK = 32768


class DepthRegistration:
    """Registers the depth images of one pair of cameras; made once, used for every frame, by one thread.

    `T_color_depth` (4x4) takes points of the depth camera's frame to the colour camera's. With
    `fill_upsampling_holes` off every depth pixel is one colour pixel.
    Raises PointingError(TF_UNAVAILABLE) for a transform that is not rigid.
    """

    def __init__(
        self,
        depth_camera: CameraModel,
        color_camera: CameraModel,
        T_color_depth: np.ndarray,
        *,
        fill_upsampling_holes: bool = True,
    ) -> None:
        check_rigid("T_color_depth", T_color_depth)
        self._depth_camera = depth_camera
        self._color_camera = color_camera
        offsets_px = (-0.5, 0.5) if fill_upsampling_holes else (0.0,)
        self._corners = [_Corner(depth_camera, color_camera, T_color_depth, offset) for offset in offsets_px]
        self._known = np.logical_and.reduce([corner.known for corner in self._corners])
        self._lens = None if color_camera.undistorted else _QuickLens(color_camera)
        self._shape = depth_camera.height, depth_camera.width
        self._canvas = np.empty(
            (color_camera.height + 2 * BORDER, color_camera.width + 2 * BORDER), np.float32
        )

    def registered(self, depth_m: np.ndarray) -> np.ndarray:
        """Depth (float32 metres, of the colour image's size, NaN = not seen) from the depth camera's image.

        Raises PointingError(BAD_IMAGE) for what is no depth image of the depth camera.
        """
        check_depth_m(depth_m, self._depth_camera)
        z = depth_m.astype(np.float32).ravel()
        seen = (z > 0) & (z < np.inf) & self._known
        z[~seen] = 0.0
        depth, cell = np.empty_like(z), np.empty(z.size, np.intp)
        columns, rows = (
            _Spans(z.size, size) for size in (self._color_camera.width, self._color_camera.height)
        )
        for start in range(0, z.size, BLOCK):
            block = slice(start, start + BLOCK)
            corners = [self._projected(corner, z, block) for corner in self._corners]
            (u1, v1, depth1), (u2, v2, depth2) = corners[0], corners[-1]
            np.add(depth1, depth2, out=depth[block])
            columns.put(block, u1, u2, seen)
            rows.put(block, v1, v2, seen)
            cell[block] = rows.first[block]
            cell[block] *= self._canvas.shape[1]
            cell[block] += columns.first[block]
        depth *= np.float32(0.5)
        seen &= depth > NEAREST_M
        return self._drawn(columns, rows, cell, depth, seen)

    def _projected(
        self, corner: _Corner, z: np.ndarray, block: slice
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour pixels (u, v) of a corner of each patch of a block, and its depth there."""
        x, y, depth = (
            z[block] * part[block] + off for part, off in zip(corner.rays, corner.shift, strict=True)
        )
        scale = 1.0 / np.maximum(depth, np.float32(NEAREST_M))
        x *= scale
        y *= scale
        return (x, y, depth) if self._lens is None else (*self._lens.pixels(x, y), depth)

    def _drawn(
        self, columns: _Spans, rows: _Spans, first: np.ndarray, depth: np.ndarray, seen: np.ndarray
    ) -> np.ndarray:
        """The canvas with every patch on it, the nearest on top; `first`: the cell that each begins at."""
        canvas = self._canvas
        canvas.fill(np.inf)
        sides = columns.usual_length(seen), rows.usual_length(seen)
        plain = seen.copy()
        for axis, spans, side in ((1, columns, sides[0]), (0, rows, sides[1])):
            plain &= np.abs(spans.length - np.int8(side)) <= 1
            plain &= self._goes_on(spans, depth, seen, axis)
        flat = canvas.reshape(-1)
        flat[first] = plain_depth = np.where(plain, depth, np.float32(np.inf))
        hidden = np.flatnonzero(plain_depth < flat[first])
        _put_nearest(flat, first[hidden], depth[hidden])
        square = np.ones(sides[::-1], np.uint8)
        canvas = cv2.erode(canvas, square, anchor=(sides[0] - 1, sides[1] - 1))

        flat = canvas.reshape(-1)
        others = np.flatnonzero(seen & ~plain)
        first, depth = first[others], depth[others]
        width, height = columns.length[others], rows.length[others]
        for down in range(int(height.max(initial=0))):
            for across in range(int(width.max(initial=0))):
                some = (width > across) & (height > down)
                _put_nearest(flat, first[some] + (down * canvas.shape[1] + across), depth[some])
        image = canvas[BORDER:-BORDER, BORDER:-BORDER]
        return np.where(image < np.inf, image, np.float32(np.nan))

    def _goes_on(self, span: _Spans, depth: np.ndarray, seen: np.ndarray, axis: int) -> np.ndarray:
        """Patches (N,) whose next neighbour touches them and is of the same surface, or before it."""
        first, last = span.first.reshape(self._shape), span.last.reshape(self._shape)
        deep, there_seen = depth.reshape(self._shape), seen.reshape(self._shape)
        here, there = (np.s_[:, :-1], np.s_[:, 1:]) if axis else (np.s_[:-1], np.s_[1:])
        goes_on = np.zeros(self._shape, bool)
        goes_on[here] = (first[there] <= last[here] + 1) & (last[there] > last[here]) & there_seen[there]
        goes_on[here] &= deep[there] < deep[here] * np.float32(1 + SAME_SURFACE)
        return goes_on.ravel()


class _Corner:
    """One corner of every depth pixel, as seen by the colour camera.

    At depth z it is seen at ((z a + d) / (z c + f), (z b + e) / (z c + f)) and is z c + f deep, with `rays` =
    a, b, c (each N) and `shift` = d, e, f. That is a pixel, or, for a lens that distorts, the undistorted
    direction. `known` (N,): within the depth lens's monotonic region.
    """

    def __init__(
        self,
        depth_camera: CameraModel,
        color_camera: CameraModel,
        T_color_depth: np.ndarray,
        offset_px: float,
    ) -> None:
        rows, columns = np.mgrid[: depth_camera.height, : depth_camera.width]
        rays = depth_camera.rays(np.column_stack([columns.ravel(), rows.ravel()]) + offset_px)
        self.known: np.ndarray = np.isfinite(rays).all(axis=1)
        R, t = T_color_depth[:3, :3], T_color_depth[:3, 3]
        to_image = color_camera.R_cam_image.T
        if color_camera.undistorted:
            to_image = color_camera.pinhole @ to_image
        origin = R @ depth_camera.ray_origin_cam + t - color_camera.ray_origin_cam
        turned = np.where(self.known[:, None], rays, 0.0) @ (to_image @ R).T
        self.rays = tuple(np.ascontiguousarray(part) for part in turned.T.astype(np.float32))
        self.shift = tuple((to_image @ origin).astype(np.float32))


class _QuickLens:
    """The colour camera's distortion from a table, to a few hundredths of a pixel."""

    def __init__(self, camera: CameraModel) -> None:
        corners = [[u, v] for u in (-1.0, camera.width) for v in (-1.0, camera.height)]
        outermost = camera.normalised(np.array(corners))
        largest_r2 = np.nanmax(np.append((outermost**2).sum(axis=1), 0.0))
        largest_r2 = 1.5 * largest_r2 if np.isfinite(outermost).all() else LARGEST_R2
        self._entries_per_r2 = np.float32(LENS_ENTRIES / largest_r2)
        gain = camera.lens.radial_gain((np.arange(LENS_ENTRIES) + 0.5) / self._entries_per_r2)
        self._gain = np.append(np.nan_to_num(gain, nan=OFF_IMAGE), OFF_IMAGE).astype(np.float32)
        self._off_axis = camera.lens.off_axis
        self._pinhole = camera.pinhole.astype(np.float32)

    def pixels(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N,) of undistorted directions."""
        r2 = x * x + y * y
        gain = self._gain.take((r2 * self._entries_per_r2).astype(np.intp), mode="clip")
        bent_x, bent_y = x * gain, y * gain
        p1, p2, s1, s2, s3, s4 = (np.float32(value) for value in self._off_axis)
        if p1 or p2:
            # p1 2xy + p2 (r2 + 2 x2) and p1 (r2 + 2 y2) + p2 2xy
            turned = (2 * p1) * y + (2 * p2) * x
            bent_x += turned * x + p2 * r2
            bent_y += turned * y + p1 * r2
        if s1 or s2 or s3 or s4:
            bent_x += r2 * (s1 + r2 * s2)
            bent_y += r2 * (s3 + r2 * s4)
        (fx, skew, cx), (_, fy, cy), _ = self._pinhole
        bent_x *= fx
        bent_x += cx
        if skew:
            bent_x += skew * bent_y
        bent_y *= fy
        bent_y += cy
        return bent_x, bent_y


class _Spans:
    """Columns (or rows) `first` to `last` of every patch (N,) on the canvas, `length` of them; `size`: of the image."""

    def __init__(self, count: int, size: int) -> None:
        # Small types: this is as fast as memory is.
        self.first, self.last = np.empty(count, np.int16), np.empty(count, np.int16)
        self.length = np.empty(count, np.int8)
        self._size = size

    def put(self, block: slice, edge: np.ndarray, other_edge: np.ndarray, seen: np.ndarray) -> None:
        """Whole pixels between two edges, as depth_image_proc rounds them; takes from `seen` what is off the image."""
        low, high = np.minimum(edge, other_edge), np.maximum(edge, other_edge)
        for each in (low, high):
            each += np.float32(0.5 + BORDER)
            np.floor(each, out=each)
        size = self._size
        seen[block] &= (
            (high >= BORDER) & (low < size + BORDER) & (high < FURTHEST_PX) & (low > -FURTHEST_PX)
        )
        np.clip(high, BORDER, size + 2 * BORDER - 1, out=high)
        np.maximum(low, high - (LARGEST_PATCH - 1), out=low)
        np.minimum(low, high, out=low)
        self.first[block], self.last[block] = low, high
        np.subtract(self.last[block], self.first[block] - 1, out=self.length[block], casting="unsafe")

    def usual_length(self, seen: np.ndarray) -> int:
        step = self.length.size // SAMPLED + 1
        some = self.length[::step][seen[::step]]
        return int(np.median(some)) if some.size else 1


def _put_nearest(flat: np.ndarray, cell: np.ndarray, depth: np.ndarray) -> None:
    """Write depths where they are nearer than what is there; of several for one cell the nearest stays."""
    nearer = depth < flat[cell]
    while nearer.any():
        cell, depth = cell[nearer], depth[nearer]
        flat[cell] = depth
        nearer = depth < flat[cell]
