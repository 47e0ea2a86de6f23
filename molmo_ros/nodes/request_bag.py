"""One request of pointing_node in a bag of its own: what the parameter `record` writes, and `molmo_ros replay` reads.

The format, which any tool for ROS 2 bags reads (MCAP, schemas as ros2msg, messages as CDR):

    the camera's topics         the messages of the one instant that was seen, byte for byte as they came
    /tf_static                  the transforms that were used, as of the image's stamp; latched
    NODE/targets                TargetArray, what was pointed at; what `molmo_ros collect` reads
    NODE/request_record         RequestRecord: words, parameters, outcome, answer, durations

A goal pose is not in it: `ros2 bag play` beside a planner must not move an arm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.serialization import serialize_message
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tf2_msgs.msg import TFMessage

from molmo_ros.geometry.pose import transform as rigid_transform
from molmo_ros.geometry.rotation import quaternion_xyzw
from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.base_motion import BaseNow
from molmo_ros.nodes.camera_channel import header_of
from molmo_ros.nodes.camera_parameters import CAMERA_PARAMETERS
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.frame_source import RawFrame
from molmo_ros.nodes.image_request import LONGEST_S, ImageRequest, PointingRequest, Question
from molmo_ros.nodes.messages import (
    NANOSECONDS,
    durations_message,
    outcome_message,
    stamped_header,
    targets_message,
)
from molmo_ros.nodes.parameter_table import ParameterError
from molmo_ros.nodes.parameters import PARAMETERS, PointingParameters
from molmo_ros.outcome import Code, Outcome
from molmo_ros.recorded_bag import BagError, messages, opened_bag, raw_messages
from molmo_ros_interfaces.msg import RequestRecord

RECORD, TARGETS, STATIC_TF = "request_record", "targets", "/tf_static"
#: Folder beside the bags in which one is written until it is whole.
UNFINISHED = ".unfinished"
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class RecordedTarget:
    """One target as it was answered: pixel, label, verdict, and its place in target_frame (NaN where unknown)."""

    u: float
    v: float
    label: str
    code: Code
    position_m: tuple[float, float, float]


@dataclass(frozen=True)
class SensorMessage:
    """A message of the camera, or the transforms, as it came (CDR)."""

    topic: str
    type_name: str
    data: bytes


@dataclass(frozen=True, eq=False)
class RecordedRequest:
    """What a bag says. `raw` None: there was no frame, and nothing can be run again."""

    path: Path
    request: ImageRequest
    outcome: Outcome
    words: str
    targets: tuple[RecordedTarget, ...]
    camera: str
    raw: RawFrame | None
    base: BaseNow | None
    sensor_messages: tuple[SensorMessage, ...]
    total_s: float


# ---------------------------------------------------------------- writing


def write_request(path: Path, answer: Answer, node: str, rules: tuple[FrameRules, ...]) -> None:
    """A new bag in the folder `path`. `node`: its full name. `rules` of all cameras. Raises OSError."""
    of_camera = {rule.camera: rule for rule in rules}
    seen_ns = answer.raw.stamp_ns if answer.raw else time.time_ns()
    answered_ns = seen_ns + round(answer.seconds.total * NANOSECONDS)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:

        def add(topic: str, type_name: str, data: bytes, at_ns: int, qos: Qos) -> None:
            definition, digest = _definition(type_name)
            connection = bag.add_connection(
                topic, type_name, msgdef=definition, rihs01=digest, offered_qos_profiles=[qos]
            )
            bag.write(connection, at_ns, data)

        if answer.raw is not None:
            for topic, type_name, data in _camera_messages(answer.raw, of_camera[answer.camera]):
                add(topic, type_name, data, seen_ns, _RELIABLE)
            add(STATIC_TF, "tf2_msgs/msg/TFMessage", _transforms(answer, of_camera), seen_ns, _LATCHED)
        if isinstance(answer.request, PointingRequest):
            data = serialize_message(targets_message(answer))
            add(f"{node}/{TARGETS}", "molmo_ros_interfaces/msg/TargetArray", data, answered_ns, _RELIABLE)
        data = serialize_message(_record(answer, rules))
        add(f"{node}/{RECORD}", "molmo_ros_interfaces/msg/RequestRecord", data, answered_ns, _RELIABLE)


def _record(answer: Answer, rules: tuple[FrameRules, ...]) -> RequestRecord:
    request, raw = answer.request, answer.raw
    pointing = request if isinstance(request, PointingRequest) else None
    return RequestRecord(
        header=stamped_header(raw.stamp_ns if raw else 0, raw.frame_id if raw else ""),
        camera=answer.camera,
        query=request.words,
        is_question=pointing is None,
        max_points=pointing.max_points if pointing else 0,
        dry_run=pointing.dry_run if pointing else False,
        held_frame=bool(request.frame_token),
        outcome=outcome_message(answer.outcome),
        answer=answer.words,
        confidence=answer.confidence,
        goal=-1 if answer.goal is None else answer.goal,
        pose_stamp=_time(answer.pose_stamp_ns),
        durations=durations_message(answer.seconds),
        parameters=json.dumps(_values_with_resolved_topics(request.parameters, rules)),
    )


def _values_with_resolved_topics(
    parameters: PointingParameters, rules: tuple[FrameRules, ...]
) -> dict[str, Any]:
    """So that the parameters name the very topics of the bag, whatever was remapped."""
    values: dict[str, Any] = dict(parameters.values())
    for rule in rules:
        for name in (each.name for each in CAMERA_PARAMETERS if each.name.endswith("_topic")):
            values[f"{rule.camera}.{name}"] = getattr(rule, name) or ""
        values[f"{rule.camera}.color_transport"] = rule.color_transport
        values[f"{rule.camera}.depth_transport"] = rule.depth_transport
    return values


def _camera_messages(raw: RawFrame, rules: FrameRules) -> Iterator[tuple[str, str, bytes]]:
    info = "sensor_msgs/msg/CameraInfo"
    yield rules.color_topic, _image_type(rules.color_transport), raw.color
    yield rules.color_info_topic, info, raw.color_info
    if raw.depth is not None and rules.depth_topic:
        yield rules.depth_topic, _image_type(rules.depth_transport), raw.depth
    # Two cameras in one housing may share their CameraInfo's topic.
    if raw.depth_info is not None and rules.depth_info_topic not in (None, rules.color_info_topic):
        yield str(rules.depth_info_topic), info, raw.depth_info


def _image_type(transport: str) -> str:
    return _IMAGE if transport == "raw" else _COMPRESSED


def _transforms(answer: Answer, rules: dict[str, FrameRules]) -> bytes:
    raw, rule = answer.raw, rules[answer.camera]
    assert raw is not None
    used = [(rule.still_frame, raw.frame_id, raw.T_still_camera)]
    if raw.T_color_depth is not None and raw.depth is not None:
        used.append((raw.frame_id, _frame_of(raw.depth), raw.T_color_depth))
    if answer.T_target_fixed is not None:
        target_frame = answer.request.parameters.target_frame.lstrip("/")
        used.append((target_frame, rule.still_frame, answer.T_target_fixed))
    return serialize_message(
        TFMessage(
            transforms=[
                _transform_message(parent, child, T, raw.stamp_ns)
                for parent, child, T in used
                if parent != child
            ]
        )
    )


def _transform_message(parent: str, child: str, T_parent_child: np.ndarray, stamp_ns: int) -> TransformStamped:
    x, y, z = (float(value) for value in T_parent_child[:3, 3])
    qx, qy, qz, qw = (float(value) for value in quaternion_xyzw(T_parent_child[:3, :3]))
    return TransformStamped(
        header=stamped_header(stamp_ns, parent),
        child_frame_id=child,
        transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)),
    )


def _time(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS)


def _frame_of(cdr: bytes) -> str:
    header = header_of(cdr)
    return header[1] if header else ""


def _qos(durability: QosDurability) -> Qos:
    unset = QosTime(0, 0)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE,
        durability=durability,
        deadline=unset,
        lifespan=unset,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=unset,
        avoid_ros_namespace_conventions=False,
    )


_RELIABLE, _LATCHED = _qos(QosDurability.VOLATILE), _qos(QosDurability.TRANSIENT_LOCAL)


@cache
def _definition(type_name: str) -> tuple[str, str]:
    """Text (ros2msg, with all it contains) and hash (REP 2011) of a message type."""
    store = _typestore()
    return store.generate_msgdef(type_name, ros_version=2)[0], store.hash_rihs01(type_name)


@cache
def _typestore() -> Any:
    store = get_typestore(Stores.LATEST)
    types: dict[str, Any] = {}
    for file in sorted((Path(get_package_share_directory("molmo_ros_interfaces")) / "msg").glob("*.msg")):
        types |= get_types_from_msg(
            file.read_text(encoding="utf-8"), f"molmo_ros_interfaces/msg/{file.stem}"
        )
    store.register(types)
    return store


# ---------------------------------------------------------------- reading


def request_bags(path: Path) -> list[Path]:
    """The bags at a path: itself, or all in the folders below it by age, but for those that are still being written.
    Raises BagError when there is none."""
    if path.suffix == ".mcap" or (path / "metadata.yaml").is_file():
        return [path]
    found = sorted(
        file.parent
        for file in path.rglob("metadata.yaml")
        if UNFINISHED not in file.relative_to(path).parts
    )
    if not found:
        raise BagError(f"there is no bag at {path}; give the folder of the parameter record, or one bag in it")
    return found


def read_request(path: Path) -> RecordedRequest:
    """Raises BagError for what is no recorded request, and says why."""
    with opened_bag(path) as bag:
        topic = next(
            (each.topic for each in bag.connections if each.topic.endswith(f"/{RECORD}")),
            None,
        )
        if topic is None:
            raise BagError(
                f"{path} holds no request of pointing_node (its parameter record makes such bags); "
                "ros2 bag play plays other bags"
            )
        said = dict(messages(bag, {topic, f"{topic.removesuffix(RECORD)}{TARGETS}"}))
        if topic not in said:
            raise BagError(f"{path} is broken: {topic} has no message")
        record = said[topic]
        parameters = _parameters(path, record.parameters)
        camera = parameters.camera_called(record.camera)
        if camera is None:
            raise BagError(f"{path} is broken: no camera of its parameters is called {record.camera!r}")
        rules = FrameRules.of(camera, parameters, lambda name: name)
        topics = {rules.color_topic, rules.color_info_topic, rules.depth_topic, rules.depth_info_topic}
        seen = {
            name: SensorMessage(name, kind, data)
            for name, kind, data in raw_messages(bag, {name for name in topics if name} | {STATIC_TF})
        }
        raw = base = None
        if rules.color_topic in seen and rules.color_info_topic in seen:
            transforms = dict(messages(bag, {STATIC_TF}))[STATIC_TF].transforms
            raw, base = _frame(record, rules, parameters, seen, transforms)
        targets = said.get(f"{topic.removesuffix(RECORD)}{TARGETS}")
        return RecordedRequest(
            path=path,
            request=_request(record, parameters),
            outcome=Outcome(Code(record.outcome.code), record.outcome.message),
            words=record.answer,
            targets=tuple(_target(each) for each in targets.targets) if targets else (),
            camera=record.camera,
            raw=raw,
            base=base,
            sensor_messages=tuple(seen.values()),
            total_s=record.durations.total.sec + record.durations.total.nanosec / NANOSECONDS,
        )


def _parameters(path: Path, text: str) -> PointingParameters:
    """Those that the recording node did not have yet stand at their defaults."""
    try:
        values = {entry.name: entry.default for entry in PARAMETERS} | json.loads(text)
        return PointingParameters.from_values(values)
    except (ValueError, TypeError) as error:  # a ParameterError is a ValueError
        kind = "parameters" if isinstance(error, ParameterError) else "parameters, which are no JSON"
        raise BagError(f"{path} holds {kind}: {error}") from error


def _request(record: Any, parameters: PointingParameters) -> ImageRequest:
    """The request, without a limit of time: another machine may be slower."""
    camera = parameters.camera_called(record.camera)
    assert camera is not None
    given: dict[str, Any] = {
        "words": record.query,
        "camera": camera,
        "names_camera": True,
        "frame_token": "",
        "max_frame_age_ns": round(LONGEST_S * NANOSECONDS),
        "timeout_s": LONGEST_S,
        "parameters": parameters,
    }
    if record.is_question:
        return Question(**given)
    return PointingRequest(**given, max_points=int(record.max_points), dry_run=bool(record.dry_run))


def _frame(
    record: Any,
    rules: FrameRules,
    parameters: PointingParameters,
    seen: dict[str, SensorMessage],
    transforms: Any,
) -> tuple[RawFrame, BaseNow | None]:
    def data(topic: str | None) -> bytes | None:
        return seen[topic].data if topic in seen else None

    T_of = {(each.header.frame_id, each.child_frame_id): _matrix(each.transform) for each in transforms}
    frame_id = record.header.frame_id
    color, depth = data(rules.color_topic), data(rules.depth_topic)
    assert color is not None
    depth_frame = _frame_of(depth) if depth else ""
    pose_stamp_ns = record.pose_stamp.sec * NANOSECONDS + record.pose_stamp.nanosec
    target_frame = parameters.target_frame.lstrip("/")
    T_target_fixed = T_of.get((target_frame, rules.still_frame))
    raw = RawFrame(
        color=color,
        color_info=data(rules.color_info_topic) or b"",
        depth=depth,
        depth_info=data(rules.depth_info_topic),
        stamp_ns=record.header.stamp.sec * NANOSECONDS + record.header.stamp.nanosec,
        frame_id=frame_id,
        T_still_camera=T_of.get((rules.still_frame, frame_id), np.eye(4)),
        T_color_depth=T_of.get((frame_id, depth_frame), np.eye(4)) if rules.depth_info_topic else None,
        complete_s=time.monotonic(),
        age_s=0.0,
    )
    base = BaseNow(T_target_fixed, pose_stamp_ns) if T_target_fixed is not None else None
    return raw, base


def _matrix(transform: Any) -> np.ndarray:
    t, q = transform.translation, transform.rotation
    return rigid_transform([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])


def _target(target: Any) -> RecordedTarget:
    at = target.pose.pose.pose.position
    return RecordedTarget(
        float(target.u),
        float(target.v),
        str(target.label),
        Code(target.outcome.code),
        (float(at.x), float(at.y), float(at.z)),
    )
