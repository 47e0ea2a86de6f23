"""Goal to trajectory: which robot (`robot`), what stands in its way (`obstacles`), a checked plan (`reach`).

Poses are 4x4 matrices in the robot's base frame, joints in rad (or m), times in s. No ROS here, and roboplan
only in `roboplan_scene`; install it with: pip install "molmo_ros[planning]".
"""
