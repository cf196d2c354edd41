"""Replies that are alive while their search runs, and notice at once when the client leaves.

Plain ASGI: what is in between of most frameworks holds a disconnect back until the next write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tts_search.serving.refusals import RefusedError, refusal_of
from tts_search.serving.sse_out import KEEP_ALIVE, body

Present = AbstractContextManager[Callable[[], bool]]


class Live(Response):
    """Runs `_write` until it is done or the client leaves; `present` is entered for as long.

    It gives a function: whether all is said. A client that closes the connection then has not left.
    """

    def __init__(self, present: Present, every: float, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-store"})
        del self.headers["content-length"]
        self._present = present
        self._every = every

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reply."""
        with self._present as over:
            writing = asyncio.ensure_future(self._write(send))
            leaving = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not writing.done() and not over():
                    scope.setdefault("state", {})["left"] = True
            finally:
                for task in (writing, leaving):
                    if not task.done():
                        task.cancel()
                await asyncio.wait({writing, leaving})
        if not writing.cancelled():
            writing.result()

    async def _write(self, send: Send) -> None:
        raise NotImplementedError

    async def _start(self, send: Send, status: int, kind: str, extra: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in {"content-type": kind, **extra}.items()]
        await send({"type": "http.response.start", "status": status, "headers": [*self.raw_headers, *raw]})


class LiveStream(Live):
    """Server-sent events, with a comment wherever nothing else comes for `every` seconds."""

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        present: Present,
        every: float,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(present, every, {**headers, "x-accel-buffering": "no"})
        self._parts = parts

    async def _write(self, send: Send) -> None:
        await self._start(send, 200, "text/event-stream; charset=utf-8", {})
        coming = asyncio.ensure_future(anext(self._parts, None))
        try:
            while True:
                await asyncio.wait({coming}, timeout=self._every)
                if not coming.done():
                    part = KEEP_ALIVE
                elif (part := coming.result()) is None:
                    break
                else:
                    coming = asyncio.ensure_future(anext(self._parts, None))
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            coming.cancel()
            with suppress(BaseException):
                await asyncio.wait({coming})


class LiveBody(Live):
    """One JSON object. Where it takes longer than `every` seconds, blank lines come in front of it.

    The status is then 200 already: should the search fail yet, the error is written and the connection broken off, so
    that no client takes it for an answer.
    """

    def __init__(
        self,
        made: Callable[[], Awaitable[Any]],
        present: Present,
        every: float,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(present, every, headers)
        self._made = made

    async def _write(self, send: Send) -> None:
        making = asyncio.ensure_future(self._made())
        started = False
        try:
            while True:
                await asyncio.wait({making}, timeout=self._every)
                if making.done():
                    break
                if not started:
                    await self._start(send, 200, "application/json", {})
                    started = True
                await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            refusal: RefusedError | None = None
            try:
                value = body(making.result())
            except Exception as error:
                refusal = refusal_of(error)
                value = body(refusal.body)
            if not started:
                extra = {"content-length": str(len(value)), **({} if refusal is None else refusal.headers)}
                await self._start(send, 200 if refusal is None else refusal.status, "application/json", extra)
            await send({"type": "http.response.body", "body": value, "more_body": started and refusal is not None})
            if started and refusal is not None:
                raise BrokenOffError(refusal.message)
        finally:
            making.cancel()


class BrokenOffError(Exception):
    """A reply that began as an answer and became none: the server closes the connection unfinished."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
