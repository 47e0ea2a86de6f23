"""A remote model is asked as OpenAI's interface says, read like a local one, and its faults have names."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
from chat_server import ONE_POINT, Server, completion, served
from PIL import Image

from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.formats import point_format
from molmo_ros.pointing.remote_pointer import Endpoint, RemotePointer

PICTURE = np.full((100, 200, 3), 90, np.uint8)


def pointer(server: Server, **settings: Any) -> RemotePointer:
    return RemotePointer(Endpoint(server.url, "molmo-7b-d", **settings), point_format("molmo"))


def code_of(server: Server, **settings: Any) -> tuple[Code, str]:
    with pytest.raises(PointingError) as caught:
        pointer(server, **settings).point(PICTURE, "the mug")
    return caught.value.outcome.code, caught.value.outcome.message


def test_the_question_and_the_picture_reach_the_server() -> None:
    with served((200, {}, completion(ONE_POINT))) as server:
        pointer(server, api_key="secret", jpeg_quality=0).point(PICTURE, "the mug")
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    image, text = body["messages"][0]["content"]
    assert text["text"] == "Point to the mug." and body["temperature"] == 0
    kind, data = image["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(sent, PICTURE)


def test_a_point_comes_back_in_pixels_of_the_picture() -> None:
    with served((200, {}, completion(ONE_POINT))) as server:
        pointing = pointer(server).point(PICTURE, "the mug")
    (point,) = pointing.points
    assert point.u == pytest.approx(123.0) and point.v == pytest.approx(40.0) and point.label == "mug"
    assert math.isnan(point.confidence) and math.isnan(point.sigma_px)


def test_confidence_comes_from_the_servers_probabilities() -> None:
    with served((200, {}, completion(ONE_POINT, 1.0, doubt=0.4))) as server:
        (point,) = pointer(server).point(PICTURE, "the mug").points
    assert point.confidence == pytest.approx(0.6)
    assert point.sigma_px > 5
    assert server.requests[0][2]["logprobs"] is True


def test_none_is_an_answer() -> None:
    with served((200, {}, completion(" There are none.", 0.9))) as server:
        pointing = pointer(server).point(PICTURE, "the mug")
    assert pointing.absent and pointing.absence == pytest.approx(0.9)


def test_at_most_the_wanted_points_are_given() -> None:
    two = ' <points x1="1.0" y1="2.0" x2="3.0" y2="4.0" alt="cups">cups</points>'
    with served((200, {}, completion(two))) as server:
        assert len(pointer(server).point(PICTURE, "cups").points) == 2
        assert len(pointer(server).point(PICTURE, "cups", max_points=1).points) == 1


@pytest.mark.parametrize(
    ("status", "reply", "code", "says"),
    [
        (401, {"error": "bad key"}, Code.REMOTE_ERROR, "refuses the key"),
        (404, "no such model", Code.REMOTE_ERROR, "/models lists"),
        (400, "too long", Code.REMOTE_ERROR, "400: too long"),
        (307, "elsewhere", Code.REMOTE_ERROR, "307"),
        (200, "<html>", Code.REMOTE_ERROR, "no JSON"),
        (200, [1], Code.REMOTE_ERROR, "not a chat completion"),
        (200, {"choices": []}, Code.REMOTE_ERROR, "not a chat completion"),
        (200, {"choices": [{"message": {"content": None}}]}, Code.REMOTE_ERROR, "no text"),
        (200, completion("A fine table."), Code.UNPARSEABLE, "A fine table"),
    ],
)
def test_what_cannot_be_used_is_named(status: int, reply: Any, code: Code, says: str) -> None:
    with served((status, {}, reply)) as server:
        got, message = code_of(server)
        assert got == code and says in message
        assert len(server.requests) == 1


def test_a_busy_server_is_asked_again() -> None:
    script = [(429, {"Retry-After": "0"}, "busy"), (503, {}, "loading"), (200, {}, completion(ONE_POINT))]
    with served(*script) as server:
        assert pointer(server).point(PICTURE, "the mug").points
        assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up() -> None:
    with served((503, {}, "loading weights")) as server:
        code, message = code_of(server, tries=2)
        assert code == Code.REMOTE_ERROR and "2 tries" in message and "loading weights" in message
        assert len(server.requests) == 2


def test_a_pause_longer_than_the_time_left_is_not_waited_for() -> None:
    with served((429, {"Retry-After": "3600"}, "later")) as server:
        code, message = code_of(server, timeout_s=5.0)
        assert code == Code.REMOTE_ERROR and "1 tries" in message


def test_a_silent_server_times_out() -> None:
    with served((200, {}, completion(ONE_POINT))) as server:
        server.hold.clear()
        code, message = code_of(server, timeout_s=0.3)
        assert code == Code.TIMEOUT and "0.3 s" in message


def test_nobody_there_is_a_remote_error() -> None:
    with served((200, {}, "")) as server:
        url = server.url
    lost = RemotePointer(Endpoint(url, "molmo", tries=1), point_format("molmo"))
    with pytest.raises(PointingError) as caught:
        lost.point(PICTURE, "the mug")
    assert caught.value.outcome.code == Code.REMOTE_ERROR and url in caught.value.outcome.message


def test_a_stop_is_seen_while_the_server_works() -> None:
    with served((200, {}, completion(ONE_POINT))) as server:
        server.hold.clear()
        with pytest.raises(PointingError) as caught:
            pointer(server).point(PICTURE, "the mug", should_stop=server.asked.is_set)
        assert caught.value.outcome.code == Code.CANCELLED


def test_a_picture_that_is_none_is_refused_before_anything_is_sent() -> None:
    with served((200, {}, completion(ONE_POINT))) as server:
        with pytest.raises(PointingError) as caught:
            pointer(server).point(PICTURE.astype(np.float32), "the mug")
        assert caught.value.outcome.code == Code.BAD_IMAGE and not server.requests


@pytest.mark.parametrize(
    ("url", "says"),
    [("host/v1", "https://host/v1"), ("http://far.away/v1", "unencrypted"), ("", "no address")],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Endpoint(url, "molmo")


def test_a_format_in_pixels_of_a_resized_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="percent or per mille"):
        RemotePointer(Endpoint("https://host/v1", "qwen"), point_format("qwen2_5_vl"))


def test_the_key_is_never_printed() -> None:
    assert "secret" not in repr(Endpoint("https://host/v1", "molmo", api_key="secret"))
