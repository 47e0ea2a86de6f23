"""Where a pixel looks, and which pixel a thing is seen at.

Conventions, used everywhere in this project:

- Pixel (0, 0) is the *centre* of the top-left pixel, so an image covers -0.5 .. width - 0.5.
- The camera frame is the optical frame of REP 103: x right, y down, z forward, metres.
- Depth is the distance along the optical axis (z), as in ROS depth images, not along the ray.

The meaning of every CameraInfo field follows sensor_msgs/msg/CameraInfo and image_geometry, with one
correction: binning joins b x b pixels, so a binned pixel's centre is (u + 0.5) / b - 0.5; image_geometry
divides plainly and is off by (b - 1) / (2 b) px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from molmo_ros.geometry.distortion import COEFFICIENT_COUNTS, Lens, PerfectLens, lens_for
from molmo_ros.outcome import Code, PointingError

ROTATION_TOLERANCE = 1e-3
LENS_GRID_PX = 8


@dataclass(frozen=True)
class RegionOfInterest:
    """sensor_msgs/RegionOfInterest: the part of the full-resolution image that was delivered; all 0 = all of
    it.
    """

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclass(frozen=True, eq=False)
class CameraModel:
    """The camera of one delivered image; binning and region of interest are already in K and P.

    `rectified` says which image the pixels belong to: the rectified one (P alone holds) or the raw one (K,
    the distortion, and R back from the rectified orientation). Points are in the frame that P speaks of, so
    the raw and the rectified image of one CameraInfo give the same point. For a monocular camera (R =
    identity, P's last column 0) that is simply the optical frame; for the second camera of a stereo pair it
    is the first camera's.
    """

    width: int
    height: int
    K: np.ndarray
    distortion_model: str
    D: np.ndarray
    R: np.ndarray
    P: np.ndarray
    rectified: bool

    @classmethod
    def from_info(
        cls,
        *,
        width: int,
        height: int,
        k: npt.ArrayLike,
        d: Sequence[float] | np.ndarray = (),
        r: npt.ArrayLike | None = None,
        p: npt.ArrayLike | None = None,
        distortion_model: str = "plumb_bob",
        binning_x: int = 0,
        binning_y: int = 0,
        roi: RegionOfInterest | None = None,
        rectified: bool = False,
    ) -> CameraModel:
        """The model of the image that comes with a CameraInfo; arguments mean what its fields mean.

        `k` and `r` hold 9 numbers, `p` 12 (any shape, row by row). A missing or all-zero R is the identity; a
        missing or all-zero P is [K 0], which a rectified image accepts only when there is nothing to rectify.
        An empty distortion model with no coefficients (simulators) means none.

        Raises PointingError(BAD_CAMERA_INFO) naming the field and what would work.
        """
        _check_size(width, height)
        K = _numbers("k", k, 9).reshape(3, 3)
        R = _numbers("r", np.zeros(9) if r is None else r, 9).reshape(3, 3)
        P = _numbers("p", np.zeros(12) if p is None else p, 12).reshape(3, 4)
        _check_intrinsics("k", K)
        distortion_model, D = _checked_distortion(distortion_model, d)
        if not R.any():
            R = np.eye(3)
        if np.abs(R @ R.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(R) < 0:
            raise _bad("r is not a rotation matrix; a monocular camera publishes the identity")
        if P.any():
            _check_intrinsics("p", P[:, :3])
            if P[2, 3] != 0:
                raise _bad(f"p[11] is {P[2, 3]:g}, must be 0 (both cameras of a pair lie in one image plane)")
        else:
            if rectified and (D.any() or np.abs(R - np.eye(3)).max() > ROTATION_TOLERANCE):
                raise _bad(
                    "p is all zero, so the rectified image is unknown; calibrate the camera (P filled in) "
                    "or point at the raw image"
                )
            P = np.hstack([K, np.zeros((3, 1))])

        delivered, delivered_width, delivered_height = _delivered_part(
            width, height, binning_x, binning_y, roi or RegionOfInterest()
        )
        return cls(
            width=delivered_width,
            height=delivered_height,
            K=_frozen(delivered @ K),
            distortion_model=distortion_model,
            D=_frozen(D),
            R=_frozen(R),
            P=_frozen(delivered @ P),
            rectified=bool(rectified),
        )

    @property
    def fx(self) -> float:
        """Horizontal focal length of the delivered image in pixels."""
        return float(self._intrinsics[0, 0])

    @property
    def fy(self) -> float:
        """Vertical focal length of the delivered image in pixels."""
        return float(self._intrinsics[1, 1])

    def project(self, points_cam_N3: npt.ArrayLike) -> np.ndarray:
        """Pixels (N, 2) at which points (N, 3; metres, camera frame) are seen.

        NaN for points that are not in front of the camera or outside the lens's monotonic region. Pixels may
        lie outside the image; `contains` tells.
        """
        points = _rows(points_cam_N3, 3) - self.ray_origin_cam
        points = points @ self._R_image_cam.T
        ahead = points[:, 2] > 1e-9
        xy = np.where(ahead[:, None], points[:, :2] / np.where(ahead, points[:, 2], 1.0)[:, None], np.nan)
        distorted = self.lens.distort(xy)
        return distorted @ self._intrinsics[:2, :2].T + self._intrinsics[:2, 2]

    def normalised(self, uv_N2: npt.ArrayLike) -> np.ndarray:
        """Undistorted directions (N, 2): the pixel's ray is (x, y, 1) about the image's own optical axis.

        NaN outside the lens's monotonic region.
        """
        return self.lens.undistort((_rows(uv_N2, 2) - self._intrinsics[:2, 2]) @ self._inverse_2x2.T)

    def normalised_window(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Undistorted directions (height, width, 2; float32) of all pixels of a part of the image.

        Exact without distortion. A lens is looked up on every eighth pixel and interpolated between: it bends
        so gently that this costs less than 0.05 px, and solving for every pixel would cost 100 ms an image.
        """
        if self.undistorted:
            columns = np.arange(left, left + width) - self._intrinsics[0, 2]
            rows = np.arange(top, top + height) - self._intrinsics[1, 2]
            (a, b), (_, d) = self._inverse_2x2
            xy = np.empty((height, width, 2), np.float32)
            xy[..., 0] = a * columns[None, :] + b * rows[:, None]
            xy[..., 1] = (d * rows)[:, None]
            return xy
        rows, down = _interpolation(top, height)
        columns, across = _interpolation(left, width)
        grid_u, grid_v = np.meshgrid(columns, rows)
        coarse = self.normalised(np.column_stack([grid_u.ravel(), grid_v.ravel()]))
        coarse = coarse.reshape(len(rows), len(columns), 2)
        beyond = np.isnan(coarse[..., 0])
        coarse[beyond] = 0.0
        xy = np.stack([down @ coarse[..., i] @ across.T for i in range(2)], axis=2).astype(np.float32)
        if beyond.any():
            xy[down @ beyond.astype(float) @ across.T > 1e-9] = np.nan
        return xy

    def rays(self, uv_N2: npt.ArrayLike) -> np.ndarray:
        """Rays (N, 3) in the camera frame, scaled to depth 1: a point is `ray_origin_cam + depth * ray`."""
        xy = self.normalised(uv_N2)
        return np.column_stack([xy, np.ones(len(xy))]) @ self._R_image_cam

    def deproject(self, uv_N2: npt.ArrayLike, depth_N: npt.ArrayLike) -> np.ndarray:
        """Points (N, 3; metres, camera frame) at pixels with their depths (metres along the optical axis)."""
        depth = np.atleast_1d(np.asarray(depth_N, dtype=float))
        return self.rays(uv_N2) * depth[:, None] + self.ray_origin_cam

    def contains(self, u: float, v: float) -> bool:
        """Whether a pixel lies on the image, its border pixels' outer halves included."""
        return -0.5 <= u <= self.width - 0.5 and -0.5 <= v <= self.height - 0.5

    def scaled(self, width: int, height: int) -> CameraModel:
        """The model of the same picture resized; refused unless both sides change by the same factor."""
        if (width, height) == (self.width, self.height):
            return self
        if width <= 0 or height <= 0 or width * self.height != height * self.width:
            raise _bad(
                f"the image is {width}x{height} but CameraInfo describes {self.width}x{self.height}, another "
                "shape (a crop?); publish the delivered image's own CameraInfo, with roi set when cropped"
            )
        resize = _resize(self.width / width, self.height / height)
        return replace(
            self, width=width, height=height, K=_frozen(resize @ self.K), P=_frozen(resize @ self.P)
        )

    @cached_property
    def ray_origin_cam(self) -> np.ndarray:
        """Where all rays start, metres in the camera frame: 0 but for the second camera of a stereo pair."""
        return np.array([-self.P[0, 3] / self.P[0, 0], -self.P[1, 3] / self.P[1, 1], 0.0])

    @cached_property
    def R_cam_image(self) -> np.ndarray:
        """Rotation of the image's own axes in the camera frame: identity but for raw images with R in use."""
        return self._R_image_cam.T

    @property
    def pinhole(self) -> np.ndarray:
        """3x3 matrix that takes undistorted directions (x, y, 1) to pixels where there is no distortion."""
        return self._intrinsics

    @property
    def undistorted(self) -> bool:
        """Whether `pinhole` is all there is: rectified images, and lenses without distortion."""
        return isinstance(self.lens, PerfectLens)

    @cached_property
    def _R_image_cam(self) -> np.ndarray:
        return np.eye(3) if self.rectified else self.R.T

    @cached_property
    def _intrinsics(self) -> np.ndarray:
        return self.P[:, :3] if self.rectified else self.K

    @cached_property
    def _inverse_2x2(self) -> np.ndarray:
        return np.linalg.inv(self._intrinsics[:2, :2])

    @cached_property
    def lens(self) -> Lens:
        """The distortion of the delivered image: none when it is rectified."""
        return PerfectLens() if self.rectified else lens_for(self.distortion_model, self.D)


def _bad(message: str) -> PointingError:
    return PointingError(Code.BAD_CAMERA_INFO, f"CameraInfo: {message}")


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise _bad(
            f"size is {width}x{height}; both must be positive (0x0 is what an unconfigured driver sends)"
        )


def _numbers(field: str, values: npt.ArrayLike, count: int) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=float).reshape(-1)
    except (TypeError, ValueError) as error:
        raise _bad(f"{field} is not a list of {count} numbers") from error
    if numbers.size != count:
        raise _bad(f"{field} has {numbers.size} numbers, must have {count}")
    if not np.isfinite(numbers).all():
        at = int(np.argmin(np.isfinite(numbers)))
        raise _bad(
            f"{field}[{at}] is {numbers[at]:g}, must be a finite number; recalibrate or fix the driver"
        )
    return numbers


def _check_intrinsics(field: str, intrinsics: np.ndarray) -> None:
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise _bad(
            f"focal lengths in {field} are {intrinsics[0, 0]:g} and {intrinsics[1, 1]:g}, must be positive "
            "(0 means an uncalibrated camera: run camera_calibration)"
        )
    if intrinsics[1, 0] != 0 or intrinsics[2, 0] != 0 or intrinsics[2, 1] != 0 or intrinsics[2, 2] != 1:
        raise _bad(f"{field} is not of the form [fx s cx; 0 fy cy; 0 0 1], row by row")


def _checked_distortion(model: str, d: Sequence[float] | np.ndarray) -> tuple[str, np.ndarray]:
    D = _numbers("d", d, len(d))
    if model == "" and not D.any():
        return "plumb_bob", np.zeros(5)
    counts = COEFFICIENT_COUNTS.get(model)
    if counts is None:
        raise _bad(f"distortion_model '{model}' is unknown; valid are {', '.join(COEFFICIENT_COUNTS)}")
    if D.size == 0:
        return model, np.zeros(counts[-1])
    if model == "rational_polynomial" and D.size == 14 and not D[12:].any():
        D = D[:12]  # OpenCV's longest form with no tilt
    if D.size not in counts:
        raise _bad(f"d has {D.size} numbers, {model} has {' or '.join(map(str, counts))}")
    return model, D


def _delivered_part(
    width: int, height: int, binning_x: int, binning_y: int, roi: RegionOfInterest
) -> tuple[np.ndarray, int, int]:
    """3x3 map from full-resolution pixels to delivered ones, and the delivered width and height."""
    if binning_x < 0 or binning_y < 0:
        raise _bad(f"binning is {binning_x}x{binning_y}, must not be negative")
    roi_width, roi_height = roi.width or width - roi.x_offset, roi.height or height - roi.y_offset
    inside = roi.x_offset >= 0 and roi.y_offset >= 0 and roi_width > 0 and roi_height > 0
    if not inside or roi.x_offset + roi_width > width or roi.y_offset + roi_height > height:
        raise _bad(
            f"roi {roi_width}x{roi_height} at ({roi.x_offset}, {roi.y_offset}) does not lie within the "
            f"{width}x{height} image; roi is given in full-resolution pixels"
        )
    bin_x, bin_y = max(binning_x, 1), max(binning_y, 1)
    crop = np.array([[1.0, 0.0, -roi.x_offset], [0.0, 1.0, -roi.y_offset], [0.0, 0.0, 1.0]])
    if roi_width < bin_x or roi_height < bin_y:
        raise _bad(f"binning {bin_x}x{bin_y} leaves no pixel of {roi_width}x{roi_height}")
    return _resize(bin_x, bin_y) @ crop, roi_width // bin_x, roi_height // bin_y


def _resize(shrink_x: float, shrink_y: float) -> np.ndarray:
    """Maps pixels to those of an image that many times smaller, centres of pixels to centres of pixels."""
    return np.array([
        [1 / shrink_x, 0.0, 0.5 / shrink_x - 0.5],
        [0.0, 1 / shrink_y, 0.5 / shrink_y - 0.5],
        [0.0, 0.0, 1.0],
    ])  # fmt: skip


def _interpolation(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a coarse grid, and the matrix (count, positions) that interpolates from it to all pixels."""
    cells = max(1, -(-(count - 1) // LENS_GRID_PX))
    at = np.arange(count) / LENS_GRID_PX
    cell = np.minimum(at.astype(int), cells - 1)
    matrix = np.zeros((count, cells + 1))
    matrix[np.arange(count), cell] = 1.0 - (at - cell)
    matrix[np.arange(count), cell + 1] = at - cell
    return first + LENS_GRID_PX * np.arange(cells + 1), matrix


def _rows(values: npt.ArrayLike, columns: int) -> np.ndarray:
    rows = np.asarray(values, dtype=float)
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ValueError(f"expected rows of {columns} numbers, got shape {rows.shape}")
    return rows


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.array(array, dtype=float)
    array.flags.writeable = False
    return array
