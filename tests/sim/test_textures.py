"""Table textures: thirty different ones, pale enough to be tinted."""

from __future__ import annotations

import numpy as np

from molmo_ros.sim.textures import SIZE_PX, TEXTURE_COUNT, shadow_spot, table_textures


def test_textures_are_many_different_and_pale() -> None:
    textures = table_textures()
    assert len(textures) == TEXTURE_COUNT
    assert len({texture.tobytes() for texture in textures}) == TEXTURE_COUNT
    for texture in textures:
        assert texture.shape == (SIZE_PX, SIZE_PX, 3)
        assert 150 < texture.mean() < 250
        assert np.abs(texture[..., 0].astype(int) - texture[..., 2]).max() < 25  # nearly grey


def test_the_shadow_spot_is_dark_in_the_middle_and_clear_at_the_rim() -> None:
    alpha = shadow_spot()[..., 3]
    assert alpha[64, 64] > 240
    assert alpha[0].max() == alpha[:, -1].max() == 0
