"""What to tell the user of a request that failed: the endpoint, what happened, what to do; and never a credential."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tts_search.addresses import Redaction
from tts_search.errors import EngineUnavailableError, GeneratorError, InvalidInputError, ModelNotFoundError, TTSError
from tts_search.generators.openai.waiting import MOST_SECONDS

CHAT_PATH = "/chat/completions"
FOR_GOOD = (401, 402, 403, 404)  # of errors in a stream: vLLM says 400 of whatever broke there


class RefusedError(InvalidInputError):
    """The server found fault with the request itself (400, 413, 422): the same request will not do better.

    `words` are the server's own; `field` the one that it says is at fault, if it says.
    """

    def __init__(self, message: str, words: str = "", field: str | None = None) -> None:
        super().__init__(message)
        self.words = words
        self.field = field


class CutError(EngineUnavailableError):
    """A stream ended before its completion did."""


class Troubles:
    """The errors of one server, called `name`, that is given up after `silence_seconds` of silence.

    `path` is what is asked of it.
    """

    def __init__(self, name: str, redact: Redaction, silence_seconds: float, path: str = "/completions") -> None:
        self._place = f"{name}{path}"
        self._redact = redact
        self.silence_seconds = silence_seconds

    def silence(self, place: str, attempts: int) -> TTSError:
        """No answer, from `place`: the method and the path."""
        return EngineUnavailableError(
            f"{place} gave no answer within {self.silence_seconds:g} seconds, {attempts} times: raise "
            "timeout_seconds, or lower max_concurrency, if the server has too much to do"
        )

    def unreachable(self, place: str, error: Exception) -> TTSError:
        """No connection, or one that broke before an answer."""
        return EngineUnavailableError(
            f"{place} cannot be reached ({self.why(error)}): is the server running, and the address right?"
        )

    def refusal(self, place: str, status: int, body: object, retries: int, wait: float | None) -> TTSError:
        """An answer that is no success, whose server asked to `wait` so many seconds."""
        place, said = f"{place} answered with status {status}", self.said(body)
        if status in (400, 413, 422):
            return RefusedError(f"{place}: {said}", said, _named_field(body))
        if status in (401, 403):
            return GeneratorError(f"{place}: set OPENAI_API_KEY, or pass api_key, to a key that it accepts")
        if status == 404:
            chat = "" if "/chat/" in place else f"; a service for chat alone is named by its whole URL, {CHAT_PATH}"
            return ModelNotFoundError(f"{place} ({said}): check the model's name, and base_url (most end in /v1){chat}")
        if wait is not None and wait > MOST_SECONDS:
            said = f"{said}; it asks to come again in {wait:,.0f} seconds"
        if status == 429:
            return EngineUnavailableError(
                f"{place} still after {retries} retries ({said}): lower max_concurrency, or raise max_retries"
            )
        return EngineUnavailableError(f"{place} after {retries} retries ({said}): its log should say why")

    def redirect(self, place: str, status: int, where: str, before: int) -> TTSError:
        """A redirect to `where`, behind `before` others, that is not followed."""
        led = f"led through {before} redirects, and " if before else ""
        return GeneratorError(
            f"{place} {led}answered with status {status}, pointing to {self.quote(where)}: no key and no prompt is "
            "sent to another server, and no POST made a GET; set base_url to the address that is to answer"
        )

    def cut(self, body: object) -> CutError:
        """A stream that broke off, by an error of the server's or of the connection."""
        said = self.why(body) if isinstance(body, Exception) else self.said(body)
        return CutError(f"{self._place} broke a stream off: {said}")

    def broken(self, body: Mapping[str, Any]) -> GeneratorError:
        """An error where a chunk should be."""
        error = body.get("error")
        code = (error if isinstance(error, Mapping) else body).get("code")
        if code in FOR_GOOD:
            return GeneratorError(f"{self._place} broke off with an error of code {code}: {self.said(body)}")
        return self.cut(body)

    def nonsense(self, what: str, remedy: str) -> GeneratorError:
        """An answer that is none of completions."""
        return GeneratorError(f"{self._place} {what}: {remedy}")

    def cause(self, error: BaseException) -> BaseException | None:
        """The error, to be shown as a cause; None where it shows what must not be shown."""
        return None if self._redact.shows(error) else error

    def why(self, error: Exception) -> str:
        """What went wrong with a connection, in words."""
        if isinstance(error, TimeoutError) and not str(error):
            return f"silent for {self.silence_seconds:g} seconds"
        return self.quote(str(error) or type(error).__name__, 400)

    def said(self, body: object) -> str:
        """The server's own words, out of the shapes that servers have for them."""
        if isinstance(body, Mapping):
            body = body.get("error") or body
        if isinstance(body, Mapping):
            body = body.get("message") or body.get("detail") or body
        return self.quote(body, 400)

    def quote(self, words: object, length: int = 200) -> str:
        """What the server sent, short, without the credentials that some servers repeat."""
        return self._redact(str(words))[:length]


def _named_field(body: object) -> str | None:
    """The field of a request that OpenAI's and like errors name."""
    error = body.get("error") if isinstance(body, Mapping) else None
    field = error.get("param") if isinstance(error, Mapping) else None
    return field if isinstance(field, str) else None
