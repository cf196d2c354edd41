"""What every request passes, before any route: its size, its host, its origin, and a line in the log after it.

Plain ASGI, so that a client's leaving reaches the reply at once.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import time
from collections.abc import Collection
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tts_search.serving.refusals import RefusedError
from tts_search.serving.sse_out import body

TOO_LARGE = "the body is longer than this server takes"
access = logging.getLogger(__name__)


class Gate:
    """Around the application.

    `hosts` are names by which the server may be called besides addresses and localhost; None allows any. Without keys,
    that is what keeps a web page of somebody's from reaching a server on its reader's own machine by a name that points
    there. `counted(path, status, left)` hears of each request.
    """

    def __init__(self, app: ASGIApp, *, body_bytes: int, hosts: Collection[str] | None, counted: Any) -> None:
        self._app = app
        self._body_bytes = body_bytes
        self._hosts = hosts
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        state: dict[str, Any] = scope.setdefault("state", {})
        status = 0
        first_byte: float | None = None

        async def sending(message: Message) -> None:
            nonlocal status, first_byte
            if message["type"] == "http.response.start":
                status = message["status"]
                first_byte = time.monotonic() - begun
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, _Bounded(receive, self._body_bytes), sending)
            else:
                await _reply(refusal, sending)
        finally:
            left = bool(state.get("left"))
            path = state.get("route") or getattr(scope.get("route"), "path", None) or "other"
            self._counted(path, status, left)
            line = {
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "client": (scope.get("client") or ("",))[0],
                "seconds": round(time.monotonic() - begun, 4),
                "first_byte": None if first_byte is None else round(first_byte, 4),
                "left": left,
                **state.get("log", dict)(),
            }
            access.info(json.dumps(line, ensure_ascii=True))

    def _refusal(self, scope: Scope) -> RefusedError | None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._body_bytes:
            return self._too_large()
        host = headers.get(b"host", b"").decode("latin-1")
        # No browser leaves the host out; who does (HTTP/1.0) is no web page's doing.
        if self._hosts is not None and host and not _is_address(host) and _name(host) not in self._hosts:
            return RefusedError(403, f"this server is not called {_name(host)[:100]!r}", code="unknown_host")
        return None

    def _too_large(self) -> RefusedError:
        return RefusedError(413, TOO_LARGE, code="body_too_large")


class _Bounded:
    """Counts the body as it comes: a length is not always told in front."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, TOO_LARGE)  # of the kind that frameworks pass on
        return message


async def _reply(refusal: RefusedError, send: Any) -> None:
    value = body(refusal.body)
    headers = {"content-type": "application/json", "content-length": str(len(value)), "connection": "close"}
    raw = [(name.encode(), text.encode()) for name, text in {**headers, **refusal.headers}.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": value})


def _name(host: str) -> str:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.lower().strip("[]")


def _is_address(host: str) -> bool:
    name = _name(host)
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
