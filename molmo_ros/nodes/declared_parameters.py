"""The node's parameters on the graph: declared from the table, checked when set, read as one frozen snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from molmo_ros.nodes.parameter_table import Parameter, ParameterError, Value
from molmo_ros.nodes.parameters import (
    PARAMETERS,
    PointingParameters,
    check_camera_names,
    table_entry,
)

# What every rclpy node takes besides its own parameters.
_OF_RCLPY = ("use_sim_time", "start_type_description_service")
_OF_RCLPY_PREFIX = "qos_overrides."


class DeclaredParameters:
    """The parameters of one node; `current` is replaced as a whole, so any thread may read it.

    The node must have been made with `automatically_declare_parameters_from_overrides`: that is how rclpy tells
    which names were given, known or not.
    """

    def __init__(self, node: Node, may_change: Callable[[], bool]) -> None:
        """`may_change`: whether parameters that only change while the node is inactive may change now.

        Raises ParameterError for names and values that cannot be.
        """
        self._node = node
        self._may_change = may_change
        given = [
            name
            for name in node.get_parameters_by_prefix("")
            if name not in _OF_RCLPY and not name.startswith(_OF_RCLPY_PREFIX)
        ]
        for name in given:  # rclpy declared them without type and limits
            node.undeclare_parameter(name)
        self._entries: dict[str, Parameter] = {}
        values: dict[str, Value] = {}
        for entry in PARAMETERS:
            values[entry.name] = self._declare(entry.name, entry)
        cameras = tuple(str(name) for name in values["cameras"])  # type: ignore[union-attr]
        check_camera_names(cameras)
        for name in (name for name in given if name not in values):
            try:
                entry = table_entry(name, cameras)
            except ParameterError as error:
                if values["strict_parameters"]:
                    raise
                node.get_logger().warning(f"{error}; it is left out")
            else:
                values[name] = self._declare(name, entry)
        self._values: Mapping[str, Value] = values
        self.current = PointingParameters.from_values(values)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._take)

    def _declare(self, name: str, entry: Parameter) -> Value:
        try:
            value = self._node.declare_parameter(name, entry.default, descriptor_of(entry)).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            limits = f" ({entry.limits()})" if entry.limits() else ""
            raise ParameterError(f"parameter {name} takes a {entry.type_name}{limits}: {error}") from error
        if value is None:
            raise ParameterError(f"parameter {name} is given without a value: it takes a {entry.type_name}")
        self._entries[name] = entry
        return _plain(value)

    def _check(self, wanted: list[RosParameter]) -> SetParametersResult:
        """Whether these may be set now, all together."""
        ours = [parameter for parameter in wanted if parameter.name in self._entries]
        for parameter in ours:
            if self._entries[parameter.name].change == "inactive" and not self._may_change():
                return SetParametersResult(
                    successful=False,
                    reason=f"{parameter.name} changes only while the node is not active: deactivate it, set, activate",
                )
            if parameter.value is None:
                return SetParametersResult(
                    successful=False, reason=f"{parameter.name} cannot be without a value"
                )
        try:
            PointingParameters.from_values(self._with(ours))
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take(self, changed: list[RosParameter]) -> None:
        ours = [parameter for parameter in changed if parameter.name in self._entries]
        if ours:
            self._values = self._with(ours)
            self.current = PointingParameters.from_values(self._values)

    def _with(self, changed: list[RosParameter]) -> dict[str, Value]:
        return {**self._values, **{parameter.name: _plain(parameter.value) for parameter in changed}}


def _plain(value: object) -> Value:
    """Arrays come as array.array or list."""
    return value if isinstance(value, bool | int | float | str) else list(value)  # type: ignore[call-overload]


def descriptor_of(entry: Parameter) -> ParameterDescriptor:
    """The limits and the meaning as `ros2 param describe` shows them."""
    descriptor = ParameterDescriptor(
        description=entry.description + (f" [{entry.unit}]" if entry.unit else ""),
        additional_constraints=entry.limits(),
        read_only=entry.change == "start",
    )
    if entry.range and isinstance(entry.default, float):
        low, high = entry.range
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif entry.range and isinstance(entry.default, int):
        low, high = entry.range
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def declare_fixed(node: Node, table: Sequence[Parameter]) -> dict[str, Value]:
    """Declare all parameters of a table on the node, read-only, and read them; ParameterError names a wrong one."""
    values: dict[str, Value] = {}
    for entry in table:
        try:
            values[entry.name] = entry.check(
                node.declare_parameter(
                    entry.name, entry.default, descriptor_of(replace(entry, change="start"))
                ).value
            )
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            limits = f" ({entry.limits()})" if entry.limits() else ""
            raise ParameterError(
                f"parameter {entry.name} takes a {entry.type_name}{limits}: {error}"
            ) from error
    return values
