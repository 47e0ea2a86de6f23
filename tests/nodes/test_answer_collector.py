"""`molmo_ros collect` on a live graph, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import Point
from rclpy.node import Node
from ros_graph import UP_WITHIN_S, Graph, wait_until
from sensor_msgs.msg import Image

from molmo_ros.nodes.image_conversion import message_from_rgb
from molmo_ros.nodes.messages import stamped_header
from molmo_ros.training.dataset import read_dataset
from molmo_ros_interfaces.msg import Target, TargetArray

pytestmark = pytest.mark.ros
NODE, COLOR = "/judged_node", "/judged/color"
FIRST, SECOND = 10**9 * 1_700_000_000 + 5, 10**9 * 1_700_000_001


class Robot:
    """Publishes as a pointing node, its camera and an operator do."""

    def __init__(self, node: Node) -> None:
        self._publishers = {
            "image": node.create_publisher(Image, COLOR, 5),
            "answer": node.create_publisher(TargetArray, f"{NODE}/targets", 10),
            "review": node.create_publisher(TargetArray, f"{NODE}/reviewed_targets", 10),
            "click": node.create_publisher(Point, f"{NODE}/annotated_image_mouse_left", 10),
        }

    def is_heard(self) -> bool:
        return all(publisher.get_subscription_count() for publisher in self._publishers.values())

    def say(self, kind: str, message: object) -> None:
        self._publishers[kind].publish(message)


def image(stamp_ns: int, shade: int) -> Image:
    message = message_from_rgb(np.full((30, 40, 3), shade, np.uint8))
    message.header = stamped_header(stamp_ns, "camera")
    return message


def targets(stamp_ns: int, query: str, *points_uv: tuple[float, float]) -> TargetArray:
    each = [Target(u=u, v=v) for u, v in points_uv]
    return TargetArray(header=stamped_header(stamp_ns, "camera"), query=query, targets=each)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_judged_answers_are_written_when_the_collecting_ends(
    graph: Graph, tmp_path: Path, ending: signal.Signals
) -> None:
    robot = Robot(graph.node(f"robot_{ending.name.lower()}"))
    out, log = tmp_path / "set", tmp_path / "log.txt"
    command = [sys.executable, "-u", "-m", "molmo_ros.cli", "collect", "--out", str(out), "--node", NODE]
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--image", COLOR], stdout=file, stderr=subprocess.STDOUT)
    try:
        assert wait_until(robot.is_heard, UP_WITHIN_S), log.read_text()
        # What counts is said again until it is heard: a subscription is seen before it hears.
        heard = [
            ("image", image(FIRST, 10)),
            ("image", image(SECOND, 200)),
            ("answer", targets(FIRST, "the mug", (4.0, 3.0))),
            ("review", targets(FIRST, "the mug", (20.0, 15.0))),
            ("review", targets(SECOND, "the dog")),
        ]

        def all_heard() -> bool:
            for kind, message in heard:
                robot.say(kind, message)
            said = log.read_text()
            # Answers and reviews of the mug, reviews only of the dog: more of the former when both are heard.
            return "'the dog': 2 answers judged" in said and said.count("the mug") > said.count("the dog") + 2

        assert wait_until(all_heard, UP_WITHIN_S), log.read_text()
        process.send_signal(ending)
        assert process.wait(UP_WITHIN_S) == 0, log.read_text()
    finally:
        process.kill()
    mug, dog = read_dataset(out).samples
    assert (mug.target, mug.points, mug.tag) == ("the mug", ((50.0, 50.0),), "corrected")
    assert (dog.target, dog.task, dog.tag) == ("the dog", "absent", "seen")
    assert (mug.read_image() == 10).all() and (dog.read_image() == 200).all()
    assert "2 questions in" in log.read_text() and "Traceback" not in log.read_text()
