"""molmo_ros: point at things with Molmo, in three dimensions, on ROS 2."""

__version__ = "0.1.0"
