"""One motion as a task asks for it, and the checked plan for it: the same in the simulated cell and over ROS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.obstacles import Box, Voxels
from molmo_ros.planning.reach import ReachOptions, ReachPlan, plan_back, plan_joints, plan_reach
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.trajectory import Trajectory


@dataclass(frozen=True)
class HeldBox:
    """What the hand carries: a box with edges along the goal's axes, its middle in the goal's frame (metres)."""

    size_m: tuple[float, float, float]
    centre_goal_m: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the arm is to go, and what is to be known on the way.

    `goals` (4x4, base frame; z = approach, x = closing; best first), or instead a `posture` of all joints (D,).
    `approach_m`, `retreat_m`: straight parts before and after a goal. `back`, instead of both: along the last approach,
    at whose end the arm still stands, the other way; it may begin in contact, as a lift does. `opening_m`: how far the
    fingers stand apart, None = as they are now. `around`: cells filled by what stands about, besides what the planner
    knows by itself. `half_turns`: a symmetric gripper may come turned by half a turn. `attempts`: postures tried, 0 =
    the planner's own number.
    """

    goals: tuple[np.ndarray, ...] = ()
    posture: np.ndarray | None = None
    approach_m: float = 0.0
    retreat_m: float = 0.0
    back: bool = False
    opening_m: float | None = None
    held: HeldBox | None = None
    around: Voxels | None = None
    half_turns: bool = True
    attempts: int = 0


def take_in_hand(scene: RoboplanScene, held: HeldBox | None) -> None:
    """From now on the hand carries this, or nothing."""
    scene.release()
    if held is not None:
        T_goal_box = np.eye(4)
        T_goal_box[:3, 3] = held.centre_goal_m
        scene.hold(held.size_m, T_goal_box)


def plan_motion(
    scene: RoboplanScene,
    boxes: Sequence[Box],
    start: np.ndarray,
    motion: Motion,
    options: ReachOptions,
    *,
    way_in: Trajectory | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> ReachPlan:
    """A checked plan among `boxes` and what the motion says is around. Speeds, budget and seed are those of `options`;
    `way_in` is the last approach that was made, if nothing moved since.

    Raises PointingError as `plan_reach` does, INVALID_REQUEST for a motion that does not ask for one thing."""
    if [motion.posture is not None, len(motion.goals) > 0, motion.back].count(True) != 1:
        raise PointingError(Code.INVALID_REQUEST, "a motion takes goals, or a posture, or back: one of the three")
    began_s = time.monotonic()
    if motion.opening_m is not None:
        scene.set_opening(motion.opening_m)
    scene.release()
    scene.set_obstacles(boxes, motion.around)
    take_in_hand(scene, motion.held)
    options = replace(
        options,
        approach_m=motion.approach_m,
        retreat_m=motion.retreat_m,
        attempts=motion.attempts or options.attempts,
        half_turns=motion.half_turns,
    )
    if motion.posture is not None:
        move = plan_joints(scene, start, motion.posture, options)
    elif motion.back:
        move = plan_back(scene, start, way_in)
    else:
        return plan_reach(scene, start, motion.goals, options, cancelled=cancelled)
    return ReachPlan(move, None, None, 0, 1, time.monotonic() - began_s)
