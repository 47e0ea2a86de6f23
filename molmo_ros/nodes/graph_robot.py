"""The robot of a pick and place as a ROS graph: the pointing node points, planner_node moves, a gripper's action grips.

Frames are taken by this node itself, of the same cameras, because answers carry pixels and no pictures. A frame is
taken after the answer, and looked at: where it shows something else than the answer was about, the thing was moved
meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from control_msgs.action import GripperCommand
from rclpy.executors import Executor
from rclpy.node import Node
from std_msgs.msg import Empty

from molmo_ros.nodes.arm_state import ArmState
from molmo_ros.nodes.frame_reading import FrameReader
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.frame_source import FrameSource, RawFrame
from molmo_ros.nodes.messages import NANOSECONDS, duration, stamped_header
from molmo_ros.nodes.motion_messages import goal_of
from molmo_ros.nodes.pick_place_parameters import PickPlaceParameters
from molmo_ros.nodes.transforms import TransformWindow
from molmo_ros.nodes.watched_action import WATCH_S, WatchedAction
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.planning.motion import Motion
from molmo_ros.planning.pick_robot import FAR, NEAR, Pointed
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.table_view import Sight
from molmo_ros.pointing.point import Point2D
from molmo_ros_interfaces.action import MoveToGoal, PointToTarget
from molmo_ros_interfaces.msg import Target, TargetArray

#: What an answer was about and what a later frame shows there may differ by this much.
SAME_PLACE_M = 0.04
_SAME_WITHIN_PX = 4
# What depth did not tell the pointing node, or said against one grasp of it, is for the task to look at again.
_LOOKED_AT_AGAIN = (Code.NO_DEPTH, Code.AMBIGUOUS_DEPTH, Code.TOO_WIDE)
# A motion may take this long in all; planner_node has its own, shorter limits.
_MOTION_S = 600.0
# How long the answers of other nodes may take beyond what they were given.
_LATE_S = 10.0
# Frames taken until one is of after the question.
_MOST_FRAMES = 20


class GraphRobot:
    """`planning.pick_robot.PickRobot` for one task after the other; its methods are called from a worker thread.

    `begin` says for which camera the next task is, and what stops it.
    """

    def __init__(self, node: Node, executor: Executor, settings: PickPlaceParameters, scene: RoboplanScene) -> None:
        self._node, self._executor, self._settings, self._scene = node, executor, settings, scene
        self._clock = node.get_clock()
        self._base_frame = (settings.base_frame or scene.robot.base).lstrip("/")
        self._state = ArmState(node, settings.joint_states_topic, settings.max_state_age_s)
        self._transforms = TransformWindow(node)
        self._cameras: dict[str, tuple[FrameSource, FrameReader]] = {}
        self._pointing = WatchedAction(
            node, PointToTarget, settings.pointing_action, "the pointing node", Code.MODEL_UNAVAILABLE
        )
        self._planner = WatchedAction(
            node, MoveToGoal, settings.planner_action, "the planner", Code.PLANNER_UNAVAILABLE
        )
        self._gripper = WatchedAction(
            node, GripperCommand, settings.gripper_action, "the gripper's controller", Code.EXECUTION_FAILED
        )
        self._beat_s = 0.0
        node.create_subscription(
            Empty, settings.planner_heartbeat_topic, lambda _: self._hear_planner(), 1
        )
        self._stop: Callable[[], str] = lambda: ""
        self._camera = settings.camera
        #: What the pointing node answered in this task, by the words; from afar, or from the hand if it saw nothing.
        self.answers: dict[str, TargetArray] = {}

    def begin(self, camera: str, stop: Callable[[], str]) -> None:
        """The next task points in this camera ("" = the parameter's); `stop` says why it is to stop, or ""."""
        self._camera, self._stop = camera or self._settings.camera, stop
        self.answers = {}

    # ------------------------------------------------------------ seeing

    def point(self, words: str, camera: str) -> Pointed:
        request = PointToTarget.Goal(target=words, camera=self._name(camera), dry_run=True)
        request.timeout = duration(self._settings.pointing_timeout_s)
        reply = self._pointing.call(request, self._stop, timeout_s=self._settings.pointing_timeout_s + _LATE_S)
        known = self.answers.get(words)
        if camera == FAR or known is None or not known.targets:
            self.answers[words] = reply.targets
        target = _usable(reply)
        sight = self.look(camera)
        self._check_still_there(words, target, sight)
        point = Point2D(target.u, target.v, target.label, target.confidence, target.sigma_px, 0)
        return Pointed(sight, (point,))

    def look(self, camera: str) -> Sight:
        """A frame whose stamp is not before now."""
        name = self._name(camera)
        source, reader = self._eyes(name)
        asked_ns = self._clock.now().nanoseconds
        for _ in range(_MOST_FRAMES):
            raw = self._awaited(
                source.request(
                    round(self._settings.max_frame_age_s * NANOSECONDS), self._settings.frame_timeout_s
                )
            )
            if raw.stamp_ns >= asked_ns:
                return Sight(reader.read(raw), raw.T_still_camera)
        raise PointingError(
            Code.STALE_FRAME,
            f"all images of {name} are stamped before they were asked for: the camera is late, or its clock is",
        )

    def _name(self, camera: str) -> str:
        return self._settings.wrist_camera if camera == NEAR else self._camera

    def _eyes(self, name: str) -> tuple[FrameSource, FrameReader]:
        if name not in self._cameras:
            rules = self._rules(name)
            source = FrameSource(self._node, self._executor, self._clock, rules, self._transforms)
            reader = FrameReader(
                rules, color_is_rectified=self._settings.color_is_rectified, depth_is_rectified=True
            )
            self._cameras[name] = (source, reader)
        return self._cameras[name]

    def _rules(self, name: str) -> FrameRules:
        settings = self._settings

        def topic(pattern: str) -> str:
            return self._node.resolve_topic_name(pattern.replace("{camera}", name))

        return FrameRules(
            camera=name,
            color_topic=topic(settings.color_topic),
            color_info_topic=topic(settings.color_info_topic),
            depth_topic=topic(settings.depth_topic),
            still_frame=self._base_frame,
            max_pairing_gap_ns=round(settings.max_pairing_gap_s * NANOSECONDS),
            max_stamp_lead_ns=NANOSECONDS // 4,
            frame_timeout_s=settings.frame_timeout_s,
            tf_timeout_s=settings.tf_timeout_s,
            depth_info_topic=topic(settings.depth_info_topic) if settings.depth_info_topic else None,
        )

    def _awaited(self, answer: Future[RawFrame]) -> RawFrame:
        ready = threading.Event()
        answer.add_done_callback(lambda _: ready.set())
        end_s = time.monotonic() + self._settings.frame_timeout_s + _LATE_S
        while not ready.wait(WATCH_S):
            if self._stop() or time.monotonic() > end_s:
                answer.cancel()
                code = Code.CANCELLED if self._stop() else Code.INTERNAL
                raise PointingError(code, self._stop() or "the thread of cameras did not answer")
        return answer.result()

    def _check_still_there(self, words: str, target: Target, sight: Sight) -> None:
        """The frame that was taken after the answer shows, at the answer's pixel, something as far away."""
        frame = sight.frame
        at = target.pose.pose.pose.position
        known = np.array([at.x, at.y, at.z])
        if frame.depth_m is None or not np.isfinite(known).all():
            return
        T_base_answer = self.T_base(target.pose.header.frame_id, frame.stamp_ns)
        in_camera = np.linalg.inv(sight.T_base_camera) @ T_base_answer @ [*known, 1.0]
        pixel = frame.camera.project(in_camera[None, :3])[0]
        if not np.isfinite(pixel).all():
            return
        u, v = np.round(pixel).astype(int)
        rows = slice(max(v - _SAME_WITHIN_PX, 0), max(v + _SAME_WITHIN_PX + 1, 0))
        columns = slice(max(u - _SAME_WITHIN_PX, 0), max(u + _SAME_WITHIN_PX + 1, 0))
        off_m = np.abs(frame.depth_m[rows, columns] - in_camera[2])
        if np.isfinite(off_m).any() and float(np.nanmin(off_m)) > SAME_PLACE_M:
            raise PointingError(
                Code.GRASP_FAILED, f"what {words!r} pointed at was moved before it was looked at again"
            )

    def T_base(self, frame: str, stamp_ns: int) -> np.ndarray:
        """T_base_frame (4x4) at a stamp. Raises PointingError(TF_UNAVAILABLE) when TF does not say it in time."""
        frame = frame.lstrip("/")
        answer: Future[np.ndarray] = Future()
        refusals: list[PointingError] = []

        def look_up() -> None:
            if answer.done():
                return
            try:
                answer.set_result(self._transforms.matrix_at(self._base_frame, frame, stamp_ns))
            except PointingError as error:
                refusals.append(error)

        self._executor.create_task(self._transforms.open, answer, look_up)
        self._executor.create_task(look_up)
        try:
            return answer.result(self._settings.tf_timeout_s)
        except TimeoutError:
            raise refusals[-1] if refusals else PointingError(
                Code.INTERNAL, "the thread of TF did not answer"
            ) from None
        finally:
            self._executor.create_task(self._transforms.close, answer)

    # ------------------------------------------------------------ moving

    def joints(self) -> np.ndarray:
        joints, _ = self._state.joints(self._scene.limits.names)
        return joints

    def tool(self) -> np.ndarray:
        return self._scene.goal_pose(self.joints())

    def on_arm(self, points_base_N3: np.ndarray) -> np.ndarray:
        gripper = self._scene.robot.gripper
        if gripper:
            position, _ = self._state.joints([gripper.joint])
            self._scene.set_opening(float(position[0]) / gripper.joint_per_opening)
        return self._scene.on_robot(self.joints(), points_base_N3, self._settings.robot_padding_m)

    def plan(self, motion: Motion) -> None:
        self._ask_planner(motion, plan_only=True)

    def move(self, motion: Motion) -> None:
        self._ask_planner(motion, plan_only=False)

    def _ask_planner(self, motion: Motion, *, plan_only: bool) -> None:
        now = stamped_header(self._clock.now().nanoseconds, self._base_frame)
        goal = goal_of(
            motion, now, self._scene.limits.names, self._settings.speed_scale, plan_only=plan_only
        )
        result = self._planner.call(
            goal,
            self._stop,
            timeout_s=_MOTION_S,
            on_accepted=self._hear_planner,
            lost=self._planner_is_silent,
        )
        outcome = Outcome(Code(result.outcome.code), result.outcome.message)
        if not outcome.ok:
            raise PointingError(outcome.code, outcome.message)

    def _hear_planner(self) -> None:
        self._beat_s = time.monotonic()

    def _planner_is_silent(self) -> str:
        silence_s = time.monotonic() - self._beat_s
        if silence_s < self._settings.planner_silence_s:
            return ""
        return (
            f"the planner has been silent for {silence_s:.1f} s in the middle of a goal; where the arm stands, and "
            "whether it still moves, is for its controller to say"
        )

    def grip(self, opening_m: float) -> float:
        goal = GripperCommand.Goal()
        goal.command.position = opening_m * self._settings.gripper_position_per_opening
        goal.command.max_effort = self._settings.gripper_force_n
        result = self._gripper.call(
            goal, self._stop, timeout_s=self._settings.gripper_timeout_s, can_cancel=False
        )
        return float(result.position) / self._settings.gripper_position_per_opening

    # ------------------------------------------------------------ the end

    def destroy(self) -> None:
        """End the clients; nothing may spin the node any more."""
        for action in (self._pointing, self._planner, self._gripper):
            action.destroy()


def _usable(reply: PointToTarget.Result) -> Target:
    """The target to go for: the first good one, or one of which only the depth is in doubt, since it is looked at
    again. Raises PointingError with the answer's outcome, or the first target's."""
    targets = reply.targets.targets
    for codes in ((Code.OK,), _LOOKED_AT_AGAIN):
        for target in targets:
            if target.outcome.code in codes:
                return target
    refused = targets[0].outcome if targets else reply.outcome
    raise PointingError(Code(refused.code), refused.message)
