"""From seed to scene: determined by the seed alone, no overlaps, everything in view, names that tell."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo_ros.sim.scene import ASPECT, SceneRecipe, draw_scene
from molmo_ros.sim.worlds import FIRST, TABLETOP

seeds = st.integers(0, 2**64 - 1)

#: Things with names only, upright, none of them twice.
FRIENDLY = SceneRecipe(world=FIRST)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_same_seed_gives_the_same_scene(seed: int) -> None:
    first, again = draw_scene(seed), draw_scene(seed)
    assert first.objects == again.objects
    assert (first.light, first.room, first.photo, first.arm_rad) == (
        again.light,
        again.room,
        again.photo,
        again.arm_rad,
    )
    np.testing.assert_array_equal(first.camera.T_base_camera, again.camera.T_base_camera)


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_things_do_not_overlap_and_are_in_the_picture(seed: int) -> None:
    state = draw_scene(seed)
    for a, b in combinations(state.objects, 2):
        assert np.hypot(*np.subtract(a.centre_m[:2], b.centre_m[:2])) > a.shape.reach_m + b.shape.reach_m
    for thing in state.objects:
        vertices = thing.shape.mesh.vertices_V3 @ thing.T_base_object[:3, :3].T + thing.T_base_object[:3, 3]
        uv = state.camera.project(vertices, (640, 480))
        assert (uv >= -0.5).all()
        assert (uv <= [639.5, 479.5]).all()


@given(seeds, st.integers(1, FIRST.most_objects), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_the_number_of_things_follows_the_recipe(seed: int, low: int, more: int) -> None:
    high = min(low + more, FIRST.most_objects)
    state = draw_scene(seed, SceneRecipe(objects=(low, high), world=FIRST))
    assert low <= len(state.objects) <= high
    assert [thing.id for thing in state.objects] == list(range(1, len(state.objects) + 1))


def test_colour_and_kind_together_name_one_thing_unless_twins_are_allowed() -> None:
    labels = [[thing.label for thing in draw_scene(seed, FRIENDLY).objects] for seed in range(200)]
    assert all(len(set(scene)) == len(scene) for scene in labels)
    with_twins = SceneRecipe(allow_twins=True, world=FIRST)
    twins = [Counter(t.label for t in draw_scene(seed, with_twins).objects) for seed in range(200)]
    assert 0.2 < np.mean([max(count.values()) > 1 for count in twins]) < 0.5


def test_both_words_are_needed_in_most_scenes() -> None:
    scenes = [draw_scene(seed, FRIENDLY).objects for seed in range(200)]
    shares_kind = [max(Counter(t.kind for t in things).values()) > 1 for things in scenes]
    shares_colour = [max(Counter(t.colour for t in things).values()) > 1 for things in scenes]
    assert np.mean(shares_kind) > 0.6
    assert np.mean(shares_colour) > 0.6


def test_kinds_and_colours_are_about_equally_frequent() -> None:
    things = [thing for seed in range(400) for thing in draw_scene(seed, FRIENDLY).objects]
    for words in (Counter(t.kind for t in things), Counter(t.colour for t in things)):
        assert len(words) == 8
        assert max(words.values()) < 1.6 * min(words.values())


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_the_camera_stands_where_it_should_and_looks_at_the_table(seed: int) -> None:
    camera = draw_scene(seed, FRIENDLY).camera
    T = camera.T_base_camera
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    assert 29.9 < np.degrees(np.arcsin(-T[2, 2])) < 85.1
    assert 40 <= np.degrees(camera.fovy_rad) <= 60
    assert T[2, 1] < 0  # the image's down points down
    aim = T[:3, 3] + T[:3, 2] * (T[2, 3] - 0.02) / -T[2, 2]
    assert 0.6 <= np.linalg.norm(T[:3, 3] - aim) <= 1.1 + 1e-9
    u, v = camera.project(aim[None], (640, 480))[0]
    assert (u, v) == (pytest.approx(319.5), pytest.approx(239.5))


def test_intrinsics_scale_with_the_image() -> None:
    camera = draw_scene(3).camera
    point = np.array([[0.5, 0.1, 0.03]])
    large, small = camera.project(point, (640, 480))[0], camera.project(point, (320, 240))[0]
    np.testing.assert_allclose((large + 0.5) / 2, small + 0.5, atol=1e-9)
    assert pytest.approx(640 / 480) == ASPECT


@pytest.mark.parametrize("objects", [(0, 4), (5, 4), (4, 11)])
def test_an_impossible_recipe_is_refused(objects: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"within 1\.\.10"):
        SceneRecipe(objects=objects, world=TABLETOP)


TABLE = SceneRecipe(objects=(2, 10), allow_twins=True, twin_probability=0.5, world=TABLETOP)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_tabletop_things_stand_apart_in_the_picture_named_ones_first(seed: int) -> None:
    state = draw_scene(seed, TABLE)
    named = [thing for thing in state.objects if thing.kind in TABLETOP.kinds]
    assert 2 <= len(named) <= 10
    assert state.objects[: len(named)] == state.named == tuple(named)
    assert len(state.objects) - len(named) <= TABLETOP.most_clutter
    assert [thing.id for thing in state.objects] == list(range(1, len(state.objects) + 1))
    for a, b in combinations(state.objects, 2):
        assert np.hypot(*np.subtract(a.centre_m[:2], b.centre_m[:2])) > a.shape.reach_m + b.shape.reach_m
    for thing in state.objects:
        vertices = thing.shape.mesh.vertices_V3 @ thing.T_base_object[:3, :3].T + thing.T_base_object[:3, 3]
        uv = state.camera.project(vertices, (640, 480))
        assert (uv >= -0.5).all()
        assert (uv <= [639.5, 479.5]).all()


def test_tabletop_scenes_use_all_words_lie_down_and_hold_clutter() -> None:
    scenes = [draw_scene(seed, TABLE).objects for seed in range(150)]
    things = [thing for scene in scenes for thing in scene]
    named = [thing for thing in things if thing.kind in TABLETOP.kinds]
    kinds, colours = Counter(t.kind for t in named), Counter(t.colour for t in named)
    assert set(kinds) == set(TABLETOP.kinds)
    assert set(colours) == set(TABLETOP.colours)
    assert max(colours.values()) < 2.2 * min(colours.values())
    assert 0.07 < np.mean([t.tipped for t in named]) < 0.25
    clutter = [t for t in things if t.kind not in TABLETOP.kinds]
    assert {t.kind for t in clutter} == set(TABLETOP.clutter)
    assert 0.3 < np.mean([t.colour in TABLETOP.colours for t in clutter]) < 0.7


def test_tabletop_scenes_hold_sets_to_count_and_twins() -> None:
    scenes = [[t for t in draw_scene(seed, TABLE).objects if t.kind in TABLETOP.kinds] for seed in range(150)]
    of_a_kind = [max(Counter(t.kind for t in things).values()) for things in scenes]
    alike = [max(Counter(t.label for t in things).values()) for things in scenes]
    assert np.mean(np.array(of_a_kind) > 1) > 0.6
    assert max(of_a_kind) >= 5
    assert 0.25 < np.mean(np.array(alike) > 1) < 0.6


def test_handles_of_mugs_that_stand_are_not_hidden_behind_them() -> None:
    recipe = SceneRecipe(objects=(10, 10), world=TABLETOP)
    mugs = 0
    for seed in range(60):
        state = draw_scene(seed, recipe)
        away = state.camera.T_base_camera[:2, 2] / np.linalg.norm(state.camera.T_base_camera[:2, 2])
        for thing in state.objects:
            if thing.kind == "mug" and not thing.tipped:
                mugs += 1
                assert np.array([np.cos(thing.yaw_rad), np.sin(thing.yaw_rad)]) @ away < np.cos(
                    np.radians(44)
                )
    assert mugs > 20
