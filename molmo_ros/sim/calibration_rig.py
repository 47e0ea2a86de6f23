"""A ChArUco board in the simulated cell: on the arm's hand, or on the table under the camera on the wrist.

    rig = CalibrationRig("eye_to_hand", CharucoBoard())
    rig.reset(7)
    for joints in rig.postures(15, T_said):     # from where the camera is said to be
        view = rig.visit(joints)

What an operator does, and what a robot has: pictures, and the joints as they are measured. The truth is kept apart, in
`T_mount_camera_true`, for calibration to be judged by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.charuco import CharucoBoard
from molmo_ros.geometry.hand_eye import Mounting
from molmo_ros.outcome import PointingError
from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.reach import ReachOptions, plan_joints
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.sim.arm import ARM_GROUP
from molmo_ros.sim.fr3 import FR3_ARM, T_HAND_WRIST_CAMERA, drawn_fr3_spec, robot
from molmo_ros.sim.robot_cell import RobotCell
from molmo_ros.sim.scene import draw_scene

#: Encoders and link lengths of a good arm: this much noise on each measured joint.
JOINT_NOISE_RAD = 2e-4
#: White paper around the board, and the plate that it is glued to.
MARGIN_M, PLATE_M = 0.01, 0.004
_SQUARE_PX = 120
_TABLE = Box.upright("table", (1.36, 1.7, 0.04), (0.40, 0.0, -0.0225))
_REACH_M = 0.85
_MOST_TRIES = 5000


@dataclass(frozen=True, eq=False)
class RigView:
    """A picture (HxWx3 uint8 RGB) and where the arm's hand was then by its measured joints (4x4)."""

    color: np.ndarray
    T_base_hand: np.ndarray


class CalibrationRig:
    """One FR3, one board, one camera. GL belongs to the thread that made it."""

    def __init__(self, mounting: Mounting, board: CharucoBoard, size: tuple[int, int] = (640, 480)) -> None:
        self.mounting, self.board = mounting, board
        self._name = "camera" if mounting == "eye_to_hand" else "wrist"
        carrier = "fr3_hand" if mounting == "eye_to_hand" else "base_link"
        # Below the fingers, as if they held it; or on the table. Not known to anybody who calibrates.
        self._T_carrier_board = _held() if mounting == "eye_to_hand" else _lying()
        self._T_carrier_board = self._T_carrier_board @ _from_middle(board)

        def begin() -> mujoco.MjSpec:
            spec = drawn_fr3_spec()
            if carrier != "base_link":
                add_board(spec, spec.body(carrier), board, self._T_carrier_board)
            return spec

        def add(spec: mujoco.MjSpec) -> None:
            FR3_ARM.add(spec)
            if carrier == "base_link":
                add_board(spec, spec.body(carrier), board, self._T_carrier_board)

        self._cell = RobotCell(size, samples=4, arm=replace(FR3_ARM, begin=begin, add=add))
        self._size = size
        self._scene = RoboplanScene(robot())
        self._scene.set_obstacles([_TABLE])
        if mounting == "eye_to_hand":
            T_goal_hand = np.linalg.inv(self._hand_goal())
            width, height = board.size_m
            plate = (width + 2 * MARGIN_M, height + 2 * MARGIN_M, 3 * PLATE_M)
            self._scene.hold(plate, T_goal_hand @ _held())
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        """Another camera, light and table, without things; the arm at rest."""
        self._cell.show(replace(draw_scene(seed), objects=()))
        self._rng = np.random.default_rng([seed, 31])

    @property
    def camera(self) -> CameraModel:
        width, height = self._size
        return CameraModel.from_info(
            width=width, height=height, k=self._cell.camera(self._name).K(self._size)
        )

    @property
    def T_mount_camera_true(self) -> np.ndarray:
        """The truth, for the judge alone: in the base's frame, or on the hand."""
        if self.mounting == "eye_to_hand":
            return self._cell.camera("camera").T_base_camera
        return T_HAND_WRIST_CAMERA

    def postures(self, count: int, T_mount_camera_said: np.ndarray) -> list[np.ndarray]:
        """Free postures (7,) in which the camera should see the whole board, turned another way each time, if the
        camera is where it is said to be."""
        found: list[np.ndarray] = []
        near = np.array(robot().ready_rad)
        for _ in range(_MOST_TRIES):
            if len(found) == count:
                return found
            T_base_hand = self._drawn_hand(T_mount_camera_said)
            reach_m = float(np.linalg.norm(T_base_hand[:3, 3]))
            if not (reach_m < _REACH_M and self._in_picture(T_base_hand, T_mount_camera_said)):
                continue
            joints = self._scene.solve_ik(T_base_hand @ self._hand_goal(), near)
            if joints is not None:
                found.append(joints)
        raise RuntimeError(f"only {len(found)} of {count} postures show the board to the camera")

    def visit(self, joints: np.ndarray) -> RigView | None:
        """Move there and take a picture; None when no way leads there."""
        try:
            way = plan_joints(self._scene, self._measured(noise=False), joints, ReachOptions(speed_scale=0.8))
        except PointingError:
            return None
        self._cell.follow(way, self._scene.limits)
        self._cell.advance(0.3)
        return RigView(self._cell.look(self._name).color, self.hand_pose())

    def hand_pose(self) -> np.ndarray:
        """T_base_hand (4x4) by the measured joints."""
        T_base_goal = self._scene.goal_pose(self._measured(noise=True))
        return T_base_goal @ np.linalg.inv(self._hand_goal())

    def close(self) -> None:
        self._cell.close()

    def _measured(self, *, noise: bool) -> np.ndarray:
        joints, _ = self._cell.physics.joints()
        return joints + self._rng.normal(0.0, JOINT_NOISE_RAD, len(joints)) * noise

    def _hand_goal(self) -> np.ndarray:
        """T_hand_goal: `fr3_hand_tcp` lies 103.4 mm along the hand's z, the goal's frame in it."""
        T_hand_tip = np.eye(4)
        T_hand_tip[2, 3] = 0.1034
        return robot().goal_pose(T_hand_tip)

    def _in_picture(self, T_base_hand: np.ndarray, T_mount_camera: np.ndarray) -> bool:
        width, height = self.board.size_m
        corners = np.array([[0, 0, 0, 1], [width, 0, 0, 1], [0, height, 0, 1], [width, height, 0, 1]])
        T_mount_hand = T_base_hand if self.mounting == "eye_to_hand" else np.linalg.inv(T_base_hand)
        seen = corners @ (np.linalg.inv(T_mount_camera) @ T_mount_hand @ self._T_carrier_board).T
        pixels = self.camera.project(seen[:, :3])
        edge_px = 0.03 * self._size[0]
        return bool(
            np.isfinite(pixels).all()
            and (pixels > edge_px).all()
            and (pixels < np.array(self._size) - edge_px).all()
        )

    def _drawn_hand(self, T_mount_camera: np.ndarray) -> np.ndarray:
        """T_base_hand at which the board fills a good part of the picture, turned in some way."""
        rng, camera = self._rng, self.camera
        share = rng.uniform(0.35, 0.8)
        T_camera_board = np.eye(4)
        T_camera_board[2, 3] = camera.fx * self.board.size_m[0] / (share * camera.width)
        half = 0.5 * (1.0 - share) * np.array(self._size) / camera.fx * T_camera_board[2, 3]
        T_camera_board[:2, 3] = rng.uniform(-half, half)
        most_roll = 40.0 if self.mounting == "eye_to_hand" else 120.0
        tilt = np.radians(rng.uniform((-35.0, -35.0, -most_roll), (35.0, 35.0, most_roll)))
        T_camera_board[:3, :3] = Rotation.from_rotvec(tilt).as_matrix()
        T_carrier_middle = _held() if self.mounting == "eye_to_hand" else _lying()
        T_mount_carrier = T_mount_camera @ T_camera_board @ np.linalg.inv(T_carrier_middle)
        return T_mount_carrier if self.mounting == "eye_to_hand" else np.linalg.inv(T_mount_carrier)


def add_board(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, board: CharucoBoard, T_body_board: np.ndarray
) -> None:
    """A plate with the board's print on the side that looks along -z of the board's frame."""
    width, height = board.size_m
    picture = board.picture(_SQUARE_PX)
    margin = round(MARGIN_M / board.square_m * _SQUARE_PX)
    picture = np.pad(picture, margin, constant_values=255)
    pixels = np.repeat(picture[:, :, None], 3, axis=2)
    texture = spec.add_texture(
        name="charuco",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        width=pixels.shape[1],
        height=pixels.shape[0],
        nchannel=3,
    )
    texture.data = np.ascontiguousarray(pixels).tobytes()
    material = spec.add_material(name="charuco", rgba=[0.9, 0.9, 0.9, 1.0], specular=0.0, texuniform=False)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "charuco"
    edge = margin / _SQUARE_PX * board.square_m
    left, top, right, bottom = -edge, -edge, width + edge, height + edge
    vertices = [
        (x, y, z)
        for z in (0.0, PLATE_M)
        for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))
    ]
    texels = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.001, 0.001)]
    front = [(0, 2, 1), (0, 3, 2)]
    others = [(4, 5, 6), (4, 6, 7)] + [
        face for i in range(4) for j in [(i + 1) % 4] for face in ((i, j, 4 + j), (i, 4 + j, 4 + i))
    ]
    spec.add_mesh(
        name="charuco",
        uservert=np.array(vertices, np.float32).ravel(),
        usertexcoord=np.array(texels, np.float32).ravel(),
        userface=np.array(front + others, np.int32).ravel(),
        userfacetexcoord=np.array(front + [(4, 4, 4)] * len(others), np.int32).ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, T_body_board[:3, :3].ravel())
    body.add_geom(
        name="charuco",
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname="charuco",
        material="charuco",
        pos=T_body_board[:3, 3],
        quat=quaternion,
        contype=0,
        conaffinity=0,
        group=ARM_GROUP,
        mass=0.1,
    )


def _held() -> np.ndarray:
    """T_hand_board of the board's middle: below the fingers, its print looking along the fingers' closing."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", (3.0, -2.0, 4.0), degrees=True).as_matrix() @ np.column_stack(
        [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)]
    )
    T[:3, 3] = (0.004, 0.006, 0.22)
    return T


def _lying() -> np.ndarray:
    """T_base_board of the board's middle, on the table."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", 20.0, degrees=True).as_matrix() @ np.diag([1.0, -1.0, -1.0])
    T[:3, 3] = (0.50, 0.03, 2 * PLATE_M)
    return T


def _from_middle(board: CharucoBoard) -> np.ndarray:
    T = np.eye(4)
    T[:2, 3] = -0.5 * np.array(board.size_m)
    return T
