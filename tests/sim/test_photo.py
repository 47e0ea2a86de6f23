"""Camera effects: seeded, mild, and what they say they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from molmo_ros.sim.photo import PhotoRange, PhotoStyle, developed

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


def test_jpeg_loses_detail_and_more_of_it_at_lower_quality_but_no_colour() -> None:
    rng = np.random.default_rng(0)
    busy = rng.integers(0, 255, (240, 320, 3), np.uint8)
    red = np.zeros((240, 320, 3), np.uint8)
    red[..., 0] = 200
    losses = [
        np.abs(developed(busy, replace(PLAIN, jpeg_quality=q), 0).astype(int) - busy).mean() for q in (95, 40)
    ]
    assert 0 < losses[0] < losses[1]
    np.testing.assert_allclose(
        developed(red, replace(PLAIN, jpeg_quality=40), 0)[100, 100], [200, 0, 0], atol=4
    )


def test_styles_use_the_range_they_are_given() -> None:
    wide = PhotoRange(noise_levels=(5.0, 6.0), jpeg_share=0.5, jpeg_quality=(50, 60))
    styles = [PhotoStyle.draw(np.random.default_rng(seed), wide) for seed in range(200)]
    assert all(5.0 <= style.noise_levels <= 6.0 for style in styles)
    packed = [style.jpeg_quality for style in styles if style.jpeg_quality]
    assert 0.35 < len(packed) / len(styles) < 0.65
    assert min(packed) == 50 and max(packed) == 60
    assert not any(PhotoStyle.draw(np.random.default_rng(seed)).jpeg_quality for seed in range(50))
