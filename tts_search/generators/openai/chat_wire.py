"""What goes over the wire to `/v1/chat/completions` and what comes back: bodies of requests, and chunks of an answer.

It speaks the dialects of OpenAI, vLLM, SGLang, llama.cpp, DeepSeek, Mistral and OpenRouter, and checks what arrives. A
field that is null is one that is not there. It knows JSON and numbers; it knows no connection and no token ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_search.core.protocols import Request
from tts_search.errors import InvalidInputError
from tts_search.generators.engine_requests import SEED_MASK
from tts_search.generators.openai.dialect import LIMITS, Dialect
from tts_search.generators.openai.shapes import Count, Struct, read_chunk
from tts_search.generators.openai.wire import ENDINGS, PromptDetails, session_of, usable_logprobs
from tts_search.thinking import ThinkingTags, spoken_thought

USUAL_TAGS = ("<think>", "</think>")
OURS = ("model", "messages", "n", "stream", "stop", "tools", "tool_choice", *LIMITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatBody:
    """What the bodies of one generator's requests have in common. `extra` are fields of the user's, which go first;
    `spelled` says that tags which are control tokens are to be spelled out.

    Raises:
        InvalidInputError: `extra` says what every request has to say for itself, or is no JSON.
    """

    model: str
    dialect: Dialect
    logprobs: bool
    session: bool
    extra: Mapping[str, Any]
    spelled: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := [name for name in OURS if name in self.extra]:
            raise InvalidInputError(f"extra_body cannot say {taken[0]!r}: every request has its own")
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"extra_body is no JSON ({error}): {dict(self.extra)!r:.200}") from error

    def of(self, request: Request, seed: int, max_tokens: int | None) -> dict[str, Any]:
        """The body for one answer of at most `max_tokens` tokens, None for as many as the service allows."""
        sampling, messages = request.sampling, request.messages
        assert messages is not None
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed & SEED_MASK,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        # Hosted services refuse what they do not know: only what is asked for is said.
        body |= {"top_k": sampling.top_k} if sampling.top_k else {}
        body |= {"min_p": sampling.min_p} if sampling.min_p else {}
        body |= {"repetition_penalty": sampling.repetition_penalty} if sampling.repetition_penalty != 1 else {}
        body |= {"logprobs": True} if self.logprobs else {}
        body |= {"session_id": session_of(request)} if self.session else {}
        body |= self.spelled
        body |= {} if max_tokens is None else {self.dialect.limit_field: max_tokens}
        left_out = self.dialect.left_out
        if "stream" in left_out:
            left_out = {**left_out, "stream_options": ""}
        return {name: value for name, value in body.items() if name not in left_out} | dict(self.extra)


class _Part(Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | list[_Part | None] | None = None


class _Message(Struct):
    content: str | list[_Part | None] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Token(Struct):
    logprob: float | None = None


class _Logprobs(Struct):
    content: list[_Token | None] | None = None


class _Choice(Struct):
    delta: _Message | None = None
    message: _Message | None = None  # of a service that does not stream
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    prompt_cache_hit_tokens: Count | None = None  # DeepSeek


class _Chunk(Struct):
    choices: list[_Choice | None] | None = None
    usage: _Usage | None = None


@dataclass(slots=True)
class ChatAnswer:
    """One answer as it arrives: `reasoning` and `content` apart, where the service keeps them apart.

    `logprobs` has one value for each token that the service shows, and is empty where it shows none. `received` counts
    tokens as well as they can be counted so far, `counted` is the service's own account of all that it sampled: what
    was thought and not shown, too. None until it comes; zero where something came is no account. `server` is what error
    messages call the service, and `quote` writes what it sent.
    """

    server: str
    quote: Callable[[object], str] = "{!s:.200}".format
    logprobs: list[float] = field(default_factory=list)
    received: int = 0
    counted: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    finish: str | None = None
    refused: bool = False
    characters: int = 0
    _reasoning: list[str] = field(default_factory=list)
    _content: list[str] = field(default_factory=list)

    @property
    def reasoning(self) -> str:
        """What the service says it thought."""
        return "".join(self._reasoning)

    @property
    def content(self) -> str:
        """What it answered, with whatever thinking the model wrote into that."""
        return "".join(self._content)

    def take(self, raw: object) -> int:
        """Add a chunk, and return how many tokens it brought, as well as that can be told.

        Raises:
            GeneratorError: it is no chunk of a chat completion.
        """
        chunk = read_chunk(_Chunk, raw, "a chat completion", self.server, self.quote)
        if chunk.usage is not None:
            self._account(chunk.usage)
        tokens = sum(self._add(choice) for choice in chunk.choices or () if choice is not None)
        self.received += tokens
        return tokens

    def _account(self, usage: _Usage) -> None:
        sampled = usage.completion_tokens or 0
        if usage.total_tokens is not None and usage.prompt_tokens is not None:
            sampled = max(sampled, usage.total_tokens - usage.prompt_tokens)  # some count thinking in the total alone
        if sampled:
            self.counted = sampled
        self.prompt_tokens = usage.prompt_tokens or self.prompt_tokens
        details = usage.prompt_tokens_details or PromptDetails()
        cached = details.cached_tokens or usage.prompt_cache_hit_tokens or 0
        self.cached_tokens = min(cached, self.prompt_tokens or 0) or self.cached_tokens

    def _add(self, choice: _Choice) -> int:
        said = choice.delta or choice.message or _Message()
        # Two names for one thing: where a service sends both, they say the same.
        reasoning = said.reasoning_content or said.reasoning or ""
        content = said.content or said.refusal or ""
        self.refused |= bool(said.refusal)
        if not isinstance(content, str):
            reasoning += "".join(_thought(part) for part in content if part is not None)
            content = "".join(part.text or "" for part in content if part is not None)
        for text, pieces in ((reasoning, self._reasoning), (content, self._content)):
            if text:
                pieces.append(text)
                self.characters += len(text)
        self.finish = ENDINGS.get(choice.finish_reason or "", choice.finish_reason) or self.finish
        shown = choice.logprobs.content if choice.logprobs is not None else None
        values = [token and token.logprob for token in shown or ()]
        self.logprobs += usable_logprobs(values)
        return len(values) or bool(reasoning or content)


def _thought(part: _Part) -> str:
    thinking = part.thinking or ""
    return (
        thinking if isinstance(thinking, str) else "".join(inner.text or "" for inner in thinking if inner is not None)
    )


def thought_in(text: str, tags: ThinkingTags) -> tuple[str, str, bool] | None:
    """As `tags_in`, with the tags of most models where they are `"auto"`, and none where they are None."""
    if tags is None:
        return None
    if tags != "auto":
        return tags_in(text, tags)
    spoken = spoken_thought(text)
    known = [USUAL_TAGS] if spoken is None else [USUAL_TAGS, (spoken.opening, spoken.closing)]
    found = next((found for pair in known if (found := tags_in(text, pair)) is not None), None)
    if found is None and spoken is not None and spoken.answer.strip() and "\n" in spoken.thinking.strip():
        # It began to think behind some words. Within a line they may be words about tags.
        return spoken.thinking, spoken.answer, True
    return found


def tags_in(text: str, tags: Sequence[str]) -> tuple[str, str, bool] | None:
    """A response that holds its thinking in itself as (thinking, answer, whether the thinking ended); None for others.

    Where a chat template has opened the thinking part, only the tag that closes it is in the text.
    """
    opening, closing = tags
    body = text.lstrip()
    opened = body.startswith(opening)
    body = body.removeprefix(opening) if opened else text
    thinking, closed, answer = body.partition(closing)
    if not opened and (not closed or opening in thinking):
        return None
    return thinking, answer, bool(closed)
