"""`backend: remote` in the installed node, against a server on this machine: answers, faults, and the next request."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from chat_server import ONE_POINT, Server, completion, served
from ros_graph import HEIGHT, UP_WITHIN_S, WIDTH, Behaviour, Caller, Camera, Graph, wait_until

from molmo_ros.outcome import Code

pytestmark = pytest.mark.ros
TIMEOUT_S = 2.0
GOOD: tuple[int, dict[str, str], Any] = (200, {}, completion(ONE_POINT))


@pytest.fixture(scope="module")
def remote_of_module(
    graph: Graph, camera: Camera, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Caller, Server]]:
    folder: Path = tmp_path_factory.mktemp("remote")
    key = folder / "key"
    key.write_text("secret\n")
    key.chmod(0o600)
    log = folder / "log.txt"
    with served(GOOD) as server:
        settings = {
            "backend": "remote",
            "remote_url": server.url,
            "model": "molmo-7b-d",
            "point_format": "molmo",
            "remote_key_file": str(key),
            "remote_timeout_s": str(TIMEOUT_S),
            "remote_tries": "2",
        }
        process = graph.start(
            *[sys.executable, "-m", "molmo_ros.nodes.pointing_node", "--ros-args", "-r", "__node:=remote"],
            *[word for name, value in settings.items() for word in ("-p", f"{name}:={value}")],
            log=log,
        )
        caller = Caller(graph.node("remote_caller"), "/remote")
        assert caller.is_up(process), log.read_text()
        is_loaded = wait_until(lambda: caller.point_to("a", dry_run=True).outcome.code == Code.OK, UP_WITHIN_S)
        assert is_loaded, log.read_text()
        yield caller, server
        assert "secret" not in log.read_text()


@pytest.fixture
def remote(
    remote_of_module: tuple[Caller, Server], behaviour: Behaviour
) -> Iterator[tuple[Caller, Server]]:
    """The server answers well before and after each test."""
    caller, server = remote_of_module
    server.script[:] = [GOOD]
    server.requests.clear()
    caller.goals.clear()
    yield caller, server
    server.hold.set()
    server.script[:] = [GOOD]


def test_a_remote_models_point_becomes_a_goal(remote: tuple[Caller, Server]) -> None:
    caller, server = remote
    reply = caller.point_to("the mug")
    assert reply.outcome.code == Code.OK, reply.outcome
    (target,) = reply.targets.targets
    assert (target.u, target.v) == pytest.approx((0.615 * WIDTH, 0.40 * HEIGHT), abs=0.01)
    assert math.isnan(target.confidence)  # this server tells no probabilities
    assert caller.wait_for(lambda: len(caller.goals) == 1)
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body["messages"][0]["content"][1]["text"] == "Point to the mug."


def test_a_server_that_is_busy_is_asked_again(remote: tuple[Caller, Server]) -> None:
    caller, server = remote
    server.script[:] = [(503, {}, "loading"), GOOD]
    assert caller.point_to("the mug").outcome.code == Code.OK
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        ((401, {}, "wrong key"), Code.REMOTE_ERROR, "refuses the key (401)"),
        ((404, {}, "no such model"), Code.REMOTE_ERROR, "does not know this address or the model"),
        ((503, {}, "overloaded"), Code.REMOTE_ERROR, "did not answer after 2 tries"),
        ((200, {}, "<html>"), Code.REMOTE_ERROR, "sends no JSON"),
        ((200, {}, {"choices": []}), Code.REMOTE_ERROR, "not a chat completion"),
        ((200, {}, completion("I like mugs.")), Code.UNPARSEABLE, "no point in format molmo"),
        ((200, {}, completion("There are none.")), Code.NOT_FOUND, "sees no 'the mug'"),
    ],
)
def test_what_a_server_says_has_its_outcome_and_makes_no_goal(
    remote: tuple[Caller, Server], reply: tuple[int, dict[str, str], Any], code: Code, words: str
) -> None:
    caller, server = remote
    server.script[:] = [reply]
    outcome = caller.point_to("the mug").outcome
    assert outcome.code == code and words in outcome.message, outcome
    server.script[:] = [GOOD]
    good = caller.point_to("the mug")
    assert good.outcome.code == Code.OK
    assert caller.wait_for(lambda: bool(caller.goals)) and len(caller.goals) == 1
    assert caller.goals[0].header.stamp == good.targets.header.stamp


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_was_said(
    remote: tuple[Caller, Server],
) -> None:
    caller, server = remote
    server.hold.clear()
    outcome = caller.point_to("the mug").outcome
    assert outcome.code == Code.TIMEOUT and f"did not answer within {TIMEOUT_S:g} s" in outcome.message
    late = caller.point_to("the mug", timeout=Duration(nanosec=500_000_000)).outcome
    assert late.code == Code.TIMEOUT and "no answer within 0.5 s" in late.message
    server.hold.set()
    assert caller.point_to("the mug").outcome.code == Code.OK


def test_a_cancel_is_seen_while_the_server_works(remote: tuple[Caller, Server]) -> None:
    caller, server = remote
    server.hold.clear()
    server.asked.clear()
    goal = caller.goal("the mug")
    assert server.asked.wait(10)
    assert goal.cancel()
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_CANCELED, Code.CANCELLED)
    server.hold.set()
    assert caller.point_to("the mug").outcome.code == Code.OK
