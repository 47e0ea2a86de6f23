"""A camera's pose as files that a robot starts with: launch XML, and YAML for people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import yaml

from molmo_ros.geometry.rotation import quaternion_xyzw
from molmo_ros.outcome import Code, PointingError
from molmo_ros.training.atomic_saving import SavingError, replaced_file


@dataclass(frozen=True, eq=False)
class CameraPose:
    """`T_parent_child` (4x4) of TF frames, with how it was found and how well it is known (one sigma)."""

    parent: str
    child: str
    T_parent_child: np.ndarray
    how: str
    rms: str
    sigma_m: float
    sigma_rad: float

    def arguments(self) -> str:
        """What tf2_ros' static_transform_publisher takes."""
        x, y, z = self.T_parent_child[:3, 3]
        qx, qy, qz, qw = quaternion_xyzw(self.T_parent_child[:3, :3])
        return (
            f"--x {x:.6f} --y {y:.6f} --z {z:.6f} --qx {qx:.8f} --qy {qy:.8f} --qz {qz:.8f} --qw {qw:.8f} "
            f"--frame-id {self.parent} --child-frame-id {self.child}"
        )

    def launch_xml(self) -> str:
        """A launch file that publishes it; other launch files include it."""
        told = f"{self.how}; {self.rms}; known to {1e3 * self.sigma_m:.1f} mm, {np.degrees(self.sigma_rad):.2f} deg"
        return (
            '<?xml version="1.0"?>\n'
            f"<!-- By molmo_ros calibrate: {told.replace('--', '-')} -->\n"
            "<launch>\n"
            f'  <node pkg="tf2_ros" exec="static_transform_publisher" name="camera_pose"\n'
            f"        args={quoteattr(self.arguments())}/>\n"
            "</launch>\n"
        )

    def as_yaml(self) -> str:
        """The same for programs: metres, quaternion x y z w."""
        document = {
            "parent_frame": self.parent,
            "child_frame": self.child,
            "translation_m": [round(float(x), 6) for x in self.T_parent_child[:3, 3]],
            "rotation_xyzw": [round(float(x), 8) for x in quaternion_xyzw(self.T_parent_child[:3, :3])],
            "how": self.how,
            "rms": self.rms,
            "sigma_mm": round(1e3 * self.sigma_m, 2),
            "sigma_deg": round(float(np.degrees(self.sigma_rad)), 3),
        }
        return yaml.safe_dump(document, sort_keys=False)


def write_camera_pose(pose: CameraPose, name: Path) -> list[Path]:
    """Write NAME.launch.xml and NAME.yaml, each whole or not at all; returns their paths.

    Raises PointingError(INVALID_REQUEST) when that cannot be; what was there before stays.
    """
    written = []
    for ending, text in ((".launch.xml", pose.launch_xml()), (".yaml", pose.as_yaml())):
        file = name.with_name(name.name + ending)
        try:
            with replaced_file(file) as part:
                part.write_text(text, encoding="utf-8")
        except SavingError as error:
            raise PointingError(Code.INVALID_REQUEST, str(error)) from error
        written.append(file)
    return written
