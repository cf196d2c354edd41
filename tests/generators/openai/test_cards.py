"""A server's list of its models: of an odd one what can be read is read; of none the server's words are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from tests.generators.openai.misbehaving_server import KEY, MODEL, ByHeart
from tts_search.errors import GeneratorError
from tts_search.generators.openai import OpenAIGenerator
from tts_search.generators.openai.cards import Card, cards_in

GOOD = {"id": "good", "root": "folder", "max_model_len": 4096, "owned_by": "vllm"}


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        ({"id": "other", "max_model_len": 0}, Card(id="other")),
        ({"id": "other", "max_model_len": -1, "context_length": 9}, Card(id="other", context_length=9)),
        ({"id": "other", "context_length": "128k"}, Card(id="other")),
        ({"id": "other", "context_length": "4096"}, Card(id="other", context_length=4096)),
        ({"id": "other", "context_window": 8192.5, "parent": []}, Card(id="other")),
        ({"id": "other", "root": None, "created": {}}, Card(id="other")),
        ({"id": 7}, None),
        ({"id": None}, None),
        ({"name": "other"}, None),
        (None, None),
        ("other", None),
        ([], None),
    ],
)
def test_one_odd_model_costs_no_other(odd: object, found: Card | None) -> None:
    good = Card(id="good", root="folder", max_model_len=4096, owned_by="vllm")
    meant = [good, *([] if found is None else [found])]
    assert cards_in({"data": [GOOD, odd]}) == cards_in([GOOD, odd]) == meant
    assert cards_in({"data": [odd, GOOD], "error": None}) == meant[::-1]


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ({"data": None}, []), ({"data": []}, []), ({"models": []}, None), ({"data": "x"}, None), (None, None),
        ({"data": [GOOD], "error": {"message": "no"}}, None), ("x", None),
    ],
)  # fmt: skip
def test_what_is_no_list(listed: object, found: Any) -> None:
    assert cards_in(listed) == found


def test_a_model_is_found_beside_odd_ones(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    own = {"id": MODEL, "root": str(server.folder), "max_model_len": 400}
    server.listed = {"data": [None, {"id": 7}, {"id": "embedder", "max_model_len": 0}, own]}
    generator = OpenAIGenerator(server.url, model=MODEL)
    assert generator.context_tokens == 400


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": {"message": f"the key {KEY} has expired"}}, r"the key \(credentials\) has expired"),
        ({"error": "no such tenant"}, "no such tenant"),
        ({"object": "error", "message": "out of credit"}, "out of credit"),
        ({"models": ["a"]}, r"\{'models': \['a'\]\}"),
    ],
)
def test_an_error_that_calls_itself_a_success_is_told(serve: Callable[..., ByHeart], answer: Any, words: str) -> None:
    server = serve()
    server.listed = answer
    with pytest.raises(GeneratorError, match=f"{server.url}/models gave no list of models, but {words}: is base_url"):
        OpenAIGenerator(server.url, api_key=KEY)
