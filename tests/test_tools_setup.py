"""What `tools/setup` decides before it does anything, and that `tools/run` enters what it made."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("molmo_ros_setup", str(ROOT / "tools" / "setup"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, was = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = was
    return module


setup = load()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A shell in which no ROS is sourced."""
    for name in ("ROS_DISTRO", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_bare_machine_gets_kilted_and_another_distribution_by_name(bare):
    name = f"py3.{sys.version_info[1]}"
    assert Path(setup.Environment().folder).name == f"kilted-{name}"
    bare.setenv("ROS_DISTRO", "jazzy")
    assert Path(setup.Environment().folder).name == f"jazzy-{name}"


def test_a_distribution_that_is_neither_sourced_nor_in_wheels_is_refused(bare):
    bare.setenv("ROS_DISTRO", "humble")
    with pytest.raises(setup.SetupError, match=r"ROS_DISTRO=humble: no such.*kilted and jazzy"):
        setup.Environment().check()


def test_a_sourced_ros_is_used_and_our_own_wheels_do_not_count_as_one(bare, tmp_path):
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").touch()
    bare.syspath_prepend(tmp_path)
    bare.setenv("ROS_DISTRO", "rolling")
    bare.setenv("AMENT_PREFIX_PATH", "/opt/ros/rolling")
    environment = setup.Environment()
    assert environment.sourced
    assert Path(environment.folder).name.startswith("rolling-system-py3.")
    environment.check()
    bare.setenv("AMENT_PREFIX_PATH", str(ROOT / ".ros" / "kilted-py3.11"))
    assert not setup.Environment().sourced


@pytest.mark.parametrize("version", [(3, 10, 12), (3, 14, 0)])
def test_a_python_that_is_too_old_or_too_new_is_refused_with_a_way_out(bare, version):
    bare.setattr(setup.sys, "version_info", version)
    with pytest.raises(setup.SetupError, match=r"needs 3.11, 3.12 or 3.13. Name one: PYTHON=python3.12"):
        setup.Environment().check()


def test_missing_pieces_are_told_by_the_names_apt_knows(bare, tmp_path):
    bare.setenv("PATH", str(tmp_path))
    assert {"cmake", "make", "g++"} <= set(setup.missing_pieces())
    for tool in ("cmake", "make", "g++"):
        (tmp_path / tool).touch(mode=0o755)
    assert not {"cmake", "make", "g++"} & set(setup.missing_pieces())


def test_setup_stops_at_a_missing_piece_before_it_makes_anything(tmp_path):
    """A copy of the project on a machine without cmake: one clear line, and nothing downloaded or written."""
    for part in ("tools/setup", "tools/run", "package.xml", "setup.py", "setup.cfg"):
        target = tmp_path / "project" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / part).read_bytes())
    locks = tmp_path / "project" / "tools" / "locks"
    locks.mkdir()
    for name in ("kilted.lock", "python.lock", "python.in"):
        (locks / name).touch()
    (tmp_path / "bin").mkdir()
    for name in ("make", "g++", "env", "bash", "dirname"):
        (tmp_path / "bin" / name).symlink_to(
            "/usr/bin/env" if name in ("make", "g++") else f"/usr/bin/{name}"
        )
    got = subprocess.run(
        ["/bin/bash", str(tmp_path / "project" / "tools" / "run"), "true"],
        env={"PATH": str(tmp_path / "bin"), "PYTHON": sys.executable, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert got.returncode == 1
    assert "missing on this machine: " in got.stderr
    assert "sudo apt-get install" in got.stderr
    assert "cmake" in got.stderr
    assert not (tmp_path / "project" / ".ros").exists()


def test_the_fingerprint_follows_content_and_names(tmp_path):
    file = tmp_path / "a.msg"
    file.write_text("int32 a")
    before = setup.fingerprint([str(file)], ["x"])
    assert setup.fingerprint([str(file)], ["x"]) == before
    assert setup.fingerprint([str(file)], ["y"]) != before
    file.write_text("int32 b")
    assert setup.fingerprint([str(file)], ["x"]) != before


def test_pips_settings_are_said_to_uv_in_its_own_words():
    config = "\n".join(
        [
            "global.extra-index-url='file:///a file:///b'",
            "global.constraint='/c.txt'",
            ":env:.find-links='/wheels'",
            ":env:.cert='/ca.pem'",
            ":env:.default-timeout='180'",
            ":env:.disable-pip-version-check='1'",
        ]
    )
    options, environ = setup.uv_options(config)
    text = " ".join(options)
    for said in (
        "--extra-index-url file:///a --extra-index-url file:///b",
        "--constraint /c.txt",
        "--find-links /wheels",
    ):
        assert said in text
    assert environ == {"SSL_CERT_FILE": "/ca.pem", "UV_HTTP_TIMEOUT": "180"}


def test_a_setting_that_uv_has_no_word_for_leaves_the_work_to_pip():
    assert setup.uv_options("global.trusted-host='example.org'") is None
    assert setup.uv_options("") == (["--index-strategy", "unsafe-best-match"], {})


@pytest.mark.parametrize("name", ["kilted.lock", "jazzy.lock", "python.lock"])
def test_locks_pin_everything_and_name_no_host_and_no_cuda(name):
    for line in (ROOT / "tools" / "locks" / name).read_text().splitlines():
        assert "==" in line.split(";")[0], line
        assert "://" not in line
        assert not line.startswith(("nvidia-", "cuda-", "triton"))


def test_the_locks_agree_where_they_overlap():
    pins: dict[str, set[str]] = {}
    for name in ("kilted.lock", "python.lock"):
        for line in (ROOT / "tools" / "locks" / name).read_text().splitlines():
            package, _, version = line.split(";")[0].strip().partition("==")
            if ";" not in line:
                pins.setdefault(package, set()).add(version)
    assert not {k: v for k, v in pins.items() if len(v) > 1}


@pytest.mark.skipif("MOLMO_ROS_ENV" not in os.environ, reason="needs the environment of tools/run")
def test_run_inside_the_environment_runs_the_command_as_it_is_given():
    got = subprocess.run(
        [str(ROOT / "tools" / "run"), "printf", "%s|", "two words", "$HOME"], capture_output=True, text=True
    )
    assert got.stdout == "two words|$HOME|"
    assert got.returncode == 0


def test_run_without_a_command_says_how_it_is_used():
    got = subprocess.run([str(ROOT / "tools" / "run")], capture_output=True, text=True)
    assert got.returncode == 2
    assert "usage: tools/run CMD" in got.stderr
