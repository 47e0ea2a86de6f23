"""From points to places: pure numpy and OpenCV, no ROS. `docs/geometry.md` says what each estimate means.

Once per camera pair: `DepthRegistration`. Once per frame: `Frame`, `fit_support_plane` or
`SupportPlaneTracker`. Once per point: `locate`, which gives position, covariance, normal, checks and grasps.
After that, as needed: `fuse` several views, `carried` on a moving base, `check_goal`, `grasp_poses`.
"""

from molmo_ros.geometry.camera_model import CameraModel, RegionOfInterest
from molmo_ros.geometry.checks import BrokenLimit, Face, Limits, broken_limits, check_goal
from molmo_ros.geometry.depth import DepthSample, depth_at
from molmo_ros.geometry.depth_image import depth_m_from
from molmo_ros.geometry.depth_profile import PROFILES, DepthProfile
from molmo_ros.geometry.footprint import Footprint
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.fusion import Fused, Observation, fuse
from molmo_ros.geometry.grasp import Grasp, GraspPlan, GraspPoses, grasp_poses, plan_grasp
from molmo_ros.geometry.gripper_room import Gripper, GripperRoom
from molmo_ros.geometry.locate import Located, checked, locate
from molmo_ros.geometry.motion import MotionError, carried
from molmo_ros.geometry.object_region import ObjectRegion, object_region
from molmo_ros.geometry.pose import Approach, inverse, transform
from molmo_ros.geometry.registration import DepthRegistration
from molmo_ros.geometry.rotation import quaternion_xyzw
from molmo_ros.geometry.support_plane import PlanePrior, SupportPlane, SupportPlaneTracker, fit_support_plane
from molmo_ros.geometry.uncertainty import ExtrinsicError

__all__ = [
    "PROFILES",
    "Approach",
    "BrokenLimit",
    "CameraModel",
    "DepthProfile",
    "DepthRegistration",
    "DepthSample",
    "ExtrinsicError",
    "Face",
    "Footprint",
    "Frame",
    "Fused",
    "Grasp",
    "GraspPlan",
    "GraspPoses",
    "Gripper",
    "GripperRoom",
    "Limits",
    "Located",
    "MotionError",
    "ObjectRegion",
    "Observation",
    "PlanePrior",
    "RegionOfInterest",
    "SupportPlane",
    "SupportPlaneTracker",
    "broken_limits",
    "carried",
    "check_goal",
    "checked",
    "depth_at",
    "depth_m_from",
    "fit_support_plane",
    "fuse",
    "grasp_poses",
    "inverse",
    "locate",
    "object_region",
    "plan_grasp",
    "quaternion_xyzw",
    "transform",
]
