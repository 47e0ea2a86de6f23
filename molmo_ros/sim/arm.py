"""A plain six-axis arm made of capsules and cylinders, mounted at the base frame's origin.

The proportions are those of common 0.8 m table-top arms; no particular product is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

XYZ = tuple[float, float, float]

# (joint, child link, parent link, position in the parent in metres, axis, limits in rad)
LINKS = (
    ("shoulder_pan", "shoulder_link", "base_link", (0.0, 0.0, 0.15), (0, 0, 1), (-2.9, 2.9)),
    ("shoulder_lift", "upper_arm_link", "shoulder_link", (0.0, 0.11, 0.0), (0, 1, 0), (-2.0, 2.0)),
    ("elbow", "forearm_link", "upper_arm_link", (0.0, -0.10, 0.36), (0, 1, 0), (-2.7, 2.7)),
    ("wrist_1", "wrist_1_link", "forearm_link", (0.0, 0.0, 0.32), (0, 1, 0), (-2.9, 2.9)),
    ("wrist_2", "wrist_2_link", "wrist_1_link", (0.0, 0.09, 0.0), (0, 0, 1), (-2.9, 2.9)),
    ("wrist_3", "wrist_3_link", "wrist_2_link", (0.0, 0.0, 0.09), (0, 1, 0), (-3.1, 3.1)),
)

# tool0: on the flange, z pointing out of it (REP 103 style tool frame).
TOOL0_IN_WRIST_3 = (0.0, 0.075, 0.0)
TOOL0_QUAT_WXYZ = (np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0)

FRAMES = tuple((child, parent) for _, child, parent, *_ in LINKS) + (("tool0", "wrist_3_link"),)

_SHELL, _JOINT, _DARK = "arm_shell", "arm_joint", "arm_dark"
ARM_GROUP = 2


def add_arm(spec: mujoco.MjSpec) -> None:
    """Adds the bodies `base_link` ... `tool0`, their joints and looks to the world of `spec`."""
    spec.add_material(name=_SHELL, rgba=[0.80, 0.82, 0.84, 1], specular=0.35, shininess=0.4)
    spec.add_material(name=_JOINT, rgba=[0.30, 0.42, 0.50, 1], specular=0.4, shininess=0.5)
    spec.add_material(name=_DARK, rgba=[0.16, 0.17, 0.19, 1], specular=0.3, shininess=0.3)
    base = spec.worldbody.add_body(name="base_link")
    _cylinder(base, (0, 0, 0), (0, 0, 0.012), 0.085, _DARK)
    _cylinder(base, (0, 0, 0.012), (0, 0, 0.095), 0.062, _SHELL)
    bodies = {"base_link": base}
    for joint, link, parent, position, axis, limits in LINKS:
        body = bodies[parent].add_body(name=link, pos=position)
        body.add_joint(name=joint, type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, range=limits)
        bodies[link] = body
    _cylinder(bodies["shoulder_link"], (0, 0, -0.055), (0, 0, 0.06), 0.058, _SHELL)
    _cylinder(bodies["shoulder_link"], (0, 0, 0), (0, 0.06, 0), 0.052, _JOINT)
    _cylinder(bodies["upper_arm_link"], (0, -0.05, 0), (0, 0.055, 0), 0.056, _SHELL)
    _capsule(bodies["upper_arm_link"], (0, 0, 0), (0, 0, 0.36), 0.042, _SHELL)
    _cylinder(bodies["upper_arm_link"], (0, -0.05, 0.36), (0, 0.045, 0.36), 0.048, _JOINT)
    _cylinder(bodies["forearm_link"], (0, -0.04, 0), (0, 0.05, 0), 0.046, _SHELL)
    _capsule(bodies["forearm_link"], (0, 0, 0), (0, 0, 0.32), 0.034, _SHELL)
    _cylinder(bodies["wrist_1_link"], (0, -0.038, 0), (0, 0.045, 0), 0.036, _JOINT)
    _cylinder(bodies["wrist_1_link"], (0, 0.04, 0), (0, 0.10, 0), 0.033, _SHELL)
    _cylinder(bodies["wrist_2_link"], (0, 0, -0.036), (0, 0, 0.05), 0.034, _JOINT)
    _cylinder(bodies["wrist_2_link"], (0, 0, 0.05), (0, 0, 0.115), 0.031, _SHELL)
    _cylinder(bodies["wrist_3_link"], (0, 0.02, 0), (0, 0.075, 0), 0.03, _JOINT)
    tool = bodies["wrist_3_link"].add_body(name="tool0", pos=TOOL0_IN_WRIST_3, quat=TOOL0_QUAT_WXYZ)
    _box(tool, (0, 0, 0.02), (0.045, 0.022, 0.02), _DARK)
    for side in (-1, 1):
        _box(tool, (side * 0.032, 0, 0.065), (0.006, 0.011, 0.028), _DARK)


def _add(body: mujoco.MjsBody, kind: mujoco.mjtGeom, material: str, **shape: object) -> None:
    body.add_geom(type=kind, material=material, contype=0, conaffinity=0, group=ARM_GROUP, mass=0.5, **shape)


def _cylinder(body: mujoco.MjsBody, start: XYZ, end: XYZ, radius_m: float, material: str) -> None:
    _add(body, mujoco.mjtGeom.mjGEOM_CYLINDER, material, fromto=[*start, *end], size=[radius_m, 0, 0])


def _capsule(body: mujoco.MjsBody, start: XYZ, end: XYZ, radius_m: float, material: str) -> None:
    _add(body, mujoco.mjtGeom.mjGEOM_CAPSULE, material, fromto=[*start, *end], size=[radius_m, 0, 0])


def _box(body: mujoco.MjsBody, centre: XYZ, half_m: XYZ, material: str) -> None:
    _add(body, mujoco.mjtGeom.mjGEOM_BOX, material, pos=centre, size=half_m)


@dataclass(frozen=True)
class ArmModel:
    """An arm that can stand at the table: how it is added to a world, and what its parts are called.

    `frames` are (child, parent) bodies, the base's child first. `rest_rad` is its posture when a scene does not
    say another. `begin` gives the world that everything else is added to, for an arm that comes with its own.
    """

    name: str
    joints: tuple[str, ...]
    frames: tuple[tuple[str, str], ...]
    add: Callable[[mujoco.MjSpec], None]
    rest_rad: tuple[float, ...] | None
    begin: Callable[[], mujoco.MjSpec] = mujoco.MjSpec


#: The arm of the training pictures; its posture is the scene's.
PLAIN_ARM = ArmModel("plain", tuple(joint for joint, *_ in LINKS), FRAMES, add_arm, None)
