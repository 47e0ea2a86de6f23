"""The engine says what plain generation says, however it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.molmo.answer import ContextExceeded, EngineError, OutOfMemory, Step, Stopped
from molmo_ros.molmo.engine import Engine, ImageInputs
from molmo_ros.molmo.processing import format_prompt

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
FAMILIES = ("D", "O", "E", "72B")
QUESTIONS = ("Point to the red mug.", "How many cups are there?", "a", "Where is the handle of the blue cup?")
#: Random weights never end an answer by themselves.
LENGTH = 12


@cache
def processor(family: str) -> MolmoProcessor:
    return MolmoProcessor.from_pretrained(GOLDENS / family / "checkpoint")


@cache
def model(family: str, attention: str = "sdpa") -> MolmoForConditionalGeneration:
    folder = GOLDENS / family / "checkpoint"
    loaded = MolmoForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    )
    return loaded.eval()


@cache
def engine(family: str = "D", attention: str = "sdpa") -> Engine:
    return Engine(model(family, attention), [processor(family).eos_token_id])


@cache
def picture(name: str = "wide") -> np.ndarray:
    return np.array(Image.open(GOLDENS / "images" / f"{name}.png").convert("RGB"))


def image_inputs(family: str, name: str | None = "wide") -> ImageInputs:
    given = processor(family)(images=None if name is None else picture(name), text="", formatted=True)
    parts = {key: value[0] for key, value in given.items() if key != "attention_mask"}
    return ImageInputs(**parts)


def prompt(family: str, question: str) -> list[int]:
    return list(processor(family).tokenizer.encode(format_prompt(question), add_special_tokens=False))


@cache
def generated(family: str, question: str, name: str | None = "wide") -> list[int]:
    inputs = processor(family)(images=None if name is None else picture(name), text=question)
    eos = processor(family).eos_token_id
    tokens = model(family).generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=eos)
    answer: list[int] = tokens[0, inputs["input_ids"].shape[1] :].tolist()
    return [token for token in answer if token != eos]


def tokens_of(steps: Sequence[Step]) -> list[int]:
    return [step.token_id for step in steps]


class Oracle:
    """Foresees what it is told to, right or wrong, `length` tokens at a time."""

    def __init__(self, answer: Sequence[int], length: int = 3) -> None:
        self.answer, self.length = list(answer), length

    def foresee(self, answer: Sequence[int]) -> Sequence[int]:
        return self.answer[len(answer) : len(answer) + self.length]

    def is_complete(self, answer: Sequence[int]) -> bool:
        return False


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["wide", None])
def test_an_answer_is_what_generate_says(family: str, attention: str, name: str | None) -> None:
    asked = engine(family, attention)
    encoded = asked.encode(image_inputs(family, name))
    for question in QUESTIONS:
        steps = asked.ask(encoded, prompt(family, question), max_new_tokens=LENGTH)
        assert tokens_of(list(steps)) == generated(family, question, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_many_questions_at_once_are_answered_as_one_by_one(family: str) -> None:
    encoded = engine(family).encode(image_inputs(family))
    many = engine(family).ask_many(encoded, [prompt(family, q) for q in QUESTIONS], max_new_tokens=LENGTH)
    assert [tokens_of(steps) for steps in many] == [generated(family, q) for q in QUESTIONS]


def test_questions_about_different_pictures_fit_into_one_batch() -> None:
    names = ("wide", "tall", None, "wide")
    pictures = [engine().encode(image_inputs("D", name)) for name in names]
    many = engine().ask_many(pictures, [prompt("D", q) for q in QUESTIONS], max_new_tokens=LENGTH)
    wanted = [generated("D", q, name) for q, name in zip(QUESTIONS, names, strict=True)]
    assert [tokens_of(steps) for steps in many] == wanted


@pytest.mark.parametrize("length", [1, 3, 20])
def test_right_foresight_saves_passes_and_changes_nothing(length: int) -> None:
    encoded = engine().encode(image_inputs("D"))
    answer = generated("D", QUESTIONS[0])
    oracle = Oracle(answer, length)
    steps = list(engine().ask(encoded, prompt("D", QUESTIONS[0]), oracle, max_new_tokens=LENGTH))
    assert tokens_of(steps) == answer
    assert sum(not step.foreseen for step in steps) == -(-(len(answer) - length) // (length + 1))


@pytest.mark.parametrize("wrong_at", range(4))
def test_wrong_foresight_changes_nothing(wrong_at: int) -> None:
    encoded = engine().encode(image_inputs("D"))
    answer = generated("D", QUESTIONS[0])
    lies = [token if index % 5 != wrong_at else (token + 1) % 100 for index, token in enumerate(answer)]
    for question in (QUESTIONS[0], QUESTIONS[1]):
        steps = engine().ask(encoded, prompt("D", question), Oracle(lies), max_new_tokens=LENGTH)
        assert tokens_of(list(steps)) == generated("D", question)


def test_foresight_in_a_batch_changes_nothing() -> None:
    encoded = engine().encode(image_inputs("D"))
    answers = [generated("D", question) for question in QUESTIONS]
    oracles = [Oracle(answers[0], 5), Oracle(answers[2], 2), Oracle(answers[2], 1), Oracle(answers[3], 9)]
    many = engine().ask_many(encoded, [prompt("D", q) for q in QUESTIONS], oracles, max_new_tokens=LENGTH)
    assert [tokens_of(steps) for steps in many] == answers
    assert any(step.foreseen for step in many[3])


def test_steps_carry_the_logits_they_were_chosen_from() -> None:
    encoded = engine().encode(image_inputs("D"))
    question = prompt("D", QUESTIONS[0])
    plain = list(engine().ask(encoded, question, max_new_tokens=LENGTH))
    chunked = list(engine().ask(encoded, question, Oracle(tokens_of(plain)), max_new_tokens=LENGTH))
    for one, other in zip(plain, chunked, strict=True):
        torch.testing.assert_close(one.logits_V, other.logits_V, atol=1e-4, rtol=1e-4)
    after = engine().next_logits(encoded, [question, [*question, plain[0].token_id]])
    torch.testing.assert_close(after[0], plain[0].logits_V, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after[1], plain[1].logits_V, atol=1e-4, rtol=1e-4)


def test_continuations_are_read_as_if_each_were_alone() -> None:
    encoded = engine().encode(image_inputs("D"))
    question = prompt("D", QUESTIONS[0])
    said = tokens_of(list(engine().ask(encoded, question, max_new_tokens=6)))
    branches = [[*question, *said[:2], 7], [*question, *said[:4], 8], [*question, *said[:4], 9], [5], [5, 6]]
    together = engine().next_logits(encoded, branches)
    for branch, of_branch in zip(branches, together, strict=True):
        alone = Engine(model("D"), []).next_logits(encoded, [branch])[0]
        torch.testing.assert_close(of_branch, alone, atol=1e-4, rtol=1e-4)
        step = next(iter(Engine(model("D"), [-1]).ask(encoded, branch, max_new_tokens=1)))
        torch.testing.assert_close(of_branch, step.logits_V, atol=1e-4, rtol=1e-4)
    assert tokens_of(list(engine().ask(encoded, question, max_new_tokens=6))) == said


def _after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_a_stopped_question_leaves_nothing_wrong_for_the_next() -> None:
    encoded = engine().encode(image_inputs("D"))
    first, second = (prompt("D", question) for question in ("Point to the red mug.", "Point to the red cup."))
    list(engine().ask(encoded, first, max_new_tokens=2))
    for layers in range(1, 5):
        with pytest.raises(Stopped):
            list(engine().ask(encoded, second, should_stop=_after(layers)))
        steps = engine().ask(encoded, first, max_new_tokens=LENGTH)
        assert tokens_of(list(steps)) == generated("D", "Point to the red mug.")


def test_questions_in_any_order_never_change_a_held_picture() -> None:
    encoded = engine().encode(image_inputs("D"))
    other = engine().encode(image_inputs("D", "tall"))
    before = [tensor.clone() for tensor in (*encoded.keys, *encoded.values)]
    for question in (*QUESTIONS, *reversed(QUESTIONS)):
        asked = list(engine().ask(encoded, prompt("D", question), max_new_tokens=LENGTH))
        assert tokens_of(asked) == generated("D", question)
        engine().ask_many([other, encoded], [prompt("D", question)] * 2, max_new_tokens=3)
        list(engine().ask(other, prompt("D", question), max_new_tokens=3))
    for tensor, copy in zip((*encoded.keys, *encoded.values), before, strict=True):
        assert torch.equal(tensor, copy)


class _StopsAfter:
    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def foresee(self, answer: Sequence[int]) -> Sequence[int]:
        return ()

    def is_complete(self, answer: Sequence[int]) -> bool:
        return len(answer) >= self.tokens


def test_an_answer_ends_when_the_controller_has_enough() -> None:
    encoded = engine().encode(image_inputs("D"))
    steps = list(engine().ask(encoded, prompt("D", QUESTIONS[0]), _StopsAfter(4), max_new_tokens=LENGTH))
    assert tokens_of(steps) == generated("D", QUESTIONS[0])[:4]
    many = engine().ask_many(
        encoded,
        [prompt("D", q) for q in QUESTIONS[:2]],
        [_StopsAfter(1), _StopsAfter(6)],
        max_new_tokens=LENGTH,
    )
    assert [len(steps) for steps in many] == [1, 6]


def test_an_answer_ends_before_the_end_mark() -> None:
    answer = generated("D", QUESTIONS[0])
    mark = answer[5]
    ending = Engine(model("D"), [mark])
    encoded = ending.encode(image_inputs("D"))
    steps = ending.ask(encoded, prompt("D", QUESTIONS[0]), Oracle(answer), max_new_tokens=LENGTH)
    assert tokens_of(list(steps)) == answer[: answer.index(mark)]


def test_a_stop_is_seen_before_the_next_layer() -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > allowed

    total = 0
    for allowed in range(200):
        calls = 0
        try:
            encoded = engine().encode(image_inputs("D"), stop)
            list(engine().ask(encoded, prompt("D", "a"), max_new_tokens=2, should_stop=stop))
        except Stopped:
            assert calls == allowed + 1
            continue
        total = calls
        break
    layers = model("D").config.text_config.num_hidden_layers
    blocks = max(model("D").model.vision_backbone.image_vit.feature_layers) + 1
    # The blocks of the ViT, once before and once after it, every layer for the picture and for two tokens.
    assert total == blocks + 2 + 3 * layers
    assert tokens_of(
        list(engine().ask(encoded, prompt("D", QUESTIONS[0]), max_new_tokens=LENGTH))
    ) == generated("D", QUESTIONS[0])


def test_what_does_not_fit_into_the_context_is_refused_with_the_numbers() -> None:
    encoded = engine().encode(image_inputs("D"))
    context = engine().context
    with pytest.raises(ContextExceeded, match=f"context of {context}"):
        next(engine().ask(encoded, [5] * context, max_new_tokens=LENGTH))
    with pytest.raises(ContextExceeded, match="fewer crops"):
        engine().encode(ImageInputs(torch.zeros(context, dtype=torch.long)))


def test_foresight_beyond_the_context_is_cut_off() -> None:
    encoded = engine().encode(image_inputs("D"))
    question = prompt("D", "a")
    (first,) = engine().ask(encoded, question, max_new_tokens=1)
    room = engine().context - encoded.num_tokens - len(question)
    steps = engine().ask(encoded, question, Oracle([first.token_id] * 9999, 9999), max_new_tokens=room)
    assert next(steps).token_id == first.token_id
    steps.close()


def test_threads_wait_for_each_other_and_all_get_their_own_answer() -> None:
    encoded = engine().encode(image_inputs("D"))
    answers: dict[str, list[int]] = {}

    def ask(question: str) -> None:
        answers[question] = tokens_of(
            list(engine().ask(encoded, prompt("D", question), max_new_tokens=LENGTH))
        )

    threads = [threading.Thread(target=ask, args=(question,)) for question in QUESTIONS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {question: generated("D", question) for question in QUESTIONS}


def test_a_second_answer_inside_the_first_is_an_error_and_no_deadlock() -> None:
    encoded = engine().encode(image_inputs("D"))
    first = engine().ask(encoded, prompt("D", QUESTIONS[0]), max_new_tokens=LENGTH)
    next(first)
    with pytest.raises(EngineError, match="unfinished answer"):
        next(engine().ask(encoded, prompt("D", QUESTIONS[1])))
    first.close()
    assert tokens_of(list(engine().ask(encoded, prompt("D", "a"), max_new_tokens=LENGTH))) == generated(
        "D", "a"
    )


def test_running_out_of_memory_is_named_and_leaves_the_engine_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = engine().encode(image_inputs("D"))
    with monkeypatch.context() as patched:

        def no_memory(*_: object, **__: object) -> None:
            # What asking for more than there is raises on a CPU; on a GPU it is torch.OutOfMemoryError.
            torch.empty(1 << 60)

        patched.setattr(Engine, "_logits", no_memory)
        with pytest.raises(OutOfMemory, match="hold fewer"):
            list(engine().ask(encoded, prompt("D", "a")))
    assert engine().nbytes == 0
    assert tokens_of(list(engine().ask(encoded, prompt("D", "a"), max_new_tokens=LENGTH))) == generated(
        "D", "a"
    )


def test_a_picture_reports_the_bytes_it_holds() -> None:
    encoded = engine().encode(image_inputs("D"))
    text = model("D").config.text_config
    size = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    assert encoded.image_tokens is not None
    caches = 2 * text.num_hidden_layers * encoded.num_tokens * size * 4
    assert encoded.nbytes == caches + encoded.image_tokens.numel() * 4


def test_the_engine_does_not_keep_a_picture_alive() -> None:
    import gc
    import weakref

    encoded = engine().encode(image_inputs("D", "tall"))
    list(engine().ask(encoded, prompt("D", "a"), max_new_tokens=1))
    gone = weakref.ref(encoded)
    del encoded
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(("pictures", "controllers"), [(1, None), (None, 1)])
def test_every_question_needs_its_picture_and_controller(
    pictures: int | None, controllers: int | None
) -> None:
    encoded = engine().encode(image_inputs("D"))
    with pytest.raises(ValueError, match="one picture and one controller for each question"):
        engine().ask_many(
            encoded if pictures is None else [encoded] * pictures,
            [[1], [2]],
            None if controllers is None else [_StopsAfter(1)] * controllers,
        )


def test_bfloat16_answers_are_those_of_generate_in_bfloat16() -> None:
    half = MolmoForConditionalGeneration.from_pretrained(
        GOLDENS / "D" / "checkpoint", dtype=torch.bfloat16
    ).eval()
    asked = Engine(half, [processor("D").eos_token_id])
    inputs = processor("D")(images=picture(), text=QUESTIONS[0])
    tokens = half.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    steps = list(asked.ask(asked.encode(image_inputs("D")), prompt("D", QUESTIONS[0]), max_new_tokens=4))
    assert tokens_of(steps) == tokens.tolist()


@pytest.mark.slow
def test_compiled_code_says_the_same() -> None:
    compiled = Engine(model("D"), [processor("D").eos_token_id], compiled=True)
    compiled.warm_up(image_inputs("D"), prompt("D", QUESTIONS[1]), max_new_tokens=3)
    encoded = compiled.encode(image_inputs("D"))
    for question in QUESTIONS:
        steps = list(compiled.ask(encoded, prompt("D", question), max_new_tokens=LENGTH))
        plain = list(engine().ask(encoded, prompt("D", question), max_new_tokens=LENGTH))
        assert tokens_of(steps) == generated("D", question)
        for one, other in zip(steps, plain, strict=True):
            torch.testing.assert_close(one.logits_V, other.logits_V, atol=1e-4, rtol=1e-4)
