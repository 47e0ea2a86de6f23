"""How long an answer takes: this engine, plain transformers, and what the machine could do at best.

    tools/run python benchmarks/engine.py [--quick] [--check] [--json FILE]

Two models: the bundled one on pictures of the simulated table, and a random one in the layout of Molmo-7B-D of
about 300 M parameters on 640 x 480 pixels (7 crops). Random weights speak no points, so both sides are made to
say the same scripted answer of 25 tokens, of which the engine decodes what its rules leave. Side by side in one
run: the engine, `generate` of transformers on the same weights with nothing kept, and the machine's own limits:
matrix products of the same sizes for vision and prefill, products with one row over the same weights for decode.
"""

from __future__ import annotations

import copy
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from figures import Figure, parser, report
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import LogitsProcessor, LogitsProcessorList

from molmo_ros.molmo import MolmoConfig, MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.molmo.engine import EncodedImage, Engine, ImageInputs
from molmo_ros.molmo.image_processing import MolmoImageProcessor
from molmo_ros.molmo.key_values import Slots
from molmo_ros.molmo.packing import pack
from molmo_ros.molmo.processing import format_prompt
from molmo_ros.molmo.quantization import quantize
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.point_controller import PointController
from molmo_ros.pointing.pointer import LocalPointer, Settings
from molmo_ros.pointing.prompts import pointing_prompt
from molmo_ros.sim.tabletop import TabletopScene

QUESTION = pointing_prompt("the red mug")
ANSWER = ' <point x="61.5" y="40.6" alt="the red mug">'


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median of some runs after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


class Scripted(LogitsProcessor):
    """Makes `generate` say the script."""

    def __init__(self, script: Sequence[int], prompt_length: int) -> None:
        self.script, self.prompt_length = script, prompt_length

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores[:, self.script[input_ids.shape[1] - self.prompt_length]] = torch.inf
        return scores


class ScriptedEngine(Engine):
    """Computes everything, then says the script."""

    script: Sequence[int] = ()
    said = 0

    @torch.inference_mode()
    def _pass_over_one(
        self, slots: Slots, chunk: Sequence[int], start: int, wanted: int, should_stop: Callable[[], bool]
    ) -> Tensor:
        logits = super()._pass_over_one(slots, chunk, start, wanted, should_stop)
        foreseen = [*chunk[len(chunk) - wanted + 1 :], -1]
        for row, token in enumerate(foreseen):
            right = self.script[self.said]
            logits[row, right] = torch.inf
            self.said += 1
            if token != right or self.said == len(self.script):
                break
        return logits


def middle_sized_model(tokenizer_of: MolmoProcessor) -> tuple[MolmoForConditionalGeneration, MolmoProcessor]:
    """About 300 M random parameters; the bundled tokenizer, its ids spread out over nothing."""
    config = MolmoConfig(
        vocab_size=32000, embedding_size=32000, hidden_size=1024, intermediate_size=2 * 2816,
        num_hidden_layers=12, num_attention_heads=16, num_key_value_heads=16, rope_theta=10000.0,
        vision_backbone={
            "image_default_input_size": [336, 336], "image_emb_dim": 768, "image_mlp_dim": 3072,
            "image_num_layers": 12, "image_num_heads": 12, "image_head_dim": 64,
        },
        vit_layers=[-2, -9],
    )  # fmt: skip
    torch.manual_seed(0)
    model = MolmoForConditionalGeneration(config).eval()
    return model, MolmoProcessor(MolmoImageProcessor(), tokenizer_of.tokenizer)


def sgemm_flops(repeats: int) -> float:
    """Floating-point operations a second of the best of some matrix products."""
    best = 0.0
    for rows, inner, cols in ((1024, 1024, 4096), (1024, 4096, 1024), (2048, 2048, 2048), (4096, 768, 3072)):
        a, b = torch.randn(rows, inner), torch.randn(cols, inner)
        best = max(best, 2 * rows * inner * cols / seconds(lambda a=a, b=b: F.linear(a, b), repeats))  # type: ignore[misc]
    return best


def attention_flops(
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    dropout: float = 0.0,
    causal: bool = False,
    **_: object,
) -> int:
    """Of both products of an attention, which torch does not count on CPUs; half of them where it looks back only."""
    return int(sdpa_flop_count(query, key, value)) // (2 if causal else 1)


def one_row_seconds(model: MolmoForConditionalGeneration, encoded: EncodedImage, repeats: int) -> float:
    """Seconds for one row times every weight matrix that a decode step reads, and as many bytes as its keys and
    values have, and nothing else."""
    layers = model.model.language_model.layers
    weights = [module.weight for module in layers.modules() if isinstance(module, nn.Linear)]
    weights.append(model.lm_head.weight)
    weights += [kept.reshape(-1, kept.shape[-1]) for kept in (*encoded.keys, *encoded.values)]
    rows = [torch.randn(1, weight.shape[1]) for weight in weights]

    def all_products() -> None:
        for row, weight in zip(rows, weights, strict=True):
            F.linear(row, weight)

    with torch.inference_mode():
        return seconds(all_products, repeats)


def scripted_figures(repeats: int) -> list[Figure]:
    """The random model of 300 M parameters."""
    model, processor = middle_sized_model(MolmoProcessor.from_pretrained(bundled_model_folder()))
    name = f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M: "
    tokenizer = processor.tokenizer
    script = tokenizer.encode(ANSWER, add_special_tokens=False)
    script = [*script, *tokenizer.encode("red mug</point>" * 9, add_special_tokens=False)][:25]
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    whole = processor(images=image, text=QUESTION)
    part = processor(images=image, text="", formatted=True)
    inputs = ImageInputs(
        part["input_ids"][0], part["images"][0], part["image_masks"][0], part["image_input_idx"][0]
    )
    prompt, other = (
        tokenizer.encode(format_prompt(question), add_special_tokens=False)
        for question in (QUESTION, pointing_prompt("the blue bowl"))
    )
    # Never the same question twice in a row, since what two questions begin with is read once.
    asked = itertools.cycle((prompt, other))
    ours = copy.deepcopy(model)
    pack(ours)  # as `load_checkpoint` does
    engine = ScriptedEngine(ours, [-1])
    engine.script = script

    def ask(encoded: Any) -> int:
        engine.said = 0
        steps = list(engine.ask(encoded, next(asked), PointController(tokenizer, max_points=1)))
        assert [step.token_id for step in steps] == script[: len(steps)]
        return sum(not step.foreseen for step in steps)

    def plain() -> None:
        said = model.generate(
            **whole, max_new_tokens=len(script), do_sample=False,
            logits_processor=LogitsProcessorList([Scripted(script, whole["input_ids"].shape[1])]),
        )  # fmt: skip
        assert said[0, whole["input_ids"].shape[1] :].tolist() == script

    plain_engine = Engine(ours, [-1])
    encoded = engine.encode(inputs)
    plain_s = seconds(plain, repeats)
    encode_s = seconds(lambda: engine.encode(inputs), repeats)
    first_s = seconds(lambda: ask(engine.encode(inputs)), repeats)
    follow_s = seconds(lambda: ask(encoded), 3 * repeats)
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        Engine(model, [-1]).encode(inputs)  # which does not know packed products
    reached = counter.get_total_flops() / encode_s / sgemm_flops(3 * repeats)
    step_s, limit_s = (
        decode_step_s(plain_engine, encoded, prompt, repeats),
        one_row_seconds(model, encoded, 3 * repeats),
    )
    batches = batch_figures(name, plain_engine, inputs, prompt, repeats)
    quantize(model, "int8")
    pack(model)
    int8_s = decode_step_s(Engine(model, [-1]), encoded, prompt, repeats)
    return [
        Figure(name + "plain transformers, a question", plain_s * 1e3, "ms"),
        Figure(name + "engine, first question", first_s * 1e3, "ms"),
        Figure(name + "engine, follow-up", follow_s * 1e3, "ms"),
        Figure(name + "passes for a point of 25 tokens", ask(encoded), ""),
        Figure(name + "first question, times faster than plain", plain_s / first_s, "x", 1.1, at_least=True),
        Figure(name + "follow-up, times faster than plain", plain_s / follow_s, "x", 8.0, at_least=True),
        Figure(name + "vision and prefill of the sgemm limit", 100 * reached, "%", 80.0, at_least=True),
        Figure(name + "decode step", step_s * 1e3, "ms"),
        Figure(name + "decode of the one-row limit", 100 * limit_s / step_s, "%", 75.0, at_least=True),
        Figure(name + "decode step with int8 weights, of float32's", int8_s / step_s, "x", 1.0),
        *batches,
    ]


def batch_figures(
    name: str, engine: Engine, inputs: ImageInputs, prompt: Sequence[int], repeats: int
) -> list[Figure]:
    """Eight questions at once against one, about one held picture and about eight."""
    encoded = engine.encode(inputs)
    one_s = seconds(lambda: engine.ask_many(encoded, [prompt], max_new_tokens=12), repeats)
    eight_s = seconds(lambda: engine.ask_many(encoded, [prompt] * 8, max_new_tokens=12), repeats)

    def look_and_ask(count: int) -> None:
        pictures = [engine.encode(inputs) for _ in range(count)]
        engine.ask_many(pictures, [prompt] * count, max_new_tokens=12)

    new_s = seconds(lambda: look_and_ask(1), repeats)
    eight_new_s = seconds(lambda: look_and_ask(8), max(repeats // 2, 1))
    return [
        Figure(name + "8 questions on one held picture, of one question", eight_s / one_s, "x", 5.0),
        Figure(name + "8 questions on 8 new pictures, of one on one", eight_new_s / new_s, "x", 8.0),
    ]


def bundled_figures(repeats: int, compiled: bool) -> list[Figure]:
    """The bundled model on pictures of the table."""
    pointer = LocalPointer.from_folder(bundled_model_folder(), device="cpu")
    model, processor, name = pointer.model, pointer.processor, "bundled: "
    tabletop = TabletopScene((640, 480), samples=1)
    labels = [thing.label for thing in tabletop.reset(7).named]
    image = tabletop.render().color
    tabletop.close()
    label = labels[0]
    whole = processor(images=image, text=pointing_prompt(f"the {label}"))
    plain_s = seconds(
        lambda: model.generate(
            **whole, max_new_tokens=192, do_sample=False, eos_token_id=processor.eos_token_id
        ),
        repeats,
    )
    look = pointer.look(image)
    sure = LocalPointer(model, processor, Settings(follows_doubts=False))
    first_s = seconds(lambda: pointer.point(image, label, max_points=1), repeats)
    # Never the same question twice in a row, since what two questions begin with is read once.
    asked = itertools.cycle(labels)
    follow_s = seconds(lambda: pointer.point_in(look, next(asked), max_points=1), 3 * repeats)
    bare_s = seconds(lambda: sure.point_in(look, next(asked), max_points=1), 3 * repeats)
    prompt = processor.tokenizer.encode(format_prompt(QUESTION), add_special_tokens=False)
    step_s = decode_step_s(pointer.engine, look.encoded, prompt, repeats)
    figures = [
        Figure(name + "plain transformers, a question", plain_s * 1e3, "ms"),
        Figure(name + "engine, first question, tiling included", first_s * 1e3, "ms"),
        Figure(name + "engine, follow-up", follow_s * 1e3, "ms"),
        Figure(name + "engine, follow-up, doubts not followed", bare_s * 1e3, "ms"),
        Figure(name + "first question, times faster than plain", plain_s / first_s, "x", 1.0, at_least=True),
        Figure(name + "follow-up, times faster than plain", plain_s / follow_s, "x", 8.0, at_least=True),
        Figure(name + "decode step, eager", step_s * 1e3, "ms", 2.5),
    ]  # fmt: skip
    if compiled:
        engine = Engine(model, [-1], compiled=True)
        step_s = decode_step_s(engine, look.encoded, prompt, repeats)
        figures.append(Figure(name + "decode step, compiled", step_s * 1e3, "ms", 1.2))
    picture = processor(images=image, text="", formatted=True)
    inputs = ImageInputs(*(picture[n][0] for n in ("input_ids", "images", "image_masks", "image_input_idx")))
    return [*figures, *batch_figures(name, Engine(model, [-1]), inputs, prompt, repeats)]


def decode_step_s(engine: Engine, encoded: EncodedImage, prompt: Sequence[int], repeats: int) -> float:
    """Seconds of one token, from answers of 65 tokens and of one."""
    endless = Engine(engine.model, [-1], compiled=engine.compiled) if engine.end_ids != {-1} else engine
    long_s = seconds(lambda: list(endless.ask(encoded, prompt, max_new_tokens=65)), repeats)
    short_s = seconds(lambda: list(endless.ask(encoded, prompt, max_new_tokens=1)), repeats)
    return (long_s - short_s) / 64


def main() -> int:
    options = parser(__doc__ or "", "the bundled model alone, nothing compiled")
    options.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = bundled_figures(5 if arguments.quick else 15, compiled=not arguments.quick)
    if not arguments.quick:
        figures += scripted_figures(3)
    title = f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    return report(figures, arguments, title)


if __name__ == "__main__":
    sys.exit(main())
