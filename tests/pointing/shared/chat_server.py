"""A chat server on this machine that speaks OpenAI's interface by a script, for tests of what asks it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ONE_POINT = ' <point x="61.5" y="40.0" alt="mug">mug</point>'


def completion(text: str, probability: float | None = None, doubt: float = 0.0) -> dict[str, Any]:
    """A reply; with a probability, every character is a token that had it, and "6" might have been "9"."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if probability is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": c,
                    "logprob": math.log(1 - doubt if c == "6" else probability),
                    "top_logprobs": [{"token": "9", "logprob": math.log(doubt)}]
                    if c == "6" and doubt
                    else [],
                }
                for c in text
            ]
        }
    return {"choices": [choice]}


class Server:
    """Answers with the scripted (status, headers, body), the last one again and again; keeps what it was sent."""

    def __init__(self, *script: tuple[int, dict[str, str], Any]) -> None:
        self.script, self.hold = list(script), threading.Event()
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.hold.set()
        self.asked = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append((self.path, dict(self.headers), json.loads(body)))
                server.asked.set()
                server.hold.wait(20)
                status, headers, reply = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(data)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except ConnectionError:
                    return

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"


@contextmanager
def served(*script: tuple[int, dict[str, str], Any]) -> Iterator[Server]:
    server = Server(*script)
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()
