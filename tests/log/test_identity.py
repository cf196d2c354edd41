"""What tells engines, scorers and functions apart in a log, in every process, and what of them is written there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tts_search.generators.openai.chat import ChatGenerator
from tts_search.log.identity import identity_of_engine

URL = "http://alice:hunter2-long@127.0.0.1:1/v1"


def chat(url: str = URL, **options: Any) -> dict[str, Any]:
    """Of a chat service that is asked nothing."""
    generator = ChatGenerator(url, **{"model": "m", "context_tokens": 1000, **options})
    asyncio.run(generator.aclose())
    return identity_of_engine(generator)


@pytest.mark.parametrize(
    "other",
    [{"url": "http://127.0.0.1:2/v1"}, {"model": "n"}, {"logprobs": False}, {"extra_body": {"effort": "low"}}],
    ids=lambda other: next(iter(other)),
)
def test_what_decides_what_a_chat_service_returns_tells_it_apart(other: dict[str, Any]) -> None:
    assert chat() == chat()
    assert chat(**other) != chat()


def test_a_chat_services_credentials_do_not() -> None:
    assert chat("http://127.0.0.1:1/v1", api_key="sk-0123456789") == chat()
    assert "hunter2" not in str(chat())
