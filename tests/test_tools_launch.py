"""The runner for launch XML: what a file means, and that nothing is left behind, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.insert(0, str(TOOLS))

from launch_xml import (
    LaunchFileError,
    Process,
    declared_arguments,
    read_launch_file,
    show_arguments,
)


def write(folder: Path, body: str, name: str = "some.launch.xml") -> Path:
    file = folder / name
    file.write_text(f"<launch>{body}</launch>")
    return file


def read(folder: Path, body: str, **settings: str) -> list[Process]:
    return read_launch_file(write(folder, body), settings, folder)


def test_an_argument_has_its_default_unless_it_is_given(tmp_path):
    body = '<arg name="who" default="world"/><executable cmd="echo hello $(var who)"/>'
    assert read(tmp_path, body)[0].command == ("echo", "hello", "world")
    assert read(tmp_path, body, who="moon")[0].command == ("echo", "hello", "moon")


def test_an_argument_without_default_must_be_given(tmp_path):
    with pytest.raises(LaunchFileError, match="'who' needs a value: who:="):
        read(tmp_path, '<arg name="who"/>')


def test_an_argument_that_the_file_does_not_have_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(LaunchFileError, match="no argument whom; it has: who"):
        read(tmp_path, '<arg name="who" default="x"/>', whom="y")


def test_show_args_lists_name_description_and_default(tmp_path):
    file = write(
        tmp_path, '<arg name="camera" default="wrist" description="which camera"/><arg name="must"/>'
    )
    text = show_arguments(file)
    assert "'camera':" in text
    assert "which camera" in text
    assert "(default: 'wrist')" in text
    assert "'must':" in text


def test_substitutions_nest_and_see_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WHICH", "b")
    body = '<let name="b" value="deep"/><executable cmd="x $(var $(env WHICH)) $(env UNSET_1 d) $(dirname)"/>'
    assert read(tmp_path, body)[0].command == ("x", "deep", "d", str(tmp_path))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<timer period='1'/>", "<timer> is not supported inside <launch>; supported there: .*<node>"),
        (
            "<executable cmd='a' respawn='true'/>",
            "<executable> does not support the attribute respawn; supported: .*cmd",
        ),
        ("<executable cmd='$(command ls)'/>", r"\$\(command ls\) is not supported; supported: \$\(var x\)"),
        ("<executable cmd='$(var nothing)'/>", r"\$\(var nothing\): no such argument"),
        ("<executable cmd='$(env NOT_SET_HERE)'/>", "NOT_SET_HERE.*not set; give a default"),
        ("<executable cmd='$(var x'/>", "no closing bracket"),
        ("<executable/>", "<executable> needs the attribute 'cmd'"),
        ("<executable cmd='a' if='maybe'/>", "'maybe', not true, false, 1 or 0"),
        ("<executable cmd='a' on_exit='dance'/>", "on_exit='dance' is not supported; supported: shutdown"),
        ("<executable cmd='a' on_exit='$(env HOME)'/>", "is not supported; supported: shutdown, or no such"),
        ("<executable cmd='a' args='b'/>", "does not support the attribute args"),
        ("<node pkg='no_such_package_1' exec='a'/>", "no package 'no_such_package_1'"),
        ("<include file='/nowhere.launch.xml'/>", "/nowhere.launch.xml: cannot be read"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, body, says):
    pytest.importorskip("ament_index_python")
    with pytest.raises(LaunchFileError, match=says):
        read(tmp_path, body)


def test_if_and_unless_choose(tmp_path):
    body = """<arg name="sim" default="true"/>
    <executable cmd="a" if="$(var sim)"/><executable cmd="b" unless="$(var sim)"/>
    <group if="$(var sim)"><executable cmd="c"/></group>"""
    assert [p.command[0] for p in read(tmp_path, body)] == ["a", "c"]
    assert [p.command[0] for p in read(tmp_path, body, sim="false")] == ["b"]


def test_what_is_set_in_a_group_stays_in_the_group(tmp_path):
    body = """<let name="x" value="out"/>
    <group><let name="x" value="in"/><set_env name="E" value="1"/><executable cmd="a $(var x)"/></group>
    <executable cmd="b $(var x)"><env name="F" value="2"/></executable>"""
    a, b = read(tmp_path, body)
    assert (a.command, a.environment) == (("a", "in"), {"E": "1"})
    assert (b.command, b.environment) == (("b", "out"), {"F": "2"})


def test_an_included_file_gets_the_arguments_that_are_passed(tmp_path):
    write(tmp_path, '<arg name="n" default="0"/><executable cmd="a $(var n)"/>', "inner.launch.xml")
    body = """<include file="$(dirname)/inner.launch.xml"><arg name="n" value="7"/></include>
    <include file="$(dirname)/inner.launch.xml"/>"""
    assert [p.command for p in read(tmp_path, body)] == [("a", "7"), ("a", "0")]


def test_a_node_gets_name_namespace_remaps_and_parameters_as_ros_arguments(tmp_path):
    pytest.importorskip("ament_index_python")
    (tmp_path / "p.yaml").write_text("/**: {ros__parameters: {a: 1}}")
    body = """<group><push-ros-namespace namespace="left"/>
    <node pkg="molmo_ros" exec="pointing_node" name="pointer" namespace="arm"
          on_exit="shutdown" args="--flag 'two words'">
      <param from="$(dirname)/p.yaml"/><param name="rate" value="2.5"/>
      <param name="word" value="5" type="str"/>
      <remap from="color" to="/cam/color"/></node></group>"""
    (process,) = read(tmp_path, body)
    command = process.command
    assert command[0].endswith("lib/molmo_ros/pointing_node")
    assert command[1:4] == ("--flag", "two words", "--ros-args")
    assert "__node:=pointer" in command
    assert "__ns:=/left/arm" in command
    assert "color:=/cam/color" in command
    files = [Path(command[i + 1]) for i, word in enumerate(command) if word == "--params-file"]
    assert files[0] == tmp_path / "p.yaml"
    assert files[1].read_text() == "/left/arm/pointer:\n  ros__parameters:\n    rate: 2.5\n"
    assert "word: '5'" in files[2].read_text()
    assert process.required


# ---------------------------------------------------------------- processes, for real

SLEEPER = f"{sys.executable} -u -c \"import time; print('up'); time.sleep(300)\""
DEAF = (
    f'{sys.executable} -u -c "import signal, time; signal.signal(2, signal.SIG_IGN); '
    "signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(300)\""
)
PARENT = (
    f"{sys.executable} -u -c \"import subprocess, time; subprocess.Popen(['sleep', '299']); "
    "print('up'); time.sleep(300)\""
)


def quoted(command: str) -> str:
    return command.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def start(
    folder: Path, *executables: str, wait_for: int
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A launch of these `<executable>` tags that has printed so many lines `up`, and its descendants."""
    file = write(folder, "".join(executables))
    environment = {
        **os.environ,
        "LAUNCH_GRACE_S": "0.3",
        "MOLMO_ROS_ENV": os.environ.get("MOLMO_ROS_ENV", "test"),
    }
    environment["PATH"] = ":".join(
        p for p in environment["PATH"].split(":") if not (Path(p) / "ros2").exists()
    )
    launch = subprocess.Popen(
        [sys.executable, str(TOOLS / "launch"), str(file)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert launch.stdout is not None
    ups = 0
    while ups < wait_for:
        line = launch.stdout.readline()
        assert line, "the launch ended early"
        ups += line.endswith("| up\n")
    return launch, psutil.Process(launch.pid).children(recursive=True)


def finish(launch: subprocess.Popen[str], number: int | None = None) -> tuple[int, str]:
    """Send a signal, if one is given, and wait for the end: exit code and what was printed since `start`."""
    if number is not None:
        launch.send_signal(number)
    out, _ = launch.communicate(timeout=20)
    return launch.returncode, out


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_and_the_exit_code_is_good(tmp_path, number):
    tag = f'<executable cmd="{quoted(SLEEPER)}" name="s"/>'
    launch, children = start(tmp_path, tag, tag, wait_for=2)
    assert len(children) == 2
    code, _ = finish(launch, number)
    assert code == 0
    assert all_gone(children)


def test_a_process_that_hears_nothing_is_killed_and_that_is_said(tmp_path):
    launch, children = start(tmp_path, f'<executable cmd="{quoted(DEAF)}" name="deaf"/>', wait_for=1)
    code, out = finish(launch, signal.SIGINT)
    assert "deaf: still there, sending SIGTERM" in out
    assert "deaf: still there, sending SIGKILL" in out
    assert code == 1
    assert all_gone(children)


def test_when_the_launch_is_killed_outright_its_processes_die_too(tmp_path):
    launch, children = start(tmp_path, f'<executable cmd="{quoted(DEAF)}" name="deaf"/>', wait_for=1)
    finish(launch, signal.SIGKILL)
    assert children
    assert all_gone(children)


def test_what_a_process_started_and_left_is_ended_with_it(tmp_path):
    launch, _ = start(tmp_path, f'<executable cmd="{quoted(PARENT)}" name="parent"/>', wait_for=1)
    children = psutil.Process(launch.pid).children(recursive=True)
    assert len(children) == 2
    code, _ = finish(launch, signal.SIGTERM)
    assert code == 0
    assert all_gone(children)


@pytest.mark.parametrize("code", [0, 3])
def test_the_end_of_a_required_process_ends_the_rest_and_its_code_counts(tmp_path, code):
    ends = f"{sys.executable} -u -c \"import time; print('up'); time.sleep(0.2); raise SystemExit({code})\""
    launch, children = start(
        tmp_path,
        f'<executable cmd="{quoted(SLEEPER)}" name="s"/>',
        f'<executable cmd="{quoted(ends)}" name="needed" on_exit="shutdown"/>',
        wait_for=2,
    )
    exit_code, out = finish(launch)
    assert "stopping: needed has ended" in out
    assert exit_code == (1 if code else 0)
    assert all_gone(children)


def test_a_program_that_does_not_exist_ends_the_launch_with_its_name(tmp_path):
    file = write(tmp_path, '<executable cmd="/no/such/program" name="ghost"/>')
    got = subprocess.run(
        [sys.executable, str(TOOLS / "launch"), str(file)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "MOLMO_ROS_ENV": os.environ.get("MOLMO_ROS_ENV", "test")},
    )
    assert got.returncode == 1
    assert "ghost: cannot start /no/such/program: No such file or directory" in got.stdout


def test_output_is_shown_line_by_line_with_the_name_in_front(tmp_path):
    command = f"{sys.executable} -c \"print('one'); print('two', end='')\""
    launch, _ = start(tmp_path, f'<executable cmd="{quoted(command)}" name="speaker"/>', wait_for=0)
    code, out = finish(launch)
    assert code == 0
    assert "\nspeaker| one\nspeaker| two\n" in out


@pytest.mark.parametrize("file", sorted((TOOLS.parent / "launch").glob("*.launch.xml")), ids=lambda p: p.name)
def test_the_projects_own_launch_files_can_be_read(tmp_path, file):
    pytest.importorskip("ament_index_python")
    needed = {each.name: "x" for each in declared_arguments(file) if each.default is None}
    assert read_launch_file(file, needed, tmp_path)
