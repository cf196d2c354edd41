"""Asks a misbehaving server for completions, as a search would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.generators.openai.misbehaving_server import MODEL, ByHeart
from tts_search.core.protocols import Completion, Request
from tts_search.generators.openai import OpenAIGenerator


def request(
    server: ByHeart, *, seeds: int = 1, max_tokens: int = 200, stops: Sequence[int] = (), **more: Any
) -> Request:
    return Request(
        prefix=server.prompt,
        seeds=tuple(range(seeds)),
        max_tokens=max_tokens,
        stop_ids=server.tokenizer.eos_ids.union(stops),
        **more,
    )


def ask(server: ByHeart, asked: Request | None = None, *, url: str = "", **settings: Any) -> Sequence[Completion]:
    """The completions of one request to the server, at its own URL unless another is given."""
    generator = OpenAIGenerator(url or server.url, model=MODEL, **settings)

    async def work() -> Sequence[Completion]:
        try:
            return await asyncio.wait_for(generator.generate(asked or request(server)), 120)
        finally:
            await generator.aclose()

    return asyncio.run(work())
