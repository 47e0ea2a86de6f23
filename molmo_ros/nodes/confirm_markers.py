"""Buttons in RViz for goals that wait: a click on the green ball accepts, one on the red ball rejects.

In RViz: an InteractiveMarkers display whose namespace is the node's `~/confirm_markers`. Its protocol is a service that
gives what there is, and topics of changes and clicks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import (
    InteractiveMarker,
    InteractiveMarkerControl,
    InteractiveMarkerFeedback,
    InteractiveMarkerUpdate,
    Marker,
)
from visualization_msgs.srv import GetInteractiveMarkers

from molmo_ros.outcome import Outcome
from molmo_ros_interfaces.msg import HandOff

ACCEPT, REJECT = "accept", "reject"
# Above the goal, side by side.
_BUTTON_M, _ABOVE_M, _ASIDE_M, _LETTER_M = 0.04, 0.12, 0.04, 0.025
_COLOURS = {ACCEPT: ColorRGBA(r=0.0, g=0.7, b=0.3, a=0.9), REJECT: ColorRGBA(r=0.85, g=0.1, b=0.1, a=0.9)}
_QOS = QoSProfile(depth=100)


class ConfirmMarkers:
    """Shows one pair of buttons for each goal; `decide` hears of clicks."""

    def __init__(self, node: Node, decide: Callable[[str, bool], Outcome]) -> None:
        self._decide = decide
        self._logger = node.get_logger()
        self._lock = threading.Lock()
        self._shown: dict[str, InteractiveMarker] = {}
        self._sequence = 0
        self._server_id = node.get_fully_qualified_name()
        self._updates = node.create_publisher(InteractiveMarkerUpdate, "~/confirm_markers/update", _QOS)
        node.create_subscription(
            InteractiveMarkerFeedback, "~/confirm_markers/feedback", self._clicked, _QOS
        )
        node.create_service(
            GetInteractiveMarkers, "~/confirm_markers/get_interactive_markers", self._give_all
        )

    def show(self, goals: Sequence[HandOff]) -> None:
        """Buttons of these goals, and of no others."""
        with self._lock:
            new = {goal.goal_id: _marker(goal) for goal in goals if goal.goal_id not in self._shown}
            gone = set(self._shown) - {goal.goal_id for goal in goals}
            self._shown = {name: each for name, each in self._shown.items() if name not in gone} | new
            self._sequence += 1
            update = InteractiveMarkerUpdate(
                server_id=self._server_id,
                seq_num=self._sequence,
                type=InteractiveMarkerUpdate.UPDATE,
                markers=list(new.values()),
                erases=sorted(gone),
            )
            self._updates.publish(update)

    def _give_all(
        self, _: GetInteractiveMarkers.Request, response: GetInteractiveMarkers.Response
    ) -> GetInteractiveMarkers.Response:
        with self._lock:
            response.sequence_number = self._sequence
            response.markers = list(self._shown.values())
        return response

    def _clicked(self, feedback: InteractiveMarkerFeedback) -> None:
        if feedback.event_type != InteractiveMarkerFeedback.BUTTON_CLICK:
            return
        if feedback.control_name in (ACCEPT, REJECT):
            outcome = self._decide(feedback.marker_name, feedback.control_name == ACCEPT)
            if not outcome.ok:
                self._logger.warning(f"a click in RViz came too late: {outcome}")


def _marker(goal: HandOff) -> InteractiveMarker:
    # Upright over the goal; without a stamp, so that RViz shows it in the newest frames.
    marker = InteractiveMarker(
        header=Header(frame_id=goal.goal.header.frame_id),
        name=goal.goal_id,
        description=goal.query,
        scale=2 * _ABOVE_M,
    )
    at = goal.goal.pose.position
    marker.pose = Pose(position=Point(x=at.x, y=at.y, z=at.z + _ABOVE_M), orientation=Quaternion(w=1.0))
    marker.controls = [_button(ACCEPT, -_ASIDE_M), _button(REJECT, _ASIDE_M)]
    return marker


def _button(name: str, aside_m: float) -> InteractiveMarkerControl:
    button = InteractiveMarkerControl(
        name=name,
        description=name,
        interaction_mode=InteractiveMarkerControl.BUTTON,
        always_visible=True,
    )
    place = Pose(position=Point(y=aside_m), orientation=Quaternion(w=1.0))
    ball = Marker(type=Marker.SPHERE, pose=place, color=_COLOURS[name])
    ball.scale = Vector3(x=_BUTTON_M, y=_BUTTON_M, z=_BUTTON_M)
    above = Pose(position=Point(y=aside_m, z=_BUTTON_M), orientation=Quaternion(w=1.0))
    word = Marker(type=Marker.TEXT_VIEW_FACING, pose=above, text=name, scale=Vector3(z=_LETTER_M))
    word.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    button.markers = [ball, word]
    return button
