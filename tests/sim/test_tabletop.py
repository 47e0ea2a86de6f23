"""The rendered tabletop: determined by the seed, true to geometry, colour and depth of one piece."""

from __future__ import annotations

import colorsys
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mujoco
import numpy as np
import pytest

from molmo_ros.sim.colours import COLOURS
from molmo_ros.sim.objects import shape_of
from molmo_ros.sim.scene import SceneObject, SceneRecipe
from molmo_ros.sim.tabletop import TabletopScene
from molmo_ros.sim.textures import TEXTURE_COUNT
from molmo_ros.sim.truth import scene_truth
from molmo_ros.sim.worlds import FIRST, TABLETOP

SIZE = (320, 240)


@pytest.fixture(scope="module")
def tabletop() -> Iterator[TabletopScene]:
    scene = TabletopScene(SIZE, SceneRecipe(world=FIRST))
    yield scene
    scene.close()


def points_base(tabletop: TabletopScene, depth_m: np.ndarray) -> np.ndarray:
    """HxWx3 points of the base frame, from depth and camera."""
    assert tabletop.state is not None
    K, T = tabletop.K(), tabletop.state.camera.T_base_camera
    v, u = np.mgrid[0 : depth_m.shape[0], 0 : depth_m.shape[1]]
    x, y = (u - K[0, 2]) / K[0, 0] * depth_m, (v - K[1, 2]) / K[1, 1] * depth_m
    return np.stack([x, y, depth_m], axis=-1) @ T[:3, :3].T + T[:3, 3]


def test_a_picture_depends_on_its_seed_and_not_on_what_was_shown_before(tabletop: TabletopScene) -> None:
    tabletop.reset(11)
    first = tabletop.render(segmentation=True)
    for other in (12, 13, 14):
        tabletop.reset(other)
        assert not np.array_equal(tabletop.render().color, first.color)
    tabletop.reset(11)
    again = tabletop.render(segmentation=True)
    np.testing.assert_array_equal(first.color, again.color)
    np.testing.assert_array_equal(first.depth_m, again.depth_m)
    assert first.ids is not None
    np.testing.assert_array_equal(first.ids, again.ids)


def test_frames_of_one_scene_differ_by_noise_only(tabletop: TabletopScene) -> None:
    tabletop.reset(11)
    first, second = tabletop.render(frame=0), tabletop.render(frame=1)
    difference = np.abs(first.color.astype(int) - second.color)
    assert difference.max() > 0
    assert np.percentile(difference, 99) < 25
    np.testing.assert_array_equal(first.depth_m, second.depth_m)


def test_both_sizes_show_the_same_scene(tabletop: TabletopScene) -> None:
    large = TabletopScene((640, 480), SceneRecipe(world=FIRST))
    state = large.reset(21)
    ids = large.render(segmentation=True).ids
    large.close()
    assert tabletop.reset(21).objects == state.objects
    small_ids = tabletop.render(segmentation=True).ids
    assert ids is not None
    assert small_ids is not None
    assert (ids[::2, ::2] == small_ids).mean() > 0.99


def test_a_forgotten_tabletop_does_not_disturb_another(tabletop: TabletopScene) -> None:
    gone = TabletopScene(SIZE)
    gone.reset(6)
    gone.render()
    tabletop.reset(5)
    before = tabletop.render().color  # now this one's GL context is current
    del gone
    tabletop.reset(5)
    np.testing.assert_array_equal(tabletop.render().color, before)


def test_the_table_wears_the_scenes_texture_and_colour(tabletop: TabletopScene) -> None:
    state = tabletop.reset(5)
    for change in ({"texture": (state.room.texture + 1) % TEXTURE_COUNT}, {"table_rgb": (0.2, 0.5, 0.9)}):
        tabletop.show(state)
        before = tabletop.render(segmentation=True)
        tabletop.show(replace(state, room=replace(state.room, **change)))
        after = tabletop.render()
        assert before.ids is not None
        changed = (before.color != after.color).any(axis=-1)
        assert changed[before.ids == 0].mean() > 0.3
        assert changed[before.ids > 0].mean() < 0.02


def test_every_thing_is_seen_where_its_centre_projects(tabletop: TabletopScene) -> None:
    near, seen, total = 0, 0, 0
    for seed in range(40):
        state = tabletop.reset(seed)
        ids = tabletop.render(segmentation=True).ids
        assert ids is not None
        truths = scene_truth(state, ids)
        total += len(state.objects)
        seen += len(truths)
        for truth in truths:
            u, v = truth.centre_uv
            rows, columns = np.nonzero(truth.mask_HW)
            inside = columns.min() <= u <= columns.max() and rows.min() <= v <= rows.max()
            near += inside and (truth.kind == "ring" or bool(truth.mask_HW[round(v), round(u)]))
    assert seen == total  # nothing is hidden altogether
    assert near / total > 0.97  # the rest is partly occluded


def test_depth_lies_on_the_table_and_on_the_balls(tabletop: TabletopScene) -> None:
    balls = 0
    for seed in range(30):
        state = tabletop.reset(seed)
        view = tabletop.render(segmentation=True)
        points = points_base(tabletop, view.depth_m)
        things = [t for t in state.objects if t.kind == "ball"]
        away = np.abs(points[..., 2]) < 0.02
        for thing in state.objects:
            distance_m = np.hypot(points[..., 0] - thing.centre_m[0], points[..., 1] - thing.centre_m[1])
            away &= distance_m > thing.shape.reach_m + 0.003
        away &= (points[..., 0] > 0.15) & (points[..., 0] < 1.0) & (np.abs(points[..., 1]) < 0.8)
        assert np.abs(points[away][:, 2]).max() < 0.0015  # the table top is z = 0
        for ball in things:
            surface = points[view.ids == ball.id]
            radius = np.linalg.norm(surface - ball.centre_m, axis=-1)
            assert np.abs(np.median(radius) - ball.shape.radius_m) < 0.001
            assert np.percentile(np.abs(radius - ball.shape.radius_m), 95) < 0.0015
            balls += 1
    assert balls >= 10


def test_every_pixel_of_a_thing_is_at_the_thing(tabletop: TabletopScene) -> None:
    for seed in range(30):
        state = tabletop.reset(seed)
        view = tabletop.render(segmentation=True)
        points = points_base(tabletop, view.depth_m)
        for thing in state.objects:
            surface = points[view.ids == thing.id]
            assert np.hypot(*(surface[:, :2] - thing.centre_m[:2]).T).max() < thing.shape.reach_m + 0.002
            assert surface[:, 2].min() > -0.002
            assert surface[:, 2].max() < thing.shape.height_m + 0.002


def test_colours_look_like_their_names(tabletop: TabletopScene) -> None:
    hues = {c.name: sum(c.hue_deg) / 2 for c in COLOURS if c.name not in ("white", "black")}
    right, total = 0, 0
    for seed in range(60):
        state = tabletop.reset(seed)
        view = tabletop.render(segmentation=True)
        assert view.ids is not None
        for truth in scene_truth(state, view.ids):
            r, g, b = np.median(view.color[truth.mask_HW], axis=0) / 255
            hue, saturation, value = colorsys.rgb_to_hsv(r, g, b)
            if value < 0.22:
                name = "black"
            elif saturation < 0.25:
                name = "white"
            else:
                name = min(hues, key=lambda n: abs((360 * hue - hues[n] + 180) % 360 - 180))
            right += name == truth.colour
            total += 1
    assert right / total > 0.93, f"{right} of {total}"


def test_colour_edges_lie_on_the_edges_of_the_masks(tabletop: TabletopScene) -> None:
    """Shifting the masks' outlines against the picture's edges by any pixel makes them match less."""
    shifts = [(down, right) for down in range(-3, 4) for right in range(-3, 4)]
    match = dict.fromkeys(shifts, 0.0)
    for seed in range(20):
        tabletop.reset(seed)
        view = tabletop.render(segmentation=True)
        assert view.ids is not None
        grey = view.color.mean(axis=-1)
        edges = np.abs(grey[1:-1, 2:] - grey[1:-1, :-2]) + np.abs(grey[2:, 1:-1] - grey[:-2, 1:-1])
        things = (view.ids > 0).astype(int)
        outline = (things[1:-1, 2:] != things[1:-1, :-2]) | (things[2:, 1:-1] != things[:-2, 1:-1])
        for shift in shifts:
            match[shift] += float(edges[np.roll(outline, shift, axis=(0, 1))].sum())
    assert max(match, key=lambda shift: match[shift]) == (0, 0)


def test_the_arm_reaches_from_base_link_to_tool0(tabletop: TabletopScene) -> None:
    tabletop.reset(3)
    chain = tabletop.arm_transforms()
    assert chain[0][0] == "base_link"
    assert chain[-1][1] == "tool0"
    assert all(before[1] == after[0] for before, after in pairwise(chain))
    T = np.eye(4)
    for _, _, T_parent_child in chain:
        np.testing.assert_allclose(T_parent_child[:3, :3] @ T_parent_child[:3, :3].T, np.eye(3), atol=1e-9)
        T = T @ T_parent_child
    assert 0.2 < T[2, 3] < 1.0  # parked above the table
    tabletop.reset(4)
    assert not np.allclose(tabletop.arm_transforms()[0][2], chain[0][2])


def test_twins_and_full_tables_are_rendered_too() -> None:
    crowded = TabletopScene(SIZE, SceneRecipe(objects=(8, 8), allow_twins=True, world=FIRST))
    state = crowded.reset(1)
    ids = crowded.render(segmentation=True).ids
    crowded.close()
    assert ids is not None
    assert len(scene_truth(state, ids)) == 8


@pytest.fixture(scope="module")
def household() -> Iterator[TabletopScene]:
    scene = TabletopScene(SIZE, SceneRecipe(objects=(6, 10), allow_twins=True, world=TABLETOP))
    yield scene
    scene.close()


def test_things_of_the_tabletop_world_are_where_they_should_be(household: TabletopScene) -> None:
    """Lying things, clutter and parts of a second colour included."""
    seen, total = 0, 0
    for seed in range(16):
        state = household.reset(seed)
        view = household.render(segmentation=True)
        assert view.ids is not None
        points = points_base(household, view.depth_m)
        for thing in state.objects:
            surface = points[view.ids == thing.id]
            total += 1
            seen += len(surface) > 20
            if len(surface):
                assert np.hypot(*(surface[:, :2] - thing.centre_m[:2]).T).max() < thing.shape.reach_m + 0.002
                assert surface[:, 2].min() > -0.002
                assert surface[:, 2].max() < thing.shape.height_m + 0.002
    assert seen / total > 0.97


def test_a_second_colour_belongs_to_its_thing_and_shows_only_on_it(household: TabletopScene) -> None:
    """Steel is grey where the rest of a red can is red; without cans nothing of it is left behind."""
    state = household.reset(3)
    shape = shape_of("can", 5)
    can = SceneObject(1, "can", "red", (0.8, 0.05, 0.05), 5, (0.5, 0.0, shape.height_m / 2), 0.0, (0.06, 0.1))
    household.show(replace(state, objects=(can,)))
    view = household.render(segmentation=True)
    assert view.ids is not None
    saturation = np.ptp(view.color[view.ids == 1].astype(int), axis=1)
    assert 0.1 < (saturation < 40).mean() < 0.9
    ball = replace(can, kind="ball", centre_m=(0.5, 0.0, shape_of("ball", 5).height_m / 2))
    household.show(replace(state, objects=(ball,)))
    after = household.render(segmentation=True)
    assert after.ids is not None
    assert (np.ptp(after.color[after.ids == 1].astype(int), axis=1) < 40).mean() < 0.1


def test_a_tabletop_picture_depends_on_its_seed_alone(household: TabletopScene) -> None:
    household.reset(11)
    first = household.render(segmentation=True)
    household.reset(12)
    household.reset(11)
    again = household.render(segmentation=True)
    np.testing.assert_array_equal(first.color, again.color)
    assert first.ids is not None and again.ids is not None
    np.testing.assert_array_equal(first.ids, again.ids)


def test_rendering_without_a_scene_or_after_closing_is_refused() -> None:
    scene = TabletopScene(SIZE)
    with pytest.raises(RuntimeError, match="reset"):
        scene.render()
    scene.reset(1)
    scene.close()
    with pytest.raises(RuntimeError, match="closed"):
        scene.render()
    scene.close()


@pytest.mark.parametrize(
    ("hide", "says"),
    [
        ("import sys, importlib.util as u; f = u.find_spec; "
         "u.find_spec = lambda n, p=None: None if n == 'mujoco' else f(n, p)", "pip install 'mujoco"),
        ("import os; os.environ['__EGL_VENDOR_LIBRARY_DIRS'] = '/nowhere'", "apt install libegl1"),
    ],
)  # fmt: skip
def test_a_missing_piece_is_named_with_what_to_install(hide: str, says: str) -> None:
    program = (
        f"{hide}\nfrom molmo_ros.sim.tabletop import TabletopScene, SimulatorUnavailable\nTabletopScene()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MUJOCO_GL": "egl"},
    )
    assert run.returncode != 0
    assert "SimulatorUnavailable" in run.stderr.splitlines()[-1]
    assert says in run.stderr.splitlines()[-1]


def test_mujoco_is_the_version_it_was_written_for() -> None:
    assert mujoco.__version__.split(".")[0] == "4"
