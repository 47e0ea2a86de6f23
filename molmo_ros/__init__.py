"""molmo_ros: point at things with Molmo, in three dimensions, on ROS 2."""

import os

__version__ = "0.1.0"

# OpenMP reads this when torch is loaded. Its threads wait for each other many times in every layer; left to
# themselves they do so spinning, and on a robot whose cores are busy each then burns the time that the other
# needs: an answer of 0.27 s took 5 s. Set it yourself (ACTIVE) where the cores belong to the model alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
