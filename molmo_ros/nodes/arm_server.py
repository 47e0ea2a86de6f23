"""The simulated arm's controller: what ros2_control offers for a real one, on the physics of the table.

An action `joint_trajectory_controller/follow_joint_trajectory`, a topic `joint_trajectory_controller/joint_trajectory`,
an action `gripper_controller/gripper_cmd` (position = the gap between the fingers), and `joint_states`. One thing is
more than a stock controller does: with `heartbeat_topic`, a motion is braked when that topic has been silent for
`HEARTBEAT_LOST_S`. All of it happens in the time of the simulation, which keeps to the clock as far as the machine
can and is late otherwise: a busy machine makes a slow arm, not a wrong one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from control_msgs.action import FollowJointTrajectory, GripperCommand
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Empty
from trajectory_msgs.msg import JointTrajectory

from molmo_ros.nodes.trajectory_messages import trajectory_from
from molmo_ros.outcome import PointingError
from molmo_ros.planning.trajectory import JointLimits, Trajectory, limit_violation
from molmo_ros.sim.following import Follower, Following
from molmo_ros.sim.fr3 import FINGERS, GRIP_FORCE_N, JOINTS, MAX_OPENING_M
from molmo_ros.sim.physics import TICK_S, TablePhysics

HEARTBEAT_LOST_S = 0.15
#: A trajectory must begin this near to where the arm is commanded to be.
BEGINS_NEAR_RAD = 0.1
_GRIP_SETTLED_S = 0.25
_STILL_M_S = 0.002
_GRIP_REACHED_M = 0.002
# Behind by more than this, the simulation lets the time go instead of hurrying after it.
_MOST_BEHIND_S = 0.2

_Result = FollowJointTrajectory.Result
_ERRORS = {
    "path_tolerance": (
        _Result.PATH_TOLERANCE_VIOLATED,
        "the arm is {:.3f} rad from its path: something holds it",
    ),
    "goal_tolerance": (_Result.GOAL_TOLERANCE_VIOLATED, "the arm came to rest {:.3f} rad from its goal"),
}


class _Motion:
    """A trajectory at work and who waits for it."""

    def __init__(self, follower: Follower, ended: Callable[[str, float], None]) -> None:
        self.follower, self.ended = follower, ended


class ArmServer(Node):
    """Steps the physics in real time on its own thread, and serves commands on its executor's."""

    def __init__(
        self,
        executor: Executor,
        limits: JointLimits,
        state_rate_hz: float,
        heartbeat_topic: str,
        namespace: str,
    ) -> None:
        super().__init__(
            "arm_controller",
            namespace=namespace,
            use_global_arguments=False,
            start_parameter_services=False,
        )
        self._executor_of_calls = executor
        self._limits = limits
        self._physics: TablePhysics | None = None
        self._motion: _Motion | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        #: Silence after which a motion that begins from now on is braked; None = never.
        self.heartbeat_lost_s = HEARTBEAT_LOST_S if heartbeat_topic else None
        self._states = self.create_publisher(JointState, "joint_states", 10)
        if heartbeat_topic:
            self.create_subscription(Empty, heartbeat_topic, self._on_heartbeat, 1)
        controller = "joint_trajectory_controller"
        self.create_subscription(JointTrajectory, f"{controller}/joint_trajectory", self._on_trajectory, 1)
        group = ReentrantCallbackGroup()
        self._follow = ActionServer(
            self,
            FollowJointTrajectory,
            f"{controller}/follow_joint_trajectory",
            self._on_follow,
            goal_callback=self._judge_goal,
            cancel_callback=self._on_cancel,
            callback_group=group,
        )
        self._gripper = ActionServer(
            self,
            GripperCommand,
            "gripper_controller/gripper_cmd",
            self._on_grip,
            goal_callback=lambda goal: (
                GoalResponse.ACCEPT if np.isfinite(goal.command.position) else GoalResponse.REJECT
            ),
            cancel_callback=lambda _: CancelResponse.REJECT,
            callback_group=group,
        )
        self._grips: list[tuple[float, float, Callable[[], None]]] = []
        self.create_timer(1.0 / state_rate_hz, self._publish_state)
        executor.add_node(self)
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()

    def load(self, physics: TablePhysics) -> None:
        """Another scene; what moves is ended."""
        with self._lock:
            motion, self._motion = self._motion, None
            self._physics = physics
        if motion:
            motion.ended("reset", 0.0)

    def now(self) -> tuple[dict[str, float], list[np.ndarray]]:
        """Positions of all joints by name, and poses (4x4) of the things."""
        with self._lock:
            assert self._physics is not None
            joints, _ = self._physics.joints()
            fingers = self._physics.finger_positions()
            named = dict(zip((*JOINTS, *FINGERS), map(float, (*joints, *fingers)), strict=True))
            return named, self._physics.objects()

    # ------------------------------------------------------------ time

    def _run(self) -> None:
        """Real time: after each tick of physics, wait until the clock has caught up."""
        pause = threading.Event()
        simulated_s = time.monotonic()
        while not self._ended.is_set():
            behind_s = time.monotonic() - simulated_s
            if behind_s < TICK_S:
                pause.wait(TICK_S - behind_s)
                continue
            if behind_s > _MOST_BEHIND_S:
                simulated_s = time.monotonic() - TICK_S
            simulated_s += TICK_S
            finished: list[Callable[[], None]] = []
            with self._lock:
                if self._physics is not None:
                    finished = self._tick(self._physics)
            for finish in finished:
                finish()

    def _tick(self, physics: TablePhysics) -> list[Callable[[], None]]:
        """One tick; returns what is to be told when the lock is free again."""
        finished: list[Callable[[], None]] = []
        motion = self._motion
        if motion:
            physics.command(*motion.follower.wanted(physics.time_s))
        physics.advance(TICK_S)
        if motion:
            result: Following = motion.follower.judge(physics.joints()[0], physics.time_s)
            if result.ended:
                joints, _ = physics.joints()
                if result.state == "path_tolerance":
                    physics.command(joints, np.zeros(len(JOINTS)))
                self._motion = None
                finished.append(lambda: motion.ended(result.state, result.error_rad))
        for grip in [grip for grip in self._grips if physics.time_s >= grip[0]]:
            self._grips.remove(grip)
            finished.append(grip[2])
        return finished

    # ------------------------------------------------------------ commands, on the executor's thread

    def _on_heartbeat(self, _: Empty) -> None:
        with self._lock:
            if self._motion and self._physics:
                self._motion.follower.heard(self._physics.time_s)

    def _judge_goal(self, goal: FollowJointTrajectory.Goal) -> GoalResponse:
        try:
            self._checked(goal.trajectory)
        except PointingError as error:
            self.get_logger().error(f"trajectory rejected: {error.outcome.message}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _checked(self, message: JointTrajectory) -> Trajectory:
        trajectory = trajectory_from(message, JOINTS)
        over = limit_violation(trajectory, self._limits)
        if over:
            self.get_logger().warning(f"the trajectory's {over}")
        return trajectory

    def _begin(self, trajectory: Trajectory, ended: Callable[[str, float], None]) -> str:
        """Start following, in place of what is followed now; says why not, or "" when it began."""
        with self._lock:
            if self._physics is None:
                return "there is no scene yet"
            now_s = self._physics.time_s
            commanded = self._motion.follower.wanted(now_s)[0] if self._motion else self._physics.joints()[0]
            off = float(np.abs(trajectory.positions[0] - commanded).max())
            if off > BEGINS_NEAR_RAD:
                return f"the trajectory begins {off:.3f} rad from where the arm is"
            before = self._motion
            self._motion = _Motion(Follower(trajectory, self._limits, now_s, self.heartbeat_lost_s), ended)
        if before:
            before.ended("replaced", 0.0)
        return ""

    def _on_trajectory(self, message: JointTrajectory) -> None:
        try:
            said = self._begin(self._checked(message), lambda state, error: None)
        except PointingError as error:
            said = error.outcome.message
        if said:
            self.get_logger().error(f"trajectory rejected: {said}")

    async def _on_follow(self, handle: ServerGoalHandle) -> FollowJointTrajectory.Result:
        trajectory = trajectory_from(handle.request.trajectory, JOINTS)
        executor = self._executor_of_calls
        answered: Future[tuple[str, float]] = Future(executor=executor)

        def ended(state: str, error_rad: float) -> None:
            answered.set_result((state, error_rad))
            executor.wake()

        said = self._begin(trajectory, ended)
        if said:
            handle.abort()
            return _Result(error_code=_Result.INVALID_GOAL, error_string=said)
        state, error_rad = await answered
        if state == "reached":
            handle.succeed()
            return _Result(error_code=_Result.SUCCESSFUL)
        if state == "stopped":
            if handle.is_cancel_requested:
                handle.canceled()
                return _Result(error_code=_Result.SUCCESSFUL, error_string="stopped on its path")
            handle.abort()
            return _Result(
                error_code=_Result.INVALID_GOAL,
                error_string=f"no heartbeat for {self.heartbeat_lost_s:g} s: stopped on its path",
            )
        handle.abort()
        code, text = _ERRORS.get(state, (_Result.INVALID_GOAL, f"the motion was {state}"))
        return _Result(error_code=code, error_string=text.format(error_rad))

    def _on_cancel(self, _: ServerGoalHandle) -> CancelResponse:
        with self._lock:
            if self._motion and self._physics:
                self._motion.follower.stop(self._physics.time_s)
        return CancelResponse.ACCEPT

    async def _on_grip(self, handle: ServerGoalHandle) -> GripperCommand.Result:
        command = handle.request.command
        executor = self._executor_of_calls
        settled: Future[None] = Future(executor=executor)
        force_n = command.max_effort if command.max_effort > 0 else GRIP_FORCE_N
        wanted_m = float(np.clip(command.position, 0.0, MAX_OPENING_M))

        def finish() -> None:
            settled.set_result(None)
            executor.wake()

        with self._lock:
            if self._physics is None:
                handle.abort()
                return GripperCommand.Result()
            self._physics.grip(wanted_m, force_n)
            travel_s = abs(self._physics.opening_m() - wanted_m) / 0.1
            self._grips.append((self._physics.time_s + travel_s + _GRIP_SETTLED_S, wanted_m, finish))
        await settled
        with self._lock:
            opening_m = self._physics.opening_m()
        reached = abs(opening_m - wanted_m) < _GRIP_REACHED_M
        handle.succeed()
        return GripperCommand.Result(
            position=opening_m, effort=float(force_n), stalled=not reached, reached_goal=reached
        )

    def _publish_state(self) -> None:
        with self._lock:
            if self._physics is None:
                return
            positions, speeds = self._physics.joints()
            fingers = self._physics.finger_positions()
        message = JointState(name=[*JOINTS, *FINGERS])
        message.header.stamp = self.get_clock().now().to_msg()
        message.position = [*map(float, positions), *map(float, fingers)]
        message.velocity = [*map(float, speeds), 0.0, 0.0]
        self._states.publish(message)

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """End the physics and the node; its executor must not spin any more."""
        self._ended.set()
        self._thread.join(2.0)
        self._follow.destroy()
        self._gripper.destroy()
        self.destroy_node()


def joint_names() -> Sequence[str]:
    """All joints of which `joint_states` speaks."""
    return (*JOINTS, *FINGERS)
