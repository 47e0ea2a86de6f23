"""Where the camera is, found by `molmo_ros calibrate`: how far off it is said to be before, and is after.

    tools/run python benchmarks/calibration.py [--quick] [--check] [--json FILE] [--seeds N] [--views N]

A simulated FR3 whose camera is said to be 20 mm and 3 degrees from where it is; each seed has another camera, light and
table. Three ways to do better: a ChArUco board on the hand before a camera on a stand (eye to hand), a board on the
table before the camera on the wrist (eye in hand), and spots on the table that the tip touches and somebody clicks at.
The board is a textured plate that MuJoCo draws and the camera model develops with its blur and noise; joints are
measured with 0.2 mrad of noise; clicks are 1.5 px off, touches 0.5 mm each way, depth is as noisy as a D435's. The
truth judges, and it places the person's clicks and touches; nothing of it reaches an estimate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from figures import Figure, parser, report
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.charuco import CharucoBoard
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.hand_eye import BoardView, Mounting, calibrate_hand_eye
from molmo_ros.geometry.locate import locate
from molmo_ros.geometry.point_pairs import fit_point_pairs
from molmo_ros.outcome import PointingError
from molmo_ros.pointing.point import Point2D
from molmo_ros.sim.calibration_rig import CalibrationRig
from molmo_ros.sim.cell_arm import MountingError
from molmo_ros.sim.depth_noise import noisy_depth
from molmo_ros.sim.robot_cell import RobotCell
from molmo_ros.sim.scene import draw_scene
from molmo_ros.sim.surroundings import SceneCamera

FIRST_SEED = 9_100_000
SAID = MountingError(0.020, np.radians(3.0))
CLICK_PX, TOUCH_M = 1.5, 0.0005
MOST_OFF_M, MOST_OFF_RAD = 0.003, np.radians(0.5)


@dataclass(frozen=True)
class Off:
    """How far an estimate is from the truth, and what it took."""

    distance_m: float
    angle_rad: float
    wall_s: float = 0.0

    @classmethod
    def of(cls, T_true: np.ndarray, T: np.ndarray, wall_s: float = 0.0) -> Off:
        T_off = np.linalg.inv(T_true) @ T
        angle = float(Rotation.from_matrix(T_off[:3, :3]).magnitude())
        return cls(float(np.linalg.norm(T_off[:3, 3])), angle, wall_s)


def by_board(rig: CalibrationRig, seed: int, views: int) -> tuple[Off, Off]:
    """Before and after."""
    rig.reset(seed)
    said = rig.T_mount_camera_true @ SAID.drawn(np.random.default_rng(seed))
    taken = []
    for joints in rig.postures(views, said):
        seen = rig.visit(joints)
        if seen is None:
            continue
        try:
            taken.append(BoardView(seen.T_base_hand, rig.board.find(seen.color)))
        except PointingError:
            continue  # what an operator would pass over, too
    began_s = time.perf_counter()
    found = calibrate_hand_eye(taken, rig.camera, rig.mounting)
    wall_s = time.perf_counter() - began_s
    print(
        f"{rig.mounting} {seed}: {len(taken)} views, {found.rms_px:.2f} px, said to be within "
        f"{1e3 * found.sigma_m:.1f} mm and {np.degrees(found.sigma_rad):.2f} deg (one sigma), "
        f"board {100 * found.board_scale - 100:+.2f} %",
        flush=True,
    )
    true = rig.T_mount_camera_true
    return Off.of(true, said), Off.of(true, found.T_mount_camera, wall_s)


def by_touch(cell: RobotCell, seed: int, spots: int) -> tuple[Off, Off]:
    """The same from spots on the table."""
    cell.show(replace(draw_scene(seed), objects=()))
    rng = np.random.default_rng(seed)
    truth, size = cell.camera(), cell.tabletop.render_size
    said = truth.T_base_camera @ SAID.drawn(rng)
    view = cell.look()
    K = truth.K(size)
    camera = CameraModel.from_info(width=size[0], height=size[1], k=K)
    frame = Frame(view.color, noisy_depth(view.depth_m, float(K[0, 0]), rng, "d435"), camera, 0, "camera")
    in_camera: list[np.ndarray] = []
    in_base: list[np.ndarray] = []
    for spot, pixel in spread_wide(*in_picture(truth, size, rng), 2 * spots):
        u, v = pixel + rng.normal(0.0, CLICK_PX, 2)
        at = locate(frame, Point2D(float(u), float(v), "spot", 1.0, CLICK_PX, 0), np.eye(4))
        if at.outcome.ok and len(in_base) < spots:
            in_camera.append(at.position_base_m)  # the frame asked for is the camera's own
            in_base.append(spot + rng.normal(0.0, TOUCH_M, 3))
    began_s = time.perf_counter()
    found = fit_point_pairs(in_camera, in_base)
    wall_s = time.perf_counter() - began_s
    print(
        f"touch {seed}: {spots - len(found.left_out)} of {spots} spots, {1e3 * found.rms_m:.1f} mm, said to be within "
        f"{1e3 * found.sigma_m:.1f} mm and {np.degrees(found.sigma_rad):.2f} deg (one sigma)",
        flush=True,
    )
    return Off.of(truth.T_base_camera, said), Off.of(truth.T_base_camera, found.T_base_camera, wall_s)


def in_picture(
    truth: SceneCamera, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places on the table within reach (N, 3) that the camera sees, and their pixels (N, 2)."""
    spots = np.column_stack([rng.uniform(0.25, 0.80, 400), rng.uniform(-0.45, 0.45, 400), np.zeros(400)])
    pixels = truth.project(spots, size)
    inside = ((pixels > 10) & (pixels < np.array(size) - 10)).all(axis=1)
    return spots[inside], pixels[inside]


def spread_wide(spots: np.ndarray, pixels: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """As the operator is told to: each spot as far from those before as can be."""
    chosen = [0]
    while len(chosen) < min(count, len(spots)):
        apart = np.linalg.norm(spots[:, None] - spots[chosen], axis=2).min(axis=1)
        chosen.append(int(apart.argmax()))
    return [(spots[i], pixels[i]) for i in chosen]


def figures_of(way: str, results: list[tuple[Off, Off]]) -> list[Figure]:
    def median(values: list[float]) -> float:
        return float(np.median(values))

    before, after = [b for b, _ in results], [a for _, a in results]
    return [
        Figure(f"{way}: before, distance", 1e3 * median([b.distance_m for b in before]), "mm"),
        Figure(f"{way}: before, angle", float(np.degrees(median([b.angle_rad for b in before]))), "deg"),
        Figure(f"{way}: after, distance, median", 1e3 * median([a.distance_m for a in after]), "mm"),
        Figure(
            f"{way}: after, distance, worst of {len(after)}",
            1e3 * max(a.distance_m for a in after),
            "mm",
            1e3 * MOST_OFF_M,
        ),
        Figure(
            f"{way}: after, angle, median", float(np.degrees(median([a.angle_rad for a in after]))), "deg"
        ),
        Figure(
            f"{way}: after, angle, worst of {len(after)}",
            float(np.degrees(max(a.angle_rad for a in after))),
            "deg",
            float(np.degrees(MOST_OFF_RAD)),
        ),
        Figure(f"{way}: time of an estimate, median", median([a.wall_s for a in after]), "s"),
    ]


def main() -> int:
    assert __doc__ is not None
    options_of = parser(__doc__, "2 seeds")
    options_of.add_argument("--seeds", type=int, default=10, metavar="N", help="cameras, each way")
    options_of.add_argument("--views", type=int, default=15, metavar="N", help="views of the board")
    options_of.add_argument("--spots", type=int, default=40, metavar="N", help="spots that are touched")
    options = options_of.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + (2 if options.quick else options.seeds))
    figures: list[Figure] = []
    mountings: tuple[tuple[str, Mounting], ...] = (
        ("eye to hand", "eye_to_hand"),
        ("eye in hand", "eye_in_hand"),
    )
    for way, mounting in mountings:
        rig = CalibrationRig(mounting, CharucoBoard())
        figures += figures_of(way, [by_board(rig, seed, options.views) for seed in seeds])
        rig.close()
    cell = RobotCell()
    figures += figures_of("touched spots", [by_touch(cell, seed, options.spots) for seed in seeds])
    cell.close()
    return report(figures, options, "camera pose by molmo_ros calibrate")


if __name__ == "__main__":
    raise SystemExit(main())
