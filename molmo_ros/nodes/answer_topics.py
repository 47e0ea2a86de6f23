"""What a request's answer puts on topics: for planners only what passed every check, for people all of it."""

from __future__ import annotations

import threading

import numpy as np
from geometry_msgs.msg import PoseArray, PoseStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.compressed_images import compressed_from_rgb
from molmo_ros.nodes.hand_off_parameters import TOPIC
from molmo_ros.nodes.image_conversion import message_from_rgb
from molmo_ros.nodes.markers import markers_message
from molmo_ros.nodes.messages import goal_message, goals_message, stamped_header, targets_message
from molmo_ros.pointing.annotate import annotate
from molmo_ros_interfaces.msg import TargetArray

# Reliable, and volatile so that a late joiner never acts on an old goal.
GOAL_QOS = QoSProfile(depth=10)
IMAGE_QOS = QoSProfile(depth=1)
# RViz may be started after the answer that it is to show.
MARKER_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class AnswerTopics:
    """Goals are published by whichever thread has the answer; what people look at has a thread of its own, which
    passes over answers that come faster than it draws."""

    def __init__(self, node: Node) -> None:
        self._changed = threading.Condition()
        self._to_show: Answer | None = None
        self._ended = False
        self._logger = node.get_logger()
        self._goal = node.create_publisher(PoseStamped, "~/goal_pose", GOAL_QOS)
        self._goals = node.create_publisher(PoseArray, "~/goal_poses", GOAL_QOS)
        self._targets = node.create_publisher(TargetArray, "~/targets", GOAL_QOS)
        self._markers = node.create_publisher(MarkerArray, "~/markers", MARKER_QOS)
        self._picture = node.create_publisher(Image, "~/annotated_image", IMAGE_QOS)
        self._compressed = node.create_publisher(CompressedImage, "~/annotated_image/compressed", IMAGE_QOS)
        self._thread = threading.Thread(target=self._show_all, name="pictures", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Show no more. Whether the last picture was finished in time."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def hand_over(self, answer: Answer) -> None:
        """Checked goals for whoever subscribes, unless a planner's action gets them; and all targets."""
        if not answer.is_published:
            return
        if answer.outcome.ok and answer.request.parameters.planner.hand_off == TOPIC:
            goal = goal_message(answer)
            if goal is not None:
                self._goal.publish(goal)
            self._goals.publish(goals_message(answer))
        self._targets.publish(targets_message(answer))

    def show(self, answer: Answer) -> None:
        """Markers, and the annotated image if anybody looks; soon, as both take time."""
        if answer.frame is not None:
            with self._changed:
                self._to_show = answer
                self._changed.notify()

    def _show_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._to_show is not None)
                answer, self._to_show = self._to_show, None
                if self._ended or answer is None:
                    return
            try:
                self._markers.publish(markers_message(answer))
                self._show_picture(answer)
            except Exception as error:  # noqa: BLE001 - the request is answered; a picture is not worth more than a line
                self._logger.warning(f"the answer cannot be shown: {type(error).__name__}: {error}")

    def _show_picture(self, answer: Answer) -> None:
        compressed = self._compressed.get_subscription_count() > 0
        raw = answer.request.parameters.publish_annotated_image or self._picture.get_subscription_count() > 0
        if answer.frame is None or not (raw or compressed):
            return
        picture = _picture_of(answer)
        header = stamped_header(answer.frame.stamp_ns, answer.frame.frame_id)
        if raw:
            message = message_from_rgb(picture)
            message.header = header
            self._picture.publish(message)
        if compressed:
            message = compressed_from_rgb(picture)
            message.header = header
            self._compressed.publish(message)


def _picture_of(answer: Answer) -> np.ndarray:
    assert answer.frame is not None
    notes, refused = [], set()
    for n, found in enumerate(answer.found):
        if found.outcome.ok and found.located.depth is not None:
            notes.append(f"{found.located.depth.depth_m:.2f} m")
        else:
            notes.append(found.outcome.code.name)
            refused.add(n)
    verdict = "" if answer.outcome.ok else f" · {answer.outcome.code.name}"
    return annotate(
        answer.frame.color_HW3,
        [found.point for found in answer.found],
        notes=notes,
        chosen=answer.goal,
        refused=refused,
        banner=f"{answer.request.words}{verdict} · {answer.seconds.total:.2f} s",
    )
