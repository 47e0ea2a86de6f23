"""How far the geometry is off, on simulated tables it has never seen, beside what others do; and how long it takes.

    tools/run python benchmarks/geometry.py [--quick] [--check] [--json FILE] [--world NAME] [--seed N]

Depth goes through the noise models of molmo_ros/sim (D435-like and Kinect-like); the truth of the simulator
only judges. An error is that of the depth along the optical axis at the pixel that was meant; "off by n px" moves
the point n pixels in a random direction and says so (sigma_px = n, as a pointer that knows its doubt would).
Refusals are no errors and are counted apart. Times are processor time of one thread, the least of several
repeats for each point.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import cv2
import numpy as np
from figures import Figure, parser, report
from geometry_baselines import BASELINES
from geometry_scenes import SceneCase, Thing, Top, scene_cases
from scipy.spatial.transform import Rotation

from molmo_ros.geometry import (
    PROFILES,
    CameraModel,
    DepthProfile,
    DepthRegistration,
    ExtrinsicError,
    Gripper,
    Located,
    Observation,
    PlanePrior,
    SupportPlane,
    fit_support_plane,
    fuse,
    locate,
)
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.point import Point2D
from molmo_ros.sim.depth_noise import noisy_depth
from molmo_ros.sim.tabletop import TabletopScene

FIRST_SEED = 310_000
SCENES, QUICK_SCENES = 60, 8
WRONG_M = 0.02
EXACT_SIGMA_PX = 0.5
OFF_PX = (4, 8)
GRIPPER = Gripper()
CHI2_95 = 7.815  # three degrees of freedom
# The doubts that covariances are tried with: pixels, and the camera's mount (hand-eye calibration).
SIGMAS_PX = (0.5, 2.0, 4.0, 8.0)
MOUNT = ExtrinsicError(translation_m=0.003, rotation_rad=0.003)
REGISTRATION_REPEATS, POINT_REPEATS, PLANE_REPEATS = 30, 5, 3


@dataclass
class Errors:
    """Errors (metres; NaN = no answer) of one kind of points, and how many of them were refused as ambiguous."""

    errors_m: list[float] = field(default_factory=list)
    ambiguous: int = 0

    def add(self, answer_m: float, truth_m: float) -> None:
        self.errors_m.append(abs(answer_m - truth_m))

    @property
    def answered_m(self) -> np.ndarray:
        errors = np.array(self.errors_m)
        return errors[np.isfinite(errors)]

    def percentile_mm(self, q: float) -> float:
        return 1e3 * float(np.percentile(self.answered_m, q))

    @property
    def wrong_share(self) -> float:
        """Percent of all points that were answered more than 2 cm wrong."""
        return 100 * float((self.answered_m > WRONG_M).sum()) / len(self.errors_m)

    @property
    def ambiguous_share(self) -> float:
        return 100 * self.ambiguous / len(self.errors_m)

    @property
    def silent_share(self) -> float:
        """Percent without an answer for another reason."""
        return 100 * (1 - (len(self.answered_m) + self.ambiguous) / len(self.errors_m))


@dataclass
class Measured:
    """What was seen on all tables with one kind of noise."""

    points: dict[str, Errors] = field(default_factory=dict)
    baselines: dict[tuple[str, str], Errors] = field(default_factory=dict)
    yaw_deg: list[float] = field(default_factory=list)
    width_mm: list[float] = field(default_factory=list)
    centre_mm: list[float] = field(default_factory=list)
    height_mm: list[float] = field(default_factory=list)
    tops: int = 0
    plane_mm: list[float] = field(default_factory=list)
    plane_deg: list[float] = field(default_factory=list)
    plane_ms: list[float] = field(default_factory=list)
    point_ms: list[float] = field(default_factory=list)
    within: list[bool | None] = field(default_factory=list)


def point_at(uv: np.ndarray, sigma_px: float) -> Point2D:
    return Point2D(u=float(uv[0]), v=float(uv[1]), label="thing", confidence=1.0, sigma_px=sigma_px, index=0)


def measure(seeds: range, noise: str, world: str) -> Measured:
    """Everything about the tables of these seeds."""
    measured = Measured()
    profile = PROFILES[noise]
    for case in scene_cases(seeds, noise, world):
        support = measured_plane(case, profile, measured)
        rng = np.random.default_rng([case.frame.stamp_ns, 1])
        for thing in case.things:
            measure_thing(case, thing, support, profile, rng, measured)
    return measured


def measured_plane(case: SceneCase, profile: DepthProfile, measured: Measured) -> SupportPlane:
    prior = PlanePrior.from_gravity(case.T_base_camera)
    assert case.frame.depth_m is not None
    depth_m = case.frame.depth_m
    times = [
        least_ms(lambda: fit_support_plane(depth_m, case.frame.camera, prior, profile=profile), PLANE_REPEATS)
    ]
    support = fit_support_plane(depth_m, case.frame.camera, prior, profile=profile)
    measured.plane_ms += times
    in_base = support.moved(case.T_base_camera)
    middle_of_things = np.array([0.52, 0.0, 0.0])
    measured.plane_mm.append(1e3 * abs(float(in_base.height_m(middle_of_things)[()])))
    measured.plane_deg.append(float(np.degrees(np.arccos(np.clip(in_base.normal_cam[2], -1, 1)))))
    return support


def measure_thing(
    case: SceneCase,
    thing: Thing,
    support: SupportPlane,
    profile: DepthProfile,
    rng: np.random.Generator,
    measured: Measured,
) -> None:
    frame, T = case.frame, case.T_base_camera
    assert frame.depth_m is not None

    def answer(uv: np.ndarray, sigma_px: float, gripper: Gripper | None = None) -> Located:
        return locate(frame, point_at(uv, sigma_px), T, profile=profile, support=support, gripper=gripper)

    for kind, uv in (("centroid", thing.centroid_uv), ("random point", thing.random_uv)):
        truth = float(case.true_depth_m[round(uv[1]), round(uv[0])])
        note(measured, kind, answer(uv, EXACT_SIGMA_PX), truth)
        note_baselines(measured, kind, frame.depth_m, uv, truth)
    for name, meant in (("random point", thing.random_uv), ("centroid", thing.centroid_uv)):
        truth = float(case.true_depth_m[round(meant[1]), round(meant[0])])
        for off_px in OFF_PX:
            angle = rng.uniform(0, 2 * np.pi)
            uv = meant + off_px * np.array([np.cos(angle), np.sin(angle)])
            uv = np.clip(uv, 0, [frame.camera.width - 1, frame.camera.height - 1])
            note(measured, f"{name}, off by {off_px} px", answer(uv, off_px), truth)
            note_baselines(measured, f"{name}, off by {off_px} px", frame.depth_m, uv, truth)

    point = point_at(thing.centroid_uv, 2.0)
    measured.point_ms.append(
        least_ms(
            lambda: locate(frame, point, T, profile=profile, support=support, gripper=GRIPPER), POINT_REPEATS
        )
    )
    if thing.top is not None:
        note_top(measured, answer(thing.centroid_uv, EXACT_SIGMA_PX, GRIPPER), thing.top)
    measured.within.append(covariance_holds(case, thing, support, profile, rng))


def note(measured: Measured, kind: str, located: Located, truth_m: float) -> None:
    errors = measured.points.setdefault(kind, Errors())
    if located.outcome.code == Code.AMBIGUOUS_DEPTH:
        errors.ambiguous += 1
    ok = located.outcome.ok and located.depth is not None
    errors.add(located.depth.depth_m if ok and located.depth else float("nan"), truth_m)


def note_baselines(
    measured: Measured, kind: str, depth_m: np.ndarray, uv: np.ndarray, truth_m: float
) -> None:
    for name, estimate in BASELINES.items():
        measured.baselines.setdefault((name, kind), Errors()).add(estimate(depth_m, uv[0], uv[1]), truth_m)


def note_top(measured: Measured, located: Located, top: Top) -> None:
    measured.tops += 1
    grasp = located.grasp
    if grasp is None or grasp.outcome.code == Code.AMBIGUOUS_DEPTH:
        return
    measured.width_mm.append(1e3 * abs(grasp.footprint.width_m - top.width_m))
    measured.centre_mm.append(1e3 * float(np.linalg.norm(grasp.top_base_m[:2] - top.centre_base_m)))
    measured.height_mm.append(1e3 * abs(grasp.height_m - top.height_m))
    if top.turns_rad is not None:
        across = grasp.T_base_plan[:2, :2] @ [
            np.cos(grasp.footprint.yaw_rad),
            np.sin(grasp.footprint.yaw_rad),
        ]
        off = (np.arctan2(across[1], across[0]) - top.yaw_rad) % top.turns_rad
        measured.yaw_deg.append(float(np.degrees(min(off, top.turns_rad - off))))


def covariance_holds(
    case: SceneCase, thing: Thing, support: SupportPlane, profile: DepthProfile, rng: np.random.Generator
) -> bool | None:
    """Whether the 95 % ellipsoid holds the true place, with a wrong pixel and a wrongly mounted camera."""
    frame = case.frame
    sigma_px = float(rng.choice(SIGMAS_PX))
    pointed = thing.random_uv + rng.normal(0, sigma_px, 2)
    mount = np.eye(4)
    mount[:3, :3] = Rotation.from_rotvec(rng.normal(0, MOUNT.rotation_rad, 3)).as_matrix()
    mount[:3, 3] = rng.normal(0, MOUNT.translation_m, 3)
    u, v = thing.random_uv
    truth_cam = frame.camera.deproject([[u, v]], [case.true_depth_m[round(v), round(u)]])[0]
    truth = (case.T_base_camera @ mount @ [*truth_cam, 1.0])[:3]
    located = locate(
        frame,
        point_at(pointed, sigma_px),
        case.T_base_camera,
        profile=profile,
        extrinsic=MOUNT,
        support=support,
    )
    if not located.outcome.ok:
        return None
    miss = located.position_base_m - truth
    return bool(miss @ np.linalg.solve(located.position_cov_m2, miss) < CHI2_95)


def least_ms(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.process_time()
        with suppress(PointingError):  # refusing takes time as well
            work()
        times.append(time.process_time() - started)
    return 1e3 * min(times)


def registration_ms(seed: int) -> float:
    """848x480 depth of a table, D435-like, into 1280x720 colour with a lens, 15 mm to the side."""
    tabletop = TabletopScene((848, 480))
    state = tabletop.reset(seed)
    K = state.camera.K((848, 480))
    depth_camera = CameraModel.from_info(width=848, height=480, k=K, rectified=True)
    depth_m = noisy_depth(tabletop.render().depth_m, K[0, 0], np.random.default_rng(seed), "d435")
    tabletop.close()
    color_camera = CameraModel.from_info(
        width=1280, height=720, k=[910, 0, 640, 0, 910, 360, 0, 0, 1], d=[0.15, -0.45, 0.0007, -0.0003, 0.42]
    )
    T_color_depth = np.eye(4)
    T_color_depth[0, 3] = 0.015
    registration = DepthRegistration(depth_camera, color_camera, T_color_depth)
    return least_ms(lambda: registration.registered(depth_m), REGISTRATION_REPEATS)


def fusion_gains(seeds: range) -> dict[int, float]:
    """Views: root mean square error of the fused position over that of one view, from honest covariances."""
    errors: dict[int, list[float]] = {1: [], 4: [], 16: []}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        observations = []
        for _ in range(16):
            turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
            cov = turn @ np.diag(np.square([0.004, 0.004, 0.008])) @ turn.T
            observations.append(Observation(rng.multivariate_normal(np.zeros(3), cov), cov))
        for views, found in errors.items():
            found.append(float(np.sum(fuse(observations[:views]).position_m ** 2)))
    rms = {views: np.sqrt(np.mean(found)) for views, found in errors.items()}
    return {views: float(rms[views] / rms[1]) for views in (4, 16)}


def figures_of(measured: Measured, noise: str) -> list[Figure]:
    """The issue's figures beside their goals; what others do beside ours, without goals."""
    figures = []

    def add(name: str, value: float, unit: str, goal: float | None = None, at_least: bool = False) -> None:
        figures.append(Figure(f"{noise}: {name}", value, unit, goal, at_least))

    for kind, median, p95, wrong in (("centroid", 1.2, 5.0, 0.3), ("random point", 1.5, 10.0, 3.0)):
        errors = measured.points[kind]
        add(f"{kind}, median", errors.percentile_mm(50), "mm", median)
        add(f"{kind}, p95", errors.percentile_mm(95), "mm", p95)
        add(f"{kind}, over 2 cm", errors.wrong_share, "%", wrong)
        add(f"{kind}, refused as ambiguous", errors.ambiguous_share, "%")
        add(f"{kind}, no depth", errors.silent_share, "%")
    for off_px, wrong in zip(OFF_PX, (1.5, 4.0), strict=True):
        for name in ("random point", "centroid"):
            kind = f"{name}, off by {off_px} px"
            errors = measured.points[kind]
            add(f"{kind}, over 2 cm", errors.wrong_share, "%", wrong)
            add(f"{kind}, refused as ambiguous", errors.ambiguous_share, "%", 5.0)
            add(f"{kind}, no depth", errors.silent_share, "%")
    for (name, kind), errors in measured.baselines.items():
        if "off" not in kind:
            add(f"{kind}, {name}, median", errors.percentile_mm(50), "mm")
            add(f"{kind}, {name}, p95", errors.percentile_mm(95), "mm")
            add(f"{kind}, {name}, no depth", errors.silent_share, "%")
        add(f"{kind}, {name}, over 2 cm", errors.wrong_share, "%")
    for name, values, unit, median, p95 in (
        ("yaw", measured.yaw_deg, "deg", 1.0, 5.0),
        ("width", measured.width_mm, "mm", 2.0, 6.0),
        ("centre", measured.centre_mm, "mm", 3.0, 8.0),
    ):
        add(f"grasp {name}, median of {len(values)}", float(np.median(values)), unit, median)
        add(f"grasp {name}, p95", float(np.percentile(values, 95)), unit, p95)
    add("height of a thing, median", float(np.median(measured.height_mm)), "mm")
    add("height of a thing, p95", float(np.percentile(measured.height_mm, 95)), "mm")
    add("tops seen but not measured", 100 * (1 - len(measured.width_mm) / measured.tops), "%")
    known = [held for held in measured.within if held is not None]
    add("95 % ellipsoid holds the truth, at least", 100 * float(np.mean(known)), "%", 90.0, at_least=True)
    add("95 % ellipsoid holds the truth, at most", 100 * float(np.mean(known)), "%", 99.0)
    add("support plane, height, p95", float(np.percentile(measured.plane_mm, 95)), "mm")
    add("support plane, tilt, p95", float(np.percentile(measured.plane_deg, 95)), "deg")
    add("support plane, per frame, p95", float(np.percentile(measured.plane_ms, 95)), "ms", 8.0)
    add("a point, everything, median", float(np.median(measured.point_ms)), "ms")
    add("a point, everything, p95", float(np.percentile(measured.point_ms, 95)), "ms", 10.0)
    return figures


def options_of() -> argparse.Namespace:
    options = parser(__doc__ or "", f"{QUICK_SCENES} tables instead of {SCENES}")
    options.add_argument("--world", default="first", help="world of molmo_ros/sim that tables are drawn from")
    options.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first table")
    options.add_argument("--noise", nargs="*", default=["d435", "kinect"], choices=["d435", "kinect"])
    return options.parse_args()


def main() -> int:
    options = options_of()
    cv2.setNumThreads(1)
    seeds = range(options.seed, options.seed + (QUICK_SCENES if options.quick else SCENES))
    figures = []
    for noise in options.noise:
        measured = measure(seeds, noise, options.world)
        points = len(measured.points["centroid"].errors_m)
        figures.append(Figure(f"{noise}: things on {len(seeds)} tables", points, ""))
        figures += figures_of(measured, noise)
    figures.append(Figure("registration, 848x480 into 1280x720", registration_ms(options.seed), "ms", 15.0))
    for views, gain in fusion_gains(range(options.seed, options.seed + 200)).items():
        figures.append(
            Figure(f"error of {views} fused views, over one view's", gain, "", 1.15 / np.sqrt(views))
        )
    return report(figures, options, f"geometry, world {options.world!r}")


if __name__ == "__main__":
    raise SystemExit(main())
