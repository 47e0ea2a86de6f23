"""Every launch file: valid for ros2 launch, explained, and started for real to see that it does its job."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
FILES = sorted((ROOT / "launch").glob("*.launch.xml"))
BY_NAME = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name.removesuffix(".launch.xml"))

if TYPE_CHECKING:
    from ros_graph import Graph

# What launch_xml and launch_ros (Jazzy to Rolling) take: attributes that must be, those that may be, and tags inside.
# They refuse everything else ("Unexpected attribute(s) found"). Read in Node.parse, ExecuteProcess.parse,
# DeclareLaunchArgument.parse, IncludeLaunchDescription.parse, GroupAction.parse, PushRosNamespace.parse.
PROCESS = {"name", "cwd", "output", "launch-prefix", "respawn", "respawn_delay", "shell", "on_exit"}
CONDITIONS = {"if", "unless"}
ACTIONS = {"arg", "let", "include", "group", "node", "executable", "push-ros-namespace", "set_env"}
TAGS: dict[str, tuple[set[str], set[str], set[str]]] = {
    "launch": (set(), {"version"}, ACTIONS),
    "arg": ({"name"}, {"default", "description"} | CONDITIONS, {"choice"}),
    "let": ({"name", "value"}, CONDITIONS, set()),
    "include": ({"file"}, CONDITIONS, {"arg", "let"}),
    "group": (set(), {"scoped", "forwarding"} | CONDITIONS, ACTIONS | {"keep"}),
    "node": (
        {"exec"},
        {"pkg", "namespace", "args", "ros_args", "exec_name"} | PROCESS | CONDITIONS,
        {"param", "remap", "env"},
    ),
    "executable": ({"cmd"}, PROCESS | CONDITIONS, {"env"}),
    "push-ros-namespace": ({"namespace"}, CONDITIONS, set()),
    "set_env": ({"name", "value"}, CONDITIONS, set()),
    "remap": ({"from", "to"}, set(), set()),
    "env": ({"name", "value"}, set(), set()),
}
SUBSTITUTIONS = {"var": (1, 2), "env": (1, 2), "find-pkg-share": (1, 1), "find-pkg-prefix": (1, 1), "dirname": (0, 0)}
INNERMOST = re.compile(r"\$\(([^()]*)\)")


def problems(tag: ElementTree.Element, parent: ElementTree.Element | None = None) -> Iterator[str]:
    """What the real parser would stumble over, from a tag downwards."""
    given = set(tag.attrib)
    if parent is not None and parent.tag == "include":
        needed, may, inside = {"name", "value"}, set[str](), set[str]()
    elif tag.tag == "param" and "from" in given:
        needed, may, inside = {"from"}, {"allow_substs"}, set[str]()
    elif tag.tag == "param":
        needed, may, inside = {"name"}, {"value", "type"}, {"param"}
    else:
        needed, may, inside = TAGS[tag.tag]
    for name in needed - given:
        yield f"<{tag.tag}> needs {name}"
    for name in given - needed - may:
        yield f"<{tag.tag}> does not know {name}"
    if tag.get("on_exit", "shutdown") != "shutdown":
        yield f"on_exit may be shutdown, not {tag.get('on_exit')}"
    for name, value in tag.attrib.items():
        if name != "description":
            yield from (f"<{tag.tag} {name}>: {each}" for each in _substitution_problems(value))
    for child in tag:
        if child.tag not in inside:
            yield f"<{child.tag}> may not stand in <{tag.tag}>"
        else:
            yield from problems(child, tag)


def _substitution_problems(value: str) -> Iterator[str]:
    while match := INNERMOST.search(value):
        name, *arguments = match.group(1).split(" ")
        if name not in SUBSTITUTIONS:
            yield f"no substitution is called {name}"
        else:
            fewest, most = SUBSTITUTIONS[name]
            if not fewest <= len(arguments) <= most:
                yield f"$({name}) takes {fewest} to {most} words"
        value = value[: match.start()] + value[match.end() :]
    if "$(" in value or value.count('"') % 2 or value.count("'") % 2:
        yield f"{value!r} has a bracket or a quotation mark without its other half"


@BY_NAME
def test_the_real_parser_would_take_it(file: Path) -> None:
    assert list(problems(ElementTree.parse(file).getroot())) == []


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ("<node pkg='a' exec='b' respaun='true'/>", "<node> does not know respaun"),
        ("<node pkg='a'/>", "<node> needs exec"),
        ("<node exec='b' on_exit='restart'/>", "on_exit may be shutdown"),
        ("<node exec='b'><param from='f' if='true'/></node>", "<param> does not know if"),
        ("<node exec='b'><param name='f' from='g'/></node>", "<param> does not know name"),
        ("<include file='f'><arg name='a' default='b'/></include>", "<arg> needs value"),
        ("<arg name='a'/><remap from='a' to='b'/>", "<remap> may not stand in <launch>"),
        ("<node exec='$(vra x)'/>", "no substitution is called vra"),
        ("<node exec='$(var x'/>", "without its other half"),
    ],
)
def test_what_the_real_parser_refuses_is_noticed(spoilt: str, says: str) -> None:
    assert any(says in each for each in problems(ElementTree.fromstring(f"<launch>{spoilt}</launch>")))


@BY_NAME
def test_the_real_parser_takes_it(file: Path) -> None:
    """Where there is one: the wheels have none."""
    frontend = pytest.importorskip("launch.frontend")
    pytest.importorskip("launch_xml")
    entity, parser = frontend.Parser.load(str(file))
    parser.parse_description(entity)


@BY_NAME
def test_every_argument_is_described_and_the_page_names_it(file: Path) -> None:
    page = (ROOT / "docs" / "launch.md").read_text()
    section = page.partition(f"## {file.name}")[2].partition("\n## ")[0]
    for argument in ElementTree.parse(file).getroot().findall("arg"):
        description = argument.get("description", "")
        assert len(description) > 10 and not description.endswith("."), argument.attrib
        assert f"`{argument.get('name')}`" in section, f"docs/launch.md, {file.name}: {argument.get('name')}"


@BY_NAME
def test_what_need_not_be_installed_stands_behind_a_condition(file: Path) -> None:
    ours = {"molmo_ros", "tf2_ros"}
    root = ElementTree.parse(file).getroot()
    for node in root.iter("node"):
        assert node.get("pkg") in ours or "if" in node.attrib, f"{node.get('pkg')} may be missing"
    for include in root.iter("include"):
        packages = set(re.findall(r"find-pkg-share ([a-z0-9_]+)", include.get("file", "")))
        assert packages <= ours or "if" in include.attrib, f"{packages} may be missing"


# ---------------------------------------------------------------- started, for real


@pytest.fixture(scope="module")
def graph() -> Iterator[Graph]:
    pytest.importorskip("rclpy")
    import os

    from ros_graph import Graph

    ours = Graph(domain_id=1 + os.getpid() % 100)
    yield ours
    ours.close()


class Launched:
    """A launch file that runs until the end of a with-block."""

    def __init__(self, graph: Graph, log: Path, file: str, *arguments: str) -> None:
        self.graph, self.log = graph, log
        self.process = graph.start(sys.executable, str(TOOLS / "launch"), file, *arguments, log=log)

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0, self.log.read_text()

    def caller(self, name: str) -> Any:
        from ros_graph import UP_WITHIN_S, Caller, wait_until

        caller = Caller(self.graph.node(f"caller_{name.strip('/').replace('/', '_')}"), name)
        assert caller.is_up(self.process), self.log.read_text()
        assert wait_until(lambda: caller.state() == "active", UP_WITHIN_S), self.log.read_text()
        return caller


def things(graph: Graph, simulator: str) -> list[str]:
    """What stands before a simulated camera: for the test to ask for, never for the node."""
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from ros_graph import wait_until

    from molmo_ros_interfaces.msg import SceneTruth

    heard: list[SceneTruth] = []
    node = graph.node(f"truth_{simulator.strip('/').replace('/', '_')}")
    qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(SceneTruth, f"{simulator}/truth", heard.append, qos)
    assert wait_until(lambda: bool(heard), 60.0)
    graph.drop(node)
    seen = zip(heard[0].labels, heard[0].visible_pixels, strict=True)
    return [f"the {label}" for label, pixels in seen if pixels > 100]


def first_found(caller: Any, words: list[str], camera: str = "") -> Any:
    """The first reply with a goal; the small model does not find everything."""
    for target in words:
        reply = caller.point_to(target, camera=camera, max_points=1)
        assert reply.outcome.code not in range(200, 300), reply.outcome
        if reply.outcome.code == 0:
            return reply
    raise AssertionError(f"none of {words} was found")


@pytest.fixture(scope="module")
def two_cameras(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated cameras were asked by name; the folder of the recorded requests."""
    folder = tmp_path_factory.mktemp("multi")
    parameters = folder / "mine.yaml"
    parameters.write_text(f"/**: {{ros__parameters: {{record: {folder / 'bags'}, frame_timeout_s: 10.0}}}}")
    arguments = ("simulate:=true", f"params_file:={parameters}")
    with Launched(graph, folder / "log.txt", "multi_camera.launch.xml", *arguments) as launched:
        caller = launched.caller("/pointing_node")
        for camera, sign in (("left", 1), ("right", -1)):
            reply = first_found(caller, things(graph, f"/{camera}/tabletop_sim"), camera)
            assert reply.targets.camera == camera
            assert reply.targets.header.frame_id == f"{camera}_color_optical_frame"
            place = reply.targets.targets[0].pose
            assert place.header.frame_id == "base_link"
            assert sign * place.pose.pose.position.y > 0.1, "the tables stand 0.6 m to the left and to the right"
        assert caller.point_to("the mug").targets.camera == "left"
        assert "there is 'left', 'right'" in caller.point_to("the mug", camera="top").outcome.message
    return folder / "bags" / "pointing_node"


@pytest.mark.ros
@pytest.mark.slow
def test_multi_camera_answers_by_the_cameras_names(two_cameras: Path) -> None:
    assert any(two_cameras.glob("request_*_OK"))


@pytest.mark.ros
@pytest.mark.slow
def test_what_a_launched_node_recorded_replays_to_the_same_answers(two_cameras: Path) -> None:
    command = [sys.executable, "-m", "molmo_ros.cli", "replay", str(two_cameras)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) of (\d+) answers are the same", done.stdout)
    assert found and found[1] == found[2] and int(found[1]) >= 3


@pytest.mark.ros
@pytest.mark.slow
def test_replay_shows_a_node_what_was_recorded(graph: Graph, two_cameras: Path, tmp_path: Path) -> None:
    from molmo_ros.nodes.request_bag import read_request

    bag = sorted(two_cameras.glob("request_*_OK"))[-1]
    recorded = read_request(bag)
    assert recorded.camera == "right" or recorded.camera == "left"
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**: {ros__parameters: {cameras: [left, right], frame_timeout_s: 10.0}}")
    arguments = (f"bag:={bag}", f"params_file:={parameters}")
    with Launched(graph, tmp_path / "log.txt", "replay.launch.xml", *arguments) as launched:
        reply = launched.caller("/pointing_node").point_to(
            recorded.request.words, camera=recorded.camera, max_points=1
        )
        assert reply.outcome.code == 0, reply.outcome
        (then,), (now,) = recorded.targets, reply.targets.targets
        assert recorded.raw is not None
        stamp = reply.targets.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == recorded.raw.stamp_ns
        assert (now.u, now.v) == pytest.approx((then.u, then.v))
        place = now.pose.pose.pose.position
        assert (place.x, place.y, place.z) == pytest.approx(then.position_m, abs=1e-6)


@pytest.mark.ros
@pytest.mark.slow
def test_two_robots_answer_each_from_its_own_camera_and_tree_of_frames(graph: Graph, tmp_path: Path) -> None:
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**: {ros__parameters: {frame_timeout_s: 10.0}}")
    arguments = ("simulate:=true", "second_seed:=5", f"params_file:={parameters}")
    with Launched(graph, tmp_path / "log.txt", "two_robots.launch.xml", *arguments) as launched:
        places = {}
        for robot in ("robot1", "robot2"):
            caller = launched.caller(f"/{robot}/pointing_node")
            reply = first_found(caller, things(graph, f"/{robot}/tabletop_sim"))
            assert caller.wait_for(lambda heard=caller.goals: bool(heard)), "the goal is published, too"
            at = caller.goals[-1].pose.position
            places[robot] = (at.x, at.y, at.z)
            assert reply.targets.targets[0].pose.header.frame_id == "base_link"
        assert places["robot1"] != places["robot2"]
        node = graph.node("looking")
        assert node.count_publishers("/tf") == 0, "each robot's frames stay in its namespace"
        graph.drop(node)


@pytest.mark.ros
@pytest.mark.slow
def test_remote_model_asks_the_endpoint_that_it_is_given(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chat_server import completion, served
    from ros_graph import HEIGHT, WIDTH, Camera

    camera = graph.node("remote_camera", namespace="/remote")
    Camera(camera)
    monkeypatch.setenv("KEY_OF_TEST", "secret")
    answer = completion(' <point x="50.0" y="50.0" alt="mug">mug</point>', probability=0.9)
    with served((200, {}, answer)) as server:
        arguments = (f"url:={server.url}", "model:=molmo-7b-d", "key_variable:=KEY_OF_TEST", "namespace:=remote")
        with Launched(graph, tmp_path / "log.txt", "remote_model.launch.xml", *arguments) as launched:
            reply = launched.caller("/remote/pointing_node").point_to("the mug")
    assert reply.outcome.code == 0, reply.outcome
    (target,) = reply.targets.targets
    assert (target.u, target.v) == pytest.approx((WIDTH / 2, HEIGHT / 2), abs=0.6)
    path, headers, body = server.requests[-1]
    assert path.endswith("/chat/completions") and headers["Authorization"] == "Bearer secret"
    assert body["model"] == "molmo-7b-d"
    graph.drop(camera)


@pytest.mark.ros
@pytest.mark.slow
def test_the_static_transform_publisher_says_where_one_frame_is_in_another(graph: Graph, tmp_path: Path) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from ros_graph import wait_until
    from tf2_msgs.msg import TFMessage

    file = tmp_path / "static.launch.xml"
    file.write_text(
        '<launch><node pkg="tf2_ros" exec="static_transform_publisher" name="mount" '
        'args="--x 0.1 --z -0.2 --yaw 1.5707963267948966 --frame-id a --child-frame-id b"/></launch>'
    )
    node, heard = graph.node("static_listener"), list[TFMessage]()
    with Launched(graph, tmp_path / "log.txt", str(file)):
        qos = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(TFMessage, "/tf_static", heard.append, qos)
        assert wait_until(lambda: any(t.child_frame_id == "b" for m in heard for t in m.transforms), 60.0)
    (said,) = (t for m in heard for t in m.transforms if t.child_frame_id == "b")
    t, q = said.transform.translation, said.transform.rotation
    assert (said.header.frame_id, t.x, t.y, t.z) == ("a", 0.1, 0.0, -0.2)
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, 0.5**0.5, 0.5**0.5))
    graph.drop(node)
