"""Empty spots are where a depth camera sees bare table, with room around, within reach."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.frame import Frame
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.free_spot import free_spots
from molmo_ros.planning.table_view import Sight, TableView, level_view

WIDTH, HEIGHT, FOCAL_PX, ABOVE_M = 320, 240, 260.0, 1.0
REACH_M = (0.3, 0.65)
Thing = tuple[float, float, float, float]  # x, y, half the edge, height


def view_of(
    *things: Thing, hidden: tuple[float, float] | None = None, noise_m: float = 0.001, seed: int = 0
) -> TableView:
    """A table seen from straight above its middle at (0.5, 0), with square things on it; nothing is seen at x
    between the two numbers of `hidden`. Neighbouring pixels share their noise, as a stereo camera's do."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    across = (u - (WIDTH - 1) / 2) / FOCAL_PX
    down = (v - (HEIGHT - 1) / 2) / FOCAL_PX
    depth_m = np.full((HEIGHT, WIDTH), ABOVE_M)
    for x, y, half, high in things:
        near = ABOVE_M - high
        covers = (np.abs(0.5 - down * near - x) < half) & (np.abs(-across * near - y) < half)
        depth_m[covers] = near
    if hidden:
        x_m = 0.5 - down * ABOVE_M
        depth_m[(x_m > hidden[0]) & (x_m < hidden[1])] = np.nan
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=depth_m.shape), (0, 0), 1.5)
    noise *= noise_m / noise.std()
    K = np.array([[FOCAL_PX, 0, (WIDTH - 1) / 2], [0, FOCAL_PX, (HEIGHT - 1) / 2], [0, 0, 1]])
    camera = CameraModel.from_info(width=WIDTH, height=HEIGHT, k=K.ravel())
    T = np.eye(4)  # image x along -y of the base, image y along -x, looking down
    T[:3, :3] = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    T[:3, 3] = [0.5, 0.0, ABOVE_M]
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return level_view(Sight(Frame(picture, (depth_m + noise).astype(np.float32), camera, 0, "camera"), T))


def test_a_spot_lies_within_reach_and_clear_of_all_things() -> None:
    things = ((0.5, 0.0, 0.05, 0.1), (0.45, 0.25, 0.04, 0.06), (0.4, -0.2, 0.03, 0.2))
    spots = free_spots(view_of(*things), 0.06, REACH_M)
    assert 1 <= len(spots) <= 3
    for spot in spots:
        assert REACH_M[0] <= np.hypot(*spot[:2]) <= REACH_M[1]
        assert spot[2] == pytest.approx(0.0, abs=1e-9)
        for x, y, half, _ in things:
            beside = np.maximum(np.abs(spot[:2] - [x, y]) - half, 0.0)
            assert np.hypot(*beside) > 0.055


def test_spots_that_are_offered_lie_apart() -> None:
    spots = free_spots(view_of(), 0.05, REACH_M, most=3)
    assert len(spots) == 3
    for i, one in enumerate(spots):
        assert all(np.hypot(*(one - other)[:2]) > 0.07 for other in spots[:i])


def test_what_is_not_seen_is_not_empty() -> None:
    spots = free_spots(view_of(hidden=(-1.0, 0.55)), 0.04, REACH_M)
    assert all(spot[0] > 0.55 + 0.04 - 0.01 for spot in spots)


def test_a_full_table_is_said_to_be_full() -> None:
    crowd = [(x, y, 0.045, 0.05) for x in np.arange(0.1, 1.0, 0.13) for y in np.arange(-0.6, 0.61, 0.13)]
    with pytest.raises(PointingError, match="12 cm wide") as full:
        free_spots(view_of(*crowd), 0.06, REACH_M)
    assert full.value.outcome.code == Code.NOT_FOUND


@pytest.mark.parametrize("seed", range(8))
def test_a_camera_that_sees_the_table_rough_still_sees_that_it_is_empty(seed: int) -> None:
    thing = (0.45, 0.0, 0.05, 0.1)
    for spot in free_spots(view_of(thing, noise_m=0.007, seed=seed), 0.07, REACH_M):
        beside = np.maximum(np.abs(spot[:2] - thing[:2]) - thing[2], 0.0)
        assert np.hypot(*beside) > 0.06


@pytest.mark.parametrize(("noise_m", "high_m"), [(0.001, 0.010), (0.003, 0.014), (0.007, 0.025)])
def test_what_is_higher_than_the_noise_is_no_empty_spot(noise_m: float, high_m: float) -> None:
    crowd = [(x, y, 0.03, high_m) for x in np.arange(0.1, 1.0, 0.13) for y in np.arange(-0.6, 0.61, 0.13)]
    with pytest.raises(PointingError, match="no empty spot"):
        free_spots(view_of(*crowd, noise_m=noise_m), 0.07, REACH_M)
