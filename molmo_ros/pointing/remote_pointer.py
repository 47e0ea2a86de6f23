"""A model behind an OpenAI-compatible endpoint: vLLM, SGLang, Ray Serve, a cloud.

One question is one `POST {base_url}/chat/completions` with the picture as a data URL. The answer goes through the
same parser as a local one; confidence comes from the token log probabilities if the server gives them, else it is
NaN. Connections are encrypted and certificates checked unless the server is this machine itself.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np
from PIL import Image

from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.confidence import Alternative, NumberToken, coordinate, is_numeric
from molmo_ros.pointing.formats import PointFormat, Reading
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.prompts import clean_target, label_of
from molmo_ros.pointing.protocol import ModelDurations, Pointing, Reply

#: How often a stop is looked for while the server works, in seconds.
_LOOK_EVERY_S = 0.02

#: Answers of a server that mean: try again.
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    `base_url`: up to and with `/v1`. `model`: as the server calls it. `api_key`: sent as a bearer token, "" = none.
    `timeout_s`: for one question, tries and pauses together. `tries`: at most so many. `max_new_tokens`: of an
    answer. `jpeg_quality`: 1..100, 0 = lossless PNG. `logprobs`: how many alternatives to ask for at each token,
    0 = none (some servers refuse the question).
    """

    base_url: str
    model: str
    api_key: str = ""
    timeout_s: float = 30.0
    tries: int = 3
    max_new_tokens: int = 256
    jpeg_quality: int = 90
    logprobs: int = 10

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url {self.base_url!r} is no address; it looks like https://host/v1")
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                f"base_url {self.base_url!r} would send pictures and key unencrypted to another machine; use https, "
                "or a tunnel that ends on this machine"
            )
        if not self.model:
            raise ValueError("an endpoint needs the model's name, as the server lists it under /models")

    def __repr__(self) -> str:
        """Without the key."""
        return f"Endpoint({self.base_url!r}, {self.model!r})"


class RemotePointer:
    """Points by asking an endpoint. Safe to share between threads; a stop closes the connection at once."""

    def __init__(self, endpoint: Endpoint, point_format: PointFormat) -> None:
        if point_format.extent is None:
            raise ValueError(
                f"{point_format.name} points in pixels of a resized picture, whose size no endpoint tells; choose a "
                "model that points in percent or per mille"
            )
        self.endpoint, self.point_format = endpoint, point_format

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        """See `Pointer.point`. The whole time of the remote model counts as `decode_s`, the encoding as `vision_s`.

        Raises:
            PointingError: REMOTE_ERROR with the server's own words, TIMEOUT, besides those of the protocol.
        """
        words = clean_target(target)
        started = time.perf_counter()
        request = self._request(image_HW3, self.point_format.prompt(words))
        if self.point_format.in_special_tokens:
            request["skip_special_tokens"] = False
        encoded = time.perf_counter()
        reply = asyncio.run(self._ask(request, should_stop))
        answer, tokens = _read_reply(reply)
        reading = self.point_format.read(answer)
        if not reading.points and not reading.absent:
            raise PointingError(
                Code.UNPARSEABLE,
                f"the model's answer holds no point in format {self.point_format.name}: {answer[:120]!r}; ask for a "
                "thing it can see, or set point_format to what the model speaks",
            )
        height, width = image_HW3.shape[:2]
        first = math.nan
        if self.point_format.first_token_decides and tokens:
            first = tokens[0].probability
        points = self._points(reading, tokens, (width, height), words, first)
        return Pointing(
            points=tuple(points[:max_points] if max_points else points),
            answer=answer,
            absent=reading.absent,
            durations=ModelDurations(encoded - started, 0.0, time.perf_counter() - encoded),
            absence=first if reading.absent else 1.0 - first,
        )

    def ask(
        self, image_HW3: np.ndarray, question: str, *, should_stop: Callable[[], bool] = lambda: False
    ) -> Reply:
        """See `Pointer.ask`; durations and errors as for `point`."""
        started = time.perf_counter()
        request = self._request(image_HW3, question)
        encoded = time.perf_counter()
        answer, tokens = _read_reply(asyncio.run(self._ask(request, should_stop)))
        sure = [token.probability for token in tokens]
        return Reply(
            answer,
            math.fsum(sure) / len(sure) if sure else math.nan,
            ModelDurations(encoded - started, 0.0, time.perf_counter() - encoded),
        )

    def _request(self, image_HW3: np.ndarray, prompt: str) -> dict[str, Any]:
        endpoint = self.endpoint
        request: dict[str, Any] = {
            "model": endpoint.model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": _data_url(image_HW3, endpoint.jpeg_quality)},
                        },
                        {"type": "text", "text": prompt},
                    ],
                }
            ],
            "temperature": 0,
            "max_tokens": endpoint.max_new_tokens,
        }
        if endpoint.logprobs:
            request |= {"logprobs": True, "top_logprobs": endpoint.logprobs}
        return request

    async def _ask(self, request: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
        """The server's reply, or what went wrong; the question is dropped when the caller wants to stop."""
        asking = asyncio.ensure_future(self._ask_until_answered(request))
        while not asking.done():
            if should_stop():
                asking.cancel()
                await asyncio.wait([asking])
                raise PointingError(Code.CANCELLED, "stopped while the remote model was answering")
            await asyncio.wait([asking], timeout=_LOOK_EVERY_S)
        return asking.result()

    async def _ask_until_answered(self, request: Mapping[str, Any]) -> dict[str, Any]:
        endpoint, end_s = self.endpoint, time.monotonic() + self.endpoint.timeout_s
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        why = ""
        async with httpx.AsyncClient(headers=headers, follow_redirects=False) as client:
            for attempt in range(endpoint.tries):
                left_s = end_s - time.monotonic()
                pause_s = 0.2 * 2**attempt * random.uniform(0.5, 1.5)
                try:
                    response = await asyncio.wait_for(
                        client.post(
                            f"{endpoint.base_url.rstrip('/')}/chat/completions", json=request, timeout=left_s
                        ),
                        left_s,
                    )
                except (TimeoutError, httpx.TimeoutException) as error:
                    raise PointingError(
                        Code.TIMEOUT,
                        f"{endpoint.base_url} did not answer within {endpoint.timeout_s:g} s; "
                        f"{why or 'it may still be loading'}",
                    ) from error
                except httpx.HTTPError as error:
                    why = f"{type(error).__name__}: {error}"
                else:
                    if response.status_code not in _BUSY:
                        return _checked(response, endpoint)
                    why = f"it says {response.status_code}: {_excerpt(response)}"
                    pause_s = max(pause_s, _asked_pause_s(response))
                if attempt + 1 == endpoint.tries or time.monotonic() + pause_s >= end_s:
                    break
                await asyncio.sleep(pause_s)
        raise PointingError(
            Code.REMOTE_ERROR, f"{endpoint.base_url} did not answer after {attempt + 1} tries: {why}"
        )

    def _points(
        self,
        reading: Reading,
        tokens: Sequence[_Token],
        size: tuple[int, int],
        words: str,
        pointing: float,
    ) -> list[Point2D]:
        width, height = size
        points = []
        for index, point in enumerate(reading.points):
            x, y = (
                coordinate(_number(tokens, span), edge=edge)
                for span, edge in ((point.x_span, point.extent.x), (point.y_span, point.extent.y))
            )
            certain = 1.0 if math.isnan(pointing) else pointing
            points.append(
                Point2D(
                    u=min(point.x / 100 * width, width - 1.0),
                    v=min(point.y / 100 * height, height - 1.0),
                    label=point.label or label_of(words),
                    confidence=min(certain * x.near * y.near, 1.0),
                    sigma_px=math.hypot(x.sigma / 100 * width, y.sigma / 100 * height) / math.sqrt(2),
                    index=index,
                )
            )
        return points


@dataclass(frozen=True)
class _Token:
    """One token of a reply: where its text begins in the answer, and what else could have stood there."""

    start: int
    text: str
    probability: float
    alternatives: tuple[Alternative, ...]


def _number(tokens: Sequence[_Token], span: tuple[int, int]) -> list[NumberToken]:
    return [
        NumberToken(token.text, token.probability, token.alternatives)
        for token in tokens
        if span[0] <= token.start and token.start + len(token.text) <= span[1] and is_numeric(token.text)
    ]


def _read_reply(reply: dict[str, Any]) -> tuple[str, list[_Token]]:
    """The answer and its tokens; no tokens where the server gives none or their texts do not make up the answer."""
    try:
        choice = reply["choices"][0]
        answer = choice["message"]["content"]
        listed = (choice.get("logprobs") or {}).get("content") or []
        tokens, start = [], 0
        for entry in listed:
            others = tuple(
                Alternative(other["token"], math.exp(other["logprob"]))
                for other in entry.get("top_logprobs") or ()
                if is_numeric(other["token"]) and other["token"] != entry["token"]
            )
            tokens.append(_Token(start, entry["token"], math.exp(entry["logprob"]), others))
            start += len(entry["token"])
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise PointingError(
            Code.REMOTE_ERROR,
            f"the reply is not a chat completion ({type(error).__name__}: {error}): {str(reply)[:200]}",
        ) from error
    if not isinstance(answer, str):
        raise PointingError(Code.REMOTE_ERROR, f"the reply holds no text: {str(reply)[:200]}")
    spelt = "".join(token.text for token in tokens)
    return answer, tokens if spelt.startswith(answer) else []


def _checked(response: httpx.Response, endpoint: Endpoint) -> dict[str, Any]:
    status = response.status_code
    if status in (401, 403):
        raise PointingError(
            Code.REMOTE_ERROR,
            f"{endpoint.base_url} refuses the key ({status}): {_excerpt(response)}; set another one",
        )
    if status == 404:
        raise PointingError(
            Code.REMOTE_ERROR,
            f"{endpoint.base_url} does not know this address or the model {endpoint.model!r}: {_excerpt(response)}; "
            "its /models lists what it has",
        )
    if status != 200:
        raise PointingError(Code.REMOTE_ERROR, f"{endpoint.base_url} says {status}: {_excerpt(response)}")
    try:
        reply = response.json()
    except ValueError as error:
        raise PointingError(
            Code.REMOTE_ERROR, f"{endpoint.base_url} sends no JSON: {_excerpt(response)}"
        ) from error
    if not isinstance(reply, dict):
        raise PointingError(Code.REMOTE_ERROR, f"the reply is not a chat completion: {str(reply)[:200]}")
    return reply


def _asked_pause_s(response: httpx.Response) -> float:
    """What the server asks for in Retry-After, in seconds; dates are not waited for."""
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isdigit() else 0.0


def _excerpt(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:200]


def _data_url(image_HW3: np.ndarray, jpeg_quality: int) -> str:
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or not image_HW3.size:
        raise PointingError(
            Code.BAD_IMAGE, f"an image of {image_HW3.dtype} {image_HW3.shape}; give uint8 of HxWx3, RGB"
        )
    kind, options = ("jpeg", {"quality": jpeg_quality}) if jpeg_quality else ("png", {})
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
