"""Vision-language models that transformers knows by itself, behind the same protocol as our own Molmo.

Slower than `LocalPointer`, which has an engine of its own, but for any family of `vlm_families`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.modeling_layers import GradientCheckpointingLayer

from molmo_ros.molmo.answer import Stopped
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.answer_tokens import AnswerTokens, Digits
from molmo_ros.pointing.confidence import coordinate
from molmo_ros.pointing.formats import PointFormat, Reading
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.prompts import clean_target, label_of
from molmo_ros.pointing.protocol import ModelDurations, Pointing, Reply
from molmo_ros.pointing.vlm_families import Family

#: JSON takes about 30 tokens a point.
MAX_NEW_TOKENS = 512


class TransformersPointer:
    """A model of a family that transformers knows. Threads wait for each other, question by question.

    Args:
        model: with `generate`, in evaluation mode.
        processor: as `family.load_processor` gives it.
        family: how the two are asked.
        point_format: how the model was trained to point; it decides about the question and the reading.
        max_new_tokens: longest answer.

    Raises:
        ValueError: see `Family.check`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        family: Family,
        point_format: PointFormat,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        family.check(point_format)
        self.model, self.processor, self.family, self.point_format = model, processor, family, point_format
        self._decoding = _greedy(model, processor.tokenizer, max_new_tokens)
        self._digits = Digits(processor.tokenizer, min(len(processor.tokenizer), _vocabulary(model)))
        self._commands = [token.lower() for token in processor.tokenizer.get_added_vocab()]
        self._should_stop: Callable[[], bool] = lambda: False
        self._turn = threading.Lock()
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.register_forward_pre_hook(lambda *_: self._go_on())

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        """See `Pointer.point`. `vision_s` is the time of the resizing only; the image side counts as `prefill_s`.

        Raises:
            PointingError: INVALID_REQUEST too, for a target with a control token of the model in it.
        """
        words = clean_target(target)
        self._refuse_commands(words)
        picture = _picture(image_HW3)
        with self._turn:
            started = time.perf_counter()
            try:
                inputs = self.family.inputs(self.processor, picture, self.point_format.prompt(words))
            except ValueError as error:
                raise PointingError(Code.BAD_IMAGE, f"the model cannot take this picture: {error}") from error
            input_size = self.family.input_size(self.processor, inputs)
            prepared = time.perf_counter()

            def read(answer: AnswerTokens) -> Reading:
                return self.point_format.read(answer.text, input_size)

            def holds_enough(answer: AnswerTokens) -> bool:
                return 0 < max_points <= len(read(answer).points)

            answer, first_s = self._answer(inputs, holds_enough, should_stop)
        reading = read(answer)
        if not reading.points and not reading.absent:
            raise PointingError(
                Code.UNPARSEABLE,
                f"the model's answer holds no point in format {self.point_format.name}: {answer.text[:120]!r}; "
                "ask for a thing it can see, or set point_format to what the model speaks",
            )
        first = answer.probability(0) if self.point_format.first_token_decides else math.nan
        points = self._points(reading, answer, picture.size, words, 1.0 if math.isnan(first) else first)
        return Pointing(
            points=tuple(points[:max_points] if max_points else points),
            answer=answer.text,
            absent=reading.absent,
            durations=ModelDurations(prepared - started, first_s - prepared, time.perf_counter() - first_s),
            absence=first if reading.absent else 1.0 - first,
        )

    def ask(
        self, image_HW3: np.ndarray, question: str, *, should_stop: Callable[[], bool] = lambda: False
    ) -> Reply:
        """See `Pointer.ask`; durations and errors as for `point`."""
        self._refuse_commands(question.lower())
        picture = _picture(image_HW3)
        with self._turn:
            started = time.perf_counter()
            try:
                inputs = self.family.inputs(self.processor, picture, question)
            except ValueError as error:
                raise PointingError(Code.BAD_IMAGE, f"the model cannot take this picture: {error}") from error
            prepared = time.perf_counter()
            answer, first_s = self._answer(inputs, lambda _: False, should_stop)
        sure = [answer.probability(index) for index in range(len(answer.token_ids))]
        return Reply(
            answer.text,
            math.fsum(sure) / len(sure) if sure else math.nan,
            ModelDurations(prepared - started, first_s - prepared, time.perf_counter() - first_s),
        )

    def _refuse_commands(self, words: str) -> None:
        for command in self._commands:
            if command in words:
                raise PointingError(
                    Code.INVALID_REQUEST,
                    f"the request holds {command}, a command to the model; use plain words",
                )

    def _answer(
        self, inputs: Any, holds_enough: Callable[[AnswerTokens], bool], should_stop: Callable[[], bool]
    ) -> tuple[AnswerTokens, float]:
        """The model's greedy answer, and the time of its first token."""
        self._should_stop = should_stop
        listener = _Listener(lambda ids: holds_enough(self._tokens(ids, ())))
        try:
            with torch.inference_mode():
                spoken: Any = self.model.generate(
                    **inputs.to(self.model.device, self.model.dtype),
                    generation_config=self._decoding,
                    stopping_criteria=StoppingCriteriaList([listener]),
                )
        except Stopped as error:
            raise PointingError(Code.CANCELLED, str(error)) from error
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise PointingError(
                Code.OUT_OF_MEMORY,
                f"no memory left on {self.model.device}; give a smaller picture or load a smaller model",
            ) from error
        finally:
            self._should_stop = lambda: False
        logits = [row[0] for row in spoken.logits]
        return self._tokens(spoken.sequences[0, -len(logits) :].tolist(), logits), listener.first_s

    def _tokens(self, token_ids: list[int], logits_NV: list[Tensor] | tuple[()]) -> AnswerTokens:
        return AnswerTokens(
            token_ids,
            logits_NV,
            self.processor.tokenizer,
            self._digits,
            keeps_special_tokens=self.point_format.in_special_tokens,
        )

    def _go_on(self) -> None:
        if self._should_stop():
            raise Stopped("stopped while the model was answering")

    def _points(
        self, reading: Reading, answer: AnswerTokens, size: tuple[int, int], words: str, pointing: float
    ) -> list[Point2D]:
        width, height = size
        points = []
        for index, point in enumerate(reading.points):
            x = coordinate([token for _, token in answer.number(point.x_span)], edge=point.extent.x)
            y = coordinate([token for _, token in answer.number(point.y_span)], edge=point.extent.y)
            points.append(
                Point2D(
                    u=min(point.x / 100 * width, width - 1.0),
                    v=min(point.y / 100 * height, height - 1.0),
                    label=point.label or label_of(words),
                    confidence=min(pointing * x.near * y.near, 1.0),
                    sigma_px=math.hypot(x.sigma / 100 * width, y.sigma / 100 * height) / math.sqrt(2),
                    index=index,
                )
            )
        return points


class _Listener(StoppingCriteria):
    """Notes when the first token came, and ends the answer once it holds enough."""

    def __init__(self, holds_enough: Callable[[list[int]], bool]) -> None:
        self.holds_enough, self.first_s, self._prompt = holds_enough, math.nan, 0

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if math.isnan(self.first_s):
            self.first_s, self._prompt = time.perf_counter(), input_ids.shape[1] - 1
        enough = self.holds_enough(input_ids[0, self._prompt :].tolist())
        return torch.full((len(input_ids),), enough, device=input_ids.device, dtype=torch.bool)


def _greedy(model: PreTrainedModel, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """The likeliest token each time; what a checkpoint asks for besides (sampling, penalties, beams) is left out.

    A penalty for what was said before would bend coordinates.
    """
    stored = model.generation_config
    assert stored is not None
    ends = stored.eos_token_id if isinstance(stored.eos_token_id, list) else [stored.eos_token_id]
    end_ids = sorted({token for token in [*ends, tokenizer.eos_token_id] if token is not None})
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=end_ids,
        pad_token_id=end_ids[0] if stored.pad_token_id is None else stored.pad_token_id,
        bos_token_id=stored.bos_token_id,
        decoder_start_token_id=stored.decoder_start_token_id,
        forced_bos_token_id=stored.forced_bos_token_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    # generate() fills gaps from what the model stores.
    model.generation_config = greedy
    return greedy


def _vocabulary(model: PreTrainedModel) -> int:
    """How many logits the model gives."""
    return int(model.get_output_embeddings().weight.shape[0])


def _picture(image_HW3: np.ndarray) -> Image.Image:
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or not image_HW3.size:
        raise PointingError(
            Code.BAD_IMAGE,
            f"an image of {image_HW3.dtype} {image_HW3.shape}; give uint8 of HxWx3, RGB",
        )
    return Image.fromarray(image_HW3)
