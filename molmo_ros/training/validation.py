"""How far a training has come: what the averaged weights get right on pictures that are not learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.confidence import NEAR_PERCENT
from molmo_ros.pointing.pointer import LocalPointer, Settings
from molmo_ros.pointing.protocol import Pointing
from molmo_ros.sim.worlds import world_named
from molmo_ros.training import tabletop_questions
from molmo_ros.training.batches import Batch, QuestionBatches
from molmo_ros.training.questions import Question
from molmo_ros.training.tabletop_model import DenseLessons

#: Things asked for in each picture; one more that is not there comes on top.
THINGS_ASKED = 3


def text_logits(model: MolmoForConditionalGeneration, batch: Batch, tokens_BCTD: Tensor) -> Tensor:
    """[R, L, V]: the pictures are read once, then every question goes on from its picture's cache."""
    core = model.model
    cache = DynamicCache(config=core.config.text_config)
    prefix = core.embed(batch.prefix_ids, tokens_BCTD, batch.image_input_idx)
    core.language_model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(batch.question_ids) // len(batch.prefix_ids))
    hidden = core.language_model(
        inputs_embeds=core.wte(batch.question_ids), past_key_values=cache, use_cache=True
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden)
    return logits


@torch.no_grad()
def next_token_shares(
    model: MolmoForConditionalGeneration,
    lessons: DenseLessons,
    batches: Sequence[Batch],
    processor: MolmoProcessor,
) -> dict[str, float]:
    """Shares of right next tokens where the true answer's beginning is given.

    `decision`: point or "There are none"; `x_tens`: the first digit of a point's x, which only the words and the
    picture tell; `x_ones`, `y_tens`: the digits that follow from it. On the image side: `kind` and `colour` of
    the thing in an image token.
    """

    def id_of(text: str) -> int:
        return int(processor.tokenizer.encode(text, add_special_tokens=False)[0])

    digits, starts = (
        torch.tensor([id_of(d) for d in "0123456789"]),
        torch.tensor([id_of(" <"), id_of(" There")]),
    )
    quote, point = id_of('="'), id_of(".")
    right: dict[str, list[int]] = {}
    for batch in batches:
        backbone = model.model.vision_backbone
        features = backbone.features(batch.images[:, None])
        tokens = backbone.pool(features.expand(-1, batch.image_masks.shape[1], -1, -1), batch.image_masks)
        guess = text_logits(model, batch, tokens).argmax(-1)
        labels, seen = batch.labels, batch.question_ids
        is_digit = torch.isin(labels, digits)
        tens = is_digit & (seen == quote)
        is_y = ((seen == quote).cumsum(dim=1) % 2) == 0
        ones = is_digit & (seen != point) & ~tens
        kind, colour, *_ = lessons.token_head(tokens[:, 0]).split(lessons.token_sizes, -1)
        truth, there = batch.truth, batch.truth.token_kind > 0
        for name, hits in {
            "decision": (guess == labels)[torch.isin(labels, starts)],
            "x_tens": (guess == labels)[tens & ~is_y],
            "x_ones": (guess == labels)[ones & ~is_y],
            "y_tens": (guess == labels)[tens & is_y],
            "kind": (kind.argmax(-1) == truth.token_kind)[there],
            "colour": (colour.argmax(-1) == truth.token_colour)[there],
        }.items():
            count = right.setdefault(name, [0, 0])
            count[0] += int(hits.sum())
            count[1] += hits.numel()
    return {name: hits / max(count, 1) for name, (hits, count) in right.items()}


def hit_rates(
    model: MolmoForConditionalGeneration, batches: QuestionBatches, rows: Sequence[int]
) -> dict[str, float]:
    """`hit`: shares of things pointed at, of up to three in each picture; `absent`: of absent ones told.

    Answers are decoded as on a robot. A point hits when the patch under it shows the thing, or when it lies
    within 3 % of the picture's width of the thing's middle.
    """
    pointer = LocalPointer(model, batches.processor, Settings(follows_doubts=False))
    shard, world = batches.shard, world_named(batches.shard.world)
    hits: list[bool] = []
    told: list[bool] = []
    for row in rows:
        rng = np.random.default_rng((7, row))
        seen = shard.seen(row)
        words = [(t.colour, t.kind) for t in seen.things if t.kind in world.kinds and t.colour]
        unique = [w for w in words if len(seen.group(*w)) == 1 and seen.sure(*w)]
        asked = [unique[i] for i in rng.permutation(len(unique))[:THINGS_ASKED]]
        absent = tabletop_questions.ask(seen, world, "absent", rng)
        labels = [f"the {colour} {kind}" for colour, kind in asked]
        labels += [_with_article(absent)] if absent else []
        look = pointer.look(shard.pictures[np.array([row])][0])
        answers = pointer.point_many(look, labels)
        for (colour, kind), answer in zip(asked, answers, strict=False):
            (index,) = seen.group(colour, kind)
            hits.append(_hits(answer, batches, row, index))
        if absent:
            told.append(isinstance(answers[-1], Pointing) and answers[-1].absent)
    return {"hit": _share(hits), "absent": _share(told)}


def _with_article(question: Question) -> str:
    return f"the {question.label}"


def _hits(answer: Pointing | PointingError, batches: QuestionBatches, row: int, index: int) -> bool:
    """Whether the only point of an answer lies on the `index`-th visible thing of a picture."""
    if isinstance(answer, PointingError):
        if answer.outcome.code != Code.UNPARSEABLE:
            raise answer
        return False
    if len(answer.points) != 1:
        return False
    shard, grid = batches.shard, batches.grid
    height, width = grid.size
    u, v = answer.points[0].u, answer.points[0].v
    slot = np.flatnonzero(shard.kinds[row])[index]
    x, y = shard.points[row, slot] / 100 * (width, height)
    down, right = (
        int((p + offset) // grid.patch_size) for p, offset in zip((v, u), grid.offset, strict=True)
    )
    covering = shard.patch_things[row, down * grid.patches[1] + right]
    return bool(covering == slot + 1 or np.hypot(u - x, v - y) <= NEAR_PERCENT / 100 * width)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(len(flags), 1)
