"""What a level look at a table tells of what stands there."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.frame import Frame
from molmo_ros.planning.table_view import Sight, TableView, height_of, level_view

RIM_M, MIDDLE = 0.040, np.array([0.50, 0.10])
INNER_M, OUTER_M = 0.038, 0.045
FLYING_SHARE = 0.03
WIDTH, HEIGHT, FOCAL_PX = 640, 480, 600.0


def seen_from_above(depth_m: np.ndarray) -> TableView:
    """By a camera 1 m straight above MIDDLE."""
    camera = CameraModel.from_info(
        width=WIDTH, height=HEIGHT, k=np.array([[FOCAL_PX, 0, 319.5], [0, FOCAL_PX, 239.5], [0, 0, 1]])
    )
    T = np.eye(4)
    T[:3, :3] = np.diag([1.0, -1.0, -1.0])
    T[:3, 3] = [*MIDDLE, 1.0]
    return level_view(Sight(Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth_m, camera, 0, "camera"), T))


@pytest.fixture
def bowl() -> TableView:
    """A bowl with a flat floor of 14 mm, and pixels that fly above it."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    aside = np.hypot(u - 319.5, v - 239.5) / FOCAL_PX  # on the table
    rises = np.where(aside < OUTER_M, RIM_M, 0.0)
    rises[aside < INNER_M] = 0.014
    rng = np.random.default_rng(0)
    flying = (aside < OUTER_M) & (rng.random(aside.shape) < FLYING_SHARE)
    rises[flying] = rng.uniform(0.06, 0.3, int(flying.sum()))
    return seen_from_above((1.0 - rises).astype(np.float32))


def test_the_height_within_a_circle_is_that_of_the_rim_and_not_of_pixels_that_fly(bowl: TableView) -> None:
    assert abs(bowl.height_within(MIDDLE, 0.05) - RIM_M) < 0.003


def test_where_only_the_floor_lies_within_the_circle_it_is_that_of_the_floor(bowl: TableView) -> None:
    assert abs(bowl.height_within(MIDDLE, 0.02) - 0.014) < 0.003


def test_where_nothing_stands_the_height_is_nought(bowl: TableView) -> None:
    assert bowl.height_within(MIDDLE + [0.2, 0.0], 0.05) == 0.0


def test_heights_are_above_the_table_wherever_that_is() -> None:
    points = np.column_stack([np.zeros((100, 2)), np.full(100, 0.75)])
    points[:3, 2] = 1.4
    assert abs(height_of(points, 0.70) - 0.05) < 1e-9


def test_what_the_camera_looks_past_is_gone_and_what_it_cannot_know_is_not() -> None:
    depth_m = np.ones((HEIGHT, WIDTH), np.float32)
    depth_m[200:280, 400:480] = 0.9  # a box of 10 cm
    depth_m[300:400, 100:200] = np.nan
    view = seen_from_above(depth_m)

    def above(u: float, v: float, z: float) -> list[float]:
        """The point of the base frame at this height that is seen at this pixel."""
        return [MIDDLE[0] + (u - 319.5) / FOCAL_PX * (1 - z), MIDDLE[1] - (v - 239.5) / FOCAL_PX * (1 - z), z]

    cases = {
        "over bare table": (above(100, 100, 0.06), True),
        "within the noise of the table": (above(100, 100, 0.02), False),
        "on the box": (above(440, 240, 0.10), False),
        "over the box": (above(440, 240, 0.20), True),
        "in the box": (above(440, 240, 0.05), False),
        "beside the edge of the box": (above(399, 240, 0.08), False),
        "where nothing is seen": (above(150, 350, 0.06), False),
        "beyond the picture": (above(900, 100, 0.06), False),
        "behind the camera": ([*MIDDLE, 1.5], False),
    }
    gone = view.seen_through(np.array([point for point, _ in cases.values()]))
    assert dict(zip(cases, gone.tolist(), strict=True)) == {name: is_gone for name, (_, is_gone) in cases.items()}
    assert view.seen_through(np.zeros((0, 3))).shape == (0,)
