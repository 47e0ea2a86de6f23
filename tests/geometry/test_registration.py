import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.registration import LARGEST_PATCH, DepthRegistration
from molmo_ros.outcome import Code, PointingError


def pinhole(width: int, height: int, focal: float, **more: object) -> CameraModel:
    k = [focal, 0, (width - 1) / 2 + 1.3, 0, focal * 1.01, (height - 1) / 2 - 0.7, 0, 0, 1]
    return CameraModel.from_info(width=width, height=height, k=k, **more)  # type: ignore[arg-type]


def beside(
    x: float, y: float = 0.0, z: float = 0.0, turn: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    T[:3, 3] = x, y, z
    return T


def by_hand(
    depth_m: np.ndarray,
    depth_camera: CameraModel,
    color_camera: CameraModel,
    T: np.ndarray,
    fill: bool = True,
) -> np.ndarray:
    """What depth_image_proc's register node does, pixel by pixel."""
    out = np.full((color_camera.height, color_camera.width), np.inf, np.float32)
    offset = 0.5 if fill else 0.0
    for row, column in zip(*np.nonzero(np.isfinite(depth_m) & (depth_m > 0)), strict=True):
        z = float(depth_m[row, column])
        corners = [[column - offset, row - offset], [column + offset, row + offset]]
        points = depth_camera.deproject(corners, [z, z]) @ T[:3, :3].T + T[:3, 3]
        uv = color_camera.project(points)
        if not np.isfinite(uv).all():
            continue
        (u1, v1), (u2, v2) = np.floor(uv + 0.5).astype(int)
        new = points[:, 2].mean()
        for v in range(max(min(v1, v2), 0), min(max(v1, v2), color_camera.height - 1) + 1):
            for u in range(max(min(u1, u2), 0), min(max(u1, u2), color_camera.width - 1) + 1):
                out[v, u] = min(out[v, u], new)
    return np.where(np.isfinite(out), out, np.nan)


def stepped_scene(rng: np.random.Generator, height: int = 48, width: int = 64) -> np.ndarray:
    """A wall with things before it, holes and noise."""
    depth = np.full((height, width), rng.uniform(1.0, 2.0), np.float32)
    depth += np.linspace(0, rng.uniform(-0.3, 0.3), width, dtype=np.float32)
    for _ in range(4):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        depth[top : top + rng.integers(4, 20), left : left + rng.integers(4, 20)] = rng.uniform(0.4, 0.9)
    depth += rng.normal(0, 0.001, depth.shape).astype(np.float32)
    depth[rng.random(depth.shape) < 0.03] = np.nan
    return depth


PAIRS: dict[str, tuple[CameraModel, CameraModel, np.ndarray]] = {
    "finer colour": (pinhole(64, 48, 50), pinhole(128, 96, 105), beside(0.02)),
    "coarser colour": (pinhole(64, 48, 50), pinhole(40, 30, 34), beside(-0.03, 0.01)),
    "much finer colour": (pinhole(64, 48, 50), pinhole(320, 240, 260), beside(0.02, 0.01, 0.01)),
    "distorted colour": (
        pinhole(64, 48, 50),
        pinhole(128, 96, 105, d=[0.15, -0.45, 0.003, -0.002, 0.4]),
        beside(0.02, turn=(0.01, -0.02, 0.01)),
    ),
    "fisheye depth": (
        pinhole(64, 48, 40, d=[0.02, -0.01, 0.001, 0.0], distortion_model="equidistant"),
        pinhole(128, 96, 105),
        beside(0.02, 0.0, 0.01),
    ),
    "turned a lot": (pinhole(64, 48, 50), pinhole(128, 96, 90), beside(0.05, turn=(0.05, 0.1, 0.3))),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("fill", [True, False])
def test_registered_depth_is_that_of_every_patch_drawn_by_hand(pair: str, fill: bool) -> None:
    depth_camera, color_camera, T = PAIRS[pair]
    depth = stepped_scene(np.random.default_rng(3))
    registered = DepthRegistration(depth_camera, color_camera, T, fill_upsampling_holes=fill).registered(
        depth
    )
    wanted = by_hand(depth, depth_camera, color_camera, T, fill)
    assert registered.dtype == np.float32
    seen, expected = np.isfinite(registered), np.isfinite(wanted)
    assert (seen != expected).mean() < 0.01
    both = seen & expected
    assert both.sum() > 50
    off = np.abs(registered[both] - wanted[both]) / wanted[both]
    assert (off > 0.0101).mean() < 0.005
    assert np.median(off) < 1e-5


def wall_depth(camera: CameraModel, normal: np.ndarray, offset_m: float) -> np.ndarray:
    """Depth of the plane normal . P = offset_m in a camera's frame."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = camera.rays(np.column_stack([u.ravel(), v.ravel()]))
    with np.errstate(invalid="ignore"):
        depth = (offset_m - normal @ camera.ray_origin_cam) / (rays @ normal)
    return depth.reshape(camera.height, camera.width).astype(np.float32)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1), finer=st.floats(0.5, 3.0), shift=st.floats(-0.06, 0.06),
    distorted=st.booleans(),
)  # fmt: skip
def test_a_wall_is_where_it_is_in_every_pixel_of_any_camera(
    seed: int, finer: float, shift: float, distorted: bool
) -> None:
    rng = np.random.default_rng(seed)
    depth_camera = pinhole(160, 120, 130)
    d = [rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1), 0.001, -0.001, 0.0] if distorted else ()
    color_camera = pinhole(round(160 * finer), round(120 * finer), 150 * finer, d=d)
    T = beside(shift, rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03))
    T[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.05, 0.05, 3)).as_matrix()
    normal = np.array([*rng.uniform(-0.5, 0.5, 2), -1.0])
    depth = wall_depth(depth_camera, normal, -1.2)
    normal_color = T[:3, :3] @ normal
    exact = wall_depth(color_camera, normal_color, -1.2 + float(normal_color @ T[:3, 3]))
    registered = DepthRegistration(depth_camera, color_camera, T).registered(depth)
    middle = np.s_[
        color_camera.height // 4 : -color_camera.height // 4,
        color_camera.width // 4 : -color_camera.width // 4,
    ]
    assert np.isfinite(registered[middle]).all(), "no holes on a wall"
    assert np.abs(registered[middle] / exact[middle] - 1).max() < 0.02
    # of the patches on one pixel the nearest wins: a coarser image is a little nearer
    assert -0.012 < np.mean(registered[middle] / exact[middle] - 1) < 0.003


def test_without_filling_a_finer_image_has_holes() -> None:
    depth_camera, color_camera, T = PAIRS["finer colour"]
    depth = np.full((48, 64), 1.0, np.float32)
    sparse = DepthRegistration(depth_camera, color_camera, T, fill_upsampling_holes=False).registered(depth)
    filled = DepthRegistration(depth_camera, color_camera, T).registered(depth)
    assert np.isnan(sparse[24:-24, 32:-32]).mean() > 0.5
    assert np.isfinite(filled[24:-24, 32:-32]).all()


def test_the_same_camera_at_the_same_place_changes_nothing() -> None:
    camera = pinhole(64, 48, 50)
    depth = stepped_scene(np.random.default_rng(1))
    registered = DepthRegistration(camera, camera, np.eye(4), fill_upsampling_holes=False).registered(depth)
    np.testing.assert_allclose(registered, depth, rtol=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_near_hides_what_is_far_in_whatever_order_they_come(order: int) -> None:
    """From 20 cm to the side a near strip covers another part of the wall, which the depth camera sees."""
    camera = pinhole(160, 120, 130)
    depth = np.full((120, 160), 2.0, np.float32)
    depth[:, 70:90] = 0.5
    T = beside(order * 0.1)
    registered = DepthRegistration(camera, camera, T).registered(depth)
    strip = np.array([[order * 0.1, 0.0, 0.5]])
    u = round(float(camera.project(strip)[0, 0]))
    assert registered[60, u] == pytest.approx(0.5)
    assert np.isin(np.round(registered[np.isfinite(registered)], 3), [0.5, 2.0]).all(), "never a mixture"
    assert (np.abs(registered[60] - 0.5) < 1e-3).sum() == pytest.approx(20, abs=1)


def test_no_return_stays_no_return() -> None:
    depth_camera, color_camera, T = PAIRS["finer colour"]
    for empty in (0.0, -1.0, np.nan, np.inf):
        registered = DepthRegistration(depth_camera, color_camera, T).registered(
            np.full((48, 64), empty, np.float32)
        )
        assert np.isnan(registered).all()


def test_depth_is_that_seen_from_the_colour_camera() -> None:
    camera = pinhole(64, 48, 50)
    registered = DepthRegistration(camera, camera, beside(0, 0, 0.25)).registered(
        np.full((48, 64), 1.0, np.float32)
    )
    assert np.nanmin(registered) == np.nanmax(registered) == pytest.approx(1.25)


def test_what_lies_behind_the_colour_camera_is_not_seen() -> None:
    camera = pinhole(64, 48, 50)
    registered = DepthRegistration(camera, camera, beside(0, 0, -1.5)).registered(
        np.full((48, 64), 1.0, np.float32)
    )
    assert np.isnan(registered).all()


def test_one_registration_serves_many_frames() -> None:
    depth_camera, color_camera, T = PAIRS["finer colour"]
    registration = DepthRegistration(depth_camera, color_camera, T)
    first, second = (stepped_scene(np.random.default_rng(seed)) for seed in (1, 2))
    before = registration.registered(first)
    kept = before.copy()
    registration.registered(second)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(registration.registered(first), kept)


def test_the_depth_image_itself_is_left_alone() -> None:
    depth_camera, color_camera, T = PAIRS["finer colour"]
    depth = stepped_scene(np.random.default_rng(1))
    kept = depth.copy()
    DepthRegistration(depth_camera, color_camera, T).registered(depth)
    np.testing.assert_array_equal(depth, kept)


def test_a_patch_is_never_larger_than_its_limit() -> None:
    """A thing at the colour camera's nose covers the image by a few pixels, not all of it."""
    camera = pinhole(64, 48, 50)
    depth = np.full((48, 64), np.nan, np.float32)
    depth[24, 32] = 0.5
    registered = DepthRegistration(camera, camera, beside(0, 0, -0.48)).registered(depth)
    assert np.isfinite(registered).sum() <= LARGEST_PATCH**2


@pytest.mark.parametrize(
    ("depth", "said"),
    [
        (np.ones((48, 60), np.float32), "60x48 but the camera model is of 64x48"),
        (np.ones((48, 64), np.uint16), "needs HxW float32 metres"),
        (np.ones((48, 64, 1), np.float32), "needs HxW float32 metres"),
        ([[1.0]], "needs HxW float32 metres"),
    ],
)
def test_what_is_no_depth_image_of_the_depth_camera_is_refused(depth: np.ndarray, said: str) -> None:
    depth_camera, color_camera, T = PAIRS["finer colour"]
    with pytest.raises(PointingError, match=said) as caught:
        DepthRegistration(depth_camera, color_camera, T).registered(depth)
    assert caught.value.outcome.code == Code.BAD_IMAGE


@pytest.mark.parametrize("T", [np.diag([1.0, 1, 2, 1]), np.full((4, 4), np.nan), np.eye(3)])
def test_a_transform_that_is_not_rigid_is_refused(T: np.ndarray) -> None:
    depth_camera, color_camera, _ = PAIRS["finer colour"]
    with pytest.raises(PointingError, match="T_color_depth") as caught:
        DepthRegistration(depth_camera, color_camera, T)
    assert caught.value.outcome.code == Code.TF_UNAVAILABLE
