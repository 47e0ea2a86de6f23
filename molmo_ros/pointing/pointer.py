"""A Molmo on this machine answers "point to the red mug"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.molmo.answer import ContextExceeded, OutOfMemory, Step, Stopped
from molmo_ros.molmo.engine import MAX_NEW_TOKENS, EncodedImage, Engine, ImageInputs
from molmo_ros.molmo.loading import CheckpointError, load_checkpoint
from molmo_ros.molmo.processing import format_prompt
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.answer_tokens import AnswerTokens, Digits
from molmo_ros.pointing.calibration import Calibration
from molmo_ros.pointing.confidence import Alternative, Branch, NumberToken, branches, coordinate
from molmo_ros.pointing.grammar import SpokenPoint, says_absent, spoken_points
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.point_controller import PointController
from molmo_ros.pointing.prompts import clean_target, label_of, pointing_prompt
from molmo_ros.pointing.protocol import ModelDurations, OnProgress, Pointing, Reply

#: Of an answer in words.
MAX_ANSWER_TOKENS = 448


@dataclass(frozen=True)
class Look:
    """A picture that the model has read; any number of questions may follow. `size`: width and height, pixels."""

    encoded: EncodedImage
    size: tuple[int, int]
    vision_s: float

    @property
    def nbytes(self) -> int:
        return self.encoded.nbytes

    @property
    def prefill_s(self) -> float:
        return self.encoded.prefill_s


@dataclass(frozen=True)
class Settings:
    """How answers are decoded. Points are the same with every setting; time is not.

    `stops_early`: do not wait for the label behind the coordinates. `foresees`: feed what Molmo's grammar is
    bound to say in chunks. `follows_doubts`: ask the model how likely other coordinates would have gone on.
    """

    stops_early: bool = True
    foresees: bool = True
    follows_doubts: bool = True


class LocalPointer:
    """A Molmo checkpoint on this machine. Threads wait for each other, question by question."""

    def __init__(
        self,
        model: MolmoForConditionalGeneration,
        processor: MolmoProcessor,
        settings: Settings | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.settings, self.calibration = settings or Settings(), calibration or Calibration()
        self.engine = Engine(model, [processor.eos_token_id])
        self._digits = Digits(processor.tokenizer, model.config.embedding_size)

    @classmethod
    def from_folder(
        cls, folder: Path | str, device: str = "auto", dtype: str = "auto", quantization: str = "none"
    ) -> LocalPointer:
        """Load a checkpoint folder; raises `molmo.loading.CheckpointError` with one clear line."""
        model, processor = load_checkpoint(Path(folder), device, dtype, quantization)
        try:
            calibration = Calibration.from_folder(Path(folder))
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        return cls(model, processor, calibration=calibration)

    def look(self, image_HW3: np.ndarray, *, should_stop: Callable[[], bool] = lambda: False) -> Look:
        """Read a picture, for questions to come.

        Raises:
            PointingError: BAD_IMAGE, CANCELLED, OUT_OF_MEMORY.
        """
        started = time.perf_counter()
        try:
            given = self.processor(images=image_HW3, text="", formatted=True)
        except ValueError as error:
            raise PointingError(Code.BAD_IMAGE, str(error)) from error
        inputs = ImageInputs(
            *(given[name][0] for name in ("input_ids", "images", "image_masks", "image_input_idx"))
        )
        tiling_s = time.perf_counter() - started
        with _as_pointing_errors():
            encoded = self.engine.encode(inputs, should_stop)
        height, width = image_HW3.shape[:2]
        return Look(encoded, (width, height), tiling_s + encoded.vision_s)

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
        look = self.look(image_HW3, should_stop=should_stop)
        pointing = self.point_in(look, words, max_points=max_points, should_stop=should_stop)
        durations = pointing.durations
        return replace(
            pointing,
            durations=ModelDurations(
                look.vision_s, look.encoded.prefill_s + durations.prefill_s, durations.decode_s
            ),
        )

    def point_in(
        self,
        look: Look,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: OnProgress | None = None,
    ) -> Pointing:
        """As `point`, in a picture that was looked at before; `on_progress` hears of every token."""
        words = clean_target(target)
        prompt = self._prompt(words)
        controller = self._controller(max_points)
        started = time.perf_counter()
        steps: list[Step] = []
        first_s = started
        so_far: tuple[Point2D, ...] = ()
        if on_progress is not None:
            on_progress("prefill", 0, ())
        with _as_pointing_errors():
            for step in self.engine.ask(
                look.encoded, prompt, controller, max_new_tokens=MAX_NEW_TOKENS, should_stop=should_stop
            ):
                if not steps:
                    first_s = time.perf_counter()
                steps.append(step)
                if on_progress is not None:
                    so_far = self._points_so_far(so_far, steps, look, words)
                    on_progress("decode", len(steps), so_far)
            answer = self._answer_tokens(steps)
            pointing = self._read(answer, look, prompt, words, max_points)
        done_s = time.perf_counter()
        return replace(pointing, durations=ModelDurations(0.0, first_s - started, done_s - first_s))

    def point_many(
        self,
        look: Look | Sequence[Look],
        targets: Sequence[str],
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Pointing | PointingError]:
        """Several things at once, all in one picture or each in its own, in one batch.

        An answer that holds no point comes back as the error that `point` would have raised.
        """
        cleaned = [clean_target(target) for target in targets]
        looks = [look] * len(cleaned) if isinstance(look, Look) else list(look)
        prompts = [self._prompt(words) for words in cleaned]
        controllers = [self._controller(max_points) for _ in cleaned]
        started = time.perf_counter()
        with _as_pointing_errors():
            answers = self.engine.ask_many(
                [look.encoded for look in looks],
                prompts,
                controllers,
                max_new_tokens=MAX_NEW_TOKENS,
                should_stop=should_stop,
            )
        each_s = (time.perf_counter() - started) / max(len(cleaned), 1)
        pointings: list[Pointing | PointingError] = []
        for steps, at, prompt, words in zip(answers, looks, prompts, cleaned, strict=True):
            try:
                pointing = self._read(self._answer_tokens(steps), at, prompt, words, max_points)
                pointings.append(replace(pointing, durations=ModelDurations(0.0, 0.0, each_s)))
            except PointingError as error:
                pointings.append(error)
        return pointings

    def ask(
        self, image_HW3: np.ndarray, question: str, *, should_stop: Callable[[], bool] = lambda: False
    ) -> Reply:
        """See `Pointer.ask`."""
        look = self.look(image_HW3, should_stop=should_stop)
        reply = self.ask_in(look, question, should_stop=should_stop)
        prefill_s = look.encoded.prefill_s + reply.durations.prefill_s
        return replace(reply, durations=ModelDurations(look.vision_s, prefill_s, reply.durations.decode_s))

    def ask_in(
        self,
        look: Look,
        question: str,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """As `ask`, about a picture that was looked at before; `on_progress` hears of every token."""
        prompt = list(self.processor.tokenizer.encode(format_prompt(question), add_special_tokens=False))
        started = first_s = time.perf_counter()
        token_ids: list[int] = []
        probabilities: list[float] = []
        if on_progress is not None:
            on_progress("prefill", 0, ())
        with _as_pointing_errors():
            for step in self.engine.ask(
                look.encoded, prompt, max_new_tokens=MAX_ANSWER_TOKENS, should_stop=should_stop
            ):
                if not token_ids:
                    first_s = time.perf_counter()
                token_ids.append(step.token_id)
                probabilities.append(float(step.logits_V.float().softmax(-1)[step.token_id]))
                if on_progress is not None:
                    on_progress("decode", len(token_ids), ())
        return Reply(
            self.processor.decode(token_ids),
            float(np.mean(probabilities)) if probabilities else float("nan"),
            ModelDurations(0.0, first_s - started, time.perf_counter() - first_s),
        )

    def _points_so_far(
        self, known: tuple[Point2D, ...], steps: Sequence[Step], look: Look, words: str
    ) -> tuple[Point2D, ...]:
        """Points of an unfinished answer, their confidence without what other beginnings would have led to."""
        width, height = look.size
        answer = self._answer_tokens(steps)
        spoken = spoken_points(answer.text)
        points = list(known)
        for index, point in enumerate(spoken[len(known) :], start=len(known)):
            x, y = (
                coordinate([token for _, token in answer.number(span)])
                for span in (point.x_span, point.y_span)
            )
            points.append(
                Point2D(
                    u=min(point.x / 100 * width, width - 1.0),
                    v=min(point.y / 100 * height, height - 1.0),
                    label=point.label or label_of(words),
                    confidence=min(answer.probability(0) * x.near * y.near, 1.0),
                    sigma_px=float("nan"),
                    index=index,
                )
            )
        return tuple(points)

    def _prompt(self, words: str) -> list[int]:
        return list(
            self.processor.tokenizer.encode(format_prompt(pointing_prompt(words)), add_special_tokens=False)
        )

    def _controller(self, max_points: int) -> PointController:
        return PointController(
            self.processor.tokenizer,
            max_points,
            foresees=self.settings.foresees,
            stops_early=self.settings.stops_early,
        )

    def _answer_tokens(self, steps: Sequence[Step]) -> AnswerTokens:
        return AnswerTokens(
            [step.token_id for step in steps],
            [step.logits_V for step in steps],
            self.processor.tokenizer,
            self._digits,
        )

    def _read(
        self, answer: AnswerTokens, look: Look, prompt: Sequence[int], words: str, max_points: int
    ) -> Pointing:
        spoken = spoken_points(answer.text)
        absent = says_absent(answer.text)
        if not spoken and not absent:
            raise PointingError(
                Code.UNPARSEABLE,
                f"the model's answer holds no point: {answer.text[:120]!r}; ask for a thing it can see",
            )
        # The first token decides between pointing and "There are none."
        first = answer.probability(0)
        wanted = spoken[:max_points] if max_points else spoken
        return Pointing(
            points=tuple(self._points(wanted, answer, look, prompt, words, first)),
            answer=answer.text,
            absent=absent,
            durations=ModelDurations(),
            absence=self.calibration.of_absence(first if absent else 1.0 - first),
        )

    def _points(
        self,
        spoken: Sequence[SpokenPoint],
        answer: AnswerTokens,
        look: Look,
        prompt: Sequence[int],
        words: str,
        pointing: float,
    ) -> list[Point2D]:
        width, height = look.size
        numbers = [answer.number(span) for point in spoken for span in (point.x_span, point.y_span)]
        followed = self._follow(numbers, answer, look, prompt)
        tokens = [[token for _, token in number] for number in numbers]
        spread = [coordinate(of, after) for of, after in zip(tokens, followed, strict=True)]
        points = []
        for index, (point, x, y) in enumerate(zip(spoken, spread[::2], spread[1::2], strict=True)):
            sigma_px = float(np.hypot(x.sigma / 100 * width, y.sigma / 100 * height) / np.sqrt(2))
            raw = min(pointing * x.near * y.near, 1.0)
            points.append(
                Point2D(
                    u=min(point.x / 100 * width, width - 1.0),
                    v=min(point.y / 100 * height, height - 1.0),
                    label=point.label or label_of(words),
                    confidence=self.calibration.of_point(raw, sigma_px / width),
                    sigma_px=sigma_px,
                    index=index,
                )
            )
        return points

    def _follow(
        self,
        numbers: Sequence[list[tuple[int, NumberToken]]],
        answer: AnswerTokens,
        look: Look,
        prompt: Sequence[int],
    ) -> list[dict[Branch, tuple[Alternative, ...]]]:
        """How the model would have gone on after likely other beginnings of each number; all in one batch."""
        followed: list[dict[Branch, tuple[Alternative, ...]]] = [{} for _ in numbers]
        if not self.settings.follows_doubts:
            return followed
        wanted = [
            (number, branch, at[branch.place])
            for number, at in enumerate([[index for index, _ in of] for of in numbers])
            for branch in branches([token for _, token in numbers[number]])
            if branch.is_worth_following
        ]
        if wanted:
            logits = self.engine.next_logits(
                look.encoded,
                [[*prompt, *answer.token_ids[:index], branch.token_id] for _, branch, index in wanted],
            )
            for (number, branch, _), row in zip(wanted, logits, strict=True):
                followed[number][branch] = self._digits.alternatives(row.float().softmax(-1).cpu())
        return followed


@contextmanager
def _as_pointing_errors() -> Iterator[None]:
    """Turns what the engine raises into outcomes."""
    try:
        yield
    except Stopped as error:
        raise PointingError(Code.CANCELLED, str(error)) from error
    except OutOfMemory as error:
        raise PointingError(Code.OUT_OF_MEMORY, str(error)) from error
    except ContextExceeded as error:
        raise PointingError(Code.INVALID_REQUEST, str(error)) from error
