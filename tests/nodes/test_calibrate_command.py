"""`molmo_ros calibrate` as its own process: a board before a camera on a real graph, an operator at the keys."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from geometry_msgs.msg import Point, PointStamped, TransformStamped
from rclpy.node import Node
from ros_graph import UP_WITHIN_S, Graph, wait_until
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from molmo_ros.geometry.charuco import CharucoBoard
from molmo_ros.geometry.pose import inverse, transform
from molmo_ros.nodes.tabletop_messages import camera_info_message, image_message, transform_message

pytestmark = pytest.mark.ros

BOARD = CharucoBoard()
SIZE = (640, 480)
K = np.array([[600.0, 0.0, 319.5], [0.0, 600.0, 239.5], [0.0, 0.0, 1.0]])
OPTICAL = "camera_color_optical_frame"
SQUARE_PX = 48


def pose(xyz_m: tuple[float, float, float], rpy_deg: tuple[float, float, float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_euler("xyz", rpy_deg, degrees=True).as_matrix(), xyz_m
    return T


T_BASE_LINK = pose((1.1, -0.3, 0.7), (5.0, 40.0, 160.0))  # of camera_link, which is to be found
T_LINK_OPTICAL = pose((0.01, 0.02, 0.0), (-90.0, 0.0, -90.0))
T_BASE_OPTICAL = T_BASE_LINK @ T_LINK_OPTICAL
T_HAND_BOARD = pose((0.03, -0.02, 0.12), (10.0, 20.0, 30.0))


class Cell:
    """A camera that sees a board on a hand; `T_base_hand` may be changed at any time."""

    def __init__(self, node: Node) -> None:
        self.T_base_hand = np.eye(4)
        self.moves = False
        self.covered = False
        self._node = node
        self._picture = BOARD.picture(SQUARE_PX)
        self._image = node.create_publisher(Image, "camera/color/image_raw", 5)
        self._info = node.create_publisher(CameraInfo, "camera/color/camera_info", 5)
        self._tf, static = TransformBroadcaster(node), StaticTransformBroadcaster(node)
        static.sendTransform(
            transform_message("camera_link", OPTICAL, T_LINK_OPTICAL, node.get_clock().now().to_msg())
        )
        self._static = static
        node.create_timer(0.05, self._publish_hand)
        node.create_timer(0.1, self._publish_picture)

    def show(self, T_camera_board: np.ndarray) -> None:
        """Put the hand where the camera sees the board so."""
        self.T_base_hand = T_BASE_OPTICAL @ T_camera_board @ inverse(T_HAND_BOARD)

    def _publish_hand(self) -> None:
        if self.moves:
            self.T_base_hand = self.T_base_hand @ pose((0.002, 0.0, 0.0), (0.0, 0.0, 0.0))
        message: TransformStamped = transform_message(
            "base_link", "tool0", self.T_base_hand, self._node.get_clock().now().to_msg()
        )
        self._tf.sendTransform(message)

    def _publish_picture(self) -> None:
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id=OPTICAL)
        T = inverse(T_BASE_OPTICAL) @ self.T_base_hand @ T_HAND_BOARD
        pixel_m = BOARD.square_m / SQUARE_PX
        to_m = np.array([[pixel_m, 0.0, 0.5 * pixel_m], [0.0, pixel_m, 0.5 * pixel_m], [0.0, 0.0, 1.0]])
        H = K @ T[:3, [0, 1, 3]] @ to_m
        grey = np.full(SIZE[::-1], 160, np.uint8)
        if not self.covered:
            grey = cv2.warpPerspective(self._picture, H, SIZE, flags=cv2.INTER_LINEAR, borderValue=160)
        self._info.publish(camera_info_message(K, SIZE, header))
        self._image.publish(image_message(np.repeat(grey[..., None], 3, axis=2), "rgb8", header))


class Operator:
    """At the keyboard of a running `molmo_ros calibrate`."""

    def __init__(self, log: Path, *options: str) -> None:
        command = [sys.executable, "-m", "molmo_ros.cli", "calibrate", *options]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        self._log = log

    def screen(self) -> str:
        return self._log.read_text()

    def sees(self, text: str, times: int = 1, timeout_s: float = UP_WITHIN_S) -> bool:
        return wait_until(
            lambda: self.screen().count(text) >= times or self.process.poll() is not None, timeout_s
        ) and (self.screen().count(text) >= times)

    def types(self, word: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def takes(self, label: str) -> bool:
        """Whether a view or spot of this name is taken; as a person does, Enter is pressed again when it is refused
        because the hand or the click has only just come."""
        for _ in range(10):
            asked = self.screen().count("Enter = ")
            self.types()
            if not self.sees("Enter = ", asked + 1):
                return False
            if label in self.screen():
                return True
        return False

    def ends(self) -> int:
        self.types("q")
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def cell(graph: Graph) -> Cell:
    return Cell(graph.node("cell"))


@pytest.fixture
def board_operator(cell: Cell, tmp_path: Path) -> Iterator[Operator]:
    ours = Operator(
        tmp_path / "screen.txt", "--hand", "tool0", "--timeout", "30", "--out", str(tmp_path / "camera")
    )
    yield ours
    ours.close()


def tilted(number: int) -> np.ndarray:
    """T_camera_board, the whole board in the picture, turned another way each time."""
    rng = np.random.default_rng(number)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.5, 0.5, 3)).as_matrix()
    T[:3, 3] = rng.uniform((-0.03, -0.03, 0.48), (0.03, 0.03, 0.6)) - T[:3, :3] @ (
        *(0.5 * np.array(BOARD.size_m)),
        0.0,
    )
    return T


def test_an_operator_moves_the_board_and_the_pose_is_written(
    cell: Cell, board_operator: Operator, tmp_path: Path
) -> None:
    operator = board_operator
    assert operator.sees("Enter = "), operator.screen()
    for number in range(1, 9):
        cell.show(tilted(number))
        assert operator.takes(f"view {number}:"), operator.screen()
    assert "turned" not in operator.screen()
    assert operator.ends() == 0, operator.screen()

    found = yaml.safe_load((tmp_path / "camera.yaml").read_text())
    assert (found["parent_frame"], found["child_frame"]) == ("base_link", "camera_link")
    T = transform(found["translation_m"], found["rotation_xyzw"])
    np.testing.assert_allclose(T, T_BASE_LINK, atol=0.002)
    arguments = ElementTree.parse(tmp_path / "camera.launch.xml").getroot().find("node")
    assert arguments is not None
    words = arguments.attrib["args"].split()
    said = dict(zip(words[::2], words[1::2], strict=True))
    np.testing.assert_allclose(
        [float(said[f"--{axis}"]) for axis in "xyz"], found["translation_m"], atol=1e-6
    )
    assert (said["--frame-id"], said["--child-frame-id"]) == ("base_link", "camera_link")


def test_what_is_no_view_is_said_and_asked_for_again(
    cell: Cell, board_operator: Operator, tmp_path: Path
) -> None:
    operator = board_operator
    assert operator.sees("Enter = "), operator.screen()
    cell.show(tilted(1))
    cell.covered = True
    operator.types()
    assert operator.sees("NOT_FOUND"), operator.screen()
    cell.covered, cell.moves = False, True
    operator.types()
    assert operator.sees("BUSY (500): the hand moved by"), operator.screen()
    cell.moves = False
    for number in range(1, 7):  # shifted, never turned
        T = tilted(1)
        T[0, 3] += 0.004 * number
        cell.show(T)
        assert operator.takes(f"view {number}:"), operator.screen()
    operator.types("u")
    assert operator.sees("5 left"), operator.screen()
    assert "turn it by 20 to 40 degrees" in operator.screen()
    assert operator.ends() == 2
    assert "UNCERTAIN" in operator.screen()
    assert not list(tmp_path.glob("camera*"))


def test_spots_that_the_tip_touches_give_the_pose_too(graph: Graph, cell: Cell, tmp_path: Path) -> None:
    node = graph.node("rviz")
    publisher = node.create_publisher(PointStamped, "clicked_point", 10)
    options = ["--touch", "--hand", "tool0", "--timeout", "30", "--out", str(tmp_path / "camera")]
    operator = Operator(tmp_path / "screen.txt", *options)
    try:
        assert operator.sees("Enter = "), operator.screen()
        operator.types()
        assert operator.sees("no click since"), operator.screen()
        assert wait_until(lambda: publisher.get_subscription_count() > 0)
        rng = np.random.default_rng(5)
        for number in range(1, 9):
            spot = rng.uniform((0.3, -0.3, 0.0), (0.7, 0.3, 0.3))
            x, y, z = (inverse(T_BASE_OPTICAL) @ [*spot, 1.0])[:3] + (0.2 * (number == 3), 0.0, 0.0)
            publisher.publish(PointStamped(header=Header(frame_id=OPTICAL), point=Point(x=x, y=y, z=z)))
            touching = np.eye(4)
            touching[:3, 3] = spot
            cell.T_base_hand = touching
            threading.Event().wait(0.2)  # a person is slower than a topic
            assert operator.takes(f"spot {number}"), operator.screen()
        assert operator.ends() == 0, operator.screen()
    finally:
        operator.close()
        graph.drop(node)
    assert "spot 3 is" in operator.screen()
    found = yaml.safe_load((tmp_path / "camera.yaml").read_text())
    np.testing.assert_allclose(
        transform(found["translation_m"], found["rotation_xyzw"]), T_BASE_LINK, atol=0.001
    )


def test_without_a_camera_it_says_what_is_missing(graph: Graph, cell: Cell, tmp_path: Path) -> None:
    options = ["--hand", "tool0", "--timeout", "1", "--image", "nobody/looks"]
    operator = Operator(tmp_path / "screen.txt", *options)
    try:
        assert operator.sees("Enter = "), operator.screen()
        operator.types()
        assert operator.sees("NO_FRAME (200): no picture on /nobody/looks"), operator.screen()
        assert operator.ends() == 2
    finally:
        operator.close()
