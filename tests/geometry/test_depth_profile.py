import pytest

from molmo_ros.geometry.depth_profile import D435, GENERIC, KINECT, PROFILES, DepthProfile


def test_the_d435_follows_the_tuning_guide() -> None:
    # z^2 * subpixel / (f * B) at 2 m with f = 640 px, B = 50 mm
    assert D435.sigma_z_m(2.0, 640.0) == pytest.approx(4 * 0.08 / (640 * 0.05))


def test_the_kinect_follows_nguyen() -> None:
    assert KINECT.sigma_z_m(1.4, 525.0) == pytest.approx(0.0012 + 0.0019)


def test_depth_registered_to_another_focal_length_keeps_its_own_noise() -> None:
    registered = DepthProfile("d435", subpixel_px=0.08, baseline_m=0.05, depth_focal_px=425.0)
    assert registered.sigma_z_m(1.0, 615.0) == pytest.approx(D435.sigma_z_m(1.0, 425.0))


def test_profiles_are_found_by_name() -> None:
    assert PROFILES == {"d435": D435, "kinect": KINECT, "generic": GENERIC}
