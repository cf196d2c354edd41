"""The connection to an OpenAI-compatible server: what it serves, streams of chunks, and errors that say what to do.

The client library retries, with backoff and Retry-After, whatever fails before a stream begins. What a stream that
breaks off later means is the generator's matter. This module knows no tokens.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from tts_search.errors import GeneratorError, InvalidInputError, MissingDependencyError, ModelNotFoundError, TTSError

try:
    import openai
except ImportError as error:
    raise MissingDependencyError(
        "an OpenAI-compatible endpoint needs the openai client: pip install 'tts-search[openai]'"
    ) from error

CONNECT_SECONDS = 10.0
LIST_SECONDS = 30.0  # a list of models takes no computing
LONGEST_BACKOFF_SECONDS = 8.0


class RefusedError(InvalidInputError):
    """The server found fault with the request itself (400, 413, 422): the same request will not do better."""


class CutError(GeneratorError):
    """A stream ended before its completion did."""


class Card(BaseModel):
    """A model as the server lists it."""

    id: str
    root: str | None = None  # vLLM and SGLang: the folder or hub id that it was loaded from
    max_model_len: Annotated[int, Field(ge=2)] | None = None


class _Cards(BaseModel):
    data: list[Card]


class Endpoint:
    """A server under `base_url`.

    Args:
        base_url: ends in `/v1` for most servers.
        api_key: None takes `OPENAI_API_KEY` from the environment, and goes without where there is none.
        timeout_seconds: of silence, before an answer begins or within it, after which a connection is given up.
        max_retries: how often a request that failed is sent again.
        max_concurrency: streams at once; more of them wait here.

    Raises:
        InvalidInputError: `base_url` is no URL.
    """

    def __init__(
        self, base_url: str, *, api_key: str | None, timeout_seconds: float, max_retries: int, max_concurrency: int
    ) -> None:
        place = urlsplit(base_url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise InvalidInputError(f"base_url must be like 'http://localhost:8000/v1', got {base_url!r}")
        self.name = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path.rstrip('/')}"
        self.max_retries = max_retries
        self._timeout_seconds = timeout_seconds
        self._max_concurrency = max_concurrency
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        self._settings: Mapping[str, Any] = {
            "base_url": base_url,
            "api_key": self._key or "none",  # the client insists on one; servers without keys ignore it
            "max_retries": max_retries,
            "timeout": openai.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
        }
        self._client: openai.AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(max_concurrency)
        self._closed = False

    def models(self) -> list[Card]:
        """What the server serves; blocks. Empty where it has no such list.

        Raises:
            GeneratorError: it cannot be reached, or refuses the key, or answers with something else.
        """
        patience = min(self._timeout_seconds, LIST_SECONDS)
        with openai.OpenAI(**{**self._settings, "timeout": patience}) as client:
            try:
                return _Cards.model_validate(client.get("/models", cast_to=object)).data
            except openai.NotFoundError:
                return []
            except openai.APIError as error:
                raise self._explained(error, "GET", "/models") from self._printable(error)
            except (ValidationError, ValueError) as error:
                raise GeneratorError(
                    f"GET {self.name}/models gave no list of models: is base_url that of an OpenAI-compatible server "
                    "(most end in /v1)?"
                ) from error

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[object, None]:
        """The chunks of one completion. Closing the iterator closes the connection, and the server stops its work.

        Raises:
            RefusedError: the server found fault with the request.
            CutError: the stream broke off.
            GeneratorError: no connection, no permission, no success after all retries, or an answer that is no stream.
        """
        client = self._connected()
        async with self._slots:
            try:
                chunks = await client.post(
                    "/completions", cast_to=object, body=body, stream=True, stream_cls=openai.AsyncStream[object]
                )
            except openai.APIError as error:
                raise self._explained(error, "POST", "/completions") from self._printable(error)
            try:
                kind = chunks.response.headers.get("content-type", "nothing named")
                if not kind.startswith("text/event-stream"):
                    raise GeneratorError(
                        f"{self.name}/completions answered with {kind} instead of a stream of events: is base_url that "
                        "of an OpenAI-compatible server (most end in /v1)?"
                    )
                async for chunk in chunks:
                    yield chunk
            except openai.APIError as error:
                said = self._said(error)
                raise CutError(f"{self.name}/completions broke a stream off: {said}") from self._printable(error)
            except ValueError as error:  # the decoder's: no JSON, no UTF-8
                raise GeneratorError(
                    f"{self.name}/completions sent an event that is no JSON ({error}): something between here and the "
                    "server may be changing its answers"
                ) from error
            finally:
                await chunks.close()

    async def back_off(self, attempt: int) -> None:
        """Wait before the next attempt, longer each time, by as much chance as keeps callers apart."""
        await asyncio.sleep(min(0.5 * 2**attempt, LONGEST_BACKOFF_SECONDS) * random.uniform(0.75, 1))

    async def aclose(self) -> None:
        """Close all connections; there will be no others."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()

    def _connected(self) -> openai.AsyncOpenAI:
        """The client of the running event loop, to which connections belong."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise GeneratorError("this generator is closed: make a new one")
        if self._client is None or self._loop is None or self._loop.is_closed():
            self._client = openai.AsyncOpenAI(**self._settings)
            self._slots = asyncio.Semaphore(self._max_concurrency)
            self._loop = loop
        elif loop is not self._loop:
            raise GeneratorError(
                "this generator has its connections in another event loop: use it from that loop, or make a generator "
                "for each loop"
            )
        return self._client

    def _explained(self, error: openai.APIError, method: str, path: str) -> TTSError:
        place = f"{method} {self.name}{path}"
        said = self._said(error)
        if isinstance(error, openai.APITimeoutError):
            return GeneratorError(
                f"{place} gave no answer within {self._timeout_seconds:g} seconds, {self.max_retries + 1} times: raise "
                "timeout_seconds, or lower max_concurrency, if the server has too much to do"
            )
        if isinstance(error, openai.APIConnectionError):
            return GeneratorError(f"{place} cannot be reached ({said}): is the server running, and the address right?")
        status = error.status_code if isinstance(error, openai.APIStatusError) else "unknown"
        place = f"{place} answered with status {status}"
        if status in (400, 413, 422):
            return RefusedError(f"{place}: {said}")
        if status in (401, 403):
            return GeneratorError(f"{place}: set OPENAI_API_KEY, or pass api_key, to a key that it accepts")
        if status == 404:
            return ModelNotFoundError(f"{place} ({said}): check the model's name, and base_url (most end in /v1)")
        if status == 429:
            return GeneratorError(
                f"{place} still after {self.max_retries} retries ({said}): lower max_concurrency, or raise max_retries"
            )
        return GeneratorError(f"{place} after {self.max_retries} retries ({said}): its log should say why")

    def _printable(self, error: openai.APIError) -> openai.APIError | None:
        """The error, to be shown as a cause; None where it quotes the key."""
        return None if self._key and self._key in str(error) else error

    def _said(self, error: openai.APIError) -> str:
        """The server's own words, short, without the key that some of them quote."""
        body = error.body
        words = body.get("message") or body.get("detail") or body if isinstance(body, Mapping) else body
        text = str(words or error.__cause__ or error.message)[:400]
        return text.replace(self._key, "(the API key)") if self._key else text
