"""What a user of tf2_ros sees: the overlay on a bare machine; on a robot the real one must agree."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Iterator
from time import monotonic

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("tf2_ros")

import rclpy
import tf2_ros
from geometry_msgs.msg import TransformStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.time import Time

S = 1_000_000_000


def transform(
    parent: str,
    child: str,
    time_s: float,
    xyz: tuple[float, float, float] = (0.0, 0.0, 0.0),
    q: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0),
) -> TransformStamped:
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp = at(time_s).to_msg()
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, xyz)  # the C side reads an int as bits of a double
    r.x, r.y, r.z, r.w = map(float, q)
    return message


def at(time_s: float) -> Time:
    return Time(nanoseconds=round(time_s * S))


def yaw(angle_rad: float) -> tuple[float, float, float, float]:
    return (0.0, 0.0, math.sin(angle_rad / 2), math.cos(angle_rad / 2))


def matrix(message: TransformStamped) -> np.ndarray:
    t, r = message.transform.translation, message.transform.rotation
    x, y, z, w = r.x, r.y, r.z, r.w
    result = np.eye(4)
    result[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    result[:3, 3] = (t.x, t.y, t.z)
    return result


def filled(*messages: TransformStamped, static: tuple[TransformStamped, ...] = ()) -> tf2_ros.Buffer:
    buffer = tf2_ros.Buffer()
    for message in static:
        buffer.set_transform_static(message, "test")
    for message in messages:
        buffer.set_transform(message, "test")
    return buffer


poses = st.tuples(
    st.tuples(*[st.floats(-5, 5)] * 3),
    st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(c * c for c in q) > 0.1),
)


def unit(q: tuple[float, ...]) -> tuple[float, float, float, float]:
    x, y, z, w = np.asarray(q) / np.linalg.norm(q)
    return (float(x), float(y), float(z), float(w))


@settings(max_examples=60, deadline=None)
@given(poses, poses, poses)
def test_a_chain_is_the_product_of_its_links_and_the_way_back_its_inverse(a, b, c):
    links = [
        transform("base", "arm", 1, a[0], unit(a[1])),
        transform("arm", "hand", 1, b[0], unit(b[1])),
        transform("base", "camera", 1, c[0], unit(c[1])),
    ]
    buffer = filled(*links)
    expected = np.linalg.inv(matrix(links[2])) @ matrix(links[0]) @ matrix(links[1])
    there = matrix(buffer.lookup_transform("camera", "hand", at(1)))
    back = matrix(buffer.lookup_transform("hand", "camera", at(1)))
    np.testing.assert_allclose(there, expected, atol=1e-9)
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-9)


def test_the_answer_names_frames_and_the_time_it_holds_for():
    buffer = filled(transform("base", "arm", 1, (1, 2, 3)), transform("base", "arm", 3, (1, 2, 3)))
    answer = buffer.lookup_transform("base", "arm", at(2))
    assert (answer.header.frame_id, answer.child_frame_id) == ("base", "arm")
    assert Time.from_msg(answer.header.stamp).nanoseconds == 2 * S


def test_between_two_samples_position_is_linear_and_rotation_goes_the_short_way():
    buffer = filled(
        transform("base", "arm", 10, (0, 0, 0), yaw(math.radians(170))),
        transform("base", "arm", 11, (1, 0, 2), yaw(math.radians(-170))),
    )
    answer = matrix(buffer.lookup_transform("base", "arm", at(10.25)))
    np.testing.assert_allclose(answer[:3, 3], (0.25, 0, 0.5), atol=1e-12)
    angle = math.degrees(math.atan2(answer[1, 0], answer[0, 0]))
    assert angle == pytest.approx(175.0)


def test_time_zero_is_the_latest_time_that_the_whole_chain_knows():
    buffer = filled(
        transform("base", "arm", 1, (1, 0, 0)),
        transform("base", "arm", 3, (3, 0, 0)),
        transform("arm", "hand", 2, (0, 1, 0)),
        transform("arm", "hand", 1, (0, 1, 0)),
        static=(transform("hand", "camera", 0, (0, 0, 1)),),
    )
    answer = buffer.lookup_transform("base", "camera", Time())
    assert Time.from_msg(answer.header.stamp).nanoseconds == 2 * S
    np.testing.assert_allclose(matrix(answer)[:3, 3], (2, 1, 1), atol=1e-12)


def test_a_static_transform_holds_at_any_time():
    buffer = filled(static=(transform("base", "camera", 5, (1, 2, 3)),))
    for time_s in (0, 1, 5, 99_999):
        assert matrix(buffer.lookup_transform("base", "camera", at(time_s)))[2, 3] == 3
    assert buffer.lookup_transform("base", "camera", Time()).header.stamp.sec == 0


@pytest.mark.parametrize(
    ("time_s", "says"),
    [
        (12.5, r"into the future.  Requested time 12\.500000 but the latest data is at time 11\.000000"),
        (9.5, r"into the past.  Requested time 9\.500000 but the earliest data is at time 10\.000000"),
    ],
)
def test_extrapolation_is_refused_and_the_message_gives_the_interval(time_s, says):
    buffer = filled(transform("base", "arm", 10), transform("base", "arm", 11))
    with pytest.raises(tf2_ros.ExtrapolationException, match=says) as caught:
        buffer.lookup_transform("base", "arm", at(time_s))
    assert "when looking up transform from frame [arm] to frame [base]" in str(caught.value)
    can, why = buffer.can_transform("base", "arm", at(time_s), return_debug_tuple=True)
    assert not can
    assert "extrapolation" in why


def test_a_single_sample_answers_only_for_its_own_time():
    buffer = filled(transform("base", "arm", 10))
    assert buffer.can_transform("base", "arm", at(10))
    with pytest.raises(tf2_ros.ExtrapolationException, match=r"but only time 10\.000000 is in the buffer"):
        buffer.lookup_transform("base", "arm", at(10.1))


def test_a_frame_nobody_spoke_of_is_a_lookup_error_naming_it():
    buffer = filled(transform("base", "arm", 1))
    with pytest.raises(tf2_ros.LookupException, match=r'"nowhere".*target_frame does not exist'):
        buffer.lookup_transform("nowhere", "arm", at(1))
    with pytest.raises(tf2_ros.LookupException, match=r'"nowhere".*source_frame does not exist'):
        buffer.lookup_transform("arm", "nowhere", at(1))


def test_two_trees_are_not_connected():
    buffer = filled(transform("base", "arm", 1), transform("map", "drone", 1))
    for time in (at(1), Time()):
        with pytest.raises(tf2_ros.ConnectivityException, match="not part of the same tree"):
            buffer.lookup_transform("base", "drone", time)


def test_frame_names_with_a_slash_or_none_at_all_are_refused():
    buffer = filled(transform("base", "arm", 1))
    with pytest.raises(tf2_ros.InvalidArgumentException, match="cannot start with a '/'"):
        buffer.lookup_transform("/base", "arm", at(1))
    with pytest.raises(tf2_ros.InvalidArgumentException, match="cannot be empty"):
        buffer.lookup_transform("base", "", at(1))


def test_a_transform_that_cannot_be_true_is_not_taken_in():
    buffer = tf2_ros.Buffer()
    buffer.set_transform(transform("base", "nan", 1, (math.nan, 0, 0)), "test")
    buffer.set_transform(transform("base", "zero", 1, q=(0, 0, 0, 0)), "test")
    buffer.set_transform(transform("base", "base", 1), "test")
    for frame in ("nan", "zero", "base"):
        assert not buffer.can_transform("base", frame, at(1)) or frame == "base"
    with pytest.raises(tf2_ros.LookupException):
        buffer.lookup_transform("base", "nan", at(1))


def test_samples_older_than_the_cache_time_are_forgotten():
    buffer = tf2_ros.Buffer(cache_time=Duration(seconds=2))
    for time_s in range(10):
        buffer.set_transform(transform("base", "arm", 100 + time_s), "test")
    assert buffer.can_transform("base", "arm", at(107.5))
    with pytest.raises(tf2_ros.ExtrapolationException, match="past"):
        buffer.lookup_transform("base", "arm", at(106))


def test_a_moving_base_is_carried_through_a_fixed_frame():
    buffer = filled(
        transform("map", "base", 1, (1, 0, 0)),
        transform("map", "base", 2, (4, 0, 0)),
        static=(transform("base", "camera", 0, (0, 0, 1)),),
    )
    answer = buffer.lookup_transform_full("base", at(2), "camera", at(1), "map")
    np.testing.assert_allclose(matrix(answer)[:3, 3], (-3, 0, 1), atol=1e-12)


def test_a_lookup_with_a_timeout_answers_as_soon_as_the_transform_comes():
    buffer = filled(transform("base", "arm", 1))
    later = threading.Timer(0.05, lambda: buffer.set_transform(transform("base", "arm", 3), "test"))
    later.start()
    answer = buffer.lookup_transform("base", "arm", at(2), timeout=Duration(seconds=30))
    later.join()
    assert Time.from_msg(answer.header.stamp).nanoseconds == 2 * S


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[rclpy.context.Context]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.context.Context()
    rclpy.init(context=context, domain_id=77)
    yield context
    rclpy.shutdown(context=context)


@pytest.mark.ros
def test_what_is_broadcast_reaches_a_listener_that_comes_later(context):
    name = f"tf_{uuid.uuid4().hex[:8]}"
    node = rclpy.create_node(name, context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    static = tf2_ros.StaticTransformBroadcaster(node)
    static.sendTransform(transform("base", f"{name}_a", 0, (1, 0, 0)))
    static.sendTransform(transform("base", f"{name}_b", 0, (0, 1, 0)))
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, node, spin_thread=False)
    moving = tf2_ros.TransformBroadcaster(node)

    def known() -> bool:
        return all(buffer.can_transform("base", f"{name}_{f}", Time()) for f in "abc")

    # By the clock, not by rounds: what is sent here comes back at once, and 300 rounds are over before DDS has met.
    give_up_s = monotonic() + 60.0
    while not known() and monotonic() < give_up_s:
        moving.sendTransform(transform("base", f"{name}_c", 5, (0, 0, 1)))
        executor.spin_once(timeout_sec=0.1)
    assert known()
    answer = buffer.lookup_transform(f"{name}_a", f"{name}_b", at(5))
    np.testing.assert_allclose(matrix(answer)[:3, 3], (-1, 1, 0), atol=1e-12)
    listener.unregister()
    node.destroy_node()
