"""planner_node: goal poses in, checked motions out.

Two threads: the executor's, on which everything is heard, and one that plans and moves, one goal at a time. A goal
that comes while another is at work is refused: nothing replaces a running motion but ~/stop.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from geometry_msgs.msg import PoseArray, PoseStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration as RosDuration
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from rclpy.time import Time
from std_msgs.msg import Empty, String
from std_srvs.srv import Trigger
from tf2_ros import Buffer, TransformException, TransformListener
from trajectory_msgs.msg import JointTrajectory

from molmo_ros.geometry.pose import transform as rigid_transform
from molmo_ros.nodes.arm_command import ActionCommand, ArmCommand, TopicCommand
from molmo_ros.nodes.arm_state import ArmState
from molmo_ros.nodes.depth_obstacles import DepthSource, obstacles_seen
from molmo_ros.nodes.messages import NANOSECONDS, duration, outcome_message
from molmo_ros.nodes.motion_job import MotionJob, MotionRequest
from molmo_ros.nodes.node_process import let_replies_out, serve_until_signal
from molmo_ros.nodes.planner_parameters import PlannerParameters
from molmo_ros.nodes.trajectory_messages import trajectory_message
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.planning.obstacles import ObstacleError, load_boxes
from molmo_ros.planning.reach import ReachOptions, ReachPlan, plan_reach
from molmo_ros.planning.roboplan_scene import RoboplanScene, SearchCaps
from molmo_ros.planning.robot import RobotError, load_robot
from molmo_ros_interfaces.action import MoveToGoal
from molmo_ros_interfaces.msg import Outcome as OutcomeMessage
from molmo_ros_interfaces.srv import Confirm

GOAL_QOS = QoSProfile(depth=10)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
#: A controller that listens to ~/heartbeat may stop the arm when this falls silent for some of its periods.
HEARTBEAT_S = 0.025
MOST_FUTURE_S = 0.25
#: After a motion the joints must be this near to where it was to end.
ARRIVED_RAD = 0.05
_TF_POLL_S = 0.01
_WAIT_S = 0.05


class PlannerNode(Node):
    """The action `~/move_to_goal`, the topics `goal_pose` and `goal_poses`, and the services `~/stop`, `~/resume`
    and `~/confirm`."""

    def __init__(self, executor: Executor) -> None:
        """Raises ParameterError, RobotError or ObstacleError for a configuration that cannot work."""
        super().__init__("planner_node")
        self._executor_of_calls = executor
        self._settings = settings = PlannerParameters.declare(self)
        robot = load_robot(settings.robot)
        self._base_frame = (settings.base_frame or robot.base).lstrip("/")
        self._scene = RoboplanScene(robot, SearchCaps(max_nodes=settings.max_nodes))
        self._boxes = (
            load_boxes(Path(settings.obstacles_file).expanduser()) if settings.obstacles_file else ()
        )
        try:
            self._scene.set_obstacles(self._boxes)
        except ValueError as error:
            raise ObstacleError(str(error)) from error
        self._state = ArmState(self, settings.joint_states_topic, settings.max_state_age_s)
        self._depth = (
            DepthSource(self, settings.depth_topic, settings.depth_info_topic, settings.max_depth_age_s)
            if settings.depth_topic
            else None
        )
        self._arm = self._arm_command() if settings.execute else None
        self._tf = Buffer()
        self._tf_listener = TransformListener(self._tf, self)

        self._jobs: queue.Queue[MotionJob | None] = queue.Queue()
        self._current: MotionJob | None = None
        self._claim = threading.Lock()
        self._stopped = threading.Event()
        self._ending = threading.Event()

        self._shown = self.create_publisher(JointTrajectory, "~/planned_trajectory", LATCHED_QOS)
        self._outcomes = self.create_publisher(OutcomeMessage, "~/outcome", GOAL_QOS)
        self._awaiting = self.create_publisher(String, "~/awaiting_confirm", LATCHED_QOS)
        self._heartbeat = self.create_publisher(Empty, "~/heartbeat", 1)
        self.create_subscription(PoseStamped, "goal_pose", self._on_goal_pose, GOAL_QOS)
        self.create_subscription(PoseArray, "goal_poses", self._on_goal_poses, GOAL_QOS)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/resume", self._on_resume)
        self.create_service(Confirm, "~/confirm", self._on_confirm)
        self._action = ActionServer(
            self,
            MoveToGoal,
            "~/move_to_goal",
            self._on_move_to_goal,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )
        executor.add_node(self)
        self._threads = [
            threading.Thread(target=self._work, name="planner", daemon=True),
            threading.Thread(target=self._beat, name="heartbeat", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        moves = f"moves it by {settings.command}" if settings.execute else "plans only (execute is false)"
        self.get_logger().info(f"{robot.name}, {len(self._boxes)} boxes; {moves}")

    def _arm_command(self) -> ArmCommand:
        settings, limits = self._settings, self._scene.limits
        if settings.command == "action":
            return ActionCommand(self, settings.controller_action, limits, settings.settle_timeout_s)
        return TopicCommand(self, settings.trajectory_topic, limits)

    # ------------------------------------------------------------ what is heard, on the executor's thread

    def _on_goal_pose(self, message: PoseStamped) -> None:
        self._take_goals((message,))

    def _on_goal_poses(self, message: PoseArray) -> None:
        self._take_goals(tuple(PoseStamped(header=message.header, pose=pose) for pose in message.poses))

    def _take_goals(self, goals: tuple[PoseStamped, ...]) -> None:
        settings = self._settings
        request = MotionRequest(
            goals,
            settings.approach_offset_m,
            settings.retreat_offset_m,
            plan_only=not settings.execute,
            speed_scale=settings.speed_scale,
        )

        def finish(job: MotionJob) -> None:
            self._outcomes.publish(outcome_message(job.outcome))
            self.get_logger().info(f"goal from the topic: {job.outcome}")

        job = MotionJob(request, uuid.uuid4().hex, finish)
        refusal = self._claimed(job)
        if refusal:
            job.outcome = refusal
            finish(job)

    async def _on_move_to_goal(self, handle: ServerGoalHandle) -> MoveToGoal.Result:
        executor = self._executor_of_calls
        answered: Future[None] = Future(executor=executor)
        began_s = time.monotonic()
        goal: MoveToGoal.Goal = handle.request

        def finish(_: MotionJob) -> None:
            answered.set_result(None)
            executor.wake()  # an idle executor does not notice a future completed elsewhere

        def report(stage: str, progress: float) -> None:
            handle.publish_feedback(
                MoveToGoal.Feedback(
                    stage=stage, progress=progress, elapsed=duration(time.monotonic() - began_s)
                )
            )

        scale = goal.speed_scale if goal.speed_scale else self._settings.speed_scale
        request = MotionRequest(
            tuple(goal.goals), goal.approach_offset, goal.retreat_offset, goal.plan_only, scale
        )
        goal_id = bytes(handle.goal_id.uuid).hex()
        job = MotionJob(request, goal_id, finish, report, lambda: bool(handle.is_cancel_requested))
        refusal = self._claimed(job)
        if refusal:
            job.outcome = refusal
        else:
            await answered
        if job.outcome.ok:
            handle.succeed()
        elif job.outcome.code == Code.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return MoveToGoal.Result(
            outcome=outcome_message(job.outcome),
            goal_index=job.goal_index,
            trajectory=trajectory_message(job.trajectory) if job.trajectory else JointTrajectory(),
            planning=duration(job.planning_s),
            execution=duration(job.execution_s),
        )

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stopped.set()
        moving = self._current is not None
        response.success = True
        response.message = (
            "stopping; no goal is taken until ~/resume"
            if moving
            else "stopped; no goal is taken until ~/resume"
        )
        self.get_logger().warning(response.message)
        return response

    def _on_resume(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._current is not None:
            response.success, response.message = False, "a motion is still being stopped; try again"
            return response
        self._stopped.clear()
        response.success, response.message = True, "goals are taken again"
        return response

    def _on_confirm(self, request: Confirm.Request, response: Confirm.Response) -> Confirm.Response:
        job = self._current
        if job is None or job.goal_id != request.goal_id or not job.waits:
            waiting = f"goal {job.goal_id} {'waits' if job.waits else 'is at work'}" if job else "no goal is at work"
            response.outcome = outcome_message(
                Outcome(Code.INVALID_REQUEST, f"no goal {request.goal_id!r} waits for a word; {waiting}")
            )
            return response
        job.waits = False  # one word is enough
        job.accepted = request.accept
        job.confirmed.set()
        response.outcome = outcome_message(Outcome())
        return response

    def _claimed(self, job: MotionJob) -> Outcome | None:
        """Give the job to the worker, or say why not."""
        if self._ending.is_set():
            return Outcome(Code.CANCELLED, "the node is shutting down")
        if self._stopped.is_set():
            return Outcome(Code.REJECTED_BY_OPERATOR, "stopped by ~/stop; call ~/resume first")
        with self._claim:
            if self._current is not None:
                return Outcome(
                    Code.BUSY, "another goal is at work; wait for its end, cancel it, or call ~/stop"
                )
            self._current = job
        self._jobs.put(job)
        return None

    # ------------------------------------------------------------ planning and moving, on the worker's thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._run(job)
            except PointingError as error:
                job.outcome = error.outcome
            except Exception as error:  # noqa: BLE001 - the caller gets an answer whatever happens, and the node stays up
                job.outcome = Outcome(Code.INTERNAL, f"{type(error).__name__}: {error}")
            with self._claim:
                self._current = None
            job.finish(job)

    def _run(self, job: MotionJob) -> None:
        request = job.request
        if not 0 < request.speed_scale <= self._settings.max_speed_scale:
            raise PointingError(
                Code.INVALID_REQUEST,
                f"speed_scale is {request.speed_scale:g}: it takes more than 0, at most max_speed_scale "
                f"({self._settings.max_speed_scale:g})",
            )
        if self._arm is None and not request.plan_only:
            raise PointingError(
                Code.INVALID_REQUEST,
                "the arm does not move: parameter execute is false; set it, or ask with plan_only",
            )
        began_s = time.monotonic()
        job.report("ik", 0.0)
        plan = self._planned(job)
        job.planning_s = time.monotonic() - began_s
        job.goal_index = plan.goal_index
        whole = plan.move
        for _, part in plan.parts()[1:]:
            whole = whole.then(part)
        job.trajectory = whole
        self._shown.publish(trajectory_message(whole))
        if request.plan_only:
            return
        if self._settings.confirm:
            job.waits = True
            self._awaiting.publish(String(data=job.goal_id))
            try:
                self._wait_for_confirmation(job)
            finally:
                job.waits = False
                self._awaiting.publish(String())
        began_s = time.monotonic()
        try:
            self._execute(job, plan)
        finally:
            job.execution_s = time.monotonic() - began_s

    def _planned(self, job: MotionJob) -> ReachPlan:
        request, settings = job.request, self._settings
        goals = [self._goal_in_base(goal, job) for goal in request.goals]
        joints = self._resting_joints()
        voxels = None
        if self._depth:
            seen = self._depth.take(settings.depth_timeout_s, lambda: bool(self._why_stop(job)))
            voxels = obstacles_seen(
                seen,
                lambda frame, stamp_ns: self._T_base(frame, Time(nanoseconds=stamp_ns), job),
                self._scene,
                joints,
                goals,
                voxel_m=settings.voxel_size_m,
                padding_m=settings.robot_padding_m,
                target_radius_m=settings.target_radius_m,
            )
            self._scene.set_obstacles(self._boxes, voxels)
        job.report("plan", 0.0)
        options = ReachOptions(
            approach_m=request.approach_m,
            retreat_m=request.retreat_m,
            speed_scale=request.speed_scale,
            approach_speed_m_s=settings.approach_speed_m_s,
            attempts=settings.attempts,
            budget_s=settings.planning_timeout_s,
            seed=settings.seed,
        )
        return plan_reach(self._scene, joints, goals, options, cancelled=lambda: bool(self._why_stop(job)))

    def _goal_in_base(self, goal: PoseStamped, job: MotionJob) -> np.ndarray:
        """4x4 pose in the arm's base, by TF at the goal's stamp."""
        stamp = Time.from_msg(goal.header.stamp)
        age_s = (self.get_clock().now().nanoseconds - stamp.nanoseconds) / NANOSECONDS
        if stamp.nanoseconds == 0:
            raise PointingError(Code.INVALID_REQUEST, "the goal has no stamp: its age cannot be judged")
        if age_s > self._settings.max_goal_age_s:
            raise PointingError(
                Code.INVALID_REQUEST,
                f"the goal is {age_s:.2f} s old; at most {self._settings.max_goal_age_s:g} s are allowed "
                "(max_goal_age_s): look again and send a fresh one",
            )
        if age_s < -MOST_FUTURE_S:
            raise PointingError(
                Code.FUTURE_STAMP, f"the goal is stamped {-age_s:.2f} s ahead of this node's clock"
            )
        p, q = goal.pose.position, goal.pose.orientation
        numbers = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        if not np.isfinite(numbers).all() or abs(np.linalg.norm(numbers[3:]) - 1) > 0.01:
            raise PointingError(
                Code.INVALID_REQUEST,
                "the goal's pose is no pose: its numbers must be finite, its quaternion of length 1",
            )
        T_frame_goal = rigid_transform(numbers[:3], numbers[3:])
        T: np.ndarray = self._T_base(goal.header.frame_id, stamp, job) @ T_frame_goal
        return T

    def _T_base(self, frame: str, stamp: Time, job: MotionJob) -> np.ndarray:
        """T_base_frame at a stamp; waits a little for TF to arrive."""
        frame = frame.lstrip("/")
        if frame == self._base_frame:
            return np.eye(4)
        end_s = time.monotonic() + self._settings.tf_timeout_s
        pause = threading.Event()
        while True:
            try:
                found = self._tf.lookup_transform(
                    self._base_frame, frame, stamp, timeout=RosDuration(seconds=0)
                )
                break
            except TransformException as error:
                if time.monotonic() > end_s:
                    raise PointingError(
                        Code.TF_UNAVAILABLE,
                        f"no transform from {frame or 'a frame without a name'} to {self._base_frame} within "
                        f"{self._settings.tf_timeout_s:g} s: {error}",
                    ) from error
            if self._why_stop(job):
                raise PointingError(Code.CANCELLED, self._why_stop(job))
            pause.wait(_TF_POLL_S)
        t, q = found.transform.translation, found.transform.rotation
        return rigid_transform([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])

    def _resting_joints(self) -> np.ndarray:
        robot = self._scene.robot
        joints, speeds = self._state.joints(self._scene.limits.names)
        fastest = int(np.abs(speeds).argmax())
        if abs(speeds[fastest]) > self._settings.resting_speed:
            raise PointingError(
                Code.BUSY,
                f"the arm is moving: {self._scene.limits.names[fastest]} at {speeds[fastest]:.3f} rad/s; wait "
                "until it rests",
            )
        if robot.gripper:
            position, _ = self._state.joints([robot.gripper.joint])
            opening = float(position[0]) / robot.gripper.joint_per_opening
            self._scene.set_opening(float(np.clip(opening, 0.0, robot.gripper.max_opening_m)))
        return joints

    def _wait_for_confirmation(self, job: MotionJob) -> None:
        self.get_logger().info(f"goal {job.goal_id} waits for ~/confirm")
        end_s = time.monotonic() + self._settings.confirm_timeout_s
        while not job.confirmed.wait(_WAIT_S):
            job.report("confirm", 0.0)
            if self._why_stop(job):
                raise PointingError(Code.CANCELLED, self._why_stop(job))
            if time.monotonic() > end_s:
                raise PointingError(
                    Code.CONFIRM_TIMEOUT,
                    f"nobody confirmed within {self._settings.confirm_timeout_s:g} s (confirm_timeout_s)",
                )
        if not job.accepted:
            raise PointingError(Code.REJECTED_BY_OPERATOR, "the operator rejected the motion")

    def _execute(self, job: MotionJob, plan: ReachPlan) -> None:
        assert self._arm is not None
        for stage, part in plan.parts():
            joints, _ = self._state.joints(self._scene.limits.names)
            off = np.abs(joints - part.positions[0])
            if off.max() > ARRIVED_RAD:
                raise PointingError(
                    Code.EXECUTION_FAILED,
                    f"before the {stage}, {self._scene.limits.names[int(off.argmax())]} is {off.max():.3f} rad from "
                    "where the plan begins: something else moved the arm",
                )

            def report(progress: float, stage: str = stage) -> None:
                job.report(stage, progress)

            report(0.0)
            outcome = self._arm.follow(part, lambda: self._why_stop(job), report)
            if not outcome.ok:
                raise PointingError(outcome.code, outcome.message)
        self._check_arrival(plan.parts()[-1][1].positions[-1])

    def _check_arrival(self, wanted: np.ndarray) -> None:
        """The controller says it is there; do the joints say so too?"""
        end_s = time.monotonic() + self._settings.settle_timeout_s
        pause = threading.Event()
        while True:
            joints, _ = self._state.joints(self._scene.limits.names)
            off = np.abs(joints - wanted)
            if off.max() <= ARRIVED_RAD:
                return
            if time.monotonic() > end_s:
                raise PointingError(
                    Code.EXECUTION_FAILED,
                    f"{self._scene.limits.names[int(off.argmax())]} ended {off.max():.3f} rad from its goal",
                )
            pause.wait(_WAIT_S)

    def _why_stop(self, job: MotionJob) -> str:
        if self._ending.is_set():
            return "the node is shutting down"
        if self._stopped.is_set():
            return "stopped by ~/stop"
        return "cancelled by the caller" if job.is_cancelled() else ""

    def _beat(self) -> None:
        """While a goal is at work, tell the controller so: should this process die, silence says it."""
        while not self._ending.wait(HEARTBEAT_S) or self._current is not None:
            if self._current is not None:
                self._heartbeat.publish(Empty())

    # ------------------------------------------------------------ the end

    def shut_down(self, patience_s: float = 5.0) -> bool:
        """Brake what moves, answer the open goal with CANCELLED, and end the threads; False when one is stuck."""
        self._ending.set()
        self._jobs.put(None)
        for thread in self._threads:
            thread.join(patience_s)
        let_replies_out(self._executor_of_calls, 1.0)
        return not any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Destroy the node; nothing may spin it any more."""
        self._action.destroy()
        self.destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """See `serve_until_signal`."""
    return serve_until_signal(
        "planner_node",
        args,
        ("executor",),
        lambda executors: PlannerNode(executors[0]),
        (RobotError, ObstacleError),
    )


if __name__ == "__main__":
    sys.exit(main())
