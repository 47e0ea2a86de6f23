"""pointing_node: words in, stamped goal poses out.

Three threads share the work, so that nothing waits for what it need not wait for: one for services, one for
cameras and TF, one for the model. A service call awaits its answer without blocking its thread.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import Image

from molmo_ros.nodes.frame_source import FrameRules, FrameSource
from molmo_ros.nodes.image_conversion import message_from_rgb
from molmo_ros.nodes.messages import (
    NANOSECONDS,
    goal_message,
    outcome_message,
    stamped_header,
    target_message,
)
from molmo_ros.nodes.model_worker import Job, ModelWorker
from molmo_ros.nodes.parameters import ParameterError, PointingParameters
from molmo_ros.nodes.pointing_pipeline import Answer, PointingPipeline, timed_out
from molmo_ros.nodes.pointing_request import PointingRequest
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.pointing.annotate import annotate
from molmo_ros_interfaces.msg import TargetArray
from molmo_ros_interfaces.srv import PointTo

if TYPE_CHECKING:
    from molmo_ros.pointing.protocol import Pointer

LoadPointer = Callable[[PointingParameters], "Pointer"]
# Reliable, and volatile so that a late joiner never acts on an old goal.
GOAL_QOS = QoSProfile(depth=10)
IMAGE_QOS = QoSProfile(depth=1)
SHUTDOWN_REPLY_S = 0.8
SHUTDOWN_MODEL_S = 0.8


def load_local_pointer(parameters: PointingParameters) -> Pointer:
    """The model that the parameters name; PointingError(MODEL_UNAVAILABLE) says what is wrong with it."""
    from molmo_ros.pointing import bundled_model_folder

    folder = Path(parameters.model).expanduser() if parameters.model else bundled_model_folder()
    if not folder.is_dir():
        raise PointingError(
            Code.MODEL_UNAVAILABLE, f"there is no folder {folder}; parameter model names a checkpoint"
        )
    # Here, because torch takes seconds to import and the node is up before.
    from molmo_ros.molmo.loading import CheckpointError
    from molmo_ros.pointing.loading import load_pointer

    try:
        return load_pointer(
            folder, parameters.device, parameters.dtype, parameters.quantization, parameters.point_format
        )
    except CheckpointError as error:
        raise PointingError(Code.MODEL_UNAVAILABLE, str(error)) from error


class PointingNode(Node):
    """The service `~/point_to` and the topics `~/goal_pose`, `~/targets`, `~/annotated_image`."""

    def __init__(self, executor: Executor, sensor_executor: Executor, load_pointer: LoadPointer) -> None:
        """Raises ParameterError, or rclpy's InvalidTopicNameException, for a configuration that cannot
        work."""
        super().__init__("pointing_node")
        self._service_executor = executor
        self._settings = parameters = PointingParameters.declare(self)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)

        self._sensor_node = _sensor_node_of(self)
        rules = FrameRules(
            color_topic=self._resolved(parameters.color_topic),
            color_info_topic=self._resolved(parameters.color_info_topic),
            depth_topic=self._resolved(parameters.depth_topic) if parameters.depth_topic else None,
            target_frame=parameters.target_frame.lstrip("/"),
            max_pairing_gap_ns=round(parameters.max_pairing_gap_s * NANOSECONDS),
            max_stamp_lead_ns=round(parameters.max_stamp_lead_s * NANOSECONDS),
            frame_timeout_s=parameters.frame_timeout_s,
            tf_timeout_s=parameters.tf_timeout_s,
            sensor_qos=parameters.sensor_qos,
        )
        self._frames = FrameSource(self._sensor_node, sensor_executor, self.get_clock(), rules)
        self._pipeline = PointingPipeline(parameters, self._frames.request)

        self._goal_publisher = self.create_publisher(PoseStamped, "~/goal_pose", GOAL_QOS)
        self._targets_publisher = self.create_publisher(TargetArray, "~/targets", GOAL_QOS)
        self._picture_publisher = self.create_publisher(Image, "~/annotated_image", IMAGE_QOS)
        # Reentrant, because a call that awaits its answer must not keep the next one out.
        self.create_service(PointTo, "~/point_to", self._point_to, callback_group=ReentrantCallbackGroup())
        self._worker = ModelWorker(
            load=lambda: load_pointer(parameters),
            serve=self._serve,
            on_loaded=lambda seconds: self.get_logger().info(f"model loaded in {seconds:.1f} s; ready"),
            on_failed=lambda reason: self.get_logger().error(reason),
            max_queue=parameters.max_queue,
        )
        executor.add_node(self)
        sensor_executor.add_node(self._sensor_node)
        self._worker.start()

    def _resolved(self, topic: str) -> str:
        validate_topic_name(topic)
        return self.resolve_topic_name(topic)

    # ------------------------------------------------------------------ a request, on the services' thread

    async def _point_to(self, message: PointTo.Request, response: PointTo.Response) -> PointTo.Response:
        executor = self._service_executor
        answered: Future[PointTo.Response] = Future(executor=executor)

        def reply(result: PointTo.Response) -> None:
            answered.set_result(result)
            executor.wake()  # an idle executor does not notice a future completed elsewhere

        try:
            request = PointingRequest.from_message(message, self._settings)
            job = Job(request, request.timeout_s, reply)
            self._worker.submit(job)
        except PointingError as error:
            self.get_logger().info(f"refused {message.target[:60]!r}: {error.outcome}")
            response.outcome = outcome_message(error.outcome)
            return response
        deadline = self.create_timer(
            request.timeout_s, lambda: self._end(job, timed_out(job)), clock=self._steady
        )
        try:
            result = await answered
        finally:
            self.destroy_timer(deadline)
        return result if result is not None else response

    def _end(self, job: Job, outcome: Outcome) -> None:
        """Answer a job before its stages are through; they stop when they notice."""
        if job.claim():
            job.reply(self._response(job, Answer(job.request, outcome)))
            self.get_logger().warning(f"{job.request.target!r}: {outcome}")

    # ------------------------------------------------------------------ a request, on the model's thread

    def _serve(self, pointer: Pointer, job: Job) -> None:
        answer = self._pipeline.run(pointer, job)
        if not job.claim():
            return
        try:
            response = self._response(job, answer)
            begin_s = time.perf_counter()
            self._publish(answer, response.targets)
            answer.seconds.publish = time.perf_counter() - begin_s
        except Exception as error:  # noqa: BLE001 - the job is claimed: nobody else will answer it
            answer.outcome = Outcome(Code.INTERNAL, f"while publishing: {type(error).__name__}: {error}")
            answer.found, answer.goal = (), None
            response = self._response(job, answer)
        answer.seconds.total = time.monotonic() - job.received_s
        response.durations = answer.seconds.to_message()
        job.reply(response)
        self.get_logger().info(
            f"{job.request.target!r}: {answer.outcome}, {len(answer.found)} points, "
            f"{answer.seconds.total:.3f} s"
        )
        self._publish_picture(answer)

    def _response(self, job: Job, answer: Answer) -> PointTo.Response:
        answer.seconds.total = time.monotonic() - job.received_s
        response = PointTo.Response(
            outcome=outcome_message(answer.outcome),
            answer=answer.words,
            durations=answer.seconds.to_message(),
        )
        response.targets.camera = self._settings.camera_name
        response.targets.query = job.request.target
        if answer.frame is not None:
            stamp_ns = answer.frame.stamp_ns
            response.targets.header = stamped_header(stamp_ns, answer.frame.frame_id)
            response.targets.targets = [
                target_message(
                    found.point, found.located, found.outcome, stamp_ns, self._settings.target_frame
                )
                for found in answer.found
            ]
        return response

    def _publish(self, answer: Answer, targets: TargetArray) -> None:
        """Hand over to planners: only what passed every check, and nothing on a dry run."""
        if answer.request.dry_run or answer.frame is None:
            return
        if answer.outcome.ok and answer.goal is not None:
            goal = answer.found[answer.goal].located
            self._goal_publisher.publish(
                goal_message(goal, answer.frame.stamp_ns, self._settings.target_frame)
            )
        if answer.found:
            self._targets_publisher.publish(targets)

    def _publish_picture(self, answer: Answer) -> None:
        wanted = (
            self._settings.publish_annotated_image or self._picture_publisher.get_subscription_count() > 0
        )
        if not wanted or answer.frame is None:
            return
        try:
            picture = message_from_rgb(_picture_of(answer, answer.frame.color_HW3))
            picture.header = stamped_header(answer.frame.stamp_ns, answer.frame.frame_id)
            self._picture_publisher.publish(picture)
        except Exception as error:  # noqa: BLE001 - the request is answered; a picture is not worth more than a line
            self.get_logger().warning(f"no annotated image: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------ the end

    def shut_down(self) -> bool:
        """Answer every open request with CANCELLED and end the model's thread; False when that one is
        stuck."""
        for job in self._worker.unfinished():
            self._end(job, Outcome(Code.CANCELLED, "the node is shutting down"))
        replied = threading.Event()
        self._service_executor.create_task(replied.set)  # runs after the answers, which are queued before it
        replied.wait(SHUTDOWN_REPLY_S)
        self._frames.cancel()
        return self._worker.stop(SHUTDOWN_MODEL_S)

    def close(self) -> None:
        """Destroy both nodes; nothing may spin them any more."""
        self._sensor_node.destroy_node()
        self.destroy_node()


def _sensor_node_of(node: Node) -> Node:
    """A second node for cameras and TF, so that they have an executor of their own; it obeys the same
    remappings."""
    remappings: list[str] = []
    for topic in ("/tf", "/tf_static"):
        resolved = node.resolve_topic_name(topic)
        if resolved != topic:
            remappings += ["-r", f"{topic}:={resolved}"]
    return rclpy.create_node(
        f"_{node.get_name()}_sensors",
        namespace=node.get_namespace(),
        cli_args=["--ros-args", *remappings] if remappings else None,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )


def _picture_of(answer: Answer, image_HW3: np.ndarray) -> np.ndarray:
    notes, refused = [], set()
    for n, found in enumerate(answer.found):
        if found.outcome.ok and found.located.depth is not None:
            notes.append(f"{found.located.depth.depth_m:.2f} m")
        else:
            notes.append(found.outcome.code.name)
            refused.add(n)
    verdict = "" if answer.outcome.ok else f" · {answer.outcome.code.name}"
    return annotate(
        image_HW3,
        [found.point for found in answer.found],
        notes=notes,
        chosen=answer.goal,
        refused=refused,
        banner=f"{answer.request.target}{verdict} · {answer.seconds.total:.2f} s",
    )


def _spin(executor: Executor, ended: threading.Event) -> None:
    """Serve until the end; a callback that raises is logged, and the others go on."""
    while not ended.is_set():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:  # noqa: BLE001 - the other callbacks go on
            if not ended.is_set():
                get_logger("pointing_node").error(f"a callback failed: {type(error).__name__}: {error}")


def main(args: Sequence[str] | None = None, load_pointer: LoadPointer = load_local_pointer) -> int:
    """Run until SIGINT or SIGTERM. Exit code 0, or 2 for a configuration that cannot work."""
    # The signals are taken here and nowhere else: open requests are answered before the context goes away.
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    executor, sensor_executor = SingleThreadedExecutor(), SingleThreadedExecutor()
    try:
        node = PointingNode(executor, sensor_executor, load_pointer)
    except (ParameterError, InvalidTopicNameException) as error:
        get_logger("pointing_node").fatal(" ".join(str(error).split()))
        rclpy.shutdown()
        return 2
    ended = threading.Event()
    threads = [
        threading.Thread(target=_spin, args=(each, ended), name=name, daemon=True)
        for each, name in ((executor, "services"), (sensor_executor, "sensors"))
    ]
    for thread in threads:
        thread.start()

    signal.sigwait(ending)

    model_ended = node.shut_down()
    ended.set()
    for each in (executor, sensor_executor):
        each.wake()
        each.shutdown(timeout_sec=SHUTDOWN_REPLY_S)
    for thread in threads:
        thread.join(SHUTDOWN_REPLY_S)
    if not model_ended or any(thread.is_alive() for thread in threads):
        # Loading a model cannot be interrupted, and Python would wait for it: nothing is left to be saved.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    node.close()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
