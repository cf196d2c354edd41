"""The connection to an OpenAI-compatible server: what it serves, streams of chunks, and errors that say what to do.

Whatever fails before a stream begins is tried again, later each time. What a stream that breaks off later means is the
generator's matter. This module knows no tokens.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import count

from tts_search.core.loop import LoopThread
from tts_search.errors import GeneratorError, MissingDependencyError, ModelNotFoundError
from tts_search.generators.openai.access import Access
from tts_search.generators.openai.cards import Card, cards_in
from tts_search.generators.openai.redirects import MOST_REDIRECTS, followed, is_redirect, shown
from tts_search.generators.openai.shapes import from_json
from tts_search.generators.openai.silence import Silence
from tts_search.generators.openai.sse import MOST_BYTES, EventDecoder, FloodError
from tts_search.generators.openai.troubles import Troubles
from tts_search.generators.openai.waiting import may_pass, retry_after

try:
    import aiohttp
except ImportError as error:
    raise MissingDependencyError(
        "an OpenAI-compatible endpoint needs aiohttp: pip install 'tts-search[openai]'"
    ) from error

CONNECT_SECONDS = 10.0
LIST_SECONDS = 30.0  # a list of models takes no computing
CLOSE_SECONDS = 0.5  # from the last event to the end of the response, without which its connection is not used again
IDLE_SECONDS = 4.0  # that an unused connection is kept: uvicorn closes it after 5
LONGEST_BACKOFF_SECONDS = 8.0
WORDS_SECONDS = 3.0  # from an error's status to its last word
MOST_WORDS = 2**16  # bytes of an error's body that are read


class Endpoint:
    """A server under `base_url`.

    Args:
        base_url: ends in `/v1` for most servers. A user and a password in it are sent as such, instead of the key.
        api_key: None takes `OPENAI_API_KEY` from the environment, and goes without where there is none.
        timeout_seconds: of silence, before an answer begins or within it, after which a connection is given up.
        max_retries: how often a request that failed is sent again.
        max_concurrency: streams at once; more of them wait here.
        path: under `base_url`, of what is asked.

    Raises:
        InvalidInputError: `base_url` is no URL, or the key cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        timeout_seconds: float,
        max_retries: int,
        max_concurrency: int,
        path: str = "/completions",
    ) -> None:
        self._access = Access.of(base_url, api_key)
        self._path = path
        self.name = self._access.address.name
        self.max_retries = max_retries
        self._timeout_seconds = timeout_seconds
        self._max_concurrency = max_concurrency
        self._troubles = Troubles(self.name, self._access.redact, timeout_seconds, path)
        self.quote = self._troubles.quote
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(max_concurrency)
        self._closed = False

    def models(self) -> list[Card]:
        """What the server serves; blocks. Empty where it has no such list.

        Raises:
            GeneratorError: it cannot be reached, or refuses the key, or answers with something else.
        """
        thread = LoopThread()  # the caller may be within a running loop
        try:
            return thread.call(self._models())
        finally:
            thread.stop()

    async def _models(self) -> list[Card]:
        patience = min(self._timeout_seconds, LIST_SECONDS)
        troubles = Troubles(self.name, self._access.redact, patience, "/models")
        async with self._new_session() as session:
            try:
                async with await self._ask(session, troubles, "GET", "/models") as response, asyncio.timeout(patience):
                    listed = from_json(await _all(response))
            except ModelNotFoundError:
                return []
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise GeneratorError(
                    f"GET {self.name}/models gave no list of models ({troubles.why(error)}): is base_url that of an "
                    "OpenAI-compatible server (most end in /v1)?"
                ) from troubles.cause(error)
        cards = cards_in(listed)
        if cards is None:
            raise troubles.nonsense(
                f"gave no list of models, but {troubles.said(listed)}",
                "is base_url that of an OpenAI-compatible server (most end in /v1)?",
            )
        return cards

    async def stream(self, body: bytes, session_id: str) -> AsyncGenerator[object, None]:
        """The chunks of one completion. Closing the iterator closes the connection, and the server stops its work.

        Raises:
            RefusedError: the server found fault with the request.
            CutError: the stream broke off.
            GeneratorError: no connection, no permission, no success after all retries, or an answer that is no stream.
        """
        session = self._connected()
        async with self._slots:
            response = await self._ask(session, self._troubles, "POST", self._path, body, session_id)
            silence = Silence(self._timeout_seconds, response.close)
            try:
                if self._comes_whole(response):
                    with silence:
                        yield self._read(await _all(response))
                    return
                decoder = EventDecoder()
                with silence:
                    while block := await response.content.readany():
                        silence.heard()
                        for event in decoder.feed(block):
                            if event.startswith(b"[DONE]"):
                                await _finish(response)
                                return
                            yield self._read(event)
            except (aiohttp.ClientError, OSError) as error:
                raise self._troubles.cut(TimeoutError() if silence.struck else error) from self._troubles.cause(error)
            except FloodError as error:
                raise self._troubles.nonsense(
                    f"sent {error}", "it is no server of completions, or it is broken"
                ) from error
            finally:
                response.close()  # and with it the connection, unless all of the response has come

    def _comes_whole(self, response: aiohttp.ClientResponse) -> bool:
        """Whether a server that does not stream has sent one JSON object instead."""
        kind = response.headers.get("content-type", "nothing named")
        if kind.lower().startswith("application/json"):
            return True
        if not kind.lower().startswith("text/event-stream"):
            raise self._troubles.nonsense(
                f"answered with {self.quote(kind, 80)} instead of a stream of events",
                "is base_url that of an OpenAI-compatible server (most end in /v1)?",
            )
        return False

    def _read(self, event: bytes) -> object:
        try:
            chunk = from_json(event)
        except ValueError as error:
            raise self._troubles.nonsense(
                f"sent an event that is no JSON ({error})",
                "something between here and the server may be changing its answers",
            ) from error
        # An event of its own name, or vLLM's `"object": "error"`, has no field for the error: it is one.
        if isinstance(chunk, dict) and (chunk.get("error") or ("choices" not in chunk and "message" in chunk)):
            raise self._troubles.broken(chunk)
        return chunk

    async def back_off(self, attempt: int) -> None:
        """Wait before the next attempt, longer each time, by as much chance as keeps callers apart."""
        await asyncio.sleep(min(0.5 * 2**attempt, LONGEST_BACKOFF_SECONDS) * random.uniform(0.75, 1))

    async def aclose(self) -> None:
        """Close all connections; there will be no others."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()
        elif session is not None and self._loop is not None:
            _abandon(session, self._loop)

    def __del__(self) -> None:
        session, loop = getattr(self, "_session", None), getattr(self, "_loop", None)
        if session is not None and loop is not None:
            _abandon(session, loop)

    def _connected(self) -> aiohttp.ClientSession:
        """The session of the running event loop, to which connections belong."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise GeneratorError("this generator is closed: make a new one")
        if self._session is None or self._loop is None or self._loop.is_closed():
            if self._session is not None and self._loop is not None:
                _abandon(self._session, self._loop)
            self._session = self._new_session()
            self._slots = asyncio.Semaphore(self._max_concurrency)
            self._loop = loop
        elif loop is not self._loop:
            raise GeneratorError(
                "this generator has its connections in another event loop: use it from that loop, or make a generator "
                "for each loop"
            )
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        connect = min(CONNECT_SECONDS, self._timeout_seconds)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            # A cookie would tie all trees to the server that one of them has met.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._access.headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
            auto_decompress=False,
            proxy=self._access.proxy,
        )

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        troubles: Troubles,
        method: str,
        path: str,
        body: bytes | None = None,
        session_id: str | None = None,
    ) -> aiohttp.ClientResponse:
        """A response that is a success, after as many attempts as it takes and is allowed."""
        place = f"{method} {self.name}{path}"
        headers = None if session_id is None else {"X-Session-ID": session_id}
        for attempt in count():
            wait = None
            try:
                async with asyncio.timeout(troubles.silence_seconds):
                    response = await self._sent(session, troubles, method, path, body, headers)
                if response.ok:
                    return _unpacked(response, troubles)
                async with response:
                    said = await _words(response)
            except (aiohttp.ClientError, OSError) as error:
                if attempt == self.max_retries or isinstance(error, aiohttp.InvalidURL):
                    late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)
                    failure = troubles.silence(place, attempt + 1) if late else troubles.unreachable(place, error)
                    raise failure from troubles.cause(error)
            else:
                wait = retry_after(response.headers)
                if attempt == self.max_retries or not may_pass(response.status, response.headers):
                    raise troubles.refusal(place, response.status, said, attempt, wait)
            await (asyncio.sleep(wait) if wait else self.back_off(attempt))
        raise AssertionError

    async def _sent(
        self,
        session: aiohttp.ClientSession,
        troubles: Troubles,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str] | None,
    ) -> aiohttp.ClientResponse:
        """What the server answers, from wherever it keeps it; another server is asked nothing."""
        url = self._access.address.at(path)
        for redirects in count():
            response = await session.request(method, url, data=body, headers=headers, allow_redirects=False)
            if not is_redirect(response.status):
                return response
            response.close()
            place, where = f"{method} {self.name}{path}", response.headers.get("location")
            there = followed(url, method, response.status, where)
            if there is None or redirects == MOST_REDIRECTS:
                raise troubles.redirect(place, response.status, shown(url, where), redirects)
            url = there
        raise AssertionError


def _abandon(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close a session from outside its loop, so that nobody finds it unclosed."""
    closing = session.close()
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(closing, loop)
    else:
        with suppress(StopIteration):
            closing.send(None)  # where no loop runs there is nothing to wait for


async def _finish(response: aiohttp.ClientResponse) -> None:
    """Read what comes behind the last event, so that the connection can be used again; some servers keep it open."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            while await response.content.readany():
                pass
    except (aiohttp.ClientError, OSError):
        pass


async def _all(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    while block := await response.content.readany():
        data += block
        if len(data) > MOST_BYTES:
            raise FloodError(f"an answer of more than {MOST_BYTES:,} bytes")
    return bytes(data)


def _packing(response: aiohttp.ClientResponse) -> str:
    """How a body is packed, empty where it is not, as was asked for: nothing bounds what it would unpack to."""
    encoding = response.headers.get("content-encoding", "").strip()
    return "" if encoding.lower() == "identity" else encoding


def _unpacked(response: aiohttp.ClientResponse, troubles: Troubles) -> aiohttp.ClientResponse:
    packing = _packing(response)
    if packing:
        response.close()
        raise troubles.nonsense(
            f"packed its answer by {troubles.quote(packing, 80)}, unasked",
            "have the server, or what is between here and it, heed Accept-Encoding",
        )
    return response


async def _words(response: aiohttp.ClientResponse) -> object:
    """What an error's body says, as JSON where it is that."""
    if packing := _packing(response):
        return f"what it says is packed by {packing}"
    data = bytearray()
    with suppress(aiohttp.ClientError, OSError):  # what has come is better than nothing, and the status is known
        async with asyncio.timeout(WORDS_SECONDS):
            while len(data) <= MOST_WORDS and (block := await response.content.readany()):
                data += block
    try:
        return from_json(bytes(data))
    except ValueError:
        return data.decode("utf-8", "replace") or response.reason or "it does not say why"
