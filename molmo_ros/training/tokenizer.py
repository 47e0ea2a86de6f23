"""A small tokenizer in the layout of Molmo-7B-D's: Qwen2's byte-level BPE, padded, image marks on top.

Words of the tabletop's questions and answers become single tokens; anything else still encodes, byte by
byte. Digits stay single, as in Qwen2, which is what makes coordinates readable one digit at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

#: How Qwen2 cuts text before merging: words with their leading mark, single digits, punctuation, white space.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
IMAGE_MARKS = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>")


def train_tokenizer(texts: Iterable[str], embedding_size: int) -> PreTrainedTokenizerFast:
    """Learn merges from `texts`; the first image mark gets the id `embedding_size`.

    Args:
        texts: what the model will read and write.
        embedding_size: rows of the first embedding table; unused ids are filled with `|<EXTRA_TOKENS_n>|`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=embedding_size - 3,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    filler = embedding_size - tokenizer.get_vocab_size() - len(specials)
    names = [*specials, *(f"|<EXTRA_TOKENS_{n}>|" for n in range(filler)), *IMAGE_MARKS]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
    )
    first_mark = fast.convert_tokens_to_ids(IMAGE_MARKS[0])
    if first_mark != embedding_size:
        raise ValueError(
            f"{IMAGE_MARKS[0]} got the id {first_mark}, not {embedding_size}: embedding_size is too small"
        )
    return fast


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and its side files."""
    tokenizer.save_pretrained(folder)
