"""The page at `/`: ask, watch the tree grow, click through steps, compare two searches. Nothing comes from outside.

The texts that it shows are anybody's: they reach the document as text alone, and its policy lets only these files run.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response

from tts_search.serving.refusals import RefusedError

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
PARTS = ("page.css", "page.js", "parts.js", "server.js", "outline.js", "search.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> None:
    """The page, and the files that it is made of: those alone, whatever is asked for."""

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in PARTS:
            raise RefusedError(404, f"there is no page {name[:200]!r} here")
        return _file(name)


def _file(name: str) -> Response:
    text = (files(__name__) / name).read_bytes()
    kind = f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8"
    headers = {"cache-control": "no-cache", "content-security-policy": POLICY, "x-content-type-options": "nosniff"}
    return Response(text, media_type=kind, headers=headers)
