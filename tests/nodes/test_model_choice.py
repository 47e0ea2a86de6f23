"""The model that the parameters name: a folder, the hub, an endpoint; what is wrong is said, and no key is shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from molmo_ros.nodes.model_choice import load_pointer_of
from molmo_ros.nodes.parameter_table import Value
from molmo_ros.nodes.parameters import PARAMETERS, PointingParameters
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.pointing.remote_pointer import RemotePointer

DEFAULTS: dict[str, Value] = {parameter.name: parameter.default for parameter in PARAMETERS}
PICTURE = np.full((100, 200, 3), 90, np.uint8)


def chosen(**values: Value) -> PointingParameters:
    return PointingParameters.from_values(DEFAULTS | values)


def remote(url: str, **values: Value) -> PointingParameters:
    return chosen(backend="remote", remote_url=url, model="molmo", point_format="molmo", **values)


def refusal(parameters: PointingParameters) -> str:
    with pytest.raises(PointingError) as caught:
        load_pointer_of(parameters, lambda _: None)
    assert caught.value.outcome.code == Code.MODEL_UNAVAILABLE
    return caught.value.outcome.message


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the keys that it was sent."""
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers.get("Authorization", ""))
            answer = {"role": "assistant", "content": ' <point x="50" y="25" alt="mug">mug</point>'}
            body = json.dumps({"choices": [{"message": answer}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", keys
    server.shutdown()
    server.server_close()


def test_nothing_named_means_the_bundled_model_and_loading_tells_what_it_is_at() -> None:
    told: list[str] = []
    pointer = load_pointer_of(chosen(max_crops=3), told.append)
    assert isinstance(pointer, LocalPointer)
    assert pointer.processor.image_processor.max_crops == 3
    assert any("reading 0.0" in each and "GB from" in each for each in told)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"there is no folder {tmp_path / 'gone'}" in refusal(chosen(model=str(tmp_path / "gone")))


def test_the_hub_is_asked_only_when_that_is_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refusal(chosen(model="nobody/no-such-model"))
    assert "no model of that name on this machine" in message and "set allow_downloads" in message


@pytest.mark.parametrize("way", ["variable", "file"])
def test_a_remote_model_is_asked_with_the_key(
    endpoint: tuple[str, list[str]], way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, keys = endpoint
    if way == "variable":
        monkeypatch.setenv("MY_KEY", "open sesame")
        parameters = remote(url, remote_key_variable="MY_KEY")
    else:
        file = tmp_path / "key"
        file.touch(mode=0o600)
        file.write_text("open sesame\n")
        parameters = remote(url, remote_key_file=str(file))
    pointer = load_pointer_of(parameters, lambda _: None)
    assert isinstance(pointer, RemotePointer) and "sesame" not in repr(pointer.endpoint)
    (point,) = pointer.point(PICTURE, "the mug").points
    assert (point.u, point.v) == (100.0, 25.0)
    assert pointer.ask(PICTURE, "What is it?").answer.strip().startswith("<point")
    assert keys == 2 * ["Bearer open sesame"]


def test_a_key_that_is_not_there_or_open_to_others_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = "https://models.example/v1"
    monkeypatch.delenv("MY_KEY", raising=False)
    assert "MY_KEY (remote_key_variable) is not set" in refusal(remote(url, remote_key_variable="MY_KEY"))
    file = tmp_path / "key"
    assert "cannot be read" in refusal(remote(url, remote_key_file=str(file)))
    file.write_text("open sesame")
    file.chmod(0o644)
    message = refusal(remote(url, remote_key_file=str(file)))
    assert f"chmod 600 {file}" in message and "sesame" not in message
    file.chmod(0o600)
    file.write_text("\n")
    assert "is empty" in refusal(remote(url, remote_key_file=str(file)))


def test_pictures_do_not_leave_this_machine_unencrypted() -> None:
    assert "use https" in refusal(remote("http://models.example/v1"))


def test_a_format_in_pixels_cannot_be_remote() -> None:
    parameters = chosen(
        backend="remote", remote_url="https://models.example/v1", model="m", point_format="qwen2_5_vl"
    )
    assert "whose size no endpoint tells" in refusal(parameters)
