"""What RViz and Foxglove are told to show is what the node has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

rclpy = pytest.importorskip("rclpy")

if TYPE_CHECKING:
    from ros_graph import Graph

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parent.parent
RVIZ = ROOT / "config" / "rviz" / "molmo_ros.rviz"
FOXGLOVE = ROOT / "config" / "foxglove" / "molmo_ros.json"
#: The type that each display of RViz takes; without one it takes no topic.
DISPLAYS = {
    "rviz_common/Group": None,
    "rviz_default_plugins/Grid": None,
    "rviz_default_plugins/TF": None,
    "rviz_default_plugins/DepthCloud": None,  # names its two topics by itself
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Pose": "geometry_msgs/msg/PoseStamped",
    "rviz_default_plugins/PoseArray": "geometry_msgs/msg/PoseArray",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/InteractiveMarkers": "visualization_msgs/msg/InteractiveMarkerUpdate",
}


def displays(section: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for display in section.get("Displays", []):
        yield display
        yield from displays(display)


def shown_in_rviz() -> dict[str, str]:
    """Topic and type of all that RViz subscribes to."""
    shown = {}
    for display in displays(yaml.safe_load(RVIZ.read_text())["Visualization Manager"]):
        kind = DISPLAYS[display["Class"]]
        if display["Class"].endswith("/DepthCloud"):
            shown[display["Depth Map Topic"]] = shown[display["Color Image Topic"]] = "sensor_msgs/msg/Image"
        elif display["Class"].endswith("/InteractiveMarkers"):
            shown[f"{display['Interactive Markers Namespace']}/update"] = str(kind)
        elif kind is not None:
            shown[display["Topic"]["Value"]] = kind
    return shown


def shown_in_foxglove() -> tuple[set[str], set[str]]:
    """Topics, and services."""
    topics, services = set(), set()
    for panel in json.loads(FOXGLOVE.read_text())["configById"].values():
        topics |= set(panel.get("topics", {}))
        image = panel.get("imageMode", {})
        topics |= {image[name] for name in ("imageTopic", "calibrationTopic") if name in image}
        topics |= {panel[name] for name in ("topicPath", "topicToRender") if name in panel}
        services |= {panel["serviceName"]} if "serviceName" in panel else set()
    return topics, services


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A graph with the node and a camera, by the simulator's names."""
    import os

    from ros_graph import Caller, Camera, Graph

    graph: Graph = Graph(domain_id=1 + os.getpid() % 100)
    node = graph.node("camera")
    Camera(node)
    log = tmp_path_factory.mktemp("views") / "log.txt"
    confirm = ["-p", "confirm:=true"] if has_confirm() else []
    process = graph.start_scripted_node(log, *confirm)
    caller = Caller(graph.node("caller"))
    assert caller.is_up(process), log.read_text()
    yield node
    graph.close()


def has_confirm() -> bool:
    """Interactive markers come with the parameter confirm."""
    from molmo_ros.nodes.parameters import PARAMETERS

    return any(entry.name == "confirm" for entry in PARAMETERS)


def test_every_topic_of_rviz_is_one_that_is_published_with_that_type(there: Any) -> None:
    shown = shown_in_rviz()
    if not has_confirm():
        shown.pop("pointing_node/confirm_markers/update")
    published = dict(there.get_topic_names_and_types())
    assert {f"/{topic}": [kind] for topic, kind in shown.items()}.items() <= published.items()


def test_every_topic_and_service_of_foxglove_is_there(there: Any) -> None:
    topics, services = shown_in_foxglove()
    assert topics <= {name for name, _ in there.get_topic_names_and_types()}
    assert services <= {name for name, _ in there.get_service_names_and_types()}


def test_both_show_all_that_people_look_at() -> None:
    wanted = {"markers", "goal_pose", "goal_poses"}
    rviz = {topic.removeprefix("pointing_node/") for topic in shown_in_rviz()}
    foxglove = {topic.removeprefix("/pointing_node/") for topic in shown_in_foxglove()[0]}
    assert wanted | {"annotated_image", "confirm_markers/update", "camera/depth/image_rect"} <= rviz
    assert wanted | {"annotated_image/compressed", "targets", "/camera/depth/image_rect"} <= foxglove


def test_the_panels_of_the_foxglove_layout_are_the_configured_ones() -> None:
    layout = json.loads(FOXGLOVE.read_text())

    def panels(at: Any) -> set[str]:
        return {at} if isinstance(at, str) else panels(at["first"]) | panels(at["second"])

    assert panels(layout["layout"]) == set(layout["configById"])
    service = layout["configById"]["CallService!point_to"]
    assert json.loads(service["requestPayload"])["dry_run"] is True


def test_the_service_call_of_the_layout_is_one_that_the_service_takes() -> None:
    interfaces = pytest.importorskip("molmo_ros_interfaces.srv")
    payload = json.loads(
        json.loads(FOXGLOVE.read_text())["configById"]["CallService!point_to"]["requestPayload"]
    )
    assert set(payload) <= set(interfaces.PointTo.Request.get_fields_and_field_types())
