"""A chat service that knows one answer by heart, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.generators.openai.misbehaving_server import LOGPROB, MODEL, ByHeart
from tts_search.core.protocols import Completion, Request
from tts_search.embedded import MODEL_FOLDER
from tts_search.generators.openai.chat import ChatGenerator

QUESTION = "Make 87."
THINKING = ["Add ", "the two", " largest.\n\n", "That is", " 22.\n\n", "Naïve 你", "好."]
CONTENT = ["It", " is", " \\boxed{87}", "."]
PROMPT_TOKENS = 11
OPENAI = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stream",
    "stream_options", "logprobs",
}  # fmt: skip


class ChatByHeart(ByHeart):
    """Answers every chat with `thinking` and `content`, a token a text.

    `field` is where its thinking goes: `"reasoning"`, `"reasoning_content"`, `"both"`, `"tags"` (into the content, as
    a template and a model write it), `"closed"` (likewise, opened by the template), `"parts"` (Mistral's), `"hidden"`
    (counted alone) or None for none. `refuses` are fields that it does not know, each with the words it says so with.
    """

    def __init__(self, *, field: str | None = "reasoning_content", refuses: Mapping[str, str] | None = None) -> None:
        super().__init__(MODEL_FOLDER, (), (), "chat")
        self.field = field
        self.refuses = dict(refuses or {})
        self.longest = 10**9  # tokens of a response
        self.context: int | None = None  # of prompt and response
        self.thinking: Sequence[str] = THINKING if field else ()
        self.content: Sequence[str] = CONTENT

    def refusal(self, body: dict[str, Any]) -> Any:
        if unknown := sorted(body.keys() - OPENAI - {"top_k", "session_id", "reasoning_effort"}):
            return f"Unrecognized request argument supplied: {unknown[0]}"
        for field, words in self.refuses.items():
            if field in body:
                return words
        asked = body.get("max_tokens", body.get("max_completion_tokens"))
        if asked is not None and asked > self.longest:
            return f"max_tokens is too large: {asked}. This model supports at most {self.longest} completion tokens."
        if self.context is not None and (asked or 1) + PROMPT_TOKENS > self.context:
            return (
                f"This model's maximum context length is {self.context} tokens. However, you requested {asked} output "
                f"tokens and your prompt contains {PROMPT_TOKENS} input tokens."
            )
        return None

    def tokens(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Deltas, one a token, and whether its log-probability is shown."""
        tags = {"tags": ["<think>", *self.thinking, "</think>"], "closed": [*self.thinking, "</think>"]}
        for text in self.thinking if self.field not in tags else ():
            if self.field == "both":
                yield {"reasoning": text, "reasoning_content": text, "content": None}, False
            elif self.field == "parts":
                yield {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}, False
            elif self.field == "hidden":
                yield {}, False
            elif self.field is not None:
                yield {self.field: text}, False
        for text in (*tags.get(self.field or "", ()), *self.content):
            yield {"content": text}, True
        yield {}, False  # the end of text is a token, too

    def chunks(self, body: dict[str, Any], fault: str | None) -> Iterator[dict[str, Any] | str]:
        yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        if fault == "endless":
            while True:
                self.sent += 1
                yield {"choices": [{"index": 0, "delta": {"content": "over and over and over and over " * 4}}]}
        most = self.most(body)
        sent, finish = 0, None
        for delta, shown in self.tokens():
            sent += 1
            last = sent == len(list(self.tokens()))
            finish = ("stop" if last else "length") if last or sent == most else None
            said = ENDS.get(fault or "", finish) if finish else None
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": said}
            if body.get("logprobs") and shown:
                choice["logprobs"] = {"content": [{"token": "?", "logprob": LOGPROB, "bytes": None}]}
            if fault == "nulls":
                yield {"choices": None, "usage": None}
                yield {"choices": [{"index": 0, "delta": {"content": None, "reasoning": None}, "logprobs": None}]}
                yield {"choices": [None, {"delta": {"content": [None]}, "logprobs": {"content": None}}]}
                yield {"choices": [{"delta": {"content": [{"type": "thinking", "thinking": [None]}]}}]}
            yield {"id": "x", "choices": [choice]}
            if finish:
                break
        usage = self.usage(sent, fault)
        if usage:
            yield {"choices": [], "usage": usage}
        yield "[DONE]"

    def most(self, body: dict[str, Any]) -> int:
        rest = (self.context or 10**9) - PROMPT_TOKENS
        return min(self.longest, rest, body.get("max_tokens", body.get("max_completion_tokens", 10**9)))

    def usage(self, sent: int, fault: str | None) -> dict[str, Any] | None:
        if fault == "no usage":
            return None
        account = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": sent, "total_tokens": PROMPT_TOKENS + sent}
        if fault == "thinking in the total":
            account["completion_tokens"] = min(sent, len(self.content))
        if fault == "too many":
            account["completion_tokens"] = 10**6
        if fault == "zero usage":
            account = dict.fromkeys(account, 0)
        return {**account, "prompt_tokens_details": {"cached_tokens": 4}}

    def all(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        """The whole response, as of a service that does not stream."""
        deltas = [delta for delta, _ in self.tokens()][: self.most(body)]
        texts = {name: "".join(delta.get(name) or "" for delta in deltas) for name in ("content", "reasoning_content")}
        choice = {"index": 0, "message": {"role": "assistant", **texts}, "finish_reason": "stop"}
        return {"choices": [choice], "usage": self.usage(len(deltas), fault)}


ENDS = {"filtered": "content_filter", "called": "tool_calls", "aborted": "abort"}


def request(*, seeds: int = 1, max_tokens: int = 200, **more: Any) -> Request:
    return Request(
        prefix=tuple(QUESTION.encode()),
        seeds=tuple(range(seeds)),
        max_tokens=max_tokens,
        stop_ids=frozenset({256}),
        **{"messages": QUESTION, **more},
    )


def ask(server: ChatByHeart, asked: Request | None = None, **settings: Any) -> Sequence[Completion]:
    """The completions of one request to the service."""
    generator = ChatGenerator(f"{server.url}/chat/completions", **{"model": MODEL, **settings})

    async def work() -> Sequence[Completion]:
        try:
            return await asyncio.wait_for(generator.generate(asked or request()), 120)
        finally:
            await generator.aclose()

    return asyncio.run(work())
