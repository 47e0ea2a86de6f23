"""Parameters on a node: declared with type and limits, checked together when set, taken over as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from ros_graph import Graph

from molmo_ros.nodes.declared_parameters import DeclaredParameters
from molmo_ros.nodes.parameter_table import ParameterError
from molmo_ros.nodes.parameters import PARAMETERS

pytestmark = pytest.mark.ros
Declare = Callable[..., tuple[Node, DeclaredParameters]]


@pytest.fixture
def declare(graph: Graph) -> Iterator[Declare]:
    """A node with these overrides, and its parameters."""
    nodes: list[Node] = []

    def declared(may_change: bool = True, **overrides: Any) -> tuple[Node, DeclaredParameters]:
        node = rclpy.create_node(
            "declaring",
            parameter_overrides=[
                RosParameter(name.replace("__", "."), value=value) for name, value in overrides.items()
            ],
            automatically_declare_parameters_from_overrides=True,
        )
        nodes.append(node)
        return node, DeclaredParameters(node, lambda: may_change)

    yield declared
    for node in nodes:
        node.destroy_node()


def set_on(node: Node, **values: Any) -> str:
    """Why these could not be set together, "" when they were."""
    result = node.set_parameters_atomically(
        [RosParameter(name, value=value) for name, value in values.items()]
    )
    return "" if result.successful else str(result.reason)


def test_every_parameter_is_declared_with_its_description_and_range(declare: Declare) -> None:
    node, _ = declare()
    for entry in PARAMETERS:
        descriptor = node.describe_parameter(entry.name)
        assert descriptor.description.startswith(entry.description)
        assert descriptor.read_only == (entry.change == "start")
    assert node.describe_parameter("min_confidence").floating_point_range[0].to_value == 1.0
    assert node.describe_parameter("max_queue").integer_range[0].to_value == 1000


def test_what_is_given_is_read_also_for_one_camera(declare: Declare) -> None:
    _, declared = declare(
        cameras=["head", "wrist"], wrist__depth_min_m=0.05, min_confidence=0.5, use_sim_time=False
    )
    assert declared.current.min_confidence == 0.5
    assert [camera.depth_min_m for camera in declared.current.cameras] == [0.1, 0.05]


def test_a_live_parameter_holds_at_once_for_all_cameras_without_a_value_of_their_own(
    declare: Declare,
) -> None:
    node, declared = declare(may_change=False, cameras=["head", "wrist"], wrist__depth_max_m=1.5)
    before = declared.current
    assert set_on(node, depth_max_m=3.0, select="first") == ""
    assert declared.current.select == "first"
    assert [camera.depth_max_m for camera in declared.current.cameras] == [3.0, 1.5]
    assert before.select == "single"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"min_confidence": 2.0}, "range"),
        ({"select": "worst"}, "single, best, first"),
        ({"depth_min_m": 5.0}, "below depth_max_m"),
        ({"model": "elsewhere"}, "deactivate it, set, activate"),
        ({"cameras": ["other"]}, "read-only"),
        ({"max_queue": "many"}, "type"),
    ],
)
def test_what_cannot_be_set_is_refused_and_nothing_changes(
    declare: Declare, values: dict[str, Any], says: str
) -> None:
    node, declared = declare(may_change=False)
    before = declared.current
    assert says in set_on(node, max_points=3, **values)
    assert declared.current == before and node.get_parameter("max_points").value == 0


def test_values_that_only_fit_together_can_be_set_together(declare: Declare) -> None:
    node, declared = declare()
    assert "below depth_max_m" in set_on(node, depth_min_m=5.0)
    assert set_on(node, depth_min_m=5.0, depth_max_m=9.0) == ""
    assert declared.current.cameras[0].depth_min_m == 5.0


def test_the_model_may_change_while_the_node_is_not_active(declare: Declare) -> None:
    node, declared = declare(may_change=True)
    assert set_on(node, model="elsewhere") == ""
    assert declared.current.model == "elsewhere"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"min_confidance": 0.5}, "is min_confidence meant"),
        ({"tail__depth_topic": "x"}, "no camera is called 'tail'"),
        ({"max_queue": "many"}, "takes a integer"),
        ({"camera__depth_noise": "loud"}, "camera.depth_noise is 'loud'"),
    ],
)
def test_a_name_or_value_that_cannot_be_is_named_at_the_start(
    declare: Declare, overrides: dict[str, Any], says: str
) -> None:
    with pytest.raises(ParameterError, match=says):
        declare(**overrides)


def test_unknown_names_may_be_let_pass(declare: Declare) -> None:
    _, declared = declare(min_confidance=0.5, strict_parameters=False)
    assert declared.current.min_confidence == 0.0
