"""Which tokens of an answer spell a number, and what the model could have said in their place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from molmo_ros.pointing.confidence import Alternative, NumberToken, is_numeric

#: Alternatives less likely than this change no figure.
_LEAST_PROBABILITY = 1e-4


class Digits:
    """The tokens of a vocabulary that are parts of numbers; found once for each model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        texts = [str(tokenizer.decode([token])) for token in range(vocabulary)]
        self.texts = {token: text for token, text in enumerate(texts) if is_numeric(text)}
        self.ids = torch.tensor(sorted(self.texts))

    def alternatives(self, probabilities_V: Tensor, besides: int = -1) -> tuple[Alternative, ...]:
        """The parts of numbers that could have been said, except for the token `besides`."""
        likely = self.ids[probabilities_V[self.ids] > _LEAST_PROBABILITY].tolist()
        return tuple(
            Alternative(self.texts[token], float(probabilities_V[token]), token)
            for token in likely
            if token != besides
        )


class AnswerTokens:
    """An answer as tokens, each with the logits [V] it was chosen from."""

    def __init__(
        self,
        token_ids: Sequence[int],
        logits_NV: Sequence[Tensor],
        tokenizer: PreTrainedTokenizerBase,
        digits: Digits,
        keeps_special_tokens: bool = False,
    ) -> None:
        self.token_ids, self.digits = list(token_ids), digits
        self._logits_NV, self._tokenizer = logits_NV, tokenizer
        self._keeps_special_tokens = keeps_special_tokens

    @cached_property
    def text(self) -> str:
        """The whole answer, special tokens left out unless they are kept."""
        return self._text_of(len(self.token_ids))

    @cached_property
    def starts(self) -> list[int]:
        """Where each token begins in `text`, in characters."""
        return [len(self._text_of(count)) for count in range(len(self.token_ids))]

    def probabilities(self, index: int) -> Tensor:
        """[V] of the token at `index`, on the CPU."""
        return self._logits_NV[index].float().softmax(-1).cpu()

    def probability(self, index: int) -> float:
        """Of what was said there."""
        return float(self.probabilities(index)[self.token_ids[index]])

    def number(self, span: tuple[int, int]) -> list[tuple[int, NumberToken]]:
        """The tokens that spell the number at these characters of the text, each with its index.

        Empty where some of its digits share a token with other signs (`="4`): its doubt cannot be told.
        """
        found = []
        for index, (start, end) in enumerate(
            zip(self.starts, [*self.starts[1:], len(self.text)], strict=True)
        ):
            token = self.token_ids[index]
            if span[0] <= start < min(end, span[1]) and token in self.digits.texts:
                row = self.probabilities(index)
                others = self.digits.alternatives(row, besides=token)
                found.append((index, NumberToken(self.digits.texts[token], float(row[token]), others)))
        spelt = "".join(token.text for _, token in found)
        return found if spelt == self.text[slice(*span)] else []

    def _text_of(self, count: int) -> str:
        skips = not self._keeps_special_tokens
        return str(self._tokenizer.decode(self.token_ids[:count], skip_special_tokens=skips))
