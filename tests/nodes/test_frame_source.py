"""Frames of all makes of cameras, through a node that has one of each: what it takes, and what it says is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from camera_rig import BEHIND_M, COLOR_FRAME, COLOR_RGB, PLANE_Z_M, CameraRig, Shot, pose, send_poses
from ros_graph import Caller, Graph, wait_until
from tf2_ros import StaticTransformBroadcaster

from molmo_ros.outcome import Code
from molmo_ros_interfaces.srv import PointTo

pytestmark = pytest.mark.ros
NAMES = ("plain", "packed", "own", "flat", "live", "exact", "kept", "dead")
PARAMETERS = f"""
/**:
  ros__parameters:
    cameras: [{", ".join(NAMES)}]
    frame_timeout_s: 3.0
    tf_timeout_s: 0.6
    held_age_s: 2.0
    packed:
      color_topic: "{{camera}}/color/image_raw/compressed"
      depth_topic: "{{camera}}/depth/image_rect/compressedDepth"
    own: {{depth_info_topic: "{{camera}}/depth/camera_info"}}
    flat: {{depth_topic: ""}}
    live: {{streaming: true}}
    exact: {{max_pairing_gap_s: 0.0}}
    kept: {{keep_open_s: 1.5}}
    dead: {{frame_timeout_s: 60.0}}
"""


class Rigs:
    """A caller of the node, and the cameras that exist; the others are only configured."""

    def __init__(self, graph: Graph, caller: Caller) -> None:
        self.caller = caller
        self.poses = StaticTransformBroadcaster(graph.node("rig_poses"))
        send_poses(self.poses)
        self.cameras = {
            name: CameraRig(graph.node(f"{name}_driver"), name) for name in NAMES if name != "dead"
        }

    def ask(self, camera: str, shot: Shot | None = None, target: str = "the thing") -> PointTo.Response:
        self.cameras[camera].shot = shot or Shot()
        return self.caller.point_to(target, camera=camera)


@pytest.fixture(scope="module")
def rigs_of_module(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Rigs:
    folder = tmp_path_factory.mktemp("rigs")
    (folder / "cameras.yaml").write_text(PARAMETERS)
    log = folder / "log.txt"
    process = graph.start_scripted_node(
        log, "-r", "__node:=rigged", "--params-file", str(folder / "cameras.yaml")
    )
    caller = Caller(graph.node("rig_caller"), "/rigged")
    assert caller.is_up(process), log.read_text()
    return Rigs(graph, caller)


@pytest.fixture
def rigs(rigs_of_module: Rigs) -> Iterator[Rigs]:
    yield rigs_of_module
    for camera in rigs_of_module.cameras.values():
        camera.shot = Shot()


def stamp_ns(reply: PointTo.Response) -> int:
    assert reply.outcome.code == Code.OK, reply.outcome
    stamp = reply.targets.header.stamp
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def height_m(reply: PointTo.Response) -> float:
    assert reply.outcome.code == Code.OK, reply.outcome
    return float(reply.targets.targets[0].pose.pose.pose.position.z)


@pytest.mark.parametrize(
    "shot",
    [
        Shot(),
        Shot(encoding="bgr8", padding=8),
        Shot(big_endian=True, padding=4),
    ],
    ids=["plain", "bgr8 with padded rows", "big-endian depth"],
)
def test_raw_pictures_are_read_however_they_are_laid_out(rigs: Rigs, shot: Shot) -> None:
    assert height_m(rigs.ask("plain", shot)) == pytest.approx(PLANE_Z_M, abs=1e-3)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_grbg8", "yuv422", "yuyv"])
def test_bayer_and_yuv_come_out_in_their_colours(rigs: Rigs, encoding: str, padding: int) -> None:
    rigs.cameras["plain"].shot = Shot(encoding=encoding, padding=padding)
    reply = rigs.caller.question("Which colour is it?", camera="plain")
    assert reply.outcome.code == Code.OK, reply.outcome
    assert [float(value) for value in reply.answer.split()] == pytest.approx(COLOR_RGB, abs=4)
    assert height_m(rigs.ask("plain", rigs.cameras["plain"].shot)) == pytest.approx(PLANE_Z_M, abs=1e-3)


@pytest.mark.parametrize("camera", ["plain", "own", "live"])
def test_a_camera_may_change_its_size_from_one_frame_to_the_next(rigs: Rigs, camera: str) -> None:
    """All parts of an instant change together; with `live` both sizes are among the messages that are kept."""
    sizes, tokens = set(), {}
    height_above_m = PLANE_Z_M + (BEHIND_M if camera == "own" else 0.0)
    for _ in range(40):
        reply = rigs.ask(camera, Shot(halved=True))
        assert height_m(reply) == pytest.approx(height_above_m, abs=2e-3)
        u = reply.targets.targets[0].u
        sizes.add(u)
        tokens[u] = reply.frame_token
        if len(sizes) == 2:
            break
    assert sizes == {79.5, 39.5}
    for u, token in tokens.items():
        again = rigs.caller.point_to("the thing", frame_token=token)
        assert again.targets.targets[0].u == u


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_compressed_colour_and_depth_are_read(rigs: Rigs, codec: str) -> None:
    assert height_m(rigs.ask("packed", Shot(depth_codec=codec))) == pytest.approx(PLANE_Z_M, abs=1e-3)
    rigs.cameras["packed"].shot = Shot()
    bright = rigs.caller.question("How bright is it?", camera="packed")
    assert bright.answer in ("brightness 76", "brightness 77")


def test_depth_of_its_own_camera_is_registered_to_colour(rigs: Rigs) -> None:
    assert height_m(rigs.ask("own")) == pytest.approx(PLANE_Z_M + BEHIND_M, abs=2e-3)


def test_depth_of_its_own_camera_needs_that_cameras_info(rigs: Rigs) -> None:
    reply = rigs.ask("own", Shot(parts={"color", "info", "depth"}))
    assert reply.outcome.code == Code.NO_CAMERA_INFO
    assert "/own/depth/camera_info" in reply.outcome.message
    reply = rigs.ask("own", Shot(wrong_depth_size=True))
    assert reply.outcome.code == Code.BAD_IMAGE and "depth_info_topic" in reply.outcome.message


def test_a_camera_without_depth_points_in_the_image(rigs: Rigs) -> None:
    reply = rigs.ask("flat", Shot(parts={"color", "info"}))
    assert reply.outcome.code == Code.NO_DEPTH
    assert reply.targets.targets[0].u == pytest.approx(79.5)


def test_a_streaming_camera_stays_subscribed_and_its_death_is_noticed(rigs: Rigs) -> None:
    live = rigs.cameras["live"]
    assert wait_until(lambda: live.subscribers == 3)
    assert height_m(rigs.ask("live")) == pytest.approx(PLANE_Z_M, abs=1e-3)
    assert live.subscribers == 3
    live.shot = Shot(parts={"info", "depth"})
    # What is kept of it may still be fresh enough for the first of these.
    assert wait_until(lambda: rigs.ask("live", live.shot).outcome.code != Code.OK)
    reply = rigs.ask("live", live.shot)
    assert reply.outcome.code == Code.NO_FRAME, reply.outcome
    assert "no colour image on /live/color/image_raw" in reply.outcome.message
    assert rigs.ask("live").outcome.code == Code.OK


def test_a_camera_stays_open_between_requests_and_closes_after_the_last(rigs: Rigs) -> None:
    kept = rigs.cameras["kept"]
    stamps = [stamp_ns(rigs.ask("kept")) for _ in range(3)]
    assert kept.subscribers == 3  # right after an answer; a camera that is not kept has none by then
    assert stamps == sorted(set(stamps))
    assert wait_until(lambda: kept.subscribers == 0)
    assert stamp_ns(rigs.ask("kept")) > stamps[-1]


def test_exact_pairing_takes_equal_stamps_only(rigs: Rigs) -> None:
    assert rigs.ask("exact").outcome.code == Code.OK
    reply = rigs.ask("exact", Shot(depth_late_s=0.002))
    assert reply.outcome.code == Code.NOT_SYNCHRONISED
    # Not always 2 ms: a depth image may be nearer to a colour image that came late itself.
    assert "/exact/depth/image_rect comes no nearer than" in reply.outcome.message
    assert "the limit is 0.0 ms" in reply.outcome.message
    assert rigs.ask("plain", Shot(depth_late_s=0.002)).outcome.code == Code.OK


def test_a_dead_camera_holds_up_nobody_else(rigs: Rigs) -> None:
    stuck = rigs.caller.ask("the thing", camera="dead")
    for camera in ("plain", "packed"):
        assert rigs.ask(camera).outcome.code == Code.OK
    assert not stuck.done


def test_a_stamp_of_zero_is_called_by_its_name(rigs: Rigs) -> None:
    reply = rigs.ask("plain", Shot(zero_stamp=True))
    assert reply.outcome.code == Code.STALE_FRAME
    assert "its stamp is zero" in reply.outcome.message


def test_each_request_may_name_its_camera(rigs: Rigs) -> None:
    assert rigs.ask("own").targets.camera == "own"
    assert rigs.caller.point_to("the thing").targets.camera == "plain"
    reply = rigs.caller.point_to("the thing", camera="tail")
    assert reply.outcome.code == Code.UNKNOWN_CAMERA and "'packed'" in reply.outcome.message


def test_a_held_frame_remembers_its_camera_and_goes_with_age(rigs: Rigs) -> None:
    first = rigs.ask("packed")
    again = rigs.caller.point_to("the thing", frame_token=first.frame_token)
    assert again.outcome.code == Code.OK and again.targets.camera == "packed"
    other = rigs.caller.point_to("the thing", frame_token=first.frame_token, camera="own")
    assert other.outcome.code == Code.INVALID_REQUEST and "'packed'" in other.outcome.message

    def expired() -> bool:
        reply = rigs.caller.point_to("the thing", frame_token=first.frame_token)
        return bool(reply.outcome.code == Code.FRAME_EXPIRED)

    assert wait_until(expired)


def test_a_loop_in_tf_is_named(rigs: Rigs, graph: Graph) -> None:
    """The last test here: the loop stays."""
    broadcaster = StaticTransformBroadcaster(graph.node("loop_maker"))
    broadcaster.sendTransform([pose("hoop", COLOR_FRAME), pose(COLOR_FRAME, "hoop")])

    def is_named() -> bool:
        outcome = rigs.ask("plain").outcome
        return bool(outcome.code == Code.TF_UNAVAILABLE and "TF runs in a loop" in outcome.message)

    assert wait_until(is_named), rigs.ask("plain").outcome
