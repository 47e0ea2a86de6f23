"""Parameters of the gripper, by which the closing direction of a goal is chosen: a group of `NODE_PARAMETERS`."""

from __future__ import annotations

from molmo_ros.geometry.gripper_room import DEFAULT_GRIPPER
from molmo_ros.nodes.parameter_table import Parameter

_MEANING = {
    "max_opening_m": "Widest opening between the fingers. A goal's closing direction is the one in which the gripper "
    "fits best.",
    "finger_depth_m": "How far below a thing's top the finger tips go.",
    "finger_width_m": "Width of a finger, across the closing direction.",
    "finger_thickness_m": "Thickness of a finger, along the closing direction: the room that it needs beside a thing.",
    "tip_clearance_m": "What the finger tips keep from the surface that a thing stands on.",
}

#: Each is a field of `Gripper` with `gripper_` in front.
GRIPPER_PARAMETERS: tuple[Parameter, ...] = tuple(
    Parameter(f"gripper_{name}", getattr(DEFAULT_GRIPPER, name), meaning, "m", (0.001, 0.999))
    for name, meaning in _MEANING.items()
)
