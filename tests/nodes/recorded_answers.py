"""Answers as the node makes them, about one picture of the rig's camera, for tests of their recording."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from camera_rig import COLOR_FRAME, info_message, plain_image
from rclpy.serialization import serialize_message
from rclpy.time import Time

from molmo_ros.geometry.locate import Located
from molmo_ros.geometry.pose import transform
from molmo_ros.nodes.answer import Answer, Found, StageSeconds
from molmo_ros.nodes.frame_reading import FrameReader
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.image_request import LONGEST_S, PointingRequest
from molmo_ros.nodes.parameters import PARAMETERS, PointingParameters
from molmo_ros.outcome import Outcome
from molmo_ros.pointing.point import Point2D

NODE = "/left/pointing_node"
STAMP_NS = 1_700_000_000_123_456_789
#: The camera looks straight down from 1 m above the base, a little turned.
T_BASE_CAMERA = transform([0.5, 0.1, 1.0], [0.9961947, 0.0871557, 0.0, 0.0])


def parameters(**changes: Any) -> PointingParameters:
    values = {entry.name: entry.default for entry in PARAMETERS}
    return PointingParameters.from_values(values | changes)


def rules_of(given: PointingParameters) -> tuple[FrameRules, ...]:
    """With topics as a namespace and remappings would resolve them."""
    return tuple(FrameRules.of(camera, given, lambda name: f"/left/{name}") for camera in given.cameras)


def raw_frame(stamp_ns: int = STAMP_NS) -> RawFrame:
    messages = {"color": plain_image("rgb8", 90), "info": info_message(), "depth": plain_image("16UC1", 800)}
    for message in messages.values():
        message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        message.header.frame_id = COLOR_FRAME
    return RawFrame(
        color=serialize_message(messages["color"]),
        color_info=serialize_message(messages["info"]),
        depth=serialize_message(messages["depth"]),
        depth_info=None,
        stamp_ns=stamp_ns,
        frame_id=COLOR_FRAME,
        T_still_camera=T_BASE_CAMERA,
        T_color_depth=None,
        complete_s=0.0,
        age_s=0.02,
    )


def request(words: str = "the mug", **changes: Any) -> PointingRequest:
    given = parameters(**changes)
    return PointingRequest(
        words=words,
        camera=given.cameras[0],
        names_camera=False,
        frame_token="",
        max_frame_age_ns=10**9,
        timeout_s=LONGEST_S,
        parameters=given,
        max_points=0,
        dry_run=False,
    )


def answer(words: str = "the mug", **changes: Any) -> Answer:
    """One good target in the middle of the picture. `changes`: fields of the answer, or parameters."""
    fields = {name: changes.pop(name) for name in list(changes) if name in Answer.__dataclass_fields__}
    raw, asked = raw_frame(), request(words, **changes)
    reader = FrameReader(rules_of(asked.parameters)[0], color_is_rectified=False, depth_is_rectified=True)
    T = np.eye(4)
    T[:3, 3] = (0.5, 0.1, 0.2)
    located = Located(Outcome(), position_base_m=T[:3, 3], T_base_target=T)
    point = Point2D(u=79.5, v=59.5, label=words, confidence=0.9, sigma_px=1.0, index=0)
    whole = Answer(
        request=asked,
        words=f" {words}",
        found=(Found(point, located, located.outcome),),
        goal=0,
        camera=asked.camera.name,
        frame=reader.read(raw),
        raw=raw,
        pose_stamp_ns=raw.stamp_ns,
        seconds=StageSeconds(decode=0.1, total=0.25),
    )
    return replace(whole, **fields)
