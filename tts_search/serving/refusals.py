"""What a client is told when there is no answer: status and body in OpenAI's form, and never what is the server's own.

Errors of the engine, of scorers and of whatever else runs here name their kind alone: their messages may hold paths and
addresses, and stand in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tts_search.errors import GeneratorError, InvalidInputError, SearchCancelledError, StrategyError

_KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_KINDS |= {405: "invalid_request_error", 413: "invalid_request_error", 415: "invalid_request_error"}
_KINDS |= {429: "rate_limit_error", 503: "service_unavailable_error"}


class RefusedError(Exception):
    """An answer that is an error: `param` names the field, `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The object that clients read."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Those that say what to do next."""
        headers = {} if self.retry_after is None else {"retry-after": str(max(1, round(self.retry_after)))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def unavailable(what: str, retry_after: float = 5.0) -> RefusedError:
    """A 503: come back."""
    return RefusedError(503, what, code="engine_unavailable", retry_after=retry_after)


def refusal_of(error: BaseException, question: str | None = None) -> RefusedError:
    """What a client is told of an error; `question` is the field that the question came in."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, InvalidInputError):
        of_question = str(error).startswith(("the question", "the last message", "chat messages"))
        param = question if of_question else _param(str(error))
        return RefusedError(400, str(error), param=param, code="invalid_value")
    if isinstance(error, StrategyError):
        return RefusedError(400, str(error), param="search", code="strategy_failed")
    if isinstance(error, SearchCancelledError):
        return unavailable("the engine went away while this search ran: try again")
    what = "the engine" if isinstance(error, GeneratorError) else "the search"
    return RefusedError(
        500, f"{what} failed ({type(error).__name__}): the server's log says more", code="search_failed"
    )


def refusal_of_fields(errors: Sequence[Mapping[str, Any]]) -> RefusedError:
    """The first thing that is wrong with a body, by the name of its field."""
    first = errors[0]
    place = [part for part in first.get("loc", ()) if part != "body"]
    if first.get("type") == "json_invalid":
        return RefusedError(
            400, f"the body is not JSON: {first.get('ctx', {}).get('error', 'malformed')}", code="invalid_json"
        )
    name = ""
    for part in place:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    name = name[:200]
    message = str(first.get("msg", "cannot be used")).removeprefix("Value error, ")
    if first.get("type") == "extra_forbidden":
        message = "there is no such field here: nothing that is sent is ignored"
    if not place and first.get("type") in ("missing", "model_type", "model_attributes_type"):
        message = "a JSON object is due, sent with content-type application/json"
    return RefusedError(400, f"{name}: {message}" if name else message, param=name or None, code="invalid_value")


def _param(message: str) -> str | None:
    """The field that an error of the library speaks of, where it begins with an option's name."""
    first = message.split(" ", 1)[0]
    options = {"budget": "search.budget", "early_stop": "search.early_stop", "seconds": "search.seconds"}
    options |= {"selector": "search.selector", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}
    return options.get(first)
