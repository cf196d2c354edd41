"""A chat service as a generator: `/v1/chat/completions` of any OpenAI-compatible server, text in and text out.

Such a service answers from the beginning alone: it is never asked to go on with what it wrote, so that a search over it
is Best-of-N, and its thinking is what it shows of it. Its ids are bytes (`bytes_tokenizer`); what was sampled is the
service's own account. What is lost against `/v1/completions` is in docs/endpoints.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from tts_search.core.protocols import Completion, Request, Sampling
from tts_search.errors import EngineUnavailableError, GeneratorError, InvalidInputError
from tts_search.generators.engine_requests import for_all_seeds
from tts_search.generators.openai.bytes_tokenizer import CLOSE, END, OPEN, BytesTokenizer
from tts_search.generators.openai.cards import only
from tts_search.generators.openai.chat_wire import ChatAnswer, ChatBody, thought_in
from tts_search.generators.openai.dialect import Dialect
from tts_search.generators.openai.drawing import SPELLED, SPELLING
from tts_search.generators.openai.endpoint import Endpoint
from tts_search.generators.openai.shapes import to_json
from tts_search.generators.openai.troubles import CHAT_PATH, CutError, RefusedError
from tts_search.generators.openai.watch import CHARACTERS, QUIET_CHUNKS, most_tokens, too_many
from tts_search.generators.openai.wire import session_of
from tts_search.thinking import ThinkingTags, check_tags

logger = logging.getLogger(__name__)

UNKNOWN_CONTEXT = 2**20
MOST_CHARACTERS = 32  # to a token, in no text that a model writes for long
COMPLETE = ("stop", "length", "content_filter")


class ChatGenerator:
    """The `Generator` that asks a chat service.

    Args:
        url: of the service's API, such as `https://api.example.com/v1`, with `/chat/completions` behind it or without.
        model: what the service calls the model, or the folder that it serves; None where it serves one.
        context_tokens: the longest response, in tokens; None is what the service says of the model, and what it allows.
        logprobs: False not to ask for log-probabilities, which some services refuse; what refuses them by name is asked
            without from then on.
        thinking_tags: the texts around the thinking in a response of a service that does not part it off; `"auto"`
            knows those of most models, None parts nothing.
        extra_body: fields of the service's own, for every request: `{"reasoning_effort": "low"}`.
        api_key, max_concurrency, timeout_seconds, session_in_body: as of `OpenAIGenerator`.
        max_retries: how often a response is asked for again after failures that may pass. What came of one that was cut
            is paid for: the next may be shorter by that.

    Raises:
        MissingDependencyError: aiohttp is not installed.
        GeneratorError: the service cannot be reached, or refuses the key.
        ModelNotFoundError: it serves several models, and none was named.
        InvalidInputError: a value that cannot be used.
    """

    starts_anywhere = False
    reports_completions = True
    head_config = None

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        context_tokens: int | None = None,
        logprobs: bool = True,
        thinking_tags: ThinkingTags = "auto",
        extra_body: Mapping[str, Any] | None = None,
        api_key: str | None = None,
        max_concurrency: int = 64,
        timeout_seconds: float = 300.0,
        max_retries: int = 4,
        session_in_body: bool = False,
    ) -> None:
        if max_concurrency < 1 or max_retries < 0 or not timeout_seconds > 0:
            raise InvalidInputError(
                "max_concurrency must be at least 1, max_retries at least 0 and timeout_seconds positive, got "
                f"{max_concurrency}, {max_retries} and {timeout_seconds}"
            )
        if context_tokens is not None and context_tokens < 2:
            raise InvalidInputError(f"context_tokens must be at least 2, got {context_tokens}")
        self._endpoint = Endpoint(
            base_of(url),
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            path=CHAT_PATH,
        )
        self.name, known, owner = _model(self._endpoint, model, context_tokens)
        self.context_tokens = context_tokens or known or UNKNOWN_CONTEXT
        self.tokenizer = BytesTokenizer()
        self.sampling = Sampling()
        self._tags: ThinkingTags = check_tags(thinking_tags) if thinking_tags not in ("auto", None) else thinking_tags
        self._dialect = Dialect(self._endpoint.name)
        self._body = ChatBody(
            model=self.name,
            dialect=self._dialect,
            logprobs=logprobs,
            session=session_in_body,
            extra=extra_body or {},
            spelled=SPELLED if owner in SPELLING else {},
        )

    async def generate(self, request: Request) -> Sequence[Completion]:
        """One response per seed, in their order. Cancelling the call closes its connections.

        Raises:
            InvalidInputError: the request goes on from the middle of a response, or the service refuses it.
            GeneratorError: the service failed for good, or broke its own protocol.
        """
        if request.messages is None:
            raise InvalidInputError(
                f"{self.name!r} is a chat service: it answers messages, and goes on from no prefix of "
                f"{len(request.prefix)} tokens"
            )
        return await for_all_seeds(request, lambda place: self._sample(request, request.seeds[place]))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._endpoint.aclose()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides what it returns, for logs."""
        return {
            "engine": "chat",
            "address": self._endpoint.name,
            "model": self.name,
            "logprobs": self._body.logprobs,
            "thinking_tags": self._tags,
            "extra_body": dict(self._body.extra),
        }

    async def _sample(self, request: Request, seed: int) -> Completion:
        """One response. What came of a stream that was cut is lost, and paid for: the next may be so much shorter."""
        lost = 0
        for cut in range(self._endpoint.max_retries + 1):
            answer = ChatAnswer(self._endpoint.name, self._endpoint.quote)
            try:
                limit = await self._ask(request, seed, request.max_tokens - lost, answer)
                break
            except CutError as error:
                if answer.finish is not None:  # only the account was cut off
                    limit = request.max_tokens - lost
                    break
                limit = request.max_tokens - lost
                came = max(answer.received, min(self._came(answer), limit))
                if came >= limit:  # it may have had all that it was allowed
                    answer.finish, answer.counted = "length", limit
                    break
                if came > answer.received and request.on_tokens is not None:
                    request.on_tokens(came - answer.received)
                lost += came
                if cut == self._endpoint.max_retries:
                    raise EngineUnavailableError(f"{error}; asked again {cut} times, now given up") from error
                await self._endpoint.back_off(cut)
        else:
            raise AssertionError
        return self._completion(request, answer, limit, lost)

    async def _ask(self, request: Request, seed: int, left: int, answer: ChatAnswer) -> int:
        """Take in one response of at most `left` tokens; the limit that it was asked with."""
        first: RefusedError | None = None
        while True:
            limit = self._dialect.limit(request.tree, left)
            # A service that knows its own limit holds to it better than we can: the prompt counts there, too.
            body = self._body.of(request, seed, None if limit >= self.context_tokens else limit)
            try:
                await self._stream(request, to_json(body), limit, answer)
                return limit
            except RefusedError as error:
                first = first or error
                if not self._dialect.learn(error, body, request.tree):
                    raise first from None

    async def _stream(self, request: Request, body: bytes, limit: int, answer: ChatAnswer) -> None:
        quiet = 0
        async with aclosing(self._endpoint.stream(body, session_of(request))) as chunks:
            async for chunk in chunks:
                count = answer.take(chunk)
                quiet = 0 if count else quiet + 1
                if quiet > limit + QUIET_CHUNKS:
                    raise GeneratorError(
                        f"{answer.server} sent {quiet:,} chunks in a row without a token: it does nothing but keep the "
                        "connection; its log should say why"
                    )
                surely = max(len(answer.logprobs), answer.counted or 0, answer.characters // MOST_CHARACTERS - 64)
                if surely > limit:
                    raise too_many(answer.server, surely, limit)
                if count and request.on_tokens is not None:
                    request.on_tokens(count)
        if answer.finish in (None, "abort", "error", "insufficient_system_resource"):
            answer.finish = None
            raise CutError(f"{self._endpoint.name}{CHAT_PATH} ended a stream before its response")

    def _completion(self, request: Request, answer: ChatAnswer, limit: int, lost: int) -> Completion:
        if answer.finish not in COMPLETE:
            raise GeneratorError(
                f"{answer.server} ended a response by {answer.quote(repr(answer.finish))}: nothing tells what it means"
            )
        warnings = list(self._dialect.warnings)
        sampled = answer.counted
        if sampled is None:
            sampled = self._estimate(answer, limit)
            warnings.append(f"{answer.server} sends no account (usage): its tokens are estimated")
        if sampled > limit:
            raise too_many(answer.server, sampled, limit)
        sampled += lost
        if answer.finish == "length" and sampled < request.max_tokens:
            warnings.append(
                f"{answer.server} cuts responses off by a limit of its own, after {sampled:,} tokens where "
                f"{request.max_tokens:,} were asked for"
            )
        if answer.finish == "content_filter" or answer.refused:
            warnings.append(f"{answer.server} refused to answer, or withheld its answer (content filter)")
        if request.on_tokens is not None and sampled > answer.received + lost:
            request.on_tokens(sampled - answer.received - lost)
        return Completion(
            token_ids=self._ids(answer),
            logprobs=tuple(answer.logprobs) or None,
            sampled_tokens=sampled,
            prompt_tokens=answer.prompt_tokens or math.ceil(len(request.prefix) / CHARACTERS),
            cached_tokens=answer.cached_tokens,
            warnings=tuple(warnings),
        )

    def _came(self, answer: ChatAnswer) -> int:
        """How many tokens a stream that was cut may have had: more rather than less, for the budget is to hold."""
        if len(answer.logprobs) == answer.received:
            return max(answer.received, answer.counted or 0)
        return max(answer.received, answer.counted or 0, most_tokens(answer.reasoning) + most_tokens(answer.content))

    def _estimate(self, answer: ChatAnswer, limit: int) -> int:
        """How many tokens a response had whose service does not say."""
        if answer.finish == "length":
            return limit
        return max(1, min(limit, max(answer.received, math.ceil(answer.characters / CHARACTERS))))

    def _ids(self, answer: ChatAnswer) -> tuple[int, ...]:
        """A response as bytes, with the tags of its thinking; at least one id."""
        encode, complete = self.tokenizer.encode, answer.finish != "length"
        if answer.reasoning:
            found = (answer.reasoning, answer.content, bool(answer.content) or complete)
        else:
            found = thought_in(answer.content, self._tags)
        if found is None:
            ids = encode(answer.content)
        else:
            thinking, said, closed = found
            ids = (OPEN, *encode(thinking), *((CLOSE, *encode(said)) if closed or complete else ()))
        if complete:
            return (*ids, END)
        return ids or (OPEN,)  # all of it went into thinking that is not shown


def base_of(url: str) -> str:
    """The address of a service's API, out of that or the whole URL of its chat."""
    place, mark, query = url.strip().partition("?")
    return place.rstrip("/").removesuffix(CHAT_PATH) + mark + query


def is_chat(url: str) -> bool:
    """Whether a URL is that of a service's chat."""
    return url.strip().partition("?")[0].rstrip("/").endswith(CHAT_PATH)


def _model(endpoint: Endpoint, model: str | None, context_tokens: int | None) -> tuple[str, int | None, str | None]:
    """What the service calls the model, how long its context is, and who the server is, where that is said."""
    if model is not None and context_tokens is not None:
        return model, context_tokens, None  # nothing is left to ask
    cards = endpoint.models()
    if model is not None:
        here = {model, str(Path(model).expanduser().resolve())}
        card = next((card for card in cards if {card.id, card.root} & here), None)
        return (model, None, None) if card is None else (card.id, card.context, card.owned_by)
    card = only(endpoint.name, cards, cards)
    if card.owned_by == "tts-search":  # a server of searches: by this name it samples once, as a model does
        card = next((one for one in cards if one.id == f"{card.id}:none"), card)
    return card.id, card.context, card.owned_by
