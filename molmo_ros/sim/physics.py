"""The table with weight: the FR3's servos, the things, gravity, friction and what touches what.

    physics = TablePhysics(draw_scene(7))
    physics.command(joints, speeds)     # what the servos are to hold from now on
    physics.advance(0.1)
    physics.joints(), physics.objects(), physics.touches

Pictures are no matter of this module: `robot_cell` shows what happened here. Deterministic: the same scene and
commands give the same motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from molmo_ros.sim import fr3
from molmo_ros.sim.mujoco_model import TABLE_CENTRE_M, TABLE_HALF_M
from molmo_ros.sim.scene import SceneState
from molmo_ros.sim.solids import add_solid

STEP_S = 0.002
#: Commands are given and contacts looked at this often.
TICK_S = 0.004
# Lighter contacts than this are the solver's.
_LEAST_FORCE_N = 0.05
_FINGERTIPS = ("fr3_leftfinger", "fr3_rightfinger")


@dataclass(frozen=True)
class Touch:
    """A part of the arm that touched something: links by name, `other` "table" or the number of a thing (1 for the
    first), with the largest force [N] and the time [s] since the start of the scene."""

    link: str
    other: str
    force_n: float
    time_s: float


class TablePhysics:
    """One scene in motion. Everything in the base frame, which is the FR3's `fr3_link0` too."""

    def __init__(self, state: SceneState) -> None:
        spec = fr3.fr3_spec()
        fr3.drive(spec)
        spec.option.timestep = STEP_S
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10.0
        # Without it what the fingers hold creeps out of them, by 1 to 2 mm/s.
        spec.option.noslip_iterations = 4
        # What is at rest costs nothing until the arm, or another thing, touches it.
        spec.option.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
        x, y = TABLE_CENTRE_M
        spec.worldbody.add_geom(
            name="table",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=TABLE_HALF_M,
            pos=[x, y, -TABLE_HALF_M[2]],
            friction=[1.0, 0.005, 0.0001],
            condim=4,
        )
        spec.add_exclude(bodyname1="world", bodyname2="fr3_link0")
        for thing in state.objects:
            name = f"object_{thing.id}"
            body = spec.worldbody.add_body(name=name)
            body.add_freejoint()
            add_solid(body, spec, thing.shape, name)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        model = self._model
        self._q = np.array([model.joint(name).qposadr[0] for name in fr3.JOINTS])
        self._v = np.array([model.joint(name).dofadr[0] for name in fr3.JOINTS])
        self._fingers = np.array([model.joint(name).qposadr[0] for name in fr3.FINGERS])
        self._servos = np.array([model.actuator(name).id for name in fr3.JOINTS])
        self._grip = model.actuator(fr3.FINGERS[0]).id
        self._bodies = [model.body(f"object_{thing.id}").id for thing in state.objects]
        self._owner = [self._owner_of(i) for i in range(model.ngeom)]
        self._of_arm = np.array([owner.startswith("fr3_") for owner in self._owner])
        self.touches: list[Touch] = []
        for thing, body in zip(state.objects, self._bodies, strict=True):
            address = model.jnt_qposadr[model.body_jntadr[body]]
            T = thing.T_base_object
            self._data.qpos[address : address + 3] = T[:3, 3] + [0.0, 0.0, 0.0005]
            mujoco.mju_mat2Quat(self._data.qpos[address + 3 : address + 7], T[:3, :3].ravel())
        assert fr3.FR3_ARM.rest_rad is not None
        rest = np.array(fr3.FR3_ARM.rest_rad)
        self._data.qpos[self._q] = rest
        self._data.qpos[self._fingers] = fr3.MAX_OPENING_M / 2
        self.command(rest, np.zeros(7))
        self.grip(fr3.MAX_OPENING_M)
        mujoco.mj_forward(self._model, self._data)

    @property
    def time_s(self) -> float:
        return float(self._data.time)

    def command(self, joints: np.ndarray, speeds: np.ndarray) -> None:
        """Positions [rad] and speeds [rad/s] (7,) that the servos hold from now on."""
        self._data.ctrl[self._servos] = joints + fr3.KV / fr3.KP * speeds

    def grip(self, opening_m: float, force_n: float = fr3.GRIP_FORCE_N) -> None:
        """Fingers to this distance, pressing with at most this force on each."""
        self._data.ctrl[self._grip] = np.clip(opening_m, 0.0, fr3.MAX_OPENING_M) / 2
        force_n = float(np.clip(force_n, 1.0, fr3.GRIP_FORCE_N))
        self._model.actuator_forcerange[self._grip] = (-force_n, force_n)

    def advance(self, seconds: float) -> None:
        """Let this much time pass (whole ticks), under the present commands."""
        for _ in range(max(round(seconds / TICK_S), 1)):
            mujoco.mj_step(self._model, self._data, round(TICK_S / STEP_S))
            self._note_touches()

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Measured positions [rad] and speeds [rad/s] (7,)."""
        return self._data.qpos[self._q].copy(), self._data.qvel[self._v].copy()

    def opening_m(self) -> float:
        """Measured distance between the fingers."""
        return float(self._data.qpos[self._fingers].sum())

    def finger_positions(self) -> np.ndarray:
        return np.array(self._data.qpos[self._fingers])

    def objects(self) -> list[np.ndarray]:
        """Poses (4x4) of the things, in the scene's order."""
        poses = []
        for body in self._bodies:
            T = np.eye(4)
            T[:3, :3] = self._data.xmat[body].reshape(3, 3)
            T[:3, 3] = self._data.xpos[body]
            poses.append(T)
        return poses

    def push(self, number: int, velocity_m_s: np.ndarray) -> None:
        """Give a thing (1 for the first) a shove: for faults in tests."""
        address = self._model.jnt_dofadr[self._model.body_jntadr[self._bodies[number - 1]]]
        self._data.qvel[address : address + 3] = velocity_m_s

    def place(self, number: int, T_base_object: np.ndarray) -> None:
        """Put a thing (1 for the first) elsewhere, at rest: for faults in tests."""
        joint = self._model.body_jntadr[self._bodies[number - 1]]
        address, speed = self._model.jnt_qposadr[joint], self._model.jnt_dofadr[joint]
        self._data.qpos[address : address + 3] = T_base_object[:3, 3]
        mujoco.mju_mat2Quat(self._data.qpos[address + 3 : address + 7], T_base_object[:3, :3].ravel())
        self._data.qvel[speed : speed + 6] = 0.0
        mujoco.mj_forward(self._model, self._data)

    def _owner_of(self, geom: int) -> str:
        """What a geom belongs to: a link of the arm, "table", or a thing's number."""
        if self._model.geom(geom).name == "table":
            return "table"
        name = str(self._model.body(self._model.geom_bodyid[geom]).name)
        return name.removeprefix("object_")

    def _note_touches(self) -> None:
        force = np.zeros(6)
        strongest: dict[tuple[str, str], float] = {}
        geoms = self._data.contact.geom
        of_arm = self._of_arm[geoms]
        for i in np.nonzero(of_arm[:, 0] ^ of_arm[:, 1])[0]:
            one, two = (self._owner[geom] for geom in geoms[i])
            link, other = (one, two) if of_arm[i, 0] else (two, one)
            mujoco.mj_contactForce(self._model, self._data, int(i), force)
            pressed = float(np.linalg.norm(force[:3]))
            if pressed > _LEAST_FORCE_N:
                strongest[link, other] = strongest.get((link, other), 0.0) + pressed
        self.touches += [
            Touch(link, other, pressed, self.time_s) for (link, other), pressed in strongest.items()
        ]


def unwanted(touches: list[Touch], target: str) -> list[Touch]:
    """All but the fingers holding the target (the number of a thing, as text)."""
    return [t for t in touches if not (t.link in _FINGERTIPS and t.other == target)]
