"""Once, in a while, unless it is called off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ros_graph import Graph

from molmo_ros.nodes.one_shot import OneShot

pytestmark = pytest.mark.ros


def on_its_thread(graph: Graph, do: Callable[[Any], None]) -> None:
    """`do` gets a node, on the thread of the executor that spins it."""
    node, done = graph.node(f"shooter_{time.monotonic_ns()}"), threading.Event()
    assert node.executor is not None

    def run() -> None:
        do(node)
        done.set()

    node.executor.create_task(run)
    assert done.wait(10.0)


def test_it_is_done_once(graph: Graph) -> None:
    done = threading.Semaphore(0)
    shots: list[OneShot] = []

    def begin(node: Any) -> None:
        shots.append(OneShot(node, done.release))
        shots[0].start(0.02)

    on_its_thread(graph, begin)
    assert done.acquire(timeout=10.0)
    assert not done.acquire(timeout=0.2)
    assert not shots[0].is_due


def test_called_off_it_is_not_done(graph: Graph) -> None:
    done = threading.Event()

    def begin(node: Any) -> None:
        shot = OneShot(node, done.set)
        shot.start(0.05)
        assert shot.is_due
        shot.call_off()
        assert not shot.is_due

    on_its_thread(graph, begin)
    assert not done.wait(0.3)


def test_started_again_it_counts_anew(graph: Graph) -> None:
    done_s: list[float] = []
    done = threading.Event()
    began_s = time.monotonic()

    def end() -> None:
        done_s.append(time.monotonic())
        done.set()

    def begin(node: Any) -> None:
        shot = OneShot(node, end)
        shot.start(0.01)
        shot.start(0.4)

    on_its_thread(graph, begin)
    assert done.wait(10.0)
    assert done_s[0] - began_s > 0.35
