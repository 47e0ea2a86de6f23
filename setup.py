from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

SIM = ["mujoco>=4,<5"]
PEFT = "peft>=0.18"
ROSBAGS = ["rosbags>=0.11.7,<0.12", "rosbags-image>=0.10.4"]
TRAINING = [*SIM, "tensorboard>=2.15", PEFT, *ROSBAGS]

setup(
    name="molmo_ros",
    version="0.1.0",
    description="Words to 3D goals: pointing with Molmo on a ROS 2 graph",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="molmo_ros maintainers",
    maintainer_email="molmo_ros@users.noreply.github.com",
    python_requires=">=3.11",
    packages=find_packages(include=["molmo_ros", "molmo_ros.*"]),
    package_data={"molmo_ros": ["py.typed", "models/*/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/molmo_ros"]),
        ("share/molmo_ros", ["package.xml"]),
        ("share/molmo_ros/launch", sorted(glob("launch/*.launch.*"))),
        (
            "share/molmo_ros/config",
            sorted(glob("config/*.yaml") + glob("config/*.xml")),
        ),
        ("share/molmo_ros/config/cameras", sorted(glob("config/cameras/*.yaml"))),
        ("share/molmo_ros/config/robots", sorted(glob("config/robots/*.yaml"))),
        ("share/molmo_ros/config/robots/pointing", sorted(glob("config/robots/pointing/*.yaml"))),
        ("share/molmo_ros/config/rviz", sorted(glob("config/rviz/*.rviz"))),
        ("share/molmo_ros/config/foxglove", sorted(glob("config/foxglove/*.json"))),
    ],
    install_requires=[
        "torch>=2.4",
        "transformers>=5.20,<6",
        "tokenizers",
        "safetensors",
        "einops",
        "numpy",
        "pillow",
        "pyyaml",
        "scipy",
        "rich",
    ],
    extras_require={
        "sim": SIM,
        "planning": ["roboplan>=0.7,<0.8", "xacro"],
        "remote": ["httpx2>=2,<3"],
        "serving": ["ray[serve]>=2.40"],
        "recording": ["rosbags>=0.11.7,<0.12"],
        "training": TRAINING,
        "large": ["accelerate>=1.10"],
        "dev": [
            *("pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "types-PyYAML", "accelerate>=1.10"),
            *(PEFT, *ROSBAGS),
        ],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "pointing_node = molmo_ros.nodes.pointing_node:main",
            "pick_place_node = molmo_ros.nodes.pick_place_node:main",
            "planner_node = molmo_ros.nodes.planner_node:main",
            "tabletop_sim = molmo_ros.nodes.tabletop_sim:main",
            "molmo_ros = molmo_ros.cli:main",
        ],
    },
)
