"""A parameter as data: name, default, limits, unit, meaning, and when it may change. Without ROS."""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Value = bool | int | float | str | list[float] | list[str]
# live: holds from the next request on. inactive: may be set while the node is not active, and holds from the next
# activation on. start: fixed when the node starts.
Change = Literal["live", "inactive", "start"]

_CHANGE_WORDS: dict[Change, str] = {"live": "at any time", "inactive": "while not active", "start": "never"}


class ParameterError(ValueError):
    """A parameter has a name or value that it cannot have; the message names it and says what would do."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: `range` is inclusive and applies to every element of a list; `choices` are for
    strings."""

    name: str
    default: Value
    description: str
    unit: str = ""
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    change: Change = "live"

    @property
    def type_name(self) -> str:
        """The ROS name of the type, as `ros2 param describe` writes it."""
        if isinstance(self.default, list):
            return "string array" if isinstance(self.default[0], str) else "double array"
        names = {bool: "boolean", int: "integer", float: "double", str: "string"}
        return names[type(self.default)]

    def limits(self) -> str:
        """The allowed values in words, empty when any value of the type will do."""
        if self.choices:
            return ", ".join(self.choices)
        if self.range:
            return f"{self.range[0]:g} to {self.range[1]:g}"
        return ""

    def check(self, value: Value, name: str = "") -> Value:
        """The value, if this parameter can have it; `ParameterError` otherwise. `name`: where it stands, if
        not here."""
        name = name or self.name
        if self.choices and value not in self.choices:
            raise ParameterError(f"parameter {name} is {value!r}: it takes one of {self.limits()}")
        numbers: Sequence[Any] = value if isinstance(value, list) else [value]
        if self.type_name == "double array" and len(numbers) != len(self.default):  # type: ignore[arg-type]
            raise ParameterError(
                f"parameter {name} has {len(numbers)} numbers: it takes {len(self.default)}"  # type: ignore[arg-type]
            )
        if self.range:
            low, high = self.range
            for number in numbers:
                if math.isnan(number) or not low <= number <= high:
                    unit = f" {self.unit}" if self.unit else ""
                    raise ParameterError(f"parameter {name} is {value!r}: it takes {self.limits()}{unit}")
        return value


def nearest_name(name: str, known: Collection[str]) -> str:
    """The known name that was probably meant; "" when none is like it."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), "")


def markdown_rows(parameters: Sequence[Parameter]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        "| name | type | default | allowed | unit | changes | meaning |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| `{parameter.name}` | {parameter.type_name} | `{as_yaml(parameter.default)}` "
            f"| {parameter.limits()} | {parameter.unit} | {_CHANGE_WORDS[parameter.change]} | {parameter.description} |"
            for parameter in parameters
        ),
    ]


def yaml_lines(parameters: Sequence[Parameter], indent: str) -> list[str]:
    """Every parameter with its default, its meaning above it."""
    lines: list[str] = []
    for parameter in parameters:
        unit = f" [{parameter.unit}]" if parameter.unit else ""
        lines += [f"{indent}# {line}" for line in textwrap.wrap(parameter.description + unit, 100)]
        lines.append(f"{indent}{parameter.name}: {as_yaml(parameter.default)}")
    return lines


def fixed_page(node: str, module: str, table: Sequence[Parameter]) -> str:
    """The page of a node whose parameters are all read when it starts."""
    lines = [
        f"# Parameters of {node}",
        "",
        f"Printed from `molmo_ros/nodes/{module}.py` by `python -m molmo_ros.nodes.{module}`;",
        f"a test keeps this page and `config/{node.removesuffix('_node')}.yaml` current. "
        "All are read when the node starts.",
        "",
        "| name | type | default | allowed | unit | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{parameter.name}` | {parameter.type_name} | `{as_yaml(parameter.default)}` "
        f"| {parameter.limits()} | {parameter.unit} | {parameter.description} |"
        for parameter in table
    ]
    return "\n".join(lines) + "\n"


def fixed_example(node: str, page: str, table: Sequence[Parameter]) -> str:
    """The example file of such a node: every parameter with its default."""
    lines = [
        f"# Parameters of {node} with their defaults; {page} says the same as a table.",
        "/**:",
        "  ros__parameters:",
    ]
    return "\n".join([*lines, *yaml_lines(table, "    ")]) + "\n"


def as_yaml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(as_yaml(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
