"""A completion comes out of its bytes as it went in, to the last bit, and costs what it should."""

from __future__ import annotations

import math
import struct
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from tts_search import Completion, Request
from tts_search.log.columns import only_steps, pack, unpack

floats = st.floats(width=32) | st.floats()


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    count = draw(st.integers(1, 60))
    ids = draw(
        st.lists(st.integers(0, draw(st.sampled_from([5, 300, 70_000, 2**31 - 1]))), min_size=count, max_size=count)
    )
    column = st.lists(floats, min_size=count, max_size=count)
    return Completion(
        token_ids=tuple(ids),
        logprobs=draw(st.none() | column.map(tuple) | st.lists(floats, max_size=9).map(tuple)),
        scores=draw(st.none() | column.map(tuple)),
        sampled_tokens=max(1, count + draw(st.integers(-9, 1))),
        prompt_tokens=draw(st.none() | st.integers(0, 1 << 20)),
        cached_tokens=draw(st.integers(0, 1 << 20)),
        warnings=tuple(draw(st.lists(st.text(), max_size=2))),
    )


def bits(values: object) -> object:
    return None if values is None else [struct.pack("<d", v) if v == v else b"nan" for v in values]  # type: ignore[attr-defined]


@given(completion=completions(), steps=st.frozensets(st.integers(0, 300), max_size=50), seconds=st.floats(0, 1e6))
def test_there_and_back(completion: Completion, steps: frozenset[int], seconds: float) -> None:
    kept = unpack(pack(completion, seconds, steps), steps)
    assert abs(kept.seconds - seconds) < 0.001
    expected = only_steps(completion, steps)
    assert kept.completion.token_ids == expected.token_ids
    assert bits(kept.completion.logprobs) == bits(expected.logprobs)
    assert bits(kept.completion.scores) == bits(expected.scores)
    assert kept.completion.sampled_tokens == expected.sampled_tokens
    assert kept.completion.prompt_tokens == expected.prompt_tokens
    assert kept.completion.cached_tokens == expected.cached_tokens
    assert kept.completion.warnings == expected.warnings
    if expected.scores is not None:
        assert all(math.isnan(s) for t, s in zip(expected.token_ids, expected.scores, strict=True) if t not in steps)


def test_everything_that_there_is_is_kept() -> None:
    """A field that is added to a completion must be added to the columns, one of a request belongs to the key."""
    known = {"token_ids", "logprobs", "scores", "sampled_tokens", "prompt_tokens", "cached_tokens", "warnings"}
    assert {field.name for field in fields(Completion)} == known
    known = {"prefix", "seeds", "max_tokens", "stop_ids", "sampling", "tree", "on_tokens", "on_delta", "on_completion"}
    known |= {"messages"}  # in no key: the prefix is what they were rendered to
    assert {field.name for field in fields(Request)} == known
