import numpy as np
import pytest

from molmo_ros.geometry.depth_profile import D435, KINECT
from molmo_ros.sim.depth_noise import NOISES, noisy_depth

FOCAL_PX = 600.0


def wall(depth_m: float) -> np.ndarray:
    return np.full((480, 640), depth_m, np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("noise", NOISES)
def test_the_same_seed_gives_the_same_image(noise: str) -> None:
    scene = wall(1.0)
    scene[100:300, 200:400] = 0.7
    first, again = noisy_depth(scene, FOCAL_PX, rng(5), noise), noisy_depth(scene, FOCAL_PX, rng(5), noise)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    if noise != "none":
        assert not np.array_equal(first, noisy_depth(scene, FOCAL_PX, rng(6), noise), equal_nan=True)


def test_no_noise_leaves_depth_alone_and_drops_what_is_too_far() -> None:
    scene = wall(1.0)
    scene[0, :4] = [0.0, np.inf, np.nan, 7.0]
    out = noisy_depth(scene, FOCAL_PX, rng(), "none")
    assert np.isnan(out[0, :4]).all()
    np.testing.assert_array_equal(out[1:], scene[1:])


@pytest.mark.parametrize(("noise", "profile"), [("d435", D435), ("kinect", KINECT)])
@pytest.mark.parametrize("depth_m", [0.5, 1.0, 2.0])
def test_a_facing_wall_is_as_noisy_as_its_profile_says(noise: str, profile: object, depth_m: float) -> None:
    middle = noisy_depth(wall(depth_m), FOCAL_PX, rng(), noise)[140:340, 220:420]
    error = middle[np.isfinite(middle)] - depth_m
    wanted = profile.sigma_z_m(depth_m, FOCAL_PX)  # type: ignore[attr-defined]
    if noise == "kinect":  # its disparity steps of 1/8 px add their own share
        step = depth_m**2 / (FOCAL_PX * 0.075) / 8
        wanted = np.hypot(wanted, step / np.sqrt(12))
    assert error.std() == pytest.approx(wanted, rel=0.15)
    assert abs(error.mean()) < 0.2 * wanted + 2e-4


def test_neighbouring_errors_go_together() -> None:
    error = noisy_depth(wall(1.0), FOCAL_PX, rng(), "d435")[100:380, 100:540] - 1.0
    error = np.nan_to_num(error)
    beside = (error[:, :-1] * error[:, 1:]).mean() / (error**2).mean()
    far = (error[:, :-15] * error[:, 15:]).mean() / (error**2).mean()
    assert beside > 0.7
    assert abs(far) < 0.1


def test_disparity_comes_in_steps() -> None:
    out = noisy_depth(wall(1.5), FOCAL_PX, rng(), "d435")
    steps = FOCAL_PX * 0.05 / out[np.isfinite(out)].astype(float) * 32
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_the_far_side_of_a_step_is_in_the_stereo_shadow() -> None:
    """The second eye stands to the right, so a strip left of a near thing is not seen by both."""
    scene = wall(1.2)
    scene[150:330, 300:400] = 0.6
    out = noisy_depth(scene, FOCAL_PX, rng(), "d435")
    shadow_px = FOCAL_PX * 0.05 * (1 / 0.6 - 1 / 1.2)
    strip = slice(300 - int(shadow_px) + 2, 298)
    assert np.isnan(out[170:310, strip]).mean() > 0.95
    assert np.isnan(out[170:310, 404:430]).mean() < 0.1


def test_flying_pixels_lie_between_the_two_surfaces() -> None:
    scene = wall(1.2)
    scene[150:330, 300:400] = 0.6
    rim = noisy_depth(scene, FOCAL_PX, rng(), "d435")[170:310, 398:402]
    flying = (rim > 0.65) & (rim < 1.15)
    assert 0.1 < flying.mean() < 0.4


def test_the_more_grazing_a_surface_is_seen_the_more_of_it_is_lost() -> None:
    v = (np.arange(480, dtype=np.float32) - 239.5)[:, None] / FOCAL_PX
    floor = np.broadcast_to(0.15 / np.maximum(v, 1e-4), (480, 640)).astype(np.float32)
    lost = np.isnan(noisy_depth(floor, FOCAL_PX, rng(), "d435"))
    assert lost[308:316].mean() > 0.8, "83 degrees from the normal"
    assert 0.1 < lost[400:470].mean() < 0.6, "70 to 75 degrees"
    facing = np.isnan(noisy_depth(wall(1.0), FOCAL_PX, rng(), "d435")).mean()
    assert 0.0005 < facing < 0.02


def test_an_unknown_noise_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'l515' is unknown; valid are none, d435, kinect"):
        noisy_depth(wall(1.0), FOCAL_PX, rng(), "l515")
