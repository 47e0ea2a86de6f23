"""Ground truth from the instance map."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.sim.scene import SceneRecipe, draw_scene
from molmo_ros.sim.truth import scene_truth

STATE = draw_scene(1, SceneRecipe(objects=(2, 2)))


def test_centroid_and_count_are_those_of_the_mask() -> None:
    ids = np.zeros((48, 64), np.int32)
    ids[10:14, 20:30] = 1
    (truth,) = scene_truth(STATE, ids)
    assert truth.label == STATE.objects[0].label
    assert truth.visible_pixels == 40
    assert truth.centroid_uv == (24.5, 11.5)
    assert truth.centre_m == STATE.objects[0].centre_m
    np.testing.assert_array_equal(truth.mask_HW, ids == 1)
    assert truth.box_uv == (20, 10, 29, 13)
    camera_m = STATE.camera.T_base_camera[:3, 3]
    assert truth.distance_m == pytest.approx(np.linalg.norm(camera_m - truth.centre_m))
    assert truth.bulk_m == STATE.objects[0].shape.bulk_m


def test_the_inside_point_of_a_ring_is_on_the_ring() -> None:
    v, u = np.mgrid[0:48, 0:64]
    r = np.hypot(u - 30, v - 20)
    ids = np.where((r > 8) & (r < 12), 2, 0).astype(np.int32)
    (truth,) = scene_truth(STATE, ids)
    assert list(truth.centroid_uv) == pytest.approx([30, 20])
    inside_u, inside_v = truth.inside_uv
    assert truth.mask_HW[int(inside_v), int(inside_u)]
    assert np.hypot(inside_u - 30, inside_v - 20) < 9.5


def test_hidden_things_and_slivers_are_left_out() -> None:
    ids = np.zeros((48, 64), np.int32)
    assert scene_truth(STATE, ids) == ()
    ids[3, 3:8] = 1
    assert len(scene_truth(STATE, ids)) == 1
    assert scene_truth(STATE, ids, min_pixels=6) == ()
