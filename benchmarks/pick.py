"""Words to motion, measured: how often the arm picks what was named and puts it where it was told to.

    tools/run python benchmarks/pick.py [--quick] [--check] [--json FILE] [--scenes N] [--seed N] [--calibrated]
        [--sheet FILE]

Each scene is one that was never used before: 4 to 8 things, a camera somewhere, a Franka FR3 with physics. The
bundled model points (nothing of the scene's truth is in the loop), depth is as noisy as a D435's, and both cameras
are 5 mm and 1 degree from where they are said to be (with --calibrated: exactly there). One thing is named that
stands within reach of a top-down grasp (0.32 to 0.66 m from the base) and is no plate, whose flat rim a hand from
above cannot close on, and a free place to put it. Failures are listed by the stage they happened in; --sheet draws
the first ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from figures import Figure, parser, report

from molmo_ros.outcome import Code
from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.pick_options import PickOptions
from molmo_ros.planning.pick_place import STAGES, PickPlace, PickReport
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.robot import load_robot
from molmo_ros.planning.trajectory import JointLimits, Trajectory
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.sim.cell_arm import CellArm, MountingError
from molmo_ros.sim.following import Following
from molmo_ros.sim.fr3 import GRIP_FORCE_N
from molmo_ros.sim.physics import unwanted
from molmo_ros.sim.robot_cell import RobotCell
from molmo_ros.sim.scene import SceneObject, SceneState

# Far from the seeds of training (0 ..), tests (small numbers) and development (100 ..).
FIRST_SEED = 9_000_000
REACH_M = (0.32, 0.66)
TOO_FLAT = ("plate",)
MOUNTING = MountingError(0.005, np.radians(1.0))
LIFTED_M = 0.06
PLACED_M = 0.03
TABLE = Box.upright("table", (1.36, 1.7, 0.04), (0.40, 0.0, -0.0225))
GOALS = {"lifted": 0.90, "first": 0.82, "calibrated": 0.95, "wrong": 0.02, "placed": 0.80, "touch": 0.01}


@dataclass(frozen=True)
class Result:
    """One scene: what was asked, what came of it, and what really happened."""

    seed: int
    label: str
    report: PickReport
    lifted: bool
    lifted_first: bool
    wrong: bool
    placed_off_m: float
    unwanted_n: float
    simulated_s: float
    wall_s: float


def chosen(state: SceneState, rng: np.random.Generator) -> tuple[SceneObject, np.ndarray] | None:
    """A thing within reach, and a free place (3,) on the table; None when the scene has none."""
    within = [
        o
        for o in state.named
        if REACH_M[0] < np.hypot(*o.centre_m[:2]) < REACH_M[1] and o.kind not in TOO_FLAT
    ]
    if not within:
        return None
    thing = within[int(rng.integers(len(within)))]
    for _ in range(500):
        place = np.array([rng.uniform(0.35, 0.60), rng.uniform(-0.35, 0.35), 0.0])
        room = all(
            np.hypot(*(place[:2] - other.centre_m[:2])) > thing.shape.reach_m + other.shape.reach_m + 0.04
            for other in state.objects
        )
        if room and np.hypot(*place[:2]) < REACH_M[1] - 0.02:
            return thing, place
    return None


class TimedCell(RobotCell):
    """Notes how long its physics takes: pictures, the model and planning do not count."""

    wall_s = simulated_s = 0.0

    def follow(self, trajectory: Trajectory, limits: JointLimits) -> Following:
        with self._timed():
            return super().follow(trajectory, limits)

    def grip(self, opening_m: float, force_n: float = GRIP_FORCE_N) -> float:
        with self._timed():
            return super().grip(opening_m, force_n)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began_s, at_s = time.perf_counter(), self.physics.time_s
        yield
        self.wall_s += time.perf_counter() - began_s
        self.simulated_s += self.physics.time_s - at_s


class Watch:
    """The referee: looks at the truth from beside, and tells nobody who plays."""

    def __init__(self, cell: RobotCell, thing: SceneObject) -> None:
        self._cell, self._thing = cell, thing
        self._start = [T[2, 3] for T in cell.physics.objects()]
        self.first_lift_try = 0
        self.wrong = False

    def __call__(self, done: PickReport) -> None:
        if done.stage not in STAGES[STAGES.index("verify") :]:
            return
        rises = [T[2, 3] - z for T, z in zip(self._cell.physics.objects(), self._start, strict=True)]
        for number, rise in enumerate(rises, start=1):
            if rise > LIFTED_M and number == self._thing.id and not self.first_lift_try:
                self.first_lift_try = done.tries
            if rise > LIFTED_M and number != self._thing.id:
                self.wrong = True


def run_scene(
    cell: RobotCell, scene: RoboplanScene, pointer: LocalPointer, seed: int, mounting: MountingError
) -> Result | None:
    state = cell.reset(seed)
    picked = chosen(state, np.random.default_rng([seed, 5]))
    if picked is None:
        return None
    thing, place = picked
    began_s = time.perf_counter()

    def point(image_HW3: np.ndarray, words: str) -> tuple[Point2D, ...]:
        return pointer.point(image_HW3, words).points

    watch = Watch(cell, thing)
    arm = CellArm(cell, scene, point, (TABLE,), seed, mounting)
    done = PickPlace(arm, PickOptions(), report=watch).run(f"the {thing.label}", place)
    end = cell.physics.objects()[thing.id - 1]
    lowest = thing.T_base_object
    moved = np.hypot(*(end[:2, 3] - lowest[:2, 3])) > PLACED_M
    touches = unwanted(cell.physics.touches, str(thing.id))
    return Result(
        seed,
        thing.label,
        done,
        lifted=watch.first_lift_try > 0,
        lifted_first=watch.first_lift_try == 1,
        wrong=watch.wrong,
        placed_off_m=float(np.hypot(*(end[:2, 3] - place[:2]))) if moved else float("inf"),
        unwanted_n=max((touch.force_n for touch in touches), default=0.0),
        simulated_s=cell.physics.time_s,
        wall_s=time.perf_counter() - began_s,
    )


def figures_of(results: list[Result], calibrated: bool) -> list[Figure]:
    count = len(results)

    def share(name: str, good: int, goal: float | None, at_least: bool = True) -> Figure:
        return Figure(f"{name}, of {count}", good / count, "", goal, at_least)

    placed = [r.placed_off_m for r in results if r.placed_off_m < PLACED_M]
    return [
        share(
            "lifted what was named, one retry",
            sum(r.lifted for r in results),
            GOALS["calibrated" if calibrated else "lifted"],
        ),
        share("lifted at the first try", sum(r.lifted_first for r in results), GOALS["first"]),
        share("lifted something else", sum(r.wrong for r in results), GOALS["wrong"], at_least=False),
        share("placed within 3 cm", len(placed), GOALS["placed"]),
        Figure("placed off, median", 1e3 * float(np.median(placed)) if placed else float("nan"), "mm"),
        share(
            "touched anything else",
            sum(r.unwanted_n > 0 for r in results),
            GOALS["touch"],
            at_least=False,
        ),
        Figure("hardest unwanted contact", max(r.unwanted_n for r in results), "N", 10.0),
        Figure(
            "time of a whole task, simulated, median", float(np.median([r.simulated_s for r in results])), "s"
        ),
        Figure("the same on this machine, median", float(np.median([r.wall_s for r in results])), "s"),
    ]


def draw_sheet(cell: RobotCell, failures: list[Result], file: Path) -> None:
    """The first failures as they were at the start, with what was asked and what was said."""
    tiles = []
    for result in failures[:24]:
        cell.reset(result.seed)
        picture = cell.look().color.copy()
        lines = (
            f"{result.seed}: {result.label}",
            f"{result.report.stage}: {result.report.outcome.code.name}",
        )
        for row, line in enumerate(lines):
            cv2.putText(picture, line, (8, 24 + 24 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 0), 2)
        tiles.append(cv2.resize(picture, (320, 240)))
    while len(tiles) % 4:
        tiles.append(np.zeros((240, 320, 3), np.uint8))
    rows = [np.hstack(tiles[i : i + 4]) for i in range(0, len(tiles), 4)]
    if rows:
        cv2.imwrite(str(file), np.vstack(rows)[..., ::-1])


def main() -> int:
    assert __doc__ is not None
    options_of = parser(__doc__, "4 scenes")
    options_of.add_argument("--scenes", type=int, default=200, metavar="N", help="how many scenes")
    options_of.add_argument("--seed", type=int, default=FIRST_SEED, help="the first scene")
    options_of.add_argument(
        "--calibrated", action="store_true", help="cameras exactly where they are said to be"
    )
    options_of.add_argument("--sheet", type=Path, metavar="FILE", help="draw the first failures")
    options = options_of.parse_args()
    wanted = 4 if options.quick else options.scenes
    mounting = MountingError() if options.calibrated else MOUNTING
    cell = TimedCell((640, 480))
    scene = RoboplanScene(load_robot("fr3"))
    pointer = LocalPointer.from_folder(bundled_model_folder())
    results: list[Result] = []
    seed = options.seed
    while len(results) < wanted:
        result = run_scene(cell, scene, pointer, seed, mounting)
        seed += 1
        if result is None:
            continue
        results.append(result)
        good = result.report.outcome.code == Code.OK and result.placed_off_m < PLACED_M
        if not good or result.unwanted_n > 0:
            touched = f", touched something with {result.unwanted_n:.1f} N" if result.unwanted_n else ""
            lifted = "lifted" if result.lifted else "not lifted"
            print(
                f"{result.seed} {result.label}: {lifted}, {result.report.stage}: {result.report.outcome}, "
                f"{1e3 * result.placed_off_m:.0f} mm off{touched}",
                flush=True,
            )
    stages = Counter(
        f"{r.report.stage}: {r.report.outcome.code.name}" for r in results if not r.report.outcome.ok
    )
    for stage, count in stages.most_common():
        print(f"failed at {stage}: {count}")
    if options.sheet:
        bad = [r for r in results if not (r.report.outcome.ok and r.placed_off_m < PLACED_M)]
        draw_sheet(cell, bad, options.sheet)
    cell.close()
    speed = Figure("physics, times real time", cell.simulated_s / cell.wall_s, "x", 10.0, at_least=True)
    return report([*figures_of(results, options.calibrated), speed], options, "pick and place")


if __name__ == "__main__":
    raise SystemExit(main())
