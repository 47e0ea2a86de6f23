"""Goals sent from a thread that does not spin: each is answered, and one that nobody waits for does not run on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import rclpy.action.client
from rclpy.action import ActionServer, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future as RclpyFuture
from ros_graph import UP_WITHIN_S, Graph

from molmo_ros.nodes.goal_client import GoalClient, cancel_if_taken
from molmo_ros_interfaces.action import PointToTarget

pytestmark = pytest.mark.ros

def run(goal: ServerGoalHandle) -> PointToTarget.Result:
    goal.succeed()
    return PointToTarget.Result(answer=goal.request.target)


@pytest.fixture(scope="module")
def server(graph: Graph) -> ActionServer:
    """Takes every goal but those for "nothing"."""

    def judge(goal: PointToTarget.Goal) -> GoalResponse:
        return GoalResponse.REJECT if goal.target == "nothing" else GoalResponse.ACCEPT

    return ActionServer(graph.node("goal_server"), PointToTarget, "~/act", run, goal_callback=judge)


@pytest.fixture(scope="module")
def client(graph: Graph, server: ActionServer) -> Iterator[GoalClient]:
    node = graph.node("goal_caller")
    ours = GoalClient(node, PointToTarget, "/goal_server/act", node.executor)
    assert ours.wait_for_server(UP_WITHIN_S)
    yield ours
    ours.destroy()


def test_a_reply_that_comes_while_the_goal_is_still_being_sent_is_not_lost(
    client: GoalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender is put aside wherever it makes a future, as the machine may do to any thread at any place."""
    assert client.send(PointToTarget.Goal(target="first")).result(UP_WITHIN_S).accepted

    class SlowFuture(RclpyFuture):
        def __init__(self, **given: Any) -> None:
            threading.Event().wait(0.2)
            super().__init__(**given)

    monkeypatch.setattr(rclpy.action.client, "Future", SlowFuture)
    assert client.send(PointToTarget.Goal(target="second")).result(20.0).accepted


def test_a_rejected_goal_is_a_reply_too(client: GoalClient) -> None:
    assert not client.send(PointToTarget.Goal(target="nothing")).result(20.0).accepted


def test_a_goal_that_is_no_goal_raises_where_it_is_waited_for(client: GoalClient) -> None:
    with pytest.raises(TypeError):
        client.send("no goal").result(20.0)


def test_a_node_that_nothing_spins_is_named() -> None:
    class Unspun:
        executor = None

    lost = GoalClient.__new__(GoalClient)
    lost._node = Unspun()
    with pytest.raises(RuntimeError, match="no executor"):
        lost.send(PointToTarget.Goal())


def test_what_is_taken_after_nobody_waits_is_cancelled() -> None:
    class Taken:
        accepted = True
        cancelled = False

        def cancel_goal_async(self) -> None:
            self.cancelled = True

    replied: Future[Taken] = Future()
    cancel_if_taken(replied)
    taken = Taken()
    replied.set_result(taken)
    assert taken.cancelled
