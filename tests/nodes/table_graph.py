"""One end of a graph with a table, an arm and a camera, all simulated in this process so that faults can be provoked,
and a caller of pick_place_node. What the simulator knows is for setting up and judging tests alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros_graph import UP_WITHIN_S, Graph, wait_until
from sensor_msgs.msg import JointState
from sent_goal import SentGoal

from molmo_ros.nodes.goal_client import GoalClient
from molmo_ros.nodes.tabletop_sim import TabletopSim
from molmo_ros.sim import fr3
from molmo_ros.sim.physics import TablePhysics
from molmo_ros.sim.scene import SceneObject, SceneState
from molmo_ros.sim.truth import scene_truth
from molmo_ros_interfaces.action import MoveToGoal, PickPlace

SIZE = (320, 240)
HOME = np.array(fr3.FR3_ARM.rest_rad)


class Table:
    """tabletop_sim on a thread of its own, which its GL context needs."""

    def __init__(self, heartbeat_topic: str = "") -> None:
        self._asked: list[Callable[[TabletopSim], None]] = []
        self._ended, self._up = threading.Event(), threading.Event()
        self._heartbeat_topic = heartbeat_topic
        self._sim: TabletopSim | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(UP_WITHIN_S), "the simulator did not come up"

    def _run(self) -> None:
        values = {
            "arm": "fr3",
            "world": "first",
            "width": SIZE[0],
            "height": SIZE[1],
            "antialiasing": 0,
            "rate_hz": 10.0,
            "heartbeat_topic": self._heartbeat_topic,
        }
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self._sim = sim = TabletopSim(parameter_overrides=overrides)
        executor = SingleThreadedExecutor()
        executor.add_node(sim)
        self._up.set()
        while not self._ended.is_set():
            executor.spin_once(timeout_sec=0.02)
            while self._asked:
                self._asked.pop(0)(sim)
        executor.shutdown()
        sim.close()

    def _on_its_thread(self, what: Callable[[TabletopSim], Any]) -> Any:
        done, answer = threading.Event(), []

        def run(sim: TabletopSim) -> None:
            answer.append(what(sim))
            done.set()

        self._asked.append(run)
        assert done.wait(30.0), "the simulator hangs"
        return answer[0]

    def reset(self, seed: int) -> None:
        self._on_its_thread(lambda sim: sim._show_scene(seed))

    @property
    def state(self) -> SceneState:
        assert self._sim is not None and self._sim._tabletop.state is not None
        return self._sim._tabletop.state

    @property
    def server(self) -> Any:
        assert self._sim is not None and self._sim._moving is not None
        return self._sim._moving._server

    def thing(self, label: str) -> SceneObject:
        return next(thing for thing in self.state.objects if thing.label == label)

    def at(self, label: str) -> np.ndarray:
        """Where a thing is now (3,)."""
        _, poses = self.server.now()
        return poses[self.thing(label).id - 1][:3, 3]

    def put(self, label: str, xyz: tuple[float, float, float]) -> None:
        """Move a thing by an invisible hand."""
        T = np.eye(4)
        T[:3, 3] = xyz
        physics: TablePhysics = self.server._physics
        with self.server._lock:
            physics.place(self.thing(label).id, T)

    def pixel(self, label: str) -> str:
        """Words with which the scripted pointer points at a thing."""
        ids = self._on_its_thread(lambda sim: sim._tabletop.render(segmentation=True).ids)
        found = {truth.label: truth.inside_uv for truth in scene_truth(self.state, ids)}
        u, v = found[label]
        return f"pixel {u:.1f} {v:.1f}"

    def joints(self) -> np.ndarray:
        named, _ = self.server.now()
        return np.array([named[name] for name in fr3.JOINTS])

    def is_at_rest(self) -> bool:
        before = self.joints()
        threading.Event().wait(0.1)
        return float(np.abs(self.joints() - before).max()) < 1e-3

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10.0)


class TaskCaller:
    """planner_node, pick_place_node and a scripted pointing node as processes, and a client."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        self._graph, self._folder = graph, folder
        (folder / "table.yaml").write_text(
            "boxes: {table: {size_m: [1.36, 1.7, 0.04], xyz_m: [0.4, 0.0, -0.0225]}}\n"
        )
        self.pointing = graph.start_scripted_node(folder / "pointing.log")
        self.planner = self.start_planner()
        self.task = self._start(
            "pick_place_node",
            *["wrist_camera:=wrist_camera", "ask_from_wrist:=false", "frame_timeout_s:=20.0", "tf_timeout_s:=5.0"],
            *["max_state_age_s:=5.0", "max_frame_age_s:=5.0", "planner_silence_s:=8.0"],
        )
        self.node = graph.node("task_caller")
        self._client = GoalClient(self.node, PickPlace, "/pick_place_node/pick_place", self.node.executor)
        self._moves = GoalClient(self.node, MoveToGoal, "/planner_node/move_to_goal", self.node.executor)

    def move_to(self, posture: tuple[float, ...]) -> None:
        """The arm to a posture, by the planner."""
        wanted = JointState(name=list(fr3.JOINTS), position=list(posture))
        result = SentGoal(self._moves, MoveToGoal.Goal(posture=wanted)).result()
        assert result.outcome.code == 0, result.outcome

    def start_planner(self) -> Any:
        return self._start(
            "planner_node",
            *["execute:=true", "speed_scale:=0.9", "approach_speed_m_s:=0.2"],
            *["settle_timeout_s:=40.0", "max_goal_age_s:=20.0", "max_state_age_s:=5.0"],
            f"obstacles_file:={self._folder / 'table.yaml'}",
        )

    def _start(self, module: str, *settings: str) -> Any:
        arguments = [word for setting in settings for word in ("-p", setting)]
        return self._graph.start(
            *[sys.executable, "-m", f"molmo_ros.nodes.{module}", "--ros-args", *arguments],
            log=self._folder / f"{module}.log",
        )

    def logs(self) -> str:
        return "\n".join(log.read_text() for log in sorted(self._folder.glob("*.log")))

    def is_up(self) -> bool:
        """Whether all answer: a dry run is asked for until one gets as far as the model."""
        if not self._client.wait_for_server(UP_WITHIN_S):
            return False
        return wait_until(lambda: self.ask("nothing", dry_run=True).result().outcome.code == 100, UP_WITHIN_S)

    def ask(self, pick: str, place: str = "", **fields: Any) -> SentGoal:
        return SentGoal(self._client, PickPlace.Goal(pick=pick, place=place, **fields))
