"""Camera effects: seeded, mild, and what they say they are."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.sim.photo import PhotoStyle, developed

PLAIN = PhotoStyle(1.0, (1.0, 1.0, 1.0), gamma=1.0, blur_px_at_640=0.0, noise_levels=0.0)
GREY = np.full((240, 320, 3), 120, np.uint8)


def test_a_neutral_camera_changes_nothing_below_the_shoulder() -> None:
    np.testing.assert_array_equal(developed(GREY, PLAIN, noise_seed=1), GREY)


def test_noise_has_the_strength_asked_for_and_depends_on_the_seed_only() -> None:
    style = PhotoStyle(1.0, (1.0, 1.0, 1.0), gamma=1.0, blur_px_at_640=0.0, noise_levels=4.0)
    first, again, other = (developed(GREY, style, noise_seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    assert first.astype(float).std() == pytest.approx(4.0, rel=0.05)
    assert first.astype(float).mean() == pytest.approx(120.0, abs=0.5)


def test_exposure_and_white_balance_scale_the_channels() -> None:
    style = PhotoStyle(1.1, (1.05, 1.0, 0.95), gamma=1.0, blur_px_at_640=0.0, noise_levels=0.0)
    np.testing.assert_allclose(developed(GREY, style, 0)[0, 0], [138.6, 132.0, 125.4], atol=0.51)


def test_blur_is_relative_to_the_image_width() -> None:
    edge = np.zeros((240, 640, 3), np.uint8)
    edge[:, 320:] = 200
    style = PhotoStyle(1.0, (1.0, 1.0, 1.0), gamma=1.0, blur_px_at_640=0.8, noise_levels=0.0)
    wide = developed(edge, style, 0)[100, :, 0]
    narrow = developed(edge[:, 240:400], style, 0)[100, :, 0]  # 160 px wide: a quarter of the blur, none left
    assert ((wide > 10) & (wide < 190)).sum() >= 2
    assert ((narrow > 10) & (narrow < 190)).sum() == 0


def test_images_larger_than_the_noise_bank_work() -> None:
    style = PhotoStyle(1.0, (1.0, 1.0, 1.0), gamma=1.0, blur_px_at_640=0.0, noise_levels=3.0)
    large = developed(np.full((1080, 1920, 3), 100, np.uint8), style, 2)
    assert large.shape == (1080, 1920, 3)
    assert large.astype(float).std() == pytest.approx(3.0, rel=0.05)


def test_drawn_styles_are_mild() -> None:
    for seed in range(200):
        style = PhotoStyle.draw(np.random.default_rng(seed))
        bright = developed(GREY, style, 0).astype(float).mean()
        assert 70 < bright < 190
