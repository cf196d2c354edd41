"""The routes. Each is a few lines: who asks, for what, and in which form the reply goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from tts_search import __version__
from tts_search.api import Searcher
from tts_search.core.result import SearchResult
from tts_search.errors import SearchCancelledError, TTSError
from tts_search.export import to_html, to_json
from tts_search.serving import completions, responses
from tts_search.serving.chat_fields import ChatRequest
from tts_search.serving.keep_alive import Live, LiveBody, LiveStream
from tts_search.serving.keys import Keys
from tts_search.serving.limits import Limits
from tts_search.serving.middleware import Gate
from tts_search.serving.page import add_page
from tts_search.serving.refusals import RefusedError, refusal_of, refusal_of_fields
from tts_search.serving.request_body import StrictRoute
from tts_search.serving.responses_fields import ResponsesRequest
from tts_search.serving.search_events import watch
from tts_search.serving.search_options import Served
from tts_search.serving.searches import Search
from tts_search.serving.service import Service
from tts_search.serving.sse_out import body as json_bytes
from tts_search.serving.supervisor import Supervisor
from tts_search.serving.telemetry import CONTENT_TYPE


def served_by(searcher: Searcher, name: str, *, limits: Limits | None = None, **settings: Any) -> Served:
    """What a searcher has to offer, under a name; `settings` are those of `Served`."""
    return Served(
        name=name,
        scored=searcher.settings["scorer"] is not None,
        thinks=searcher.generator.tokenizer.thinking is not None,
        starts_anywhere=getattr(searcher.generator, "starts_anywhere", True),
        limits=limits or Limits(),
        **settings,
    )


def create_app(
    searcher: Searcher,
    served: Served,
    *,
    open_another: Callable[[], Searcher],
    keys: Keys | None = None,
    hosts: Collection[str] | None = (),
    origins: Collection[str] = (),
    log_prompts: bool = False,
    idle_seconds: float | None = 15.0,
) -> FastAPI:
    """The server as an ASGI application, which owns the searcher from its start on and closes it at its end.

    `open_another` makes a searcher like it when the engine dies. `hosts` are names that the server may be called by,
    None any; `origins` those web pages that may call it from a browser. An engine that is idle for `idle_seconds` is
    asked for a token, so that `/health` knows; None spares it.
    """
    supervisor = Supervisor(searcher, open_another, restarts=served.limits.restarts, idle_seconds=idle_seconds)
    service = Service(supervisor, served, keys or Keys(), log_prompts=log_prompts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        supervisor.start()
        yield
        service.drain(SearchCancelledError("the server is shut down"))
        await supervisor.close()

    app = FastAPI(title="tts-search", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False  # behind a proxy a redirect would lead to http, and keys with it
    app.router.route_class = StrictRoute
    app.state.service = service
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(
        Gate, body_bytes=served.limits.body_bytes, hosts=hosts, counted=lambda *seen: _count(service, *seen)
    )
    _errors(app)
    _asking(app, service)
    _looking(app, service)
    _operating(app, service)
    add_page(app)
    return app


def _asking(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request, asked: Annotated[ChatRequest, Body()]) -> Response:
        key = service.who(request)
        search = await service.begin(request, key, asked.ask())
        if asked.stream:
            options = asked.stream_options
            return _stream(
                service, search, completions.chunks(search, None if options is None else bool(options.include_usage))
            )
        return _whole(service, search, lambda: completions.completion(search))

    @app.post("/v1/responses")
    async def create_response(request: Request, asked: Annotated[ResponsesRequest, Body()]) -> Response:
        key = service.who(request)
        search = await service.begin(request, key, asked.ask())
        if asked.stream:
            return _stream(service, search, responses.events(search, asked))
        return _whole(service, search, lambda: responses.response(search, asked))

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        service.who(request)
        return _json({"object": "list", "data": [_model(service, name) for name in service.served.models]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        service.who(request)
        if name not in service.served.models:
            raise RefusedError(404, f"there is no model {name[:200]!r} here", param="model", code="model_not_found")
        return _json(_model(service, name))


def _looking(app: FastAPI, service: Service) -> None:
    @app.get("/v1/searches/{name}")
    async def search(request: Request, name: str, form: Literal["json", "html"] | None = None) -> Response:
        found = service.searches.find(service.who(request), name)
        if found.result is None:
            raise RefusedError(
                409, "this search is not over: its events are at /events below it", code="search_running"
            )
        page = form == "html" or (form is None and "text/html" in request.headers.get("accept", ""))
        text = await asyncio.to_thread(_written, found.result, page)
        return Response(text.encode("utf-8", "replace"), media_type="text/html" if page else "application/json")

    @app.get("/v1/searches/{name}/events")
    async def events(request: Request, name: str) -> Response:
        found = service.searches.find(service.who(request), name)
        return LiveStream(watch(found), nullcontext(lambda: found.over), service.limits.keep_alive_seconds, {})

    @app.delete("/v1/searches/{name}")
    async def cancel(request: Request, name: str) -> Response:
        found = service.searches.find(service.who(request), name)
        found.cancel(RefusedError(409, "the search was cancelled by its asker", code="search_cancelled"))
        return _json({"id": found.id, "object": "search", "cancelled": found.result is None})


def _operating(app: FastAPI, service: Service) -> None:
    supervisor = service.supervisor

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Response:
        return _json({"status": supervisor.state}, 503 if supervisor.state in ("restarting", "dead") else 200)

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready")
    async def ready() -> Response:
        able = supervisor.state == "ready" and not service.draining
        state = "draining" if service.draining else supervisor.state
        return _json({"status": state, "queue": service.admission.waiting}, 200 if able else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        service.who(request)
        return Response(service.telemetry.page(), headers={"content-type": CONTENT_TYPE})

    @app.get("/version")
    async def version() -> Response:
        return _json({"version": __version__})


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return _refusal(error)

    @app.exception_handler(TTSError)
    async def failed(_: Request, error: TTSError) -> Response:
        return _refusal(refusal_of(error))

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> Response:
        return _refusal(refusal_of_fields(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return _refusal(RefusedError(error.status_code, str(error.detail)), error.headers or {})

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return _refusal(refusal_of(error), {"connection": "close"})  # the server does so, after it has logged the error


def _stream(service: Service, search: Search, parts: AsyncIterator[bytes]) -> Live:
    limits = service.limits
    return LiveStream(parts, search.client(0.0), limits.keep_alive_seconds, {"x-search-id": search.id})


def _whole(service: Service, search: Search, made: Callable[[], Any]) -> Live:
    async def make() -> Any:
        await search.wait()
        return made()

    limits = service.limits
    present = search.client(limits.linger_seconds)
    return LiveBody(make, present, limits.keep_alive_seconds, {"x-search-id": search.id})


def _written(result: SearchResult, page: bool) -> str:
    return to_html(result) if page else to_json(result)


def _model(service: Service, name: str) -> dict[str, Any]:
    served, generator = service.served, service.supervisor.searcher.generator
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "tts-search",
        "root": served.name,
        "parent": None if name == served.name else served.name,
        "max_model_len": generator.context_tokens,
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_bytes(value), status, media_type="application/json")


def _refusal(refusal: RefusedError, headers: Mapping[str, str] = {}) -> Response:
    headers = {**headers, **refusal.headers}
    return Response(json_bytes(refusal.body), refusal.status, headers, media_type="application/json")


def _count(service: Service, path: str, status: int, left: bool) -> None:
    service.telemetry.requests.labels(path, str(status)).inc()
    if left:
        service.telemetry.left.inc()
