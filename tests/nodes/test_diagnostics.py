"""What the node says of itself: counts of outcomes, latencies, and the last word on each camera."""

from __future__ import annotations

from molmo_ros.nodes.answer import Answer, StageSeconds
from molmo_ros.nodes.diagnostics import OK, WARN, RequestLog
from molmo_ros.nodes.image_request import PointingRequest
from molmo_ros.nodes.parameters import PARAMETERS, PointingParameters
from molmo_ros.outcome import Code, Outcome
from molmo_ros_interfaces.srv import PointTo

DEFAULTS = PointingParameters.from_values({entry.name: entry.default for entry in PARAMETERS})
REQUEST = PointingRequest.from_message(PointTo.Request(target="the mug"), DEFAULTS)


def answer(code: Code, message: str = "") -> Answer:
    return Answer(REQUEST, Outcome(code, message), camera="camera", seconds=StageSeconds(total=0.5))


def test_before_the_first_request_all_is_well() -> None:
    requests, camera = RequestLog().statuses("node", ["camera"])
    assert (requests.name, requests.level, requests.message) == ("node: requests", OK, "no requests yet")
    assert (camera.name, camera.level) == ("node: camera camera", OK)


def test_outcomes_are_counted_by_name() -> None:
    log = RequestLog()
    for code in (Code.OK, Code.OK, Code.NOT_FOUND, Code.TIMEOUT):
        log.note(answer(code))
    log.note_refused(Outcome(Code.BUSY))
    requests, _ = log.statuses("node", ["camera"])
    assert requests.message == "5 requests, 2 not answered well"
    counts = {each.key: each.value for each in requests.values}
    assert counts == {"OK": "2", "NOT_FOUND": "1", "BUSY": "1", "TIMEOUT": "1"}


def test_a_camera_that_failed_last_warns_with_the_reason() -> None:
    log = RequestLog()
    log.note(answer(Code.NO_FRAME, "no colour image on /rgb for 3.0 s"))
    _, camera, other = log.statuses("node", ["camera", "wrist"])
    assert camera.level == WARN and camera.message == "no colour image on /rgb for 3.0 s"
    assert other.level == OK
