"""JSON that servers write, and values that are taken into a shape."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.errors import GeneratorError
from tts_search.generators.openai.shapes import Count, Struct, from_json, read_chunk, shaped, to_json

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Sample(Struct):
    text: str | None = None
    tokens: list[Count] | None = None
    share: float | None = None
    stop: int | str | None = None


@given(JSON)
def test_it_reads_what_python_reads(value: Any) -> None:
    """The numbers that JSON has no word for among them."""
    assert from_json(json.dumps(value).encode()) == value


@given(st.dictionaries(st.text(), JSON.filter(lambda value: "inf" not in repr(value)), max_size=4))
def test_what_is_sent_is_read_as_it_was(body: dict[str, Any]) -> None:
    assert json.loads(to_json(body)) == body


def test_a_number_that_is_none_stays_none() -> None:
    found = from_json(b"[NaN, Infinity, -Infinity, 1e999, -1.5]")
    assert isinstance(found, list)
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, math.inf, -1.5]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b"\xff",
        b'{"a": "\xff"}',
        b'"\\ud800"',
        b"[" * 100_000,
        b"[NaN, " + b"[" * 100_000,
        b'{"a": NaN, "b": "\\ud800"}',
    ],
)
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        from_json(data)


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ({"text": None, "tokens": None, "more": {}}, Sample()),
        ({"tokens": [5.0, "7"], "share": 1}, Sample(tokens=[5, 7], share=1.0)),
        ({"share": -math.inf, "stop": "</s>"}, Sample(share=-math.inf, stop="</s>")),
        ({"stop": 151_643}, Sample(stop=151_643)),
    ],
)
def test_a_value_takes_a_shape(raw: object, meant: Sample) -> None:
    assert shaped(Sample, raw) == meant


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ([], "the whole: Expected `object`, got `array`"),
        ({"text": 17}, r"text: Expected `str \| null`, got `int`"),
        ({"tokens": [1, -1]}, r"tokens\[1\]: Expected `int` >= 0"),
        ({"tokens": [1, 2.5]}, r"tokens\[1\]: Expected `int`, got `float`"),
        ({"stop": True}, r"stop: Expected `int \| str \| null`, got `bool`"),
    ],
)
def test_where_it_does_not_fit_is_said(raw: object, place: str) -> None:
    with pytest.raises(GeneratorError, match=f"^a server sent what is no chunk of a completion \\({place}"):
        read_chunk(Sample, raw, "a completion", "a server", repr)
