"""A real graph per module, on a domain of its own; skipped where there is no ROS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ros_graph import Behaviour, Caller, Camera, Graph

collect_ignore_glob: list[str] = []
try:
    import rclpy  # noqa: F401
except ImportError:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def graph() -> Iterator[Graph]:
    from ros_graph import Graph, own_domain

    ours = Graph(own_domain())
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def camera(graph: Graph) -> Camera:
    from ros_graph import Camera

    return Camera(graph.node("test_camera"))


@pytest.fixture
def behaviour(camera: Camera) -> Iterator[Behaviour]:
    """The camera's behaviour, good again after each test."""
    from ros_graph import Behaviour

    camera.behaviour = Behaviour()
    yield camera.behaviour
    camera.behaviour = Behaviour()


@pytest.fixture(scope="module")
def caller(graph: Graph, camera: Camera, tmp_path_factory: pytest.TempPathFactory) -> Caller:
    """A caller of a node that is up and has its (scripted) model loaded."""
    from ros_graph import Caller

    log: Path = tmp_path_factory.mktemp("node") / "log.txt"
    process = graph.start_scripted_node(
        log, *["-p", "frame_timeout_s:=1.5", "-p", "tf_timeout_s:=0.6", "-p", "max_queue:=1"]
    )
    ours = Caller(graph.node("test_caller"))
    assert ours.is_up(process), f"the node did not come up: {log.read_text()}"
    assert process.poll() is None, log.read_text()
    first = ours.point_to("the thing")
    assert first.outcome.code in (0, 503), first.outcome
    return ours
