"""Points to 3D: camera model, depth at a point, uncertainty and goal poses. Pure numpy and OpenCV, no ROS."""

from molmo_ros.geometry.camera_model import CameraModel, RegionOfInterest
from molmo_ros.geometry.depth import DepthSample, depth_at
from molmo_ros.geometry.depth_image import depth_m_from
from molmo_ros.geometry.depth_profile import PROFILES, DepthProfile
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.locate import Limits, Located, locate
from molmo_ros.geometry.pose import inverse, quaternion_xyzw, transform
from molmo_ros.geometry.uncertainty import ExtrinsicError

__all__ = [
    "PROFILES",
    "CameraModel",
    "DepthProfile",
    "DepthSample",
    "ExtrinsicError",
    "Frame",
    "Limits",
    "Located",
    "RegionOfInterest",
    "depth_at",
    "depth_m_from",
    "inverse",
    "locate",
    "quaternion_xyzw",
    "transform",
]
