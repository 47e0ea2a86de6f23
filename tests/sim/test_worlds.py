"""Worlds: enough words and shapes, seeds that keep their scenes, and what is held out stays out of training."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from molmo_ros.sim.objects import all_shapes
from molmo_ros.sim.scene import SceneRecipe, SceneState, draw_scene
from molmo_ros.sim.worlds import DEFAULT_WORLD, FIRST, TABLETOP, WORKSHOP, WORLDS, world_named

SEEDS = (0, 1, 2, 3, 7, 11, 42, 99, 1_000_000, 1_023_999, 5_000_000, 5_000_159)


def numbers(state: SceneState) -> list[float]:
    """Everything about a scene as numbers, to a nanometre."""
    light, room, photo = state.light, state.room, state.photo
    values: list[float] = [*state.camera.T_base_camera.ravel(), state.camera.fovy_rad, *state.arm_rad]
    values += [*light.key_direction, light.key, *light.fill_direction, light.fill, light.ambient, light.head]
    values += [
        room.texture,
        *room.table_rgb,
        room.texture_repeat,
        *room.floor_rgb,
        *room.wall_rgb,
        room.gloss,
    ]
    values += [photo.exposure, *photo.white_balance, photo.gamma, photo.blur_px_at_640, photo.noise_levels]
    for thing in state.objects:
        values += [thing.variant, thing.yaw_rad, *thing.rgb, *thing.centre_m, *thing.size_m, thing.tipped]
        values += [*thing.label.encode()]
    return values


def digest(recipe: SceneRecipe) -> str:
    rounded = [np.round(numbers(draw_scene(seed, recipe)), 9) + 0.0 for seed in SEEDS]
    return hashlib.sha256(b"".join(values.tobytes() for values in rounded)).hexdigest()[:16]


def test_scenes_that_models_were_trained_on_stay_as_they_were() -> None:
    """Fails when anything about drawing a scene changes: make a new world instead."""
    assert digest(SceneRecipe(world=FIRST)) == "16c2f91ee4a77ce0"
    assert digest(SceneRecipe((2, 8), allow_twins=True, world=FIRST)) == "383ff2b5da300eee"
    assert digest(SceneRecipe(world=TABLETOP)) == "949ae7beda9ea8d7"
    assert digest(SceneRecipe((2, 10), True, 0.5, TABLETOP)) == "87983ae8e3882219"


def test_shapes_that_models_were_trained_on_stay_as_they_were() -> None:
    for world, expected in ((FIRST, "839d4f45283a122f"), (TABLETOP, "107168ea8f426506")):
        vertices = np.concatenate([shape.mesh.vertices_V3 for shape in all_shapes(world.kinds)])
        rounded = np.round(vertices, 9) + 0.0
        assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == expected


def test_the_tabletop_has_many_kinds_and_colours() -> None:
    assert len(set(TABLETOP.kinds)) >= 16
    assert len(set(TABLETOP.colours)) == 10
    assert len(TABLETOP.textures) >= 30
    assert not set(TABLETOP.kinds) & set(TABLETOP.clutter)
    assert set(FIRST.kinds) < set(TABLETOP.kinds)
    assert set(FIRST.colours) < set(TABLETOP.colours)
    assert set(WORKSHOP.kinds) - set(TABLETOP.kinds) == {"stapler"}


def test_what_is_held_out_is_never_drawn_for_training() -> None:
    low, high = TABLETOP.camera.held_out_fovy_deg or (0, 0)
    for seed in range(60):
        trained = draw_scene(seed, SceneRecipe(world=TABLETOP))
        held_out = draw_scene(seed, SceneRecipe(world=TABLETOP, held_out=True))
        assert trained.room.texture in TABLETOP.textures
        assert held_out.room.texture in TABLETOP.held_out_textures
        assert not low < np.degrees(trained.camera.fovy_rad) < high
        assert low <= np.degrees(held_out.camera.fovy_rad) <= high
    assert not set(TABLETOP.textures) & set(TABLETOP.held_out_textures)


def test_a_world_without_anything_held_out_cannot_be_asked_for_it() -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        SceneRecipe(world=FIRST, held_out=True)


def test_worlds_are_found_by_name_and_others_are_refused_with_a_list() -> None:
    assert all(world_named(name) is world for name, world in WORLDS.items())
    assert DEFAULT_WORLD in WORLDS.values()
    with pytest.raises(ValueError, match="first, tabletop"):
        world_named("kitchen")


def test_a_world_knows_its_colours_and_the_dull_ones() -> None:
    assert TABLETOP.colour("pink").name == "pink"
    assert TABLETOP.colour("beige").name == "beige"
    assert TABLETOP.colour("black") != FIRST.colour("black")
    with pytest.raises(KeyError):
        FIRST.colour("pink")
