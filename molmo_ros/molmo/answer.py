"""One answer on its way: the steps it is made of, what its caller knows of it, and what is to be read next.

A caller's `Controller` says when the answer holds enough and which tokens are bound to follow. Several
continuations of one beginning are a `Tree`, which can be read in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class EngineError(RuntimeError):
    """The engine could not do what was asked; it can be asked again."""


class Stopped(EngineError):
    """`should_stop` said so."""


class ContextExceeded(EngineError):
    """Prefix, prompt and answer together are longer than the model's context."""


class OutOfMemory(EngineError):
    """The device had no memory left; the engine gave its own back."""


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


@dataclass(frozen=True, eq=False)
class Tree:
    """Sequences as one: `tokens` [L], how deep each lies, which of them it sees, and where the sequences end."""

    tokens: list[int]
    depths: list[int]
    sees_LL: Tensor
    ends: list[int]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Tree:
        tokens: list[int] = []
        paths: list[list[int]] = []
        children: dict[tuple[int, int], int] = {}
        ends = []
        for sequence in sequences:
            node, path = -1, []
            for token in sequence:
                known = (node, token) in children
                node = children.setdefault((node, token), len(tokens))
                path.append(node)
                if not known:
                    tokens.append(token)
                    paths.append(list(path))
            ends.append(node)
        sees_LL = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
        for node, path in enumerate(paths):
            sees_LL[node, path] = True
        return cls(tokens, [len(path) - 1 for path in paths], sees_LL, ends)


def shared_beginning(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all of them begin with."""
    count = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


class Row:
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

    def skip(self, count: int) -> None:
        """The first tokens of the question have been read already."""
        self.start += count
        del self.unread[:count]

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
