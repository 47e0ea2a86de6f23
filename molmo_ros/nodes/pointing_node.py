"""pointing_node: words in, stamped goal poses out.

Threads share the work, so that nothing waits for what it need not wait for: one for services, one for cameras
and TF, one for the model, one for lifecycle transitions, one for pictures.

    request_server   takes requests in and hands answers out          services' thread
    model_worker     queues them, gives each its frame                model's thread
    pointing_pipeline   frame -> pixels -> points -> places           model's thread, one beside it for the table
    answer_topics    what planners and people get to see              model's thread, pictures' thread
    hand_off         asks the operator, tells a planner's action      a thread for each goal on its way
    request_recorder    what was asked, seen and answered, as bags    recorder's thread
    sensors          cameras and TF                                   sensors' thread
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.validate_topic_name import validate_topic_name

from molmo_ros.nodes import diagnostics
from molmo_ros.nodes.answer import Answer, HeldFrame
from molmo_ros.nodes.answer_topics import AnswerTopics
from molmo_ros.nodes.declared_parameters import DeclaredParameters
from molmo_ros.nodes.frame_reading import FrameReader
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.hand_off import HandOffs
from molmo_ros.nodes.job import Job
from molmo_ros.nodes.lifecycle_transitions import ConcurrentLifecycleNode
from molmo_ros.nodes.model_choice import LoadPointer, load_pointer_of
from molmo_ros.nodes.model_worker import ModelWorker, failure_line
from molmo_ros.nodes.node_process import let_replies_out, serve_until_signal
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.planner_action import STOP_S, PlannerAction, PlannerInterface, planner_interface
from molmo_ros.nodes.pointing_pipeline import PointingPipeline
from molmo_ros.nodes.request_recorder import RequestRecorder
from molmo_ros.nodes.request_server import RequestServer
from molmo_ros.nodes.sensors import Sensors
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.pointing.held import Held

if TYPE_CHECKING:
    from molmo_ros.pointing.protocol import Pointer

# A signal ends the process in less than 2 s, whatever the model is at; the rest is for executors and Python itself.
END_WITHIN_S = 1.0
# Deactivating waits so long for what is still to be recorded.
RECORD_S = 0.8
# A model at work is told to stop at its next layer; one that does not within this time is left behind.
UNLOAD_S = 30.0
SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class PointingNode(ConcurrentLifecycleNode):
    """See docs/node.md for its interfaces and states."""

    def __init__(self, executor: Executor, sensor_executor: Executor, load_pointer: LoadPointer) -> None:
        """Raises ParameterError, or rclpy's InvalidTopicNameException, for a configuration that cannot
        work."""
        super().__init__("pointing_node", automatically_declare_parameters_from_overrides=True)
        self._service_executor = executor
        self._load_pointer = load_pointer
        self._active = False
        self._ending = False
        self._worker: ModelWorker | None = None
        self._loaded: tuple[object, ...] = ()
        self._failure = Outcome()
        self._interface: PlannerInterface | None = None
        self._planner: PlannerAction | None = None
        self._pipeline: PointingPipeline | None = None
        self._held: Held[HeldFrame] = Held(0, 0)
        self._recorder: RequestRecorder | None = None
        self._declared = DeclaredParameters(
            self, may_change=lambda: self.state_label in ("unconfigured", "inactive")
        )
        self._rules(self._settings())  # bad topic names end the node here, not at its activation
        self._log = diagnostics.RequestLog()
        self._topics = AnswerTopics(self)
        self._hand_offs = HandOffs(self, self._topics, self._carried_to_now, self._finish)
        self._sensors = Sensors(self, sensor_executor)
        self._server = RequestServer(
            self,
            executor,
            parameters=self._settings,
            submit=self._submit,
            release=lambda token: self._held.release(token),
            on_refused=self._log.note_refused,
            on_ended=self._note,
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(
            self._settings().diagnostics_period_s,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        executor.add_node(self)
        self._starting = self._settings().autostart
        if self._starting:
            self.in_turn(self._start)

    def _settings(self) -> PointingParameters:
        return self._declared.current

    def _start(self) -> None:
        try:
            if self.trigger_configure() == SUCCESS:
                self.trigger_activate()
        finally:
            self._starting = False

    # ------------------------------------------------------------------ lifecycle, on the transitions' thread

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, if the planner's interfaces are there."""
        return self._or_error("configuring", lambda: SUCCESS if self._find_planner() and self._load() else FAILURE)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Serve requests, with cameras and TF at hand; load the model anew if another one is wanted now."""
        return self._or_error("activating", self._open)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the cameras and call back what is on its way; whoever waits is told so."""
        return self._or_error(
            "deactivating", lambda: self._close(Outcome(Code.NOT_ACTIVE, "the node was deactivated"))
        )

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model's memory."""
        return self._or_error("cleaning up", self._unload)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._or_error("closing", lambda: self._close(Outcome(Code.CANCELLED, "the node is shutting down")))
        return self._or_error("unloading", self._unload)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, with nothing left over."""
        self._or_error("closing", lambda: self._close(Outcome(Code.NOT_ACTIVE, "the node met an error")))
        return self._or_error("unloading", self._unload)

    def _or_error(self, doing: str, act: Callable[[], TransitionCallbackReturn]) -> TransitionCallbackReturn:
        """rclpy turns what a transition raises into ERROR without a word."""
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - errorProcessing deals with it
            self._fail(Code.MODEL_UNAVAILABLE, f"{doing} failed: {failure_line(error)}")
            return ERROR

    def _fail(self, code: Code, why: str) -> None:
        """Said now, and to whoever asks until it is mended."""
        self._failure = Outcome(code, why)
        self.get_logger().error(why)

    def _open(self) -> TransitionCallbackReturn:
        parameters = self._settings()
        if not self._find_planner():
            return FAILURE
        if parameters.model_choice() != self._loaded:
            self._unload()
            if not self._load():
                return FAILURE
        rules = self._rules(parameters)
        self._held = Held(
            parameters.held_frames, round(parameters.held_megabytes * 1e6), parameters.held_age_s
        )
        readers = {
            camera.name: FrameReader(
                rule,
                color_is_rectified=camera.color_is_rectified,
                depth_is_rectified=camera.depth_is_rectified,
            )
            for camera, rule in zip(parameters.cameras, rules, strict=True)
        }
        self._pipeline = PointingPipeline(
            readers,
            self._held,
            (lambda: self._sensors.base_in(parameters.fixed_frame)) if parameters.fixed_frame else None,
        )
        if parameters.record:
            self._recorder = RequestRecorder(
                Path(parameters.record),
                round(parameters.record_max_megabytes * 1e6),
                self.get_fully_qualified_name(),
                tuple(rules),
                on_fault=self.get_logger().error,
            )
        self._sensors.open(parameters, rules)
        if self._interface is not None:
            self._planner = PlannerAction(self, self._service_executor, self._interface, parameters.planner)
        self._hand_offs.open(self._planner)
        self._active, self._failure = True, Outcome()
        self.get_logger().info("active")
        return SUCCESS

    def _find_planner(self) -> bool:
        """Whether the planner's interfaces are there; else the log says why not, and so will every reply."""
        try:
            self._interface = planner_interface(self._settings(), self._sensors.base_in)
        except PointingError as error:
            self._fail(error.outcome.code, error.outcome.message)
            return False
        return True

    def _load(self) -> bool:
        """Whether the model is there now; else the log says why not, and so will every reply.

        What nobody foresaw is raised, and leads to errorProcessing.
        """
        parameters = self._settings()
        worker = ModelWorker(
            load=lambda tell: self._load_pointer(parameters, tell),
            serve=self._serve,
            request_frame=self._request_frame,
            max_queue=lambda: self._settings().max_queue,
        )
        self._worker, self._failure = worker, Outcome()
        worker.start()
        try:
            worker.wait_until_loaded()
        except PointingError as error:
            self._worker = None
            self._fail(Code.MODEL_UNAVAILABLE, f"the model could not be loaded: {failure_line(error)}")
            return False
        if self._ending:
            return False
        self._loaded = parameters.model_choice()
        self.get_logger().info(f"model {worker.describe()}; ready")
        return True

    def _unload(self) -> TransitionCallbackReturn:
        worker, self._worker = self._worker, None
        self._loaded = ()
        self._pipeline = None
        self._held.clear()
        if worker is not None and not worker.stop(UNLOAD_S):
            self.get_logger().warning(
                f"the model's thread did not end within {UNLOAD_S:g} s and is left behind"
            )
        _return_memory()
        return SUCCESS

    def _close(self, outcome: Outcome) -> TransitionCallbackReturn:
        self._active = False
        self._end_all(outcome, STOP_S + 1.0)
        planner, self._planner = self._planner, None
        if planner is not None:
            self._service_executor.create_task(planner.destroy)  # on its thread: the executor may be waiting on it
        self._sensors.close(outcome)
        self._end_recording(RECORD_S)
        return SUCCESS

    def _end_all(self, outcome: Outcome, timeout_s: float) -> None:
        """Whatever is under way; the time is for a planner that has a goal, and must stop first."""
        for job in self._worker.unfinished() if self._worker else ():
            self._server.end(job, outcome)
        if not self._hand_offs.end_all(outcome, timeout_s):
            self.get_logger().error("a planner did not say that it has stopped: look whether the robot still moves")

    def _carried_to_now(self, answer: Answer) -> Answer:
        pipeline = self._pipeline
        if pipeline is None:
            raise PointingError(Code.NOT_ACTIVE, "the node was deactivated")
        return pipeline.carried_to_now(answer)

    def _rules(self, parameters: PointingParameters) -> list[FrameRules]:
        def resolve(topic: str) -> str:
            validate_topic_name(topic)
            return self.resolve_topic_name(topic)

        return [FrameRules.of(camera, parameters, resolve) for camera in parameters.cameras]

    # ------------------------------------------------------------------ a request

    def _submit(self, job: Job) -> None:
        """Queue it; PointingError says why not. On the services' thread."""
        worker = self._worker
        if self._ending:
            raise PointingError(Code.NOT_ACTIVE, "the node is shutting down")
        if worker is None or (worker.is_ready and not self._active):
            failure = self._failure
            raise self._not_active() if failure.ok else PointingError(failure.code, failure.message)
        if job.request.frame_token:
            held = self._held.get(job.request.frame_token)
            if job.request.names_camera and job.request.camera.name != held.camera:
                raise PointingError(
                    Code.INVALID_REQUEST,
                    f"the held frame is of camera {held.camera!r}, not {job.request.camera.name!r}; leave camera empty",
                )
        worker.submit(job)

    def _not_active(self) -> PointingError:
        state = self.state_label
        if self._starting:
            return PointingError(
                Code.MODEL_UNAVAILABLE,
                f"the model is still loading (the node is {state}); ask again in a moment",
            )
        steps = {"unconfigured": "configure and activate it", "inactive": "activate it"}
        way = steps.get(state, "ask again in a moment")
        return PointingError(
            Code.NOT_ACTIVE, f"the node is {state}; {way} (ros2 lifecycle set, or parameter autostart)"
        )

    def _request_frame(self, job: Job) -> Future[RawFrame]:
        return self._sensors.request_frame(
            job.request.camera.name, job.request.max_frame_age_ns, max(job.left_s, 0.0)
        )

    def _serve(self, pointer: Pointer, job: Job) -> None:
        """On the model's thread."""
        pipeline = self._pipeline
        if pipeline is None:
            self._server.end(job, Outcome(Code.NOT_ACTIVE, "the node was deactivated"))
            return
        gone = Outcome(Code.CANCELLED, "the caller has left; a goal that nobody waits for is not published")
        if job.caller_left():
            self._server.end(job, gone)
            return
        answer = pipeline.run(pointer, job)
        if job.caller_left():
            answer = replace(answer, outcome=gone, goal=None)
        if self._hand_offs.takes(answer):
            self._hand_offs.begin(job, answer)
            return
        job.enter("publish", job.tokens, job.points)
        if not job.claim():
            return
        begin_s = time.perf_counter()
        try:
            self._topics.hand_over(answer)
        except Exception as error:  # noqa: BLE001 - the job is claimed: nobody else will answer it
            fault = Outcome(Code.INTERNAL, f"while publishing: {type(error).__name__}: {error}")
            answer = replace(answer, outcome=fault, found=(), goal=None)
        seconds = replace(answer.seconds, publish=time.perf_counter() - begin_s)
        self._finish(job, replace(answer, seconds=seconds))
        self._topics.show(answer)

    def _finish(self, job: Job, answer: Answer) -> None:
        """Answer a job that is claimed. From any thread."""
        total_s = time.monotonic() - job.received_s
        answer = replace(answer, seconds=replace(answer.seconds, total=total_s))
        job.reply(answer)
        self._note(answer)
        self.get_logger().info(
            f"{answer.request.words!r}: {answer.outcome}, {len(answer.found)} points, {answer.seconds.total:.3f} s"
        )

    def _note(self, answer: Answer) -> None:
        """After the answer was given. From any thread."""
        self._log.note(answer)
        recorder = self._recorder
        if recorder is not None:
            recorder.record(answer)

    def _end_recording(self, timeout_s: float) -> bool:
        """Whether everything that waited was written, in the time that there is."""
        recorder, self._recorder = self._recorder, None
        if recorder is None or recorder.close(timeout_s):
            return True
        self.get_logger().warning(f"the last requests are not recorded: no time was left ({recorder.folder})")
        return False

    # ------------------------------------------------------------------ diagnostics

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().lstrip("/")
        worker, state = self._worker, self.state_label
        if worker is not None:
            model_level = diagnostics.OK if worker.is_ready else diagnostics.WARN
            model = worker.describe()
        else:
            model_level = diagnostics.STALE if self._failure.ok else diagnostics.ERROR
            model = self._failure.message or "not loaded"
        parameters = self._settings()
        cameras = [camera.name for camera in parameters.cameras]
        held = self._held
        statuses = [
            diagnostics.status(
                f"{name}: node",
                diagnostics.OK if state == "active" else diagnostics.WARN,
                state,
                {
                    "waiting": str(worker.queue_length if worker else 0),
                    "goals on their way": str(self._hand_offs.count),
                    **self._sensors.describe(),
                },
            ),
            diagnostics.status(
                f"{name}: model",
                model_level,
                model,
                {"backend": parameters.backend, "model": parameters.model},
            ),
            diagnostics.status(
                f"{name}: held frames",
                diagnostics.OK,
                f"{len(held)} frames, {held.nbytes / 1e6:.1f} MB",
                {"at most": str(held.max_count), "at most [MB]": f"{held.max_bytes / 1e6:.0f}"},
            ),
            *self._log.statuses(name, cameras),
        ]
        recorder = self._recorder
        if recorder is not None:
            level = diagnostics.ERROR if recorder.fault else diagnostics.OK
            statuses.append(diagnostics.status(f"{name}: recording", level, *recorder.describe()))
        self._diagnostics.publish(diagnostics.array(statuses, self.get_clock().now().to_msg()))

    # ------------------------------------------------------------------ the end

    def shut_down(self) -> bool:
        """Answer every open request with CANCELLED and end all threads but the executors', within END_WITHIN_S; False
        when one is stuck."""
        end_s = time.monotonic() + END_WITHIN_S

        def left_s() -> float:
            return max(end_s - time.monotonic(), 0.0)

        self._ending, self._active = True, False
        self._end_all(Outcome(Code.CANCELLED, "the node is shutting down"), left_s() / 2)
        let_replies_out(self._service_executor, left_s())
        worker = self._worker
        ended = worker is None or worker.stop(left_s())
        ended = self._topics.close(left_s()) and ended
        ended = self._end_recording(left_s()) and ended
        return self.end_transitions(left_s()) and ended

    def close(self) -> None:
        """Destroy everything; nothing may spin it any more."""
        self._server.destroy()
        if self._planner is not None:
            self._planner.destroy()
        self._sensors.destroy()
        self.destroy_node()


def _return_memory() -> None:
    """Freed memory goes back to the system: glibc keeps what Python and torch let go of otherwise."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def main(args: Sequence[str] | None = None, load_pointer: LoadPointer = load_pointer_of) -> int:
    """See `serve_until_signal`."""
    return serve_until_signal(
        "pointing_node",
        args,
        ("services", "sensors"),
        lambda executors: PointingNode(executors[0], executors[1], load_pointer),
    )


if __name__ == "__main__":
    sys.exit(main())
