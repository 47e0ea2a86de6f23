"""The simulated tabletop: a seed in, a scene and its RGB-D pictures out.

    from molmo_ros.sim.tabletop import TabletopScene

    tabletop = TabletopScene(render_size=(640, 480))
    state = tabletop.reset(seed=7)
    view = tabletop.render(segmentation=True)
    view.color, view.depth_m, view.ids

Needs MuJoCo and an EGL driver; `MUJOCO_GL` defaults to `egl`, which runs without a display or GPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray


class SimulatorUnavailable(ImportError):
    """MuJoCo or an OpenGL driver without display is missing; the message names what to install."""


os.environ.setdefault("MUJOCO_GL", "egl")
if find_spec("mujoco") is None:
    raise SimulatorUnavailable("MuJoCo is not installed; install it with: pip install 'mujoco>=4,<5'")
_NO_GL = (
    "MuJoCo cannot draw with MUJOCO_GL={}: {}; install a driver: sudo apt install libegl1 libgl1-mesa-dri"
)
try:
    import mujoco  # reads MUJOCO_GL at import
except (ImportError, AttributeError, OSError, RuntimeError) as error:  # what PyOpenGL raises without libEGL
    raise SimulatorUnavailable(_NO_GL.format(os.environ["MUJOCO_GL"], error)) from error

from molmo_ros.sim.arm import PLAIN_ARM, ArmModel  # noqa: E402
from molmo_ros.sim.mujoco_model import FAR_M, NEAR_M, SHADOW_GROUP, accent_name, build_model  # noqa: E402
from molmo_ros.sim.photo import developed  # noqa: E402
from molmo_ros.sim.scene import (  # noqa: E402
    SceneObject,
    SceneRecipe,
    SceneState,
    draw_scene,
)
from molmo_ros.sim.textures import table_texture  # noqa: E402

# Depth beyond this is reported as no return: a table camera's range ends about here.
MOST_DEPTH_M = 4.0

_BACK_WALL_M = 1.9
# Changes below this, in metres and radians, are none.
_STILL = 1e-6
_FLIP = np.diag([1.0, -1.0, -1.0])  # optical frame (y down, z forward) <-> OpenGL camera (y up, z backward)


@dataclass(frozen=True, eq=False)
class View:
    """One rendering: `color` HxWx3 uint8 RGB, `depth_m` HxW float32 along the optical axis, NaN = no return.

    `ids` HxW int32 is the instance map (`SceneObject.id`, 0 elsewhere), or None when it was not asked for.
    """

    color: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    ids: NDArray[np.int32] | None


class TabletopScene:
    """One compiled model and one GL context; `reset` changes the scene, `render` takes its picture.

    What stands still is drawn once for each camera, and later frames differ by sensor noise only.
    The GL context belongs to the thread that made the object: call every method from that thread.
    Raises SimulatorUnavailable where no GL driver is found.
    """

    def __init__(
        self,
        render_size: tuple[int, int] = (640, 480),
        recipe: SceneRecipe | None = None,
        samples: int = 0,
        arm: ArmModel = PLAIN_ARM,
    ) -> None:
        self.render_size = render_size
        self.arm = arm
        self.recipe = recipe or SceneRecipe()
        self._gl: mujoco.GLContext | None = None
        self.state: SceneState | None = None
        width, height = render_size
        world = self.recipe.world
        self._model = build_model(world, render_size, samples, arm)
        self._data = mujoco.MjData(self._model)
        self._gl = _gl_context(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
        self._view = mujoco.MjvScene(self._model, maxgeom=200)
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG"):
            self._view.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 1
        self._option.geomgroup[5] = 0  # unused slots
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._camera.fixedcamid = self._model.camera("camera").id
        names = {self._model.geom(i).name: i for i in range(self._model.ngeom)}
        self._slots = [names[f"slot_{i}"] for i in range(world.slots)]
        self._accents = [names[f"accent_{i}"] for i in range(world.slots) if f"accent_{i}" in names]
        self._shadows = [names[f"shadow_{i}"] for i in range(world.slots)]
        self._shadow_offsets = np.zeros((world.slots, 2))
        # Compiled frames that coincide with their body's are not recomputed; ours move.
        self._model.geom_sameframe[self._slots + self._accents + self._shadows] = 0
        self._joints = [self._model.joint(name).qposadr[0] for name in arm.joints]
        self._links = [(c, p, self._model.body(c).id, self._model.body(p).id) for c, p in arm.frames]
        self._id_of_geom = np.zeros(self._model.ngeom, np.int32)
        self._id_of_geom[self._slots] = np.arange(1, world.slots + 1)
        self._id_of_geom[self._accents] = np.arange(1, len(self._accents) + 1)
        self._drawn: dict[str, tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]] = {}
        self._shown: tuple[tuple[str, ...], NDArray[np.float64]] | None = None
        self._table_texture: int | None = None

    def reset(self, seed: int) -> SceneState:
        """Sets up the scene of `seed` (see `draw_scene`) and returns it."""
        return self.show(draw_scene(seed, self.recipe))

    def show(self, state: SceneState) -> SceneState:
        """Sets up a given scene."""
        self.state = state
        self._drawn.clear()
        self._shown = None
        self._set_room(state)
        self._set_light(state)
        for i in range(len(self._slots)):
            self._set_slot(i, state.objects[i] if i < len(state.objects) else None, state)
        model, camera = self._model, self._camera.fixedcamid
        T = state.camera.T_base_camera
        model.cam_pos[camera] = T[:3, 3]
        mujoco.mju_mat2Quat(model.cam_quat[camera], (T[:3, :3] @ _FLIP).ravel())
        model.cam_fovy[camera] = np.degrees(state.camera.fovy_rad)
        self._data.qpos[self._joints] = state.arm_rad if self.arm.rest_rad is None else self.arm.rest_rad
        self._moved()
        return state

    def move(self, joints: Mapping[str, float], T_base_objects: Sequence[NDArray[np.float64]]) -> None:
        """Shows the present scene after something moved: positions of joints by name, poses of the things (4x4,
        in the scene's order). What moved by less than a micrometre did not move."""
        state = self._scene()
        names, values = tuple(joints), np.array([*joints.values(), *np.ravel(T_base_objects)])
        if self._shown and self._shown[0] == names and np.abs(values - self._shown[1]).max() < _STILL:
            return
        self._shown = names, values
        for name, value in joints.items():
            self._data.qpos[self._model.joint(name).qposadr[0]] = value
        for i, (thing, T) in enumerate(zip(state.objects, T_base_objects, strict=True)):
            body = self._model.geom_bodyid[self._slots[i]]
            self._model.body_pos[body] = T[:3, 3]
            mujoco.mju_mat2Quat(self._model.body_quat[body], T[:3, :3].ravel())
            shadow = self._shadows[i]
            offset = self._shadow_offsets[i]
            self._model.geom_pos[shadow, :2] = T[:2, 3] + offset
            # What is lifted leaves its spot on the table behind.
            lifted = T[2, 3] > 0.5 * thing.size_m[1]
            self._model.geom_group[shadow] = 5 if lifted else SHADOW_GROUP
        self._drawn.clear()
        self._moved()

    def _moved(self) -> None:
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def render(self, *, segmentation: bool = False, frame: int = 0, camera: str = "camera") -> View:
        """A picture of the present scene; `frame` picks the sensor noise, all else stays the same.

        `camera` is the one on its stand, or "wrist" on an arm that has it.
        """
        state = self._scene()
        color, depth_m, ids = self._draw(camera)
        photo = developed(color, state.photo, noise_seed=_noise_seed(state.seed, frame))
        return View(photo, depth_m, ids if segmentation else None)

    def depth_m(self, camera: str = "camera") -> NDArray[np.float32]:
        """The depth image of `render` alone."""
        self._scene()
        return self._draw(camera)[1]

    def K(self) -> NDArray[np.float64]:
        """Intrinsic matrix of the present scene's camera at `render_size`."""
        return self._scene().camera.K(self.render_size)

    def arm_transforms(self) -> list[tuple[str, str, NDArray[np.float64]]]:
        """(parent, child, T_parent_child 4x4) along the arm, base_link to tool0."""
        transforms = []
        for child, parent, child_id, parent_id in self._links:
            R_parent = self._data.xmat[parent_id].reshape(3, 3)
            T = np.eye(4)
            T[:3, :3] = R_parent.T @ self._data.xmat[child_id].reshape(3, 3)
            T[:3, 3] = R_parent.T @ (self._data.xpos[child_id] - self._data.xpos[parent_id])
            transforms.append((parent, child, T))
        return transforms

    def close(self) -> None:
        """Frees the GL resources; the object cannot draw afterwards."""
        if self._gl is None:
            return
        # Freed while another context is current, the numbers of our textures would be deleted in that one.
        with self._gl.as_current():
            self._context.free()
        self._gl.free()
        self._gl = None

    def __del__(self) -> None:
        self.close()

    def _scene(self) -> SceneState:
        if self.state is None:
            raise RuntimeError("no scene yet: call reset(seed) first")
        return self.state

    def _draw(self, camera: str) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
        """Colour, depth and ids as they are without a sensor; drawn anew only after something moved."""
        if camera not in self._drawn:
            self._camera.fixedcamid = self._model.camera(camera).id
            self._drawn[camera] = (self._draw_color(), *self._draw_geometry())
            self._camera.fixedcamid = self._model.camera("camera").id
        return self._drawn[camera]

    def _draw_color(self) -> NDArray[np.uint8]:
        width, height = self.render_size
        color = np.empty((height, width, 3), np.uint8)
        self._draw_into(color, None)
        return np.ascontiguousarray(color[::-1])

    def _draw_geometry(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Depth (metres) and ids, in a pass without smoothing, so that no pixel mixes two surfaces."""
        width, height = self.render_size
        image = np.empty((height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32)
        flags = self._view.flags.copy()
        self._view.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
        self._view.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        self._option.geomgroup[SHADOW_GROUP] = 0
        try:
            self._draw_into(image, depth)
        finally:
            self._option.geomgroup[SHADOW_GROUP] = 1
            self._view.flags[:] = flags
        # Fewer than 255 geoms: the first byte carries the whole number (segid + 1, 0 = nothing).
        table = np.zeros(256, np.int32)
        for geom in self._view.geoms[: self._view.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.segid >= 0:
                table[geom.segid + 1] = self._id_of_geom[geom.objid]
        return _metres(depth[::-1]), np.asarray(table[image[::-1, :, 0]])

    def _draw_into(self, color: NDArray[np.uint8], depth: NDArray[np.float32] | None) -> None:
        self._make_current()
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._option,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._view,
        )
        mujoco.mjr_render(self._rect, self._view, self._context)
        mujoco.mjr_readPixels(color, depth, self._rect, self._context)

    def _make_current(self) -> None:
        if self._gl is None:
            raise RuntimeError("this tabletop is closed")
        self._gl.make_current()

    def _set_slot(self, i: int, thing: SceneObject | None, state: SceneState) -> None:
        model, geom, shadow = self._model, self._slots[i], self._shadows[i]
        if self._accents:
            self._set_accent(self._accents[i], thing)
        if thing is None:
            model.geom_group[geom] = model.geom_group[shadow] = 5
            return
        model.geom_group[geom], model.geom_group[shadow] = 1, SHADOW_GROUP
        self._set_mesh(geom, thing.shape.name)
        body = model.geom_bodyid[geom]
        model.body_pos[body] = (*thing.centre_m[:2], 0.0)
        model.body_quat[body] = (np.cos(thing.yaw_rad / 2), 0, 0, np.sin(thing.yaw_rad / 2))
        material = model.geom_matid[geom]
        model.mat_rgba[material, :3] = thing.rgb
        model.mat_specular[material] = 0.15 + 0.5 * state.room.gloss
        model.mat_shininess[material] = 0.3 + 0.5 * state.room.gloss
        # The soft spot stretches away from the light, as long as the thing is high.
        direction = np.array(state.light.key_direction)
        reach = direction[:2] / -direction[2] * thing.size_m[1]
        stretch = float(np.hypot(*reach))
        turn = np.arctan2(reach[1], reach[0])
        self._shadow_offsets[i] = 0.35 * reach
        model.geom_pos[shadow] = (*(np.array(thing.centre_m[:2]) + 0.35 * reach), 0.0006 + 0.0001 * i)
        model.geom_quat[shadow] = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
        radius = thing.size_m[0] / 2
        model.geom_size[shadow, :2] = (1.35 * radius + 0.4 * stretch, 1.35 * radius)
        if thing.shape.half_m:  # a long thing's spot turns with the thing instead
            model.geom_quat[shadow] = (np.cos(thing.yaw_rad / 2), 0, 0, np.sin(thing.yaw_rad / 2))
            model.geom_size[shadow, :2] = 1.3 * np.array(thing.shape.half_m) + 0.2 * stretch

    def _set_mesh(self, geom: int, name: str) -> None:
        mesh = self._model.mesh(name).id
        self._model.geom_dataid[geom] = mesh
        # The compiler moved each mesh to its centre of mass; this moves it back.
        self._model.geom_pos[geom] = self._model.mesh_pos[mesh]
        self._model.geom_quat[geom] = self._model.mesh_quat[mesh]

    def _set_accent(self, geom: int, thing: SceneObject | None) -> None:
        """The part of a thing that has a colour of its own."""
        shown = thing is not None and thing.shape.accent is not None
        self._model.geom_group[geom] = 1 if shown else 5
        if thing is None or not shown:
            return
        self._set_mesh(geom, accent_name(thing.shape))
        self._model.mat_rgba[self._model.geom_matid[geom], :3] = thing.shape.accent_rgb

    def _set_room(self, state: SceneState) -> None:
        model, room = self._model, state.room
        self._set_table_texture(room.texture)
        material = model.material("table").id
        model.mat_rgba[material, :3] = room.table_rgb
        model.mat_texrepeat[material] = room.texture_repeat
        model.mat_specular[material] = 0.12 * room.gloss
        model.geom_rgba[model.geom("table_edge").id, :3] = 0.7 * np.array(room.table_rgb)
        model.geom_rgba[model.geom("floor").id, :3] = room.floor_rgb
        wall = model.geom("wall").id
        model.geom_rgba[wall, :3] = room.wall_rgb
        # The wall stands behind the table as the camera sees it.
        forward = state.camera.T_base_camera[:2, 2]
        turn = np.arctan2(forward[1], forward[0])
        model.geom_pos[wall, :2] = np.array([0.4, 0.0]) + _BACK_WALL_M * np.array(
            [np.cos(turn), np.sin(turn)]
        )
        model.geom_quat[wall] = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
        model.geom_sameframe[wall] = 0

    def _set_table_texture(self, number: int) -> None:
        if self._table_texture == number:
            return
        texture = self._model.texture("table")
        texture.data[:] = table_texture(number)
        self._make_current()
        mujoco.mjr_uploadTexture(self._model, self._context, texture.id)
        self._table_texture = number

    def _set_light(self, state: SceneState) -> None:
        model, light = self._model, state.light
        for name, direction, strength in (
            ("key", light.key_direction, light.key),
            ("fill", light.fill_direction, light.fill),
        ):
            i = model.light(name).id
            model.light_dir[i] = direction
            model.light_diffuse[i] = strength
            model.light_specular[i] = 0.35 * strength
        model.vis.headlight.ambient[:] = light.ambient
        model.vis.headlight.diffuse[:] = light.head


def _gl_context(width: int, height: int) -> mujoco.GLContext:
    try:
        return mujoco.GLContext(width, height)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise SimulatorUnavailable(_NO_GL.format(os.environ["MUJOCO_GL"], error)) from error


def _metres(depth_buffer: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reversed-z buffer values (1 near, 0 far) to metres along the optical axis."""
    depth_m = NEAR_M * FAR_M / (NEAR_M + depth_buffer * (FAR_M - NEAR_M))
    depth_m[depth_m > MOST_DEPTH_M] = np.nan
    return depth_m.astype(np.float32)


def _noise_seed(seed: int, frame: int) -> int:
    return (seed * 1_000_003 + frame * 7919 + 1) % 2**63
