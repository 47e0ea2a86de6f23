"""Table textures: many different ones, pale enough to be tinted."""

from __future__ import annotations

import numpy as np

from molmo_ros.sim.textures import (
    HELD_OUT_TEXTURES,
    SIZE_PX,
    TEXTURE_COUNT,
    TRAINING_TEXTURES,
    shadow_spot,
    table_texture,
)


def test_textures_are_many_different_and_pale() -> None:
    textures = [table_texture(i) for i in range(TRAINING_TEXTURES + HELD_OUT_TEXTURES)]
    assert len(textures) == TRAINING_TEXTURES + HELD_OUT_TEXTURES > TEXTURE_COUNT >= 30
    assert len({texture.tobytes() for texture in textures}) == len(textures)
    for texture in textures:
        assert texture.shape == (SIZE_PX, SIZE_PX, 3)
        assert 150 < texture.mean() < 250
        assert np.abs(texture[..., 0].astype(int) - texture[..., 2]).max() < 25  # nearly grey


def test_the_shadow_spot_is_dark_in_the_middle_and_clear_at_the_rim() -> None:
    alpha = shadow_spot()[..., 3]
    assert alpha[64, 64] > 240
    assert alpha[0].max() == alpha[:, -1].max() == 0
