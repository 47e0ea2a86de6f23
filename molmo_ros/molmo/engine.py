"""The engine: reads a picture once, answers many questions about it, token by token.

    inputs -> encode -> EncodedImage -> ask / ask_many -> steps

It knows tensors and tokens, no words. What a caller wants of an answer it says through a `Controller`: when the
answer holds enough, and which tokens are bound to follow. Bound tokens are fed as one chunk, together with the
token before them, and kept only as far as the model's own probabilities choose them; so an answer never differs
from plain greedy decoding, it only takes fewer passes (Leviathan et al. 2023, arXiv:2211.17192, with the caller's
grammar in the part of the small model).

Shapes in names: B rows, L new tokens, D width, V vocabulary, S slots, P tokens of the prefix, N layers.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .key_values import EnoughRead, KeyValueStore, PlaceWriter, PrefixWriter, Slots, SpanWriter
from .modeling import MolmoForConditionalGeneration

#: Slots are laid out in steps of this many, so that questions of nearly the same length share them.
SLOT_STEP = 128

#: AI2's own limit for pointing; enough for about ten points.
MAX_NEW_TOKENS = 192


class EngineError(RuntimeError):
    """The engine could not do what was asked; it can be asked again."""


class Stopped(EngineError):
    """`should_stop` said so."""


class ContextExceeded(EngineError):
    """Prefix, prompt and answer together are longer than the model's context."""


class OutOfMemory(EngineError):
    """The device had no memory left; the engine gave its own back."""


@dataclass(frozen=True)
class ImageInputs:
    """One picture as the processor gives it, without the batch dimension; or only the start token, without one.

    `input_ids` [P]: start token and image marks. `images` [C, patches, X], `image_masks` [C, patches],
    `image_input_idx` [C, T]: see `MolmoForConditionalGeneration.forward`.
    """

    input_ids: Tensor
    images: Tensor | None = None
    image_masks: Tensor | None = None
    image_input_idx: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture as the model has read it, for any number of questions; never changed after it was made.

    `image_tokens` [C, T, D] or None without a picture; `keys`, `values`: for each layer [1, H, P, E];
    `vision_s`, `prefill_s`: seconds that its making took, image side and language model.
    """

    image_tokens: Tensor | None
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    vision_s: float
    prefill_s: float

    @property
    def num_tokens(self) -> int:
        return self.keys[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes it holds on its devices."""
        image = 0 if self.image_tokens is None else self.image_tokens.nbytes
        return image + sum(t.nbytes for t in (*self.keys, *self.values))


@dataclass(frozen=True)
class Step:
    """One token of an answer.

    `token_id`: the most probable one. `logits_V`: what it was chosen from. `foreseen`: whether the controller
    had it in a chunk, so that it cost no pass of its own.
    """

    token_id: int
    logits_V: Tensor
    foreseen: bool


class Controller(Protocol):
    """What a caller knows of the answer it waits for."""

    def foresee(self, answer: Sequence[int]) -> Sequence[int]:
        """Tokens that will follow if the model keeps to its grammar; none where it has a choice."""
        ...

    def is_complete(self, answer: Sequence[int]) -> bool:
        """Whether nothing that follows can matter any more."""
        ...


class PlainGreedy:
    """Foresees nothing and waits for the end mark."""

    def foresee(self, answer: Sequence[int]) -> Sequence[int]:
        return ()

    def is_complete(self, answer: Sequence[int]) -> bool:
        return False


def _never() -> bool:
    return False


class Engine:
    """Greedy answers of one model. Safe to share between threads: they wait for each other, answer by answer.

    Args:
        model: in evaluation mode, loaded with `attn_implementation` "sdpa" (which uses flash kernels where there
            are any) or "eager".
        end_ids: tokens that end an answer; they are not part of it.
        compiled: run single tokens through `torch.compile` (CUDA graphs on a GPU); see `warm_up`.
    """

    def __init__(
        self, model: MolmoForConditionalGeneration, end_ids: Sequence[int], *, compiled: bool = False
    ) -> None:
        self.attention = model.model.language_model.config._attn_implementation
        if self.attention not in ("sdpa", "eager"):
            raise ValueError(
                f"the engine cannot use attn_implementation {self.attention!r}; load the model with 'sdpa' or 'eager'"
            )
        self.model = model
        self.end_ids = frozenset(end_ids)
        self.context = int(model.model.language_model.config.max_position_embeddings)
        self.compiled = compiled
        self._decode: Callable[[Tensor, Tensor, Slots], Tensor] = self._decode_token
        if compiled:
            self._decode = torch.compile(self._decode_token, mode="reduce-overhead", fullgraph=True)
        #: By number of rows, and the pictures that stand at their beginnings.
        self._slots: dict[int, Slots] = {}
        self._loaded: dict[int, list[Callable[[], EncodedImage | None]]] = {}
        self._turn = threading.Lock()
        self._speaker: int | None = None

    # Reading a picture

    def encode(self, inputs: ImageInputs, should_stop: Callable[[], bool] = _never) -> EncodedImage:
        """Image side and language model over a picture, as far as later questions need it.

        Raises:
            Stopped: `should_stop` said so; it is asked before every layer.
            ContextExceeded, OutOfMemory: see there.
        """
        with self._my_turn(), torch.inference_mode():
            if len(inputs.input_ids) >= self.context:
                raise ContextExceeded(
                    f"a picture of {len(inputs.input_ids)} tokens leaves no room in the model's context of "
                    f"{self.context}; give fewer crops"
                )
            started = time.perf_counter()
            device = self.model.device
            tokens_BCTD = idx_BCT = None
            _go_on(should_stop)
            if inputs.images is not None:
                assert inputs.image_masks is not None and inputs.image_input_idx is not None
                tokens_BCTD = self.model.model.vision_backbone(
                    inputs.images[None].to(device),
                    inputs.image_masks[None].to(device),
                    before_layer=lambda: _go_on(should_stop),
                )
                idx_BCT = inputs.image_input_idx[None].to(device)
            seen = time.perf_counter()
            _go_on(should_stop)
            embeds = self.model.model.embed(inputs.input_ids[None].to(device), tokens_BCTD, idx_BCT)
            places = torch.arange(embeds.shape[1], device=device)[None]
            # sdpa knows by itself that a prompt from the start on is causal, and has faster kernels for it.
            mask = None if self.attention == "sdpa" else self._mask(places, embeds.shape[1])
            writer = PrefixWriter(len(self.model.model.language_model.layers))
            with suppress(EnoughRead):
                self._through_layers(embeds, places, writer, mask, should_stop)
            return EncodedImage(
                None if tokens_BCTD is None else tokens_BCTD[0],
                tuple(writer.keys),
                tuple(writer.values),
                seen - started,
                time.perf_counter() - seen,
            )

    # Asking

    def ask(
        self,
        encoded: EncodedImage,
        prompt_ids: Sequence[int],
        controller: Controller | None = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        should_stop: Callable[[], bool] = _never,
    ) -> Generator[Step, None, None]:
        """The answer to one question, step by step as it comes.

        Other callers wait until the iterator has ended or was closed.

        Raises:
            Stopped: `should_stop` said so; it is asked before every layer.
            ContextExceeded, OutOfMemory: see there.
        """
        with self._my_turn():
            row = _Row(encoded.num_tokens, prompt_ids, controller or PlainGreedy(), max_new_tokens)
            slots = self._slots_with([encoded], row.most_slots(self.context))
            while not row.is_done:
                logits = self._pass_over_one(
                    slots, row.chunk(slots.slots), row.start, row.wanted, should_stop
                )
                yield from row.take(logits, self.end_ids)

    def ask_many(
        self,
        encoded: EncodedImage | Sequence[EncodedImage],
        prompts: Sequence[Sequence[int]],
        controllers: Sequence[Controller] | None = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        should_stop: Callable[[], bool] = _never,
    ) -> list[list[Step]]:
        """The answers to several questions, read and spoken in one batch.

        Args:
            encoded: the picture all questions are about, or one for each question.
            prompts: token ids of each question.
            controllers: one for each question; None foresees nothing and waits for the end marks.
            max_new_tokens: for each answer.
            should_stop: asked before every layer.

        Raises:
            ValueError: as many pictures or controllers as questions are needed.
            Stopped, ContextExceeded, OutOfMemory: see there.
        """
        pictures = [encoded] * len(prompts) if isinstance(encoded, EncodedImage) else list(encoded)
        listening = [PlainGreedy() for _ in prompts] if controllers is None else list(controllers)
        if not len(pictures) == len(listening) == len(prompts):
            raise ValueError(
                f"{len(prompts)} questions, {len(pictures)} pictures and {len(listening)} controllers; "
                "give one picture and one controller for each question"
            )
        if not prompts:
            return []
        with self._my_turn():
            rows = [
                _Row(picture.num_tokens, prompt, controller, max_new_tokens)
                for picture, prompt, controller in zip(pictures, prompts, listening, strict=True)
            ]
            slots = self._slots_with(pictures, max(row.most_slots(self.context) for row in rows))
            steps: list[list[Step]] = [[] for _ in rows]
            while not all(row.is_done for row in rows):
                logits = self._pass_over_many(slots, rows, should_stop)
                for row, spoken, of_row in zip(rows, steps, logits, strict=True):
                    if not row.is_done:
                        spoken += row.take(of_row, self.end_ids)
            return steps

    def next_logits(
        self,
        encoded: EncodedImage,
        sequences: Sequence[Sequence[int]],
        should_stop: Callable[[], bool] = _never,
    ) -> Tensor:
        """[B, V]: what the model would say after each of these continuations of one picture."""
        with self._my_turn():
            rows = [_Row(encoded.num_tokens, sequence, PlainGreedy(), 1) for sequence in sequences]
            slots = self._slots_with([encoded] * len(rows), max(row.most_slots(self.context) for row in rows))
            return torch.cat(self._pass_over_many(slots, rows, should_stop))

    def warm_up(self, inputs: ImageInputs, prompt_ids: Sequence[int], max_new_tokens: int = 8) -> None:
        """Lay out memory and, if `compiled`, compile, on a sample picture and question, so that no caller waits.

        Compiled code is made for a length in steps of `SLOT_STEP`: give a sample as long as what will come.
        """
        for _ in self.ask(self.encode(inputs), prompt_ids, max_new_tokens=max_new_tokens):
            pass

    @property
    def nbytes(self) -> int:
        """Bytes of the memory it keeps for answers, pictures that callers hold not counted."""
        return sum(slots.nbytes for slots in self._slots.values())

    # One pass: prefill and chunks, batches, single tokens

    @torch.inference_mode()
    def _pass_over_one(
        self, slots: Slots, chunk: Sequence[int], start: int, wanted: int, should_stop: Callable[[], bool]
    ) -> Tensor:
        """Logits [wanted, V] of the last tokens of a chunk that begins at place `start`."""
        device = self.model.device
        tokens = torch.tensor([chunk], device=device)
        places = torch.arange(start, start + len(chunk), device=device)[None]
        if self.compiled and len(chunk) == 1:
            _go_on(should_stop)
            # The next replay of a CUDA graph writes where this one did.
            return self._decode(tokens, places, slots).clone()
        # One new token may see everything before it, so it needs no mask.
        mask = None if len(chunk) == 1 else self._mask(places, start + len(chunk))
        embeds = self.model.model.embed(tokens)
        hidden = self._through_layers(embeds, places, SpanWriter(slots, start), mask, should_stop)
        return self._logits(hidden[0, -wanted:])

    @torch.inference_mode()
    def _pass_over_many(
        self, slots: Slots, rows: Sequence[_Row], should_stop: Callable[[], bool]
    ) -> list[Tensor]:
        """Logits [wanted, V] of the last tokens of each row's chunk. Rows that are done say their last token again."""
        device = self.model.device
        chunks = [row.chunk(slots.slots) for row in rows]
        longest = max(len(chunk) for chunk in chunks)
        tokens = torch.tensor([[*chunk, *[chunk[-1]] * (longest - len(chunk))] for chunk in chunks])
        starts = torch.tensor([row.start for row in rows])
        # What stands behind a shorter chunk is overwritten by what comes next, before any query may see it.
        places = (starts[:, None] + torch.arange(longest)).clamp(max=slots.slots - 1)
        seen = int(places.max()) + 1
        tokens, places = tokens.to(device), places.to(device)
        embeds = self.model.model.embed(tokens)
        writer = PlaceWriter(slots, places, seen)
        hidden = self._through_layers(embeds, places, writer, self._mask(places, seen), should_stop)
        return [
            self._logits(hidden[index, len(chunk) - row.wanted : len(chunk)])
            for index, (row, chunk) in enumerate(zip(rows, chunks, strict=True))
        ]

    def _decode_token(self, tokens_B1: Tensor, places_B1: Tensor, slots: Slots) -> Tensor:
        """Logits [B, V] after one token in each row: always the same shapes, for `torch.compile`."""
        writer = PlaceWriter(slots, places_B1, slots.slots)
        embeds = self.model.model.embed(tokens_B1)
        hidden = self._through_layers(embeds, places_B1, writer, self._mask(places_B1, slots.slots), _never)
        return self._logits(hidden[:, -1])

    def _through_layers(
        self,
        embeds_BLD: Tensor,
        places_BL: Tensor,
        store: KeyValueStore,
        mask: Tensor | None,
        should_stop: Callable[[], bool],
    ) -> Tensor:
        """Hidden states [B, L, D] before the final norm."""
        language_model = self.model.model.language_model
        turned: Any = language_model.rotary_emb(embeds_BLD, places_BL)
        hidden = embeds_BLD
        for layer in language_model.layers:
            _go_on(should_stop)
            hidden = layer(
                hidden, attention_mask=mask, position_embeddings=turned, past_key_values=store, use_cache=True
            )
        return hidden

    def _logits(self, hidden_LD: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(self.model.model.language_model.norm(hidden_LD))
        return logits

    def _mask(self, places_BL: Tensor, seen: int) -> Tensor:
        """[B, 1, L, seen]: added to the scores, so that a query sees its own place and those before it."""
        behind = torch.arange(seen, device=places_BL.device) > places_BL[:, None, :, None]
        nothing = torch.zeros((), dtype=self.model.dtype, device=places_BL.device)
        return torch.where(behind, -torch.inf, nothing)

    # Memory and turns

    def _slots_with(self, pictures: Sequence[EncodedImage], capacity: int) -> Slots:
        """Memory with these pictures at the beginning of its rows; one that is still there is not copied again."""
        rows = len(pictures)
        slots = self._slots.get(rows)
        if slots is None or slots.slots < capacity:
            slots = self._slots[rows] = Slots(
                rows, -(-capacity // SLOT_STEP) * SLOT_STEP, for_graphs=self.compiled
            )
            self._loaded[rows] = [_nothing] * rows
        for row, picture in enumerate(pictures):
            if self._loaded[rows][row]() is not picture:
                with torch.inference_mode():
                    slots.load(row, picture.keys, picture.values)
                # Weak, so that a picture nobody holds any more is not held here either.
                self._loaded[rows][row] = weakref.ref(picture)
        return slots

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        me = threading.get_ident()
        if self._speaker == me:
            raise EngineError("this thread has an unfinished answer; exhaust or close its iterator first")
        with self._turn:
            self._speaker = me
            try:
                yield
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._slots.clear()
                self._loaded.clear()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                raise OutOfMemory(
                    f"no memory left on {self.model.device}: {str(error).splitlines()[0][:200]}; hold fewer "
                    "pictures, ask fewer questions at once, or load smaller weights"
                ) from error
            finally:
                self._speaker = None


class _Row:
    """Where one answer stands."""

    def __init__(
        self, start: int, prompt: Sequence[int], controller: Controller, max_new_tokens: int
    ) -> None:
        if not prompt or max_new_tokens < 1:
            raise ValueError("a question needs at least one token, and room for at least one in the answer")
        self.start = start
        self.unread = list(prompt)
        self.controller = controller
        self.max_new_tokens = max_new_tokens
        self.answer: list[int] = []
        self.foreseen = list(controller.foresee(()))
        self.is_done = False

    def most_slots(self, context: int) -> int:
        """Slots that its whole answer may need."""
        need = self.start + len(self.unread) + self.max_new_tokens
        if need > context:
            raise ContextExceeded(
                f"{self.start} tokens of the picture, {len(self.unread)} of the question and up to "
                f"{self.max_new_tokens} of the answer are more than the model's context of {context}; shorten the "
                "question or the answer"
            )
        return need

    def chunk(self, slots: int) -> list[int]:
        """Tokens to read now: the unread ones, and those foreseen for which there is room."""
        del self.foreseen[max(slots - self.start - len(self.unread), 0) :]
        return [*self.unread, *self.foreseen]

    @property
    def wanted(self) -> int:
        """How many of the chunk's last tokens the answer goes on from: one, and each one foreseen."""
        return len(self.foreseen) + 1

    def take(self, logits_LV: Tensor, end_ids: frozenset[int]) -> Iterator[Step]:
        """Choose tokens from the logits of a chunk as long as they are the foreseen ones, and one more."""
        self.start += len(self.unread)
        for index, (logits_V, token) in enumerate(
            zip(logits_LV, logits_LV.argmax(dim=-1).tolist(), strict=True)
        ):
            if token in end_ids:
                self.is_done = True
                return
            foreseen = index < len(self.foreseen) and self.foreseen[index] == token
            self.answer.append(token)
            self.is_done = len(self.answer) == self.max_new_tokens or self.controller.is_complete(self.answer)
            yield Step(token, logits_V, foreseen)
            if self.is_done:
                return
            if not foreseen:
                break
            self.start += 1
        self.unread = [self.answer[-1]]
        self.foreseen = list(self.controller.foresee(self.answer))


def _nothing() -> None:
    """A weak reference to nothing."""


def _go_on(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Stopped("stopped while the model was answering")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
