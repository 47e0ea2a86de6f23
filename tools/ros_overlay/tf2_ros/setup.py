from setuptools import setup

setup(
    name="tf2_ros",
    version="0.1.0",
    packages=["tf2_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/tf2_ros"]),
        ("share/tf2_ros", ["package.xml"]),
    ],
    zip_safe=False,
    entry_points={
        "console_scripts": ["static_transform_publisher = tf2_ros.static_transform_publisher:main"],
    },
)
