"""A misbehaving server for every test that asks for one, and retries that do not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.checkpoints import write_tokenizer
from tests.generators.openai.misbehaving_server import ByHeart, by_heart
from tts_search.generators.tokenizer import PretrainedTokenizer

TEXT = "First, add the two largest: 13 + 9 = 22.\n\nNow 52 + 9 = 61.\n\nWait, naïve 你好.\n\n</think>It is 87."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("served"))


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., ByHeart]]:
    tokenizer = PretrainedTokenizer(folder)
    with ExitStack() as stack:

        def start(dialect: str = "ids") -> ByHeart:
            prompt = tokenizer.render("Make 87.")
            words = (*tokenizer.encode(TEXT), *sorted(tokenizer.eos_ids))
            return stack.enter_context(by_heart(folder, prompt, words, dialect))

        yield start


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait; a Retry-After is waited for as it says."""

    async def at_once(self: object, attempt: int) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr("tts_search.generators.openai.endpoint.Endpoint.back_off", at_once)
