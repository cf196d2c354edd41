"""What goes over the wire to `/v1/completions` and what comes back: bodies of requests, and the chunks of an answer.

It speaks the dialects of vLLM, SGLang, llama.cpp and OpenAI, and checks what arrives. A field that is null is one that
is not there. It knows JSON and numbers; it knows no connection and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_search.core.protocols import Request
from tts_search.errors import GeneratorError
from tts_search.generators.engine_requests import SEED_MASK
from tts_search.generators.openai.shapes import Count, Struct, read_chunk, to_json
from tts_search.generators.vllm.plugin import CLAMPED, read_score

TOKEN_ID = "token_id:"  # how vLLM writes a token when asked to write ids
ENDINGS = {"eos": "stop", "eos_token": "stop", "stop_sequence": "stop"}  # as Together and TGI say it
NO_HEAD = (
    "for scores, start the server with `python -m tts_search.generators.vllm.server MODEL`; without, pass head=None"
)
QUIET_CHUNK_TOKENS = 256  # at most to a chunk on vLLM, where nobody watches the progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What the bodies of one generator's requests have in common.

    `columns` are the ids whose log-probabilities carry a score; `logprobs` whether to ask for log-probabilities;
    `session` whether the body names the session too, as the header does; `patience_seconds` how much silence is borne.
    """

    model: str
    columns: tuple[int, int] | None
    logprobs: bool
    session: bool = False
    patience_seconds: float = QUIET_CHUNK_TOKENS

    def of(
        self, request: Request, prompt: Sequence[int] | str, seed: int, max_tokens: int, drawn: Mapping[str, Any]
    ) -> bytes:
        """The body for one completion, as JSON; `drawn` says more of how tokens are drawn (`Drawing.fields`).

        A prompt of ids brings vLLM's and SGLang's own fields with it, which other servers ignore; a text prompt only
        those of OpenAI's, because hosted services refuse what they do not know.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "seed": seed & SEED_MASK,
            "stream": True,
            "stream_options": {"include_usage": True},
            **drawn,
        }
        if self.logprobs:
            body["logprobs"] = 1  # the sampled token's own; llama.cpp reads 0 as none
        if self.session:
            body["session_id"] = session_of(request)
        if not isinstance(prompt, str):
            body |= self._for_ids(request)
        return to_json(body)

    def _for_ids(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "stop_token_ids": sorted(request.stop_ids),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
        }
        if request.on_tokens is None and request.on_delta is None:
            # A server of one token a second is slow, and not silent.
            body["stream_interval"] = max(1, int(min(self.patience_seconds, QUIET_CHUNK_TOKENS)))
        if self.columns:
            body |= {"logprobs": len(self.columns), "logprob_token_ids": list(self.columns)}
        return body


def session_of(request: Request) -> str:
    """What a router knows a request's tree by: requests of one session go where their prefixes are cached."""
    return str(request.tree)


class _TokenLogprob(Struct):
    logprob: float | None = None


class _Logprobs(Struct):
    tokens: list[str | None] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    content: list[_TokenLogprob | None] | None = None  # llama.cpp answers in the shape of chat completions


class _Choice(Struct):
    text: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[Count] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None  # vLLM
    matched_stop: int | str | None = None  # SGLang


class PromptDetails(Struct):
    """How much of a prompt came from the prefix cache."""

    cached_tokens: Count | None = None


class _Usage(Struct):
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None


class _Chunk(Struct):
    choices: list[_Choice | None] | None = None
    usage: _Usage | None = None


@dataclass(slots=True)
class Answer:
    """One completion as it arrives, over one stream or, where a stream was cut, several.

    `ids` are the sampled tokens where the server shows them (`exact`); `logprobs` and `rows` have one value for each
    token that the server shows. `received` counts tokens as well as the server lets us: by ids, else by
    log-probabilities, else by chunks until `begin` hears of more. `counted` is the server's own account of all of them,
    None until it comes; zero where something came is no account. `server` is what error messages call it, and `quote`
    writes what it sent.
    """

    server: str
    quote: Callable[[object], str] = "{!s:.200}".format
    ids: list[int] = field(default_factory=list)
    exact: bool = True
    logprobs: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    received: int = 0
    counted: int | None = None
    cached_tokens: int = 0
    finish: str | None = None
    stop: int | str | None = None
    new_characters: int = 0  # of the last chunk
    _before: int = 0  # received over earlier streams
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text so far, joined only when somebody reads it."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def shown(self) -> int:
        """How many tokens have surely been sampled: chunks of text do not tell."""
        return len(self.ids) if self.exact else len(self.logprobs)

    @property
    def is_counted(self) -> bool:
        """Whether `received` counts tokens one by one: by their ids, or by a log-probability for each."""
        return self.exact or len(self.logprobs) == self.received

    def begin(self, came: int) -> int:
        """A new stream starts behind the `came` tokens of the last. Returns how many were not `received` before."""
        before, self.received = self.received, max(self.received, came, self.counted or 0)
        self._before, self.counted = self.received, None
        return self.received - before

    def take(self, raw: object, columns: tuple[int, int] | None) -> int:
        """Add a chunk, and return how many tokens it brought.

        Raises:
            GeneratorError: it is no chunk of a completion, or the score columns are missing.
        """
        chunk = read_chunk(_Chunk, raw, "a completion", self.server, self.quote)
        if chunk.usage is not None:
            self._account(chunk.usage)
        tokens = self.new_characters = 0
        for choice in chunk.choices or ():
            if choice is not None:
                tokens += self._add(choice, columns)
        self.received += tokens
        return tokens

    def _account(self, usage: _Usage) -> None:
        if usage.completion_tokens:
            self.counted = self._before + usage.completion_tokens
        details = usage.prompt_tokens_details
        if details is not None and self._before == 0:
            self.cached_tokens = details.cached_tokens or 0

    def _add(self, choice: _Choice, columns: tuple[int, int] | None) -> int:
        shown = choice.logprobs or _Logprobs()
        ids = choice.token_ids if choice.token_ids is not None else _spelled_ids(shown.tokens)
        values = shown.token_logprobs or [token and token.logprob for token in shown.content or ()]
        logprobs = usable_logprobs(values)
        self.logprobs += logprobs
        if choice.text:
            self._pieces.append(choice.text)
            self.new_characters += len(choice.text)
        self.finish = ENDINGS.get(choice.finish_reason or "", choice.finish_reason) or self.finish
        stop = choice.matched_stop if choice.stop_reason is None else choice.stop_reason
        self.stop = self.stop if stop is None else stop
        if ids is None:
            self.exact = self.exact and not (choice.text or logprobs)
            return len(logprobs) or bool(choice.text)
        self.ids += ids
        if columns:
            self.rows += self._scores(shown, columns, len(ids))
        return len(ids)

    def _scores(self, shown: _Logprobs, columns: tuple[int, int], count: int) -> list[float]:
        high, low = (f"{TOKEN_ID}{column}" for column in columns)
        pairs = [(row.get(high), row.get(low)) for row in shown.top_logprobs or () if row is not None]
        scores = [read_score(first, second) for first, second in pairs if first is not None and second is not None]
        if len(scores) != count:
            raise GeneratorError(f"{self.server} answered without the columns that carry SPRM scores ({NO_HEAD})")
        return scores


def _spelled_ids(tokens: list[str | None] | None) -> list[int] | None:
    """Ids out of `token_id:17`, as servers before `return_token_ids` give them."""
    spelled = [token.removeprefix(TOKEN_ID) for token in tokens or () if token and token.startswith(TOKEN_ID)]
    if not tokens or len(spelled) < len(tokens) or not all(map(str.isdigit, spelled)):
        return None
    return list(map(int, spelled))


def usable_logprobs(values: Iterable[float | None]) -> list[float]:
    """Those that are there. Some servers write one that underflowed as minus infinity, vLLM as a number JSON has."""
    found = [value for value in values if value is not None]
    if found and min(found) >= CLAMPED and max(found) <= 0:
        return found
    return [min(max(value, CLAMPED), 0.0) for value in found]
