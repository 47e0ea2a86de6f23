"""Parameter files of the pointing node as ROS 2 reads them, one over the other, checked by the table. Without ROS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from molmo_ros.nodes.parameter_table import Parameter, ParameterError, Value
from molmo_ros.nodes.parameters import PARAMETERS, PointingParameters, check_camera_names, table_entry


def read_parameters(files: Sequence[Path], node: str = "/pointing_node") -> PointingParameters:
    """What a node of that full name has when it is started with these files; a later file outdoes an earlier one.

    Raises ParameterError: a file cannot be read, holds names or values that cannot be, or nothing for this node.
    """
    given: dict[str, Value] = {}
    for file in files:
        given |= read_values(file, node)
    values: dict[str, Value] = {entry.name: entry.default for entry in PARAMETERS} | given
    names = values["cameras"]
    if not isinstance(names, list):
        raise ParameterError(f"parameter cameras is {names!r}: it takes a list of names")
    cameras = tuple(str(name) for name in names)
    check_camera_names(cameras)
    check_values(given, cameras)
    return PointingParameters.from_values(values)


def read_values(file: Path, node: str = "/pointing_node") -> dict[str, Value]:
    """What a file holds for a node of that full name, by parameter; nested names are joined by dots.

    Raises ParameterError for a file that cannot be read, and for one that holds nothing for this node.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"parameter file {file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ParameterError(f"parameter file {file} is empty; it begins with /**: ros__parameters:")
    values: dict[str, Value] = {}
    holds_any = False
    for key, sections in content.items():
        if _names(str(key), node) and isinstance(sections, Mapping) and "ros__parameters" in sections:
            holds_any = True
            values |= dict(_flat(sections["ros__parameters"] or {}))
    if not holds_any:
        raise ParameterError(f"parameter file {file} holds nothing for {node}; it begins with /**: ros__parameters:")
    return values


def check_values(given: Mapping[str, Value], cameras: tuple[str, ...]) -> None:
    """Names and types as rclpy insists on them. Raises ParameterError, with the nearest name."""
    for name, value in given.items():
        entry = table_entry(name, cameras)
        if _kind(value) != _kind(entry.default):
            raise ParameterError(f"parameter {name} is {value!r}: it takes a {_type_words(entry)}")


def _names(key: str, node: str) -> bool:
    """Whether a key of a parameter file means this node: /** is any, /**/name one of that name anywhere."""
    return key == "/**" or f"/{key.lstrip('/')}" == node or key == f"/**/{node.rpartition('/')[2]}"


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _kind(value: object) -> tuple[type, ...]:
    return (list, *{type(item) for item in value}) if isinstance(value, list) else (type(value),)


def _type_words(entry: Parameter) -> str:
    return f"{entry.type_name}, such as {entry.default!r}" if entry.default != "" else entry.type_name
