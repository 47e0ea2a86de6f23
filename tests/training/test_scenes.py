"""Shards hold what is true of their pictures, in the words of their world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molmo_ros.sim.free_space import free_table
from molmo_ros.sim.scene import SceneRecipe
from molmo_ros.sim.tabletop import TabletopScene
from molmo_ros.sim.truth import scene_truth
from molmo_ros.sim.worlds import FIRST, TABLETOP
from molmo_ros.training.scenes import (
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    Grid,
    Shard,
    ShardOrder,
    Words,
    draw_shard,
    load_shards,
)
from molmo_ros.training.tabletop_questions import UNNAMED

GRID = Grid(size=(90, 120), crop_size=(90, 120), patch_size=10, pooling=(3, 3))
SIZE, SEED, COUNT = (240, 180), 1_000_100, 8


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> ShardOrder:
    path = tmp_path_factory.mktemp("shards") / "one.npz"
    return ShardOrder(path, SEED, COUNT, SIZE, (4, 10), GRID, TABLETOP.name, twin_probability=0.5)


@pytest.fixture(scope="module")
def shard(order: ShardOrder) -> Shard:
    return load_shards([draw_shard(order)])


def test_a_shard_says_what_its_scenes_show(shard: Shard) -> None:
    tabletop = TabletopScene(SIZE, SceneRecipe((4, 10), True, 0.5, TABLETOP))
    for row, seed in enumerate(shard.seeds):
        state = tabletop.reset(int(seed))
        view = tabletop.render(segmentation=True)
        assert view.ids is not None
        seen = shard.seen(row)
        truths = scene_truth(state, view.ids, int(20 / (320 * 240) * view.ids.size))
        assert len(seen.things) == len(truths)
        assert len(seen.hidden) == len(state.objects) - len(truths)
        for thing, truth in zip(seen.things, truths, strict=True):
            named = truth.kind in TABLETOP.kinds
            assert thing.kind == (truth.kind if named else UNNAMED)
            assert thing.colour == (truth.colour if truth.colour in TABLETOP.colours else "")
            u, v = round(thing.x / 100 * SIZE[0]), round(thing.y / 100 * SIZE[1])
            assert truth.mask_HW[v, u]
            assert (thing.bulk_m, thing.distance_m) == pytest.approx(
                (truth.bulk_m, truth.distance_m), rel=1e-5
            )
            assert thing.pixels == truth.visible_pixels
        assert seen.free_spot is not None
        u, v = round(seen.free_spot[0] / 100 * SIZE[0]), round(seen.free_spot[1] / 100 * SIZE[1])
        assert free_table(state, view.depth_m, view.ids)[v, u]
    tabletop.close()


def test_a_finished_shard_is_left_as_it_is(order: ShardOrder, shard: Shard) -> None:
    before = order.path.stat().st_mtime_ns
    assert draw_shard(replace(order, first_seed=5)) == order.path
    assert order.path.stat().st_mtime_ns == before


def test_shards_are_read_as_one_in_order(order: ShardOrder, shard: Shard) -> None:
    both = load_shards([order.path, order.path])
    assert both.world == TABLETOP.name
    for name, values in vars(shard).items():
        if isinstance(values, np.ndarray):
            np.testing.assert_array_equal(getattr(both, name), np.concatenate([values, values]))
    rows = np.array([COUNT + 1, 0, COUNT - 1, COUNT])
    assert len(both.pictures) == 2 * COUNT
    np.testing.assert_array_equal(both.pictures[rows], shard.pictures[rows % COUNT])


def test_shards_of_different_worlds_do_not_mix(order: ShardOrder, shard: Shard, tmp_path: Path) -> None:
    other = replace(shard, world=FIRST.name)
    np.savez(
        tmp_path / "other.npz", **{name: value for name, value in vars(other).items() if name != "pictures"}
    )
    with pytest.raises(ValueError, match="first, tabletop"):
        load_shards([order.path, tmp_path / "other.npz"])


@pytest.mark.parametrize("world", [FIRST, TABLETOP], ids=lambda w: w.name)
def test_words_and_their_numbers_fit_each_other(world: object) -> None:
    words = Words.of(world)  # type: ignore[arg-type]
    for colour in words.colours:
        for kind in words.kinds:
            assert words.of_codes(*words.codes(colour, kind)) == (colour, kind)
    assert words.codes(None, None) == (0, 0)


def test_what_has_no_name_is_a_thing_and_a_dull_colour_has_no_word() -> None:
    words = Words.of(TABLETOP)
    assert words.of_codes(*words.codes("beige", "star")) == ("", UNNAMED)
    assert words.of_codes(*words.codes("red", "star")) == ("red", UNNAMED)
    assert len(words.kinds) == len(TABLETOP.kinds) + 1


def test_seeds_of_training_validation_and_tests_never_meet() -> None:
    ranges = (TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS)
    for a in ranges:
        for b in ranges:
            assert a is b or a.stop <= b.start or b.stop <= a.start
