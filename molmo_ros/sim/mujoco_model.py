"""The one MuJoCo model behind all scenes: compiled once, then only moved, resized and repainted. The table's texture
is bare here; each scene fills it (`tabletop`), because to draw all of them takes seconds.

Each thing on the table is a slot: one geom whose mesh, colour and pose are set per scene, and in worlds that
have things of two colours a second one for the accent. A soft dark spot lies under each slot instead of a
shadow map, which would cost more than everything else (llvmpipe).
"""

from __future__ import annotations

import mujoco
import numpy as np

from molmo_ros.sim.arm import PLAIN_ARM, ArmModel
from molmo_ros.sim.meshes import Mesh
from molmo_ros.sim.objects import Shape, all_shapes
from molmo_ros.sim.textures import SIZE_PX, shadow_spot
from molmo_ros.sim.worlds import World

TABLE_CENTRE_M = (0.40, 0.0)
TABLE_HALF_M = (0.68, 0.85, 0.02)
FLOOR_Z_M = -0.75

SHADOW_GROUP = 4
NEAR_M, FAR_M = 0.05, 8.0


def build_model(
    world: World, largest_image: tuple[int, int], samples: int, arm: ArmModel = PLAIN_ARM
) -> mujoco.MjModel:
    """Compiles the model. `largest_image` is (width, height); `samples` is the MSAA count (0 = none)."""
    spec = arm.begin()
    spec.modelname = "tabletop"
    spec.compiler.autolimits = True
    spec.stat.extent = 1.0  # near and far planes are multiples of it
    spec.stat.center = [0.5, 0.0, 0.0]
    spec.visual.map.znear, spec.visual.map.zfar = NEAR_M, FAR_M
    spec.visual.global_.offwidth, spec.visual.global_.offheight = largest_image
    spec.visual.quality.offsamples = samples
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.numslices, spec.visual.quality.numstacks = 24, 12
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    _add_room(spec)
    arm.add(spec)
    _add_slots(spec, world)
    for name in ("key", "fill"):
        spec.worldbody.add_light(
            name=name, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=False, pos=[0.5, 0, 2.5]
        )
    spec.worldbody.add_camera(name="camera", pos=[1, 0, 1])
    return spec.compile()


def shapes_in(world: World) -> tuple[Shape, ...]:
    """Every shape that a scene of this world may show."""
    return all_shapes((*world.kinds, *world.clutter), tipping=world.tipped_share > 0)


def _add_room(spec: mujoco.MjSpec) -> None:
    _add_texture(spec, "table", np.full((SIZE_PX, SIZE_PX, 3), 255, np.uint8))
    material = spec.add_material(name="table", rgba=[1, 1, 1, 1], texuniform=False)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table"
    room = {"contype": 0, "conaffinity": 0, "group": 0}
    world = spec.worldbody
    x, y = TABLE_CENTRE_M
    top, legs = TABLE_HALF_M[2], -FLOOR_Z_M / 2
    # The visible surface is a plane with its own texture coordinates; the box gives the edge.
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=[x, y, 0],
        size=[*TABLE_HALF_M[:2], 1],
        material="table",
        **room,
    )
    world.add_geom(
        name="table_edge",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[x, y, -top - 0.001],
        size=TABLE_HALF_M,
        rgba=[0.4, 0.4, 0.4, 1],
        **room,
    )
    for i, (sx, sy) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        world.add_geom(
            name=f"leg_{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.03, 0.03, legs],
            pos=[x + sx * 0.6, y + sy * 0.75, FLOOR_Z_M + legs - 0.03],
            rgba=[0.25, 0.25, 0.27, 1],
            **room,
        )
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, pos=[0, 0, FLOOR_Z_M], size=[4, 4, 1], **room
    )
    world.add_geom(
        name="wall", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[-1.6, 0, 0.5], size=[0.02, 4, 2.5], **room
    )


def _add_slots(spec: mujoco.MjSpec, world: World) -> None:
    shapes = shapes_in(world)
    for shape in shapes:
        add_mesh(spec, shape.name, shape.mesh)
    accented = next((shape for shape in shapes if shape.accent), None)
    for shape in shapes:
        if shape.accent:
            add_mesh(spec, accent_name(shape), shape.accent)
    _add_texture(spec, "shadow", shadow_spot())
    material = spec.add_material(name="shadow", rgba=[1, 1, 1, 0.5], specular=0, texuniform=False)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGBA] = "shadow"
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "shadow"
    for i in range(world.slots):
        spec.add_material(name=f"slot_{i}", rgba=[1, 1, 1, 1])
        body = spec.worldbody.add_body(name=f"slot_{i}")
        body.add_geom(
            name=f"slot_{i}",
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=shapes[0].name,
            material=f"slot_{i}",
            contype=0,
            conaffinity=0,
            group=1,
            mass=0.1,
        )
        if accented:
            spec.add_material(name=f"accent_{i}", rgba=[1, 1, 1, 1])
            body.add_geom(
                name=f"accent_{i}",
                type=mujoco.mjtGeom.mjGEOM_MESH,
                meshname=accent_name(accented),
                material=f"accent_{i}",
                contype=0,
                conaffinity=0,
                group=1,
                mass=0.1,
            )
        spec.worldbody.add_geom(
            name=f"shadow_{i}",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0.05, 0.05, 1],
            material="shadow",
            contype=0,
            conaffinity=0,
            group=SHADOW_GROUP,
        )


def accent_name(shape: Shape) -> str:
    """Name of the mesh of its second colour."""
    return f"{shape.name}_accent"


def add_mesh(spec: mujoco.MjSpec, name: str, mesh: Mesh) -> None:
    """Adds a mesh with its own normals; hollow things have no volume, hence shell inertia."""
    spec.add_mesh(
        name=name,
        uservert=mesh.vertices_V3.astype(np.float32).ravel(),
        usernormal=mesh.normals_V3.astype(np.float32).ravel(),
        userface=mesh.faces_F3.ravel(),
        userfacenormal=mesh.faces_F3.ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        maxhullvert=32,
    )


def _add_texture(spec: mujoco.MjSpec, name: str, image: np.ndarray) -> None:
    height, width, channels = image.shape
    texture = spec.add_texture(
        name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=width, height=height, nchannel=channels
    )
    texture.data = np.ascontiguousarray(image).tobytes()
