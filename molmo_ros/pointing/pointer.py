"""Who answers "point to the red mug": a protocol, and the answer of a model on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.molmo.loading import load_checkpoint
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.confidence import NumberToken, coordinate, is_numeric
from molmo_ros.pointing.grammar import SpokenPoint, says_absent, spoken_points
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.prompts import clean_target, pointing_prompt

#: AI2's own limit for pointing; enough for about ten points.
MAX_NEW_TOKENS = 192


@dataclass(frozen=True)
class ModelDurations:
    """Seconds the model spent: image side (tiling included), first pass over the prompt, then token by token
    (reading the answer included)."""

    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Pointing:
    """What a model said. `absent`: it said the thing is not there, and `points` is empty."""

    points: tuple[Point2D, ...]
    answer: str
    absent: bool
    durations: ModelDurations


class Pointer(Protocol):
    """Anything that finds things in pictures."""

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        """Points at every `target` in an RGB picture (uint8).

        Args:
            image_HW3: the picture.
            target: what to find, such as "the red mug".
            max_points: at most this many points, 0 = all.
            should_stop: asked at every token; True ends the work.

        Raises:
            PointingError: EMPTY_TARGET, TARGET_TOO_LONG, BAD_IMAGE, UNPARSEABLE, CANCELLED.
        """
        ...


@dataclass(frozen=True)
class Decoded:
    """Tokens of an answer with the probabilities [N, V] they were chosen from."""

    token_ids: tuple[int, ...]
    probabilities_NV: Tensor
    durations: ModelDurations


class LocalPointer:
    """A Molmo checkpoint on this machine. One question at a time; not for several threads at once."""

    def __init__(self, model: MolmoForConditionalGeneration, processor: MolmoProcessor) -> None:
        self.model = model
        self.processor = processor
        tokenizer = processor.tokenizer
        texts = [tokenizer.decode([token]) for token in range(model.config.embedding_size)]
        self._numeric = {token: text for token, text in enumerate(texts) if is_numeric(text)}
        self._numeric_ids = torch.tensor(sorted(self._numeric))

    @classmethod
    def from_folder(
        cls, folder: Path | str, device: str = "auto", dtype: str = "auto", quantization: str = "none"
    ) -> LocalPointer:
        """Load a checkpoint folder; raises `molmo.loading.CheckpointError` with one clear line."""
        return cls(*load_checkpoint(Path(folder), device, dtype, quantization))

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        """See `Pointer.point`."""
        words = clean_target(target)
        started = time.perf_counter()
        try:
            inputs = self.processor(images=image_HW3, text=pointing_prompt(words))
        except ValueError as error:
            raise PointingError(Code.BAD_IMAGE, str(error)) from error
        decoded = self._decode(dict(inputs), should_stop, started)
        decoding = time.perf_counter()
        answer = self.processor.decode(decoded.token_ids)
        spoken = spoken_points(answer)
        if not spoken and not says_absent(answer):
            raise PointingError(
                Code.UNPARSEABLE,
                f"the model's answer holds no point: {answer[:120]!r}; ask for a thing it can see",
            )
        points = self._points(spoken, decoded, image_HW3.shape[:2], words)
        return Pointing(
            points=tuple(points[:max_points] if max_points else points),
            answer=answer,
            absent=not spoken,
            durations=replace(
                decoded.durations, decode_s=decoded.durations.decode_s + time.perf_counter() - decoding
            ),
        )

    def _decode(self, inputs: dict[str, Tensor], should_stop: Callable[[], bool], started: float) -> Decoded:
        """Greedy answer, token by token, so that a stop is seen at each; `started` is when vision began."""
        device, core = self.model.device, self.model.model
        inputs = {name: value.to(device) for name, value in inputs.items()}
        with torch.inference_mode():
            _go_on(should_stop)
            image_tokens = core.vision_backbone(inputs["images"], inputs["image_masks"])
            seen = time.perf_counter()
            _go_on(should_stop)
            cache = DynamicCache(config=self.model.config.text_config)
            embeds = core.embed(inputs["input_ids"], image_tokens, inputs["image_input_idx"])
            logits = self._next_logits(embeds, cache)
            read = time.perf_counter()
            token_ids: list[int] = []
            probabilities: list[Tensor] = []
            for _ in range(MAX_NEW_TOKENS):
                _go_on(should_stop)
                token = int(logits.argmax())
                if token == self.processor.eos_token_id:
                    break
                token_ids.append(token)
                probabilities.append(logits.float().softmax(-1).cpu())
                logits = self._next_logits(core.wte(torch.tensor([[token]], device=device)), cache)
        done = time.perf_counter()
        width = self.model.config.embedding_size
        return Decoded(
            tuple(token_ids),
            torch.stack(probabilities) if probabilities else torch.zeros(0, width),
            ModelDurations(seen - started, read - seen, done - read),
        )

    def _next_logits(self, embeds_1SD: Tensor, cache: DynamicCache) -> Tensor:
        hidden = self.model.model.language_model(
            inputs_embeds=embeds_1SD, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits_V: Tensor = self.model.lm_head(hidden[0, -1])
        return logits_V

    def _points(
        self, spoken: Sequence[SpokenPoint], decoded: Decoded, size: tuple[int, int], words: str
    ) -> list[Point2D]:
        height, width = size
        starts = _token_starts(self.processor, decoded.token_ids)
        # The first token decides between pointing and "There are none."
        pointing = float(decoded.probabilities_NV[0, decoded.token_ids[0]]) if spoken else 0.0
        points = []
        for index, point in enumerate(spoken):
            x = coordinate(self._number(point.x_span, starts, decoded))
            y = coordinate(self._number(point.y_span, starts, decoded))
            sigma_px = float(np.hypot(x.sigma / 100 * width, y.sigma / 100 * height) / np.sqrt(2))
            points.append(
                Point2D(
                    u=min(point.x / 100 * width, width - 1.0),
                    v=min(point.y / 100 * height, height - 1.0),
                    label=point.label or words,
                    confidence=min(pointing * x.near * y.near, 1.0),
                    sigma_px=sigma_px,
                    index=index,
                )
            )
        return points

    def _number(self, span: tuple[int, int], starts: Sequence[int], decoded: Decoded) -> list[NumberToken]:
        """The tokens that spell the number at `span` of the answer, with what else could have stood there."""
        tokens = []
        for position, (start, end) in enumerate(zip(starts, [*starts[1:], span[1]], strict=True)):
            if start < span[0] or start >= span[1] or start == end:
                continue
            chosen = decoded.token_ids[position]
            row = decoded.probabilities_NV[position]
            others = tuple(
                (self._numeric[int(token)], float(p))
                for token, p in zip(self._numeric_ids, row[self._numeric_ids], strict=True)
                if int(token) != chosen and p > 1e-4
            )
            text = self._numeric.get(chosen)
            if text is None:
                continue
            tokens.append(NumberToken(text, float(row[chosen]), others))
        return tokens


def _go_on(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise PointingError(Code.CANCELLED, "stopped while the model was answering")


def _token_starts(processor: MolmoProcessor, token_ids: Sequence[int]) -> list[int]:
    """Where each token begins in the decoded answer, in characters."""
    starts, length = [], 0
    for count in range(1, len(token_ids) + 1):
        starts.append(length)
        length = len(processor.decode(token_ids[:count]))
    return starts
