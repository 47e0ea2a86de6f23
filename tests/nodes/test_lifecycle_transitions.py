"""The node's states: what each serves, what it holds, and that the long transitions keep nobody waiting."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Behaviour, Camera, Graph, wait_until

from molmo_ros.outcome import Code

pytestmark = pytest.mark.ros
MANAGED = ("-p", "autostart:=false")


def resident_mb(process: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_a_node_starts_by_itself(graph: Graph, tmp_path: Path) -> None:
    _, caller = graph.started(tmp_path / "log.txt", "by_itself")
    assert wait_until(lambda: caller.state() == "active")


def test_a_managed_node_serves_only_while_it_is_active(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    """As a lifecycle manager drives it: up, down, up again, away."""
    _, caller = graph.started(tmp_path / "log.txt", "managed", *MANAGED)
    assert caller.state() == "unconfigured"
    refused = caller.point_to("the thing").outcome
    assert refused.code == Code.NOT_ACTIVE and "configure and activate" in refused.message
    for _ in range(2):
        assert caller.change_state("configure") and caller.state() == "inactive"
        refused = caller.point_to("the thing").outcome
        assert refused.code == Code.NOT_ACTIVE and "the node is inactive; activate it" in refused.message
        assert caller.change_state("activate") and caller.state() == "active"
        assert caller.point_to("the thing").outcome.code == Code.OK
        assert caller.change_state("deactivate")
        assert caller.change_state("cleanup") and caller.state() == "unconfigured"
    assert not caller.change_state("activate")
    assert caller.change_state("shutdown") and caller.state() == "finalized"
    assert caller.point_to("the thing").outcome.code == Code.NOT_ACTIVE


def test_deactivating_answers_whoever_waits_and_frees_the_camera(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    _, caller = graph.started(tmp_path / "log.txt", "leaving", *MANAGED, "-p", "frame_timeout_s:=60.0")
    assert caller.change_state("configure") and caller.change_state("activate")
    behaviour.color = False
    waiting = caller.ask("the thing")
    assert wait_until(lambda: camera.subscribers == 3)
    assert caller.change_state("deactivate")
    outcome = waiting.get().outcome
    assert outcome.code == Code.NOT_ACTIVE and "deactivated" in outcome.message
    assert wait_until(lambda: camera.subscribers == 0)
    behaviour.color = True
    assert caller.change_state("activate")
    at_work = caller.goal("wait 30")
    assert at_work.wait_for_feedback(lambda said: said.tokens > 0)
    assert caller.change_state("deactivate")
    _, result = at_work.end()
    assert result.outcome.code == Code.NOT_ACTIVE


def test_cleanup_gives_the_models_memory_back(graph: Graph, tmp_path: Path) -> None:
    process, caller = graph.started(tmp_path / "log.txt", "large", *MANAGED, "-p", "model:=large")
    empty_mb = resident_mb(process)
    assert caller.change_state("configure")
    assert resident_mb(process) > empty_mb + 190
    assert caller.change_state("cleanup")
    assert wait_until(lambda: resident_mb(process) < empty_mb + 20), resident_mb(process)


def test_while_the_model_loads_states_and_diagnostics_are_answered(graph: Graph, tmp_path: Path) -> None:
    heard: list[DiagnosticArray] = []
    node = graph.node("watching_diagnostics")
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    _, caller = graph.started(
        tmp_path / "log.txt",
        "slow",
        "-p",
        "model:=slow",
        "-p",
        "diagnostics_period_s:=0.2",
        loaded=False,
    )
    assert caller.state() == "configuring"
    refused = caller.point_to("the thing").outcome
    assert refused.code == Code.MODEL_UNAVAILABLE and "still loading" in refused.message

    def said() -> list[str]:
        return [each.message for array in heard for each in array.status if each.name == "slow: model"]

    assert wait_until(lambda: bool(said()))
    assert "still loading" in said()[-1] and "scripted, 'slow'" in said()[-1]
    graph.drop(node)


def test_a_model_that_is_not_there_leaves_the_node_unconfigured_and_can_be_changed(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    _, caller = graph.started(tmp_path / "log.txt", "missing", *MANAGED, "-p", "model:=missing")
    assert not caller.change_state("configure")
    assert caller.state() == "unconfigured"
    refused = caller.point_to("the thing").outcome
    assert refused.code == Code.MODEL_UNAVAILABLE and "there is no such model" in refused.message
    assert caller.set_parameter("model", "") == ""
    assert caller.change_state("configure") and caller.change_state("activate")
    assert caller.point_to("the thing").outcome.code == Code.OK


def test_an_error_nobody_foresaw_goes_through_error_processing_and_back(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    _, caller = graph.started(log, "broken", *MANAGED, "-p", "model:=broken")
    assert not caller.change_state("configure")
    assert caller.state() == "unconfigured"
    outcome = caller.point_to("the thing").outcome
    assert outcome.code == Code.MODEL_UNAVAILABLE
    assert "ZeroDivisionError: a fault in the loading code" in outcome.message
    assert caller.set_parameter("model", "") == ""
    assert caller.change_state("configure") and caller.change_state("activate")
    assert caller.point_to("the thing").outcome.code == Code.OK


def test_another_model_is_loaded_by_deactivate_set_activate(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    process, caller = graph.started(tmp_path / "log.txt", "changing", *MANAGED)
    assert caller.change_state("configure") and caller.change_state("activate")
    refusal = caller.set_parameter("model", "large")
    assert "changes only while the node is not active" in refusal
    assert caller.change_state("deactivate")
    assert caller.set_parameter("model", "large") == ""
    small_mb = resident_mb(process)
    assert caller.change_state("activate")
    assert resident_mb(process) > small_mb + 190
    assert caller.point_to("the thing").outcome.code == Code.OK
    assert caller.change_state("deactivate")
    assert caller.set_parameter("model", "missing") == ""
    assert not caller.change_state("activate")
    assert caller.state() == "inactive"
    refused = caller.point_to("the thing").outcome
    assert refused.code == Code.MODEL_UNAVAILABLE and "there is no such model" in refused.message
