"""What stands behind the routes: from a request's fields to a search under way. It knows no reply's form."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from tts_search.errors import InvalidInputError
from tts_search.serving.admission import Admission
from tts_search.serving.fields import Ask
from tts_search.serving.keys import Key, Keys
from tts_search.serving.refusals import RefusedError, refusal_of
from tts_search.serving.search_options import ENDLESS_TOKENS, Plan, Served, plan
from tts_search.serving.searches import Search, Searches
from tts_search.serving.supervisor import Supervisor
from tts_search.serving.telemetry import Telemetry

log = logging.getLogger("tts_search.serving")


class Service:
    """One engine, all requests."""

    def __init__(self, supervisor: Supervisor, served: Served, keys: Keys, *, log_prompts: bool = False) -> None:
        self.supervisor = supervisor
        self.served = served
        self.keys = keys
        self.limits = served.limits
        self.admission = Admission(self.limits)
        self.searches = Searches(self.limits)
        self.telemetry = Telemetry(self.admission, supervisor)
        self.draining = False
        self.started = int(time.time())
        self._log_prompts = log_prompts

    def who(self, request: Request) -> Key:
        """Whose request it is.

        Raises:
            RefusedError: 401.
        """
        key = self.keys.who(request.headers.get("authorization"))
        request.state.log = lambda: {"key": key.name}
        return key

    async def begin(self, request: Request, key: Key, ask: Ask) -> Search:
        """The search that a request is answered by: a new one, or the one under way that it repeats.

        Raises:
            RefusedError, InvalidInputError: it cannot be had, or not now.
        """
        if len(ask.messages) > self.limits.messages:
            raise RefusedError(
                400, f"{ask.field}: {len(ask.messages)} messages are more than {self.limits.messages}", param=ask.field,
                code="too_many_messages",
            )  # fmt: skip
        wanted = _allowed(plan(ask, self.served), key)
        self.supervisor.check()
        key.check()
        try:
            await self.supervisor.searcher.acheck(wanted.ask.messages, **wanted.options)
        except InvalidInputError as error:
            raise refusal_of(error, question=ask.field) from error
        fingerprint, repeats = _fingerprint(request, await request.body())
        search = self.searches.same(key, fingerprint) if repeats else None
        if search is None:
            ticket = self.admission.enter(key, wanted.options.get("budget") or 0)
            search = Search(wanted, key, ticket, self.supervisor, self._ended)
            self.searches.begin(search, fingerprint)
        else:
            self.telemetry.joined.inc()
        request.state.log = self._line(search, ask)
        return search

    def drain(self, error: BaseException) -> None:
        """The server ends now: whoever still waits is told so."""
        self.searches.cancel_all(error)

    def _ended(self, search: Search) -> None:
        if search.error is not None and not search.task.cancelled() and refusal_of(search.error).status >= 500:
            log.warning("search %s failed: %s: %s", search.id, type(search.error).__name__, search.error)
        self.searches.end(search)
        self.telemetry.ended(search)

    def _line(self, search: Search, ask: Ask) -> Callable[[], dict[str, Any]]:
        def line() -> dict[str, Any]:
            result = search.result
            first = None if search.first_token is None else round(search.first_token - search.entered, 4)
            return {
                "key": search.key.name,
                "model": search.plan.model,
                "search": search.id,
                "strategy": repr(search.plan.strategy),
                "sampled_tokens": search.sampled if result is None else result.usage.sampled_tokens,
                "first_token": first,
                "stop_reason": None if result is None else str(result.stop_reason),
                "error": None if search.error is None else f"{type(search.error).__name__}: {search.error}"[:500],
                **({"messages": ask.messages} if self._log_prompts else {}),
            }

        return line


def _allowed(wanted: Plan, key: Key) -> Plan:
    """The plan within what its key has left."""
    options = dict(wanted.options)
    if key.seconds is not None:
        options["seconds"] = min(key.seconds, wanted.options.get("seconds") or math.inf)
    left = key.left
    if left:  # who names no budget gets a part, so that others of the key may run beside it
        options["budget"] = min(left, wanted.options.get("budget") or max(ENDLESS_TOKENS, left // 4))
    return replace(wanted, options=options)


def _fingerprint(request: Request, body: bytes) -> tuple[str, bool]:
    """What equal requests have in common, and whether this one says that it repeats another."""
    named = request.headers.get("idempotency-key")
    count = request.headers.get("x-stainless-retry-count", "0")
    said = body if named is None else named.encode()
    digest = hashlib.sha256(f"{request.url.path}\n".encode("utf-8", "replace") + said).hexdigest()
    return digest, named is not None or (count.isdigit() and int(count) > 0)
