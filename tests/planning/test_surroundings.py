"""What is an obstacle for the arm, and what no longer is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.frame import Frame
from molmo_ros.planning.pick_robot import PickRobot
from molmo_ros.planning.seen_thing import SeenThing
from molmo_ros.planning.surroundings import Surroundings
from molmo_ros.planning.table_view import Sight, TableView, level_view

VOXEL_M = 0.015
POST, CRATE = (slice(100, 120), slice(80, 100)), (slice(60, 100), slice(200, 240))
ARM = (slice(150, 230), slice(20, 60))


def view(**heights_m: float) -> TableView:
    """From 1 m above the table, 2 mm a pixel: a post, a crate and the arm, as high as given."""
    camera = CameraModel.from_info(
        width=320, height=240, k=np.array([[500.0, 0, 159.5], [0, 500.0, 119.5], [0, 0, 1]])
    )
    T = np.array([[0.0, -1.0, 0.0, 0.4], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    depth = np.ones((240, 320), np.float32)
    for name, at in (("post", POST), ("crate", CRATE), ("arm", ARM)):
        depth[at] -= heights_m.get(name, 0.0)
    return level_view(Sight(Frame(np.zeros((240, 320, 3), np.uint8), depth, camera, 0, "camera"), T))


def of(seen: TableView, at: tuple[slice, slice]) -> np.ndarray:
    return seen.points_base()[at].reshape(-1, 3)


def surroundings(seen: TableView) -> Surroundings:
    low, high = of(seen, ARM).min(axis=0) - 0.01, of(seen, ARM).max(axis=0) + 0.01
    robot = SimpleNamespace(on_arm=lambda points: ((points > low) & (points < high)).all(axis=1))
    return Surroundings(cast(PickRobot, robot), VOXEL_M)


def covered(around: Surroundings, points: np.ndarray) -> float:
    """The share of the points that lies in a voxel."""
    assert around.around is not None
    off = np.abs(points[:, None] - around.around.centres_N3[None]).max(axis=-1)
    return float((off.min(axis=1) <= VOXEL_M / 2 + 1e-6).mean()) if len(around.around) else 0.0


def test_all_but_the_arm_and_the_thing_gone_for_is_in_the_way() -> None:
    seen = view(post=0.1, crate=0.06, arm=0.2)
    around = surroundings(seen)
    around.see(seen)
    around.pass_by(None)
    assert covered(around, of(seen, POST)) > 0.9 and covered(around, of(seen, CRATE)) > 0.9
    assert covered(around, of(seen, ARM)) == 0.0
    around.pass_by(SeenThing.of(of(seen, POST), 0.0))
    assert covered(around, of(seen, POST)) == 0.0 and covered(around, of(seen, CRATE)) > 0.9


def test_what_was_lifted_is_in_the_way_no_longer_and_what_is_hidden_still_is() -> None:
    seen = view(post=0.1, crate=0.06)
    around = surroundings(view(arm=0.2))
    around.see(seen)
    post = of(seen, POST)
    around.pass_by(SeenThing.of(post[:40], 0.0))
    assert covered(around, post) > 0.3
    lifted = view(crate=0.3)  # the hand above the crate hides it
    around.forget_gone(lifted, SeenThing.of(post[-40:], 0.0))
    assert covered(around, post) == 0.0
    assert covered(around, of(seen, CRATE)) > 0.9


def test_what_one_look_knows_to_be_its_own_stays_so_after_the_next() -> None:
    seen = view(post=0.1, crate=0.06)
    around = surroundings(view(arm=0.2))
    around.see(seen)
    post = of(seen, POST)
    around.pass_by(SeenThing.of(post, 0.0))
    hidden = view(post=0.4, crate=0.06)  # the hand above its place
    around.forget_gone(hidden, SeenThing.of(post[:40], 0.0))
    assert covered(around, post) == 0.0
