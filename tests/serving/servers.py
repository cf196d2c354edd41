"""A real server on loopback for a test, over an engine that writes at a pace and tells what it sampled."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tts_search import Completion, Request, Searcher
from tts_search.serving.app import create_app, served_by
from tts_search.serving.keys import Keys
from tts_search.serving.limits import Limits
from tts_search.serving.server_process import DrainingServer, bind, config_of
from tts_search.serving.service import Service
from tts_search.testing import FakeGenerator, FakeScorer


class Paced(FakeGenerator):
    """A fake whose tokens come one by one, `pace` seconds each, told and `sampled` as they come."""

    pace: float
    sampled: list[int]
    broken: threading.Event
    held: threading.Event

    def __init__(self, pace: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        object.__setattr__(self, "pace", pace)
        object.__setattr__(self, "sampled", [])
        object.__setattr__(self, "broken", threading.Event())  # set: every request fails
        object.__setattr__(self, "held", threading.Event())  # set: none gets on

    async def generate(self, request: Request) -> list[Completion]:
        completions = await super().generate(Request(**{**_fields(request), "on_tokens": None, "on_delta": None}))
        for place in range(max(completion.sampled_tokens for completion in completions)):
            while self.held.is_set() and not self.broken.is_set():
                await asyncio.sleep(0.005)
            if self.broken.is_set():
                raise RuntimeError("the engine is gone: /srv/models/secret")
            await asyncio.sleep(self.pace)
            for sample, completion in enumerate(completions):
                if place < len(completion.token_ids):
                    self.sampled.append(completion.token_ids[place])
                    if request.on_delta is not None:
                        request.on_delta(sample, completion.token_ids[place : place + 1])
                    if request.on_tokens is not None:
                        request.on_tokens(1)
        return completions


def _fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__slots__}


@dataclass
class Running:
    """A server at work."""

    url: str
    service: Service
    http: httpx.Client
    server: DrainingServer
    opened: list[Any] = field(default_factory=list)

    def chat(self, content: Any = "Why?", **fields: Any) -> httpx.Response:
        """One request."""
        headers = fields.pop("headers", {})
        body = {"messages": [{"role": "user", "content": content}], **fields}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    def stream(self, content: Any = "Why?", **fields: Any) -> list[Any]:
        """All chunks of one streamed request; `[DONE]` is the text."""
        reply = self.chat(content, stream=True, **fields)
        assert reply.status_code == 200, reply.text
        return lines(reply.text)

    def wait(self, ready: Callable[[], bool], seconds: float = 120.0) -> None:
        """Until it is so."""
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, "it never came to be"
            time.sleep(0.005)


def lines(text: str) -> list[Any]:
    """The data of a stream."""
    told = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in told]


@contextmanager
def serving(
    generator: Any = None,
    *,
    scorer: Any = "fake",
    keys: Keys | None = None,
    limits: Limits | None = None,
    served: dict[str, Any] | None = None,
    another: Callable[[], Any] | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """A server over a generator; `another` makes the next one when it dies."""
    generator = FakeGenerator() if generator is None else generator
    judge = FakeScorer() if scorer == "fake" else scorer

    def open_searcher(engine: Any) -> Searcher:
        return Searcher(generator=engine, scorer=judge, max_tokens=200, answer_tokens=40, generator_seconds=60)

    opened: list[Any] = [generator]

    def open_another() -> Searcher:
        engine = (another or FakeGenerator)()
        opened.append(engine)
        return open_searcher(engine)

    limits = limits or Limits(concurrency=16, waiting=64, keep_alive_seconds=5)
    with bind("127.0.0.1", 0) as listener, open_searcher(generator) as searcher:
        offer = served_by(searcher, "fake", limits=limits, **(served or {}))
        app = create_app(searcher, offer, open_another=open_another, keys=keys, **settings)
        server = DrainingServer(config_of(app), app.state.service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60) as http:
            running = Running(url, app.state.service, http, server, opened)
            running.wait(lambda: running.service.supervisor.state == "ready")
            try:
                yield running
            finally:
                server.should_exit = True
                thread.join(120)
                assert not thread.is_alive()
