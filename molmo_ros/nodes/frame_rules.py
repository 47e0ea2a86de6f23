"""What counts as one instant of a camera: its topics, and how far they and the present may lie apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from molmo_ros.nodes.camera_parameters import CameraParameters
from molmo_ros.nodes.parameters import PointingParameters

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class FrameRules:
    """What counts as one instant; durations in the units their names say. Topics are resolved names.

    `depth_topic` None: colour alone. `depth_info_topic` None: depth is registered to colour. `color_transport`:
    raw or compressed; `depth_transport`: raw, compressed or compressedDepth. `still_frame` is where the camera's
    pose is taken: the target frame, or the fixed frame of a moving base.
    """

    camera: str
    color_topic: str
    color_info_topic: str
    depth_topic: str | None
    still_frame: str
    max_pairing_gap_ns: int
    max_stamp_lead_ns: int
    frame_timeout_s: float
    tf_timeout_s: float
    sensor_qos: str = "auto"
    depth_info_topic: str | None = None
    color_transport: str = "raw"
    depth_transport: str = "raw"
    streaming: bool = False
    keep_open_s: float = 0.0

    @classmethod
    def of(
        cls, camera: CameraParameters, parameters: PointingParameters, resolve: Callable[[str], str]
    ) -> FrameRules:
        """`resolve` makes full topic names, remappings included; it raises for what is no topic."""
        color_topic = resolve(camera.color_topic)
        depth_topic = resolve(camera.depth_topic) if camera.depth_topic else None
        return cls(
            camera=camera.name,
            color_topic=color_topic,
            color_info_topic=resolve(camera.color_info_topic),
            depth_topic=depth_topic,
            still_frame=(parameters.fixed_frame or parameters.target_frame).lstrip("/"),
            max_pairing_gap_ns=round(camera.max_pairing_gap_s * NANOSECONDS),
            max_stamp_lead_ns=round(camera.max_stamp_lead_s * NANOSECONDS),
            frame_timeout_s=camera.frame_timeout_s,
            tf_timeout_s=parameters.tf_timeout_s,
            sensor_qos=camera.sensor_qos,
            depth_info_topic=resolve(camera.depth_info_topic)
            if depth_topic and camera.depth_info_topic
            else None,
            color_transport=_transport(camera.color_transport, color_topic, ("compressed",)),
            depth_transport=_transport(
                camera.depth_transport, depth_topic, ("compressedDepth", "compressed")
            ),
            streaming=camera.streaming,
            keep_open_s=camera.keep_open_s,
        )


def _transport(given: str, topic: str | None, by_name: tuple[str, ...]) -> str:
    """Names of topics end as image_transport names them."""
    if given != "auto" or topic is None:
        return given
    return next((name for name in by_name if topic.endswith(f"/{name}")), "raw")
