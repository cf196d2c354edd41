"""Streams that would never end: they are cut off, with an error that says why, and the connection is closed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from tests.generators.openai.asking import ask, request
from tests.generators.openai.misbehaving_server import ByHeart
from tts_search.errors import GeneratorError, TTSError
from tts_search.generators.openai import OpenAIGenerator

LIMIT = 40


@pytest.mark.parametrize("fault", ["endless tokens", "endless tokens in blocks"])
@pytest.mark.parametrize("dialect", ["ids", "shy", "hosted"])
def test_a_server_that_ignores_the_limit_is_cut_off_at_it(
    serve: Callable[..., ByHeart], dialect: str, fault: str
) -> None:
    server = serve(dialect)
    server.faults.append(fault)
    settings: dict[str, Any] = {"tokens": "text", "logprobs": False} if dialect == "hosted" else {}
    live: list[int] = []
    with pytest.raises(GeneratorError, match=rf"sampled \d+ tokens where at most {LIMIT} were asked for"):
        ask(server, request(server, max_tokens=LIMIT, on_tokens=live.append), tokenizer=server.folder, **settings)
    assert server.left.wait(10), "the connection is closed"
    assert len(server.bodies) == 1, "nothing is tried again"
    if dialect != "hosted":
        assert sum(live) == (LIMIT if fault == "endless tokens" else 0), "not one token behind the limit is counted"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("endless chunks", r"1,041 chunks in a row without a token"),
        ("endless comments", r"10,000 lines in a row without data"),
        ("long line", r"an event of more than 16,777,216 bytes"),
    ],
)
@pytest.mark.parametrize("dialect", ["ids", "hosted"])
def test_a_stream_without_tokens_ends(serve: Callable[..., ByHeart], dialect: str, fault: str, message: str) -> None:
    server = serve(dialect)
    server.faults.append(fault)
    tracemalloc.start()
    try:
        with pytest.raises(GeneratorError, match=message):
            ask(
                server, request(server, max_tokens=LIMIT), tokenizer=server.folder,
                tokens="text" if dialect == "hosted" else "ids",
            )  # fmt: skip
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert server.left.wait(10), "the connection is closed"
    assert len(server.bodies) == 1, "nothing is tried again"


@pytest.mark.parametrize(
    ("status", "message"),
    [("200", "packed its answer by gzip, unasked"), ("400", "status 400: what it says is packed by")],
)
def test_nothing_is_unpacked(serve: Callable[..., ByHeart], status: str, message: str) -> None:
    """Some kilobytes would be as much memory as a server likes."""
    server = serve()
    server.faults.append(f"packed {status}")
    tracemalloc.start()
    try:
        with pytest.raises(TTSError, match=message):
            ask(server, tokens="ids")
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert server.headers[0]["Accept-Encoding"] == "identity"


def test_a_list_of_models_without_end_is_given_up(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.endless_list = True
    tracemalloc.start()
    try:
        with pytest.raises(GeneratorError, match=r"no list of models \(an answer of more than 16,777,216 bytes\)"):
            OpenAIGenerator(server.url)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert server.left.wait(60), "the connection is closed"


def test_chunks_without_tokens_are_read_over_as_long_as_tokens_come(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.append("fillings")
    (one,) = ask(server)
    assert one.token_ids == server.words


def test_a_text_whose_tokens_nobody_counts_may_be_as_long_as_its_limit(serve: Callable[..., ByHeart]) -> None:
    """Only far more text than the limit can hold is more than was asked for: a reading is no count."""
    server = serve("hosted")
    (one,) = ask(
        server, request(server, max_tokens=30), tokenizer=server.folder, tokens="text", logprobs=False
    )  # fmt: skip
    assert one.token_ids == server.words[:30]
