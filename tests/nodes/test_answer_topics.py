"""What planners get of an answer, what people get, and who gets nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_graph import Behaviour, Caller, Camera, Graph, wait_until
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from molmo_ros.nodes.compressed_images import rgb_from_compressed
from molmo_ros.outcome import Code

pytestmark = pytest.mark.ros


class Watcher:
    """Keeps what comes on some topics of the node."""

    def __init__(self, graph: Graph) -> None:
        self.node = graph.node("topics_watcher")
        self.heard: dict[str, list[Any]] = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, kind, qos in (
            ("goal_poses", PoseArray, QoSProfile(depth=10)),
            ("markers", MarkerArray, latched),
            ("annotated_image/compressed", CompressedImage, QoSProfile(depth=1)),
        ):
            self.heard[topic] = []
            self.node.create_subscription(kind, f"/pointing_node/{topic}", self.heard[topic].append, qos)

    def wait_for(self, topic: str, header: Any) -> Any:
        """The message of that header; pictures of earlier answers may still come. Of markers the first's counts."""

        def fits(message: Any) -> bool:
            of = message.markers[0] if isinstance(message, MarkerArray) else message
            return bool(of.header == header)

        assert wait_until(lambda: any(map(fits, self.heard[topic]))), (topic, header, self.heard[topic])
        return next(filter(fits, self.heard[topic]))

    def clear(self) -> None:
        for kept in self.heard.values():
            kept.clear()


@pytest.fixture(scope="module")
def watcher_of_module(graph: Graph, caller: Caller) -> Watcher:
    watcher = Watcher(graph)
    assert wait_until(lambda: bool(caller.point_to("the thing")) and bool(watcher.heard["goal_poses"]))
    assert wait_until(lambda: bool(caller.point_to("the thing")) and all(watcher.heard.values()))
    return watcher


@pytest.fixture
def watcher(watcher_of_module: Watcher) -> Watcher:
    watcher_of_module.clear()
    return watcher_of_module


def test_all_good_targets_are_goal_poses(watcher: Watcher, caller: Caller, behaviour: Behaviour) -> None:
    reply = caller.point_to("three things")
    message = watcher.wait_for("goal_poses", reply.targets.targets[0].pose.header)
    assert [target.outcome.code for target in reply.targets.targets] == 3 * [Code.OK]
    assert list(message.poses) == [target.pose.pose.pose for target in reply.targets.targets]
    assert message.header == reply.targets.targets[0].pose.header
    assert message.header.frame_id == "base_link"


def test_markers_show_point_axes_label_and_ellipsoid(
    watcher: Watcher, caller: Caller, behaviour: Behaviour
) -> None:
    reply = caller.point_to("the thing")
    markers = watcher.wait_for("markers", reply.targets.targets[0].pose.header).markers
    assert markers[0].action == Marker.DELETEALL
    by_name = {marker.ns: marker for marker in markers[1:]}
    assert set(by_name) == {"point", "axes", "label", "covariance"}
    target = reply.targets.targets[0]
    at = target.pose.pose.pose.position
    for marker in by_name.values():
        assert marker.header == target.pose.header
    assert by_name["point"].pose.position == at and by_name["axes"].pose == target.pose.pose.pose
    assert by_name["label"].text == "the thing 90 %"
    # The ellipsoid of a camera that looks straight down: upright, 2.795 standard deviations each way.
    sigma_z = np.sqrt(target.pose.pose.covariance[14])
    scale = by_name["covariance"].scale
    assert max(scale.x, scale.y, scale.z) == pytest.approx(2 * 2.795 * sigma_z, rel=1e-3)


def test_what_was_refused_is_shown_as_such(watcher: Watcher, caller: Caller, behaviour: Behaviour) -> None:
    behaviour.depth_m = 6.0
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.OUT_OF_RANGE
    shown = watcher.wait_for("markers", reply.targets.targets[0].pose.header).markers
    labels = [marker.text for marker in shown if marker.ns == "label"]
    assert labels == ["the thing 90 % OUT_OF_RANGE"]
    assert caller.wait_for(lambda: reply.targets.header in [each.header for each in caller.targets])
    assert shown[0].header not in [message.header for message in watcher.heard["goal_poses"]]


def test_a_new_answer_takes_the_old_markers_away(
    watcher: Watcher, caller: Caller, behaviour: Behaviour
) -> None:
    reply = caller.point_to("nothing")
    assert reply.outcome.code == Code.NOT_FOUND
    header = Header(stamp=reply.targets.header.stamp, frame_id="base_link")
    assert [marker.action for marker in watcher.wait_for("markers", header).markers] == [Marker.DELETEALL]


def test_a_dry_run_is_shown_to_people_alone(watcher: Watcher, caller: Caller, behaviour: Behaviour) -> None:
    reply = caller.point_to("the thing", dry_run=True)
    assert reply.outcome.code == Code.OK
    header = reply.targets.targets[0].pose.header
    assert len(watcher.wait_for("markers", header).markers) == 5
    after = caller.point_to("the thing").targets.targets[0].pose.header
    watcher.wait_for("goal_poses", after)
    assert header not in [message.header for message in watcher.heard["goal_poses"]]


def test_the_annotated_image_comes_compressed_too(
    watcher: Watcher, caller: Caller, camera: Camera, behaviour: Behaviour
) -> None:
    reply = caller.point_to("the thing")
    picture = watcher.wait_for("annotated_image/compressed", reply.targets.header)
    pixels = rgb_from_compressed(picture)
    assert pixels.shape == (120, 160, 3) and pixels.max() > 100
    assert picture.header.frame_id == behaviour.frame_id
