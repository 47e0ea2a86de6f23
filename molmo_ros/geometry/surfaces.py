"""Which pixels around a point are one surface, and which of the surfaces there is meant.

Pixels are joined to their neighbours where no step in depth lies between them; what is joined is a surface.
Where the support plane (the table) is known, what stands on it is cut from it, which depth alone cannot do at
a thing's foot.

Things are what is pointed at, and pointing errs by pixels. So a point on the table just beside a thing meant
the thing. Of a thing near the point that place is answered whose depth most of what may have been meant agrees
with: always a place on one surface, never a mean of two. And where too much of what may have been meant lies on
another surface, nearer or farther, nobody can tell which it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth_profile import DepthProfile
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.outcome import Code, PointingError

# Neighbours on one surface differ by less than this, or by LINK_SIGMAS of the sensor's noise if that is more.
LINK_M = 0.006
LINK_SIGMAS = 5.4
# What is higher than this above the support, or than CLEAR_SIGMAS of the noise, stands on it.
CLEAR_M = 0.005
CLEAR_SIGMAS = 3.0
# A component smaller than this, or than this share of the fit's window, is a speck of flying pixels.
SPECK_PIXELS = 6
SPECK_SHARE = 0.03
# A surface must come at least this near to the point, in fit radii: a point in a wide hole has no depth.
REACH = 0.6
# A thing this many standard deviations of the pointing from a point on the support is what was meant.
SNAP_SIGMAS = 3.0
# The point's own pixel and the next, within which a surface is at the point, and what lies beside it.
OWN_PIXEL = 0.75
NEXT_PIXEL = 1.5
BESIDE = 3.0
# Surfaces that differ by less than this are as good as one for a robot.
SAME_DEPTH_M = 0.02
# Pointing hits a pixel or the next for sure when it errs by less than this; then the answer stays at the point.
SURE_SIGMA_PX = 1.0
# `sigma_px` is per axis; a point that is off by that much in all is likelier nearer by this factor per axis.
PER_AXIS = 0.7
LEAST_LIKELY_PX = 0.4
# A place that is one sigma further away must agree with this much more of what may have been meant.
WAY_COST = 0.05
# Another surface that holds this share of what may have been meant makes a point ambiguous.
RIVAL_SHARE = 0.10


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The depth image about a point (`u`, `v`; error `sigma_px` per axis), cut into surfaces.

    All arrays are h x w windows of the image from pixel (`left`, `top`) on; `radius_px` is how far a fit goes.
    `xy`: undistorted directions (h, w, 2). `labels`: number of the surface, 0 where there is none or only a
    speck. `standing`: above the support plane; None when that is not known.
    """

    u: float
    v: float
    sigma_px: float
    radius_px: int
    left: int
    top: int
    depth_m: np.ndarray
    xy: np.ndarray
    labels: np.ndarray
    standing: np.ndarray | None
    distance_px: np.ndarray

    def nearest(self, among: np.ndarray) -> tuple[tuple[int, int] | None, float]:
        """Row and column of the pixel of a mask that is nearest to the point, and how far it is."""
        if not among.any():
            return None, np.inf
        distance = np.where(among, self.distance_px, np.inf)
        row, column = np.unravel_index(int(distance.argmin()), distance.shape)
        return (int(row), int(column)), float(distance[row, column])

    def within(self, u: float, v: float, radius_px: int) -> np.ndarray:
        """Mask (h, w) of the square about a pixel."""
        rows, columns = np.indices(self.depth_m.shape)
        across = np.abs(columns + self.left - round(u)) <= radius_px
        mask: np.ndarray = across & (np.abs(rows + self.top - round(v)) <= radius_px)
        return mask

    def nearness(self, sigma_px: float) -> np.ndarray:
        """How likely (h, w; 1 at the point) each pixel was meant by a point that errs by `sigma_px`."""
        weight: np.ndarray = np.exp(-0.5 * (self.distance_px / sigma_px) ** 2)
        return weight


@dataclass(frozen=True, eq=False)
class Choice:
    """The surface that is meant: mask (h, w), its `pixel` (row, column of the image) nearest to the point, and
    the pixel (`u`, `v`) that the point stands for.

    `plausible` (h, w): pixels of all surfaces that may have been meant. `rival_depth_m`: mean depth of
    another surface that may as well be meant, NaN when there is none.
    """

    surface: np.ndarray
    pixel: tuple[int, int]
    u: float
    v: float
    plausible: np.ndarray
    rival_depth_m: float


def look_around(
    depth_m: np.ndarray,
    camera: CameraModel,
    u: float,
    v: float,
    *,
    sigma_px: float,
    radius_px: int,
    smallest_px: float,
    profile: DepthProfile,
    support: SupportPlane | None,
) -> Surroundings:
    """Cut the image about a pixel into surfaces of at least `smallest_px` pixels, as far as they may matter."""
    half_px = radius_px + int(np.ceil(SNAP_SIGMAS * sigma_px))
    column, row = min(max(round(u), 0), camera.width - 1), min(max(round(v), 0), camera.height - 1)
    left, top = max(column - half_px, 0), max(row - half_px, 0)
    window = depth_m[top : row + half_px + 1, left : column + half_px + 1].astype(float)
    valid = np.isfinite(window) & (window > 0)
    window[~valid] = np.nan
    rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
    xy = camera.normalised_window(left, top, window.shape[1], window.shape[0])
    sigma_z = np.asarray(profile.sigma_z_m(window, camera.fx))
    standing = None if support is None else stands(window, xy, sigma_z, camera, support)[1]
    labels = connected(window, valid, link_step_m(sigma_z), standing)
    sizes = np.bincount(labels.ravel())
    labels[(sizes < smallest_px)[labels]] = 0
    distance_px = np.hypot(columns - u, rows - v)
    return Surroundings(u, v, sigma_px, radius_px, left, top, window, xy, labels, standing, distance_px)


def choose(around: Surroundings) -> Choice:
    """The surface that the point means.

    Raises PointingError: NO_DEPTH when no surface lies at the point, AMBIGUOUS_DEPTH when something too small
    to be measured stands there before all else.
    """
    solid = around.labels > 0
    own, _ = around.nearest(np.ones_like(solid))
    assert own is not None
    _refuse_a_speck_in_front(around, own, solid)
    at, distance = around.nearest(solid)
    furthest = REACH * around.radius_px
    if around.standing is not None:
        thing, to_thing = around.nearest(solid & around.standing)
        if to_thing <= max(SNAP_SIGMAS * around.sigma_px, OWN_PIXEL):
            at, distance, furthest = thing, to_thing, to_thing
    if at is None or distance > furthest:
        raise PointingError(Code.NO_DEPTH, _nothing_there(around))
    plausible = _of_its_kind(around, at)
    seat = at if around.sigma_px < SURE_SIGMA_PX else _most_agreed(around, plausible, at)
    surface = around.labels == around.labels[seat]
    bridged = not solid[own] and _encloses(surface, own)
    stays = seat == at and (distance <= NEXT_PIXEL or bridged)
    pixel = seat[0] + around.top, seat[1] + around.left
    u, v = (around.u, around.v) if stays else (float(pixel[1]), float(pixel[0]))
    return Choice(surface, pixel, u, v, plausible, _rival_depth_m(around, plausible, seat))


def stands(
    depth_m: np.ndarray,
    xy: np.ndarray,
    sigma_z_m: np.ndarray,
    camera: CameraModel,
    support: SupportPlane,
) -> tuple[np.ndarray, np.ndarray]:
    """Heights (h, w) of the pixels above the support, and whether that is more than noise."""
    a, b, c = (camera.R_cam_image.T @ support.normal_cam).astype(depth_m.dtype)
    along = xy[..., 0] * a + xy[..., 1] * b + c
    height = depth_m * along - depth_m.dtype.type(
        support.offset_m - support.normal_cam @ camera.ray_origin_cam
    )
    return height, height > np.maximum(CLEAR_M, CLEAR_SIGMAS * sigma_z_m * np.abs(along))


def link_step_m(sigma_z_m: np.ndarray) -> np.ndarray:
    """By how much neighbours on one surface may differ."""
    return np.maximum(LINK_M, LINK_SIGMAS * sigma_z_m)


def connected(
    depth_m: np.ndarray, valid: np.ndarray, step_m: np.ndarray, standing: np.ndarray | None
) -> np.ndarray:
    """Labels (h, w; 0 = no return) of pixels joined, side by side, without a step in depth.

    A picture of twice the size holds the pixels and, between them, their links.
    """
    height, width = depth_m.shape
    picture = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    picture[::2, ::2] = valid
    for axis, links in ((1, picture[::2, 1::2]), (0, picture[1::2, ::2])):
        step = np.minimum(*_neighbours(step_m, axis))
        links[:] = np.abs(np.diff(depth_m, axis=axis)) < step
        if standing is not None:
            links &= np.equal(*_neighbours(standing, axis))
    labels: np.ndarray = cv2.connectedComponents(picture, connectivity=4)[1][::2, ::2]
    return labels


def _neighbours(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return (array[:, 1:], array[:, :-1]) if axis else (array[1:], array[:-1])


def _refuse_a_speck_in_front(around: Surroundings, own: tuple[int, int], solid: np.ndarray) -> None:
    """At the edge of a thing single pixels fly about; before an even surface a single pixel is a thing."""
    at_point = around.depth_m[own]
    if solid[own] or np.isnan(at_point):
        return
    behind = around.depth_m[solid & (around.distance_px <= BESIDE)]
    if behind.size and at_point < behind.min() - LINK_M and np.ptp(behind) < SAME_DEPTH_M:
        raise PointingError(
            Code.AMBIGUOUS_DEPTH,
            f"at pixel ({around.u:.0f}, {around.v:.0f}) something too small to be measured stands "
            f"{at_point:.3f} m away, before a surface at {behind.min():.3f} m; move the camera nearer",
        )


def _of_its_kind(around: Surroundings, at: tuple[int, int]) -> np.ndarray:
    """The mask of all surfaces that may be meant when the one at a pixel is.

    With a known support these are all things when a thing is. Without, they are the surface itself and those
    before it: a thing is not mistaken for its background, but what looks like background may be a miss.
    """
    labels, chosen = around.labels, int(around.labels[at])
    count = int(labels.max()) + 1
    of_its_kind = np.zeros(count, bool)
    if around.standing is not None:
        of_its_kind[labels[around.standing == around.standing[at]]] = True
    else:
        pixels = np.bincount(labels.ravel(), minlength=count)
        total = np.bincount(labels.ravel(), np.nan_to_num(around.depth_m.ravel()), count)
        mean_depth = total / np.maximum(pixels, 1)
        of_its_kind = mean_depth < mean_depth[chosen] + SAME_DEPTH_M
    of_its_kind[0] = False
    of_its_kind[chosen] = True
    mask: np.ndarray = of_its_kind[labels]
    return mask


def _likely(around: Surroundings, plausible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of the pixels that may have been meant, and how likely each is (sums to 1)."""
    weight = around.nearness(max(PER_AXIS * around.sigma_px, LEAST_LIKELY_PX))
    weight = np.where(plausible, weight, 0.0).ravel()
    among = np.flatnonzero(weight > 1e-4 * weight.max())
    return among, weight[among] / weight[among].sum()


def _most_agreed(around: Surroundings, plausible: np.ndarray, at: tuple[int, int]) -> tuple[int, int]:
    """The pixel whose depth most of what may have been meant agrees with, preferring near ones to the point."""
    among, likely = _likely(around, plausible)
    z = around.depth_m.ravel()[among]
    order = np.argsort(z)
    sorted_z, total = z[order], np.concatenate([[0.0], np.cumsum(likely[order])])
    first = np.searchsorted(sorted_z, z - SAME_DEPTH_M)
    agreed = total[np.searchsorted(sorted_z, z + SAME_DEPTH_M)] - total[first]
    agreed -= WAY_COST * around.distance_px.ravel()[among] / around.sigma_px
    best = int(among[agreed.argmax()])
    here = np.flatnonzero(among == at[0] * around.labels.shape[1] + at[1])
    if here.size and agreed[here[0]] >= agreed.max() - 1e-9:
        return at
    row, column = divmod(best, around.labels.shape[1])
    return row, column


def _rival_depth_m(around: Surroundings, plausible: np.ndarray, at: tuple[int, int]) -> float:
    """Mean depth of what may have been meant on other surfaces than that at a pixel, where it is too much."""
    if around.sigma_px == 0:
        return float("nan")
    among, likely = _likely(around, plausible)
    z, labels = around.depth_m.ravel()[among], around.labels.ravel()[among]
    other = (labels != around.labels[at]) & (np.abs(z - around.depth_m[at]) > SAME_DEPTH_M)
    share = float(likely[other].sum())
    return float(likely[other] @ z[other]) / share if share > RIVAL_SHARE else float("nan")


def _encloses(surface: np.ndarray, pixel: tuple[int, int]) -> bool:
    """Whether a surface lies on both sides of a pixel, across or down."""
    row, column = pixel
    across = np.asarray(surface[max(row - 1, 0) : row + 2].any(axis=0))
    down = np.asarray(surface[:, max(column - 1, 0) : column + 2].any(axis=1))
    return bool(
        (across[:column].any() and across[column + 1 :].any()) or (down[:row].any() and down[row + 1 :].any())
    )


def _nothing_there(around: Surroundings) -> str:
    seen = 100 * np.isfinite(around.depth_m[around.within(around.u, around.v, around.radius_px)]).mean()
    side = 2 * around.radius_px + 1
    return (
        f"no surface at pixel ({around.u:.0f}, {around.v:.0f}): {seen:.0f} % of the {side}x{side} px around "
        "it have depth, none of it joined up near the point; it may be shiny, dark, see-through, or nearer "
        "than the camera measures; try another view"
    )
