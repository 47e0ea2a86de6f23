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
from typing import Any

import torch
from torch import Tensor

from .answer import (
    ContextExceeded,
    Controller,
    EngineError,
    OutOfMemory,
    PlainGreedy,
    Row,
    Step,
    Stopped,
    Tree,
    shared_beginning,
)
from .key_values import EnoughRead, KeyValueStore, PlaceWriter, PrefixWriter, Slots, SpanWriter
from .lean_layers import LeanLayers, can_be_lean
from .modeling import MolmoForConditionalGeneration

#: Slots are laid out in steps of this many, so that questions of nearly the same length share them.
SLOT_STEP = 128

#: AI2's own limit for pointing; enough for about ten points.
MAX_NEW_TOKENS = 192


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


def _never() -> bool:
    return False


class Engine:
    """Greedy answers of one model. Safe to share between threads: they wait for each other, answer by answer.

    Args:
        model: in evaluation mode, loaded with `attn_implementation` "sdpa" (which uses flash kernels where there
            are any) or "eager". Its weights are not to change while the engine is used.
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
        language_model = model.model.language_model
        lean = self.attention == "sdpa" and can_be_lean(language_model)
        self._lean = LeanLayers(language_model, model.lm_head, self.context) if lean else None
        self._decode: Callable[[Tensor, Tensor, Slots], Tensor] = self._decode_token
        if compiled:
            self._decode = torch.compile(self._decode_token, mode="reduce-overhead", fullgraph=True)
        #: By number of rows, and the pictures that stand at their beginnings.
        self._slots: dict[int, Slots] = {}
        self._loaded: dict[int, list[Callable[[], EncodedImage | None]]] = {}
        #: Tokens behind the picture in the memory of one row, whose keys and values need not be made again.
        self._read: list[int] = []
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
            row = Row(encoded.num_tokens, prompt_ids, controller or PlainGreedy(), max_new_tokens)
            slots = self._slots_with([encoded], row.most_slots(self.context))
            row.skip(shared_beginning([self._read, prompt_ids[:-1]]))
            while not row.is_done:
                chunk = row.chunk(slots.slots)
                # A pass that is stopped leaves some layers unwritten.
                del self._read[row.start - encoded.num_tokens :]
                logits = self._pass_over_one(slots, chunk, row.start, row.wanted, should_stop)
                self._read += chunk
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
                Row(picture.num_tokens, prompt, controller, max_new_tokens)
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
        """[B, V]: what the model would say after each of these continuations of one picture.

        What they have in common at the beginning is read once: all are read in one row, as a tree, each token
        looking back along its own branch only (Miao et al. 2023, arXiv:2305.09781).
        """
        if not sequences or not all(sequences):
            raise ValueError("there must be continuations, each of at least one token")
        with self._my_turn(), torch.inference_mode():
            deepest = encoded.num_tokens + max(len(sequence) for sequence in sequences)
            if deepest > self.context:
                raise ContextExceeded(
                    f"{deepest} tokens with those of the picture are more than the model's context of "
                    f"{self.context}; shorten the question"
                )
            slots = self._slots_with([encoded], encoded.num_tokens + sum(len(s) for s in sequences))
            known = shared_beginning([self._read, *(sequence[:-1] for sequence in sequences)])
            tree = Tree.of([sequence[known:] for sequence in sequences])
            del self._read[known:]
            start, new, device = encoded.num_tokens + known, len(tree.tokens), self.model.device
            sees = torch.cat([torch.ones(new, start, dtype=torch.bool), tree.sees_LL], dim=1)
            mask = torch.zeros(1, 1, *sees.shape, dtype=self.model.dtype)
            mask = mask.masked_fill_(~sees, -torch.inf).to(device)
            places = torch.tensor([tree.depths], device=device) + start
            embeds = self._embed(tree.tokens)
            hidden = self._through_layers(embeds, places, SpanWriter(slots, start), mask, should_stop)
            return self._logits(hidden[0, tree.ends])

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
        places = torch.arange(start, start + len(chunk), device=device)[None]
        if self.compiled and len(chunk) == 1:
            _go_on(should_stop)
            # The next replay of a CUDA graph writes where this one did.
            return self._decode(torch.tensor([chunk], device=device), places, slots).clone()
        # One new token may see everything before it, so it needs no mask.
        mask = None if len(chunk) == 1 else self._mask(places, start + len(chunk))
        hidden = self._through_layers(self._embed(chunk), places, SpanWriter(slots, start), mask, should_stop)
        return self._logits(hidden[0, -wanted:])

    @torch.inference_mode()
    def _pass_over_many(
        self, slots: Slots, rows: Sequence[Row], should_stop: Callable[[], bool]
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

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        """[1, L, D] of tokens that are known here, most of which need only the first of the two tables."""
        tokens_1L = torch.tensor([tokens], device=self.model.device)
        first = self.model.model.wte.weight
        if max(tokens) < len(first):
            return torch.nn.functional.embedding(tokens_1L, first)
        return self.model.model.embed(tokens_1L)

    def _through_layers(
        self,
        embeds_BLD: Tensor,
        places_BL: Tensor,
        store: KeyValueStore,
        mask: Tensor | None,
        should_stop: Callable[[], bool],
    ) -> Tensor:
        """Hidden states [B, L, D] before the final norm."""
        if self._lean is not None:
            return self._lean(embeds_BLD, places_BL, store, mask, lambda: _go_on(should_stop))
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
        if self._lean is not None:
            return self._lean.logits(hidden_LD)
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
            if rows == 1:
                self._read.clear()
        for row, picture in enumerate(pictures):
            if self._loaded[rows][row]() is not picture:
                with torch.inference_mode():
                    slots.load(row, picture.keys, picture.values)
                # Weak, so that a picture nobody holds any more is not held here either.
                self._loaded[rows][row] = weakref.ref(picture)
                if rows == 1:
                    self._read.clear()
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
                self._read.clear()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                raise OutOfMemory(
                    f"no memory left on {self.model.device}: {str(error).splitlines()[0][:200]}; hold fewer "
                    "pictures, ask fewer questions at once, or load smaller weights"
                ) from error
            finally:
                self._speaker = None


def _nothing() -> None:
    """A weak reference to nothing."""


def _go_on(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Stopped("stopped while the model was answering")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
