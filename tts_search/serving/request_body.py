"""A request's body: strict JSON, read only for whoever may ask.

JSON leaves open what a name that comes twice means, and Python reads NaN, half characters and UTF-16 besides. Whatever
would be ignored or guessed at is refused here, and the reply says where it stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import pydantic_core
from fastapi import Request, Response
from fastapi.routing import APIRoute

from tts_search.serving.refusals import RefusedError

BOM = b"\xef\xbb\xbf"


class StrictRequest(Request):
    """A request whose body is read by `read_json`."""

    async def json(self) -> Any:
        """The body."""
        return read_json(await self.body())


class StrictRoute(APIRoute):
    """A route that knows who asks, and what the body claims to be, before it reads any of it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler around that of the route."""
        handler, takes_a_body = super().get_route_handler(), self.body_field is not None

        async def handle(request: Request) -> Response:
            if takes_a_body:
                request = StrictRequest(request.scope, request.receive)
                request.app.state.service.who(request)
                check_kind(request)
                await request.json()  # here, where an error keeps its words; the framework has its own for all of them
            return await handler(request)

        return handle


def check_kind(request: Request) -> None:
    """Refuse a body that is no JSON by its own account, or is packed.

    Raises:
        RefusedError: it is.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise RefusedError(
            400, f"a JSON object is due, sent with content-type application/json, not {kind[:100]!r}",
            code="invalid_content_type",
        )  # fmt: skip
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if packed != "identity":
        raise RefusedError(
            415, f"bodies are read as they are, not as content-encoding {packed[:100]!r}", code="invalid_encoding"
        )


def read_json(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        RefusedError: it is none, or says one thing twice.
    """
    if not raw:
        raise RefusedError(400, "a JSON object is due, sent with content-type application/json", code="invalid_json")
    raw = raw.removeprefix(BOM)
    try:
        pydantic_core.from_json(raw, allow_inf_nan=False)
        return json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON: {error}", code="invalid_json") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose names is there once."""
    said = dict(pairs)
    if len(said) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RefusedError(400, f"{twice[:100]!r} stands twice in one object", param=twice[:200], code="invalid_json")
    return said
