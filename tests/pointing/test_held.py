"""Held pictures stay within their bounds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.held import Held


@dataclass(frozen=True)
class Thing:
    nbytes: int
    name: str = ""


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 5), st.integers(0, 100))
def test_neither_bound_is_ever_passed_and_the_newest_is_there(
    sizes: list[int], max_count: int, max_bytes: int
) -> None:
    held: Held[Thing] = Held(max_count, max_bytes)
    for size in sizes:
        thing = Thing(size)
        token = held.keep(thing)
        assert len(held) <= max_count and held.nbytes <= max_bytes
        if size <= max_bytes and max_count:
            assert held.get(token) is thing
        else:
            assert token == ""


def test_the_one_not_used_for_longest_goes_first() -> None:
    held: Held[Thing] = Held(2, 100)
    first, second = held.keep(Thing(1, "first")), held.keep(Thing(1, "second"))
    held.get(first)
    held.keep(Thing(1, "third"))
    assert held.get(first).name == "first"
    with pytest.raises(PointingError) as caught:
        held.get(second)
    assert caught.value.outcome.code == Code.FRAME_EXPIRED


def test_what_was_released_is_gone_and_releasing_it_twice_is_an_error() -> None:
    held: Held[Thing] = Held(2, 100)
    token = held.keep(Thing(60))
    held.release(token)
    assert len(held) == 0 and held.nbytes == 0
    with pytest.raises(PointingError):
        held.release(token)


def test_whoever_got_a_thing_may_go_on_using_it() -> None:
    held: Held[Thing] = Held(1, 100)
    thing = held.get(held.keep(Thing(5, "mine")))
    held.keep(Thing(5))
    assert thing.name == "mine"


def test_tokens_differ() -> None:
    held: Held[Thing] = Held(1, 100)
    assert len({held.keep(Thing(1)) for _ in range(1000)}) == 1000


def test_what_is_too_old_goes_by_itself() -> None:
    now_s = [0.0]
    held: Held[Thing] = Held(8, 1000, max_age_s=10.0, clock=lambda: now_s[0])
    first = held.keep(Thing(100))
    now_s[0] = 6.0
    second = held.keep(Thing(100))
    held.get(first)  # being used does not make it younger
    now_s[0] = 11.0
    with pytest.raises(PointingError, match="all after 10 s"):
        held.get(first)
    assert held.get(second).nbytes == 100 and held.nbytes == 100
    now_s[0] = 17.0
    held.purge()
    assert len(held) == 0 and held.nbytes == 0
