"""The body of `POST /v1/responses`: text in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tts_search.serving.fields import (
    NO_LENGTHS,
    NO_TOOLS,
    PLAIN_TEXT,
    Ask,
    Content,
    Effort,
    RequestFields,
    SearchFields,
    Strict,
    Tokens,
    neutral,
    text_of,
)

NOT_KEPT = "responses are not stored here: send the whole conversation as `input`"


class Reasoning(Strict):
    """`effort` as in chat completions; `mode: "pro"` is the server's strongest setting."""

    effort: Effort | None = None
    mode: Literal["standard", "pro"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormat(Strict):
    """Plain text is all there is."""

    format: Annotated[Any, neutral({"type": "text"}, why=PLAIN_TEXT)] = None
    verbosity: Annotated[Any, neutral("medium", why=NO_LENGTHS)] = None


class Item(Strict):
    """A message of the conversation, as it was sent or as a response had it."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class ResponsesRequest(RequestFields):
    """Every field of OpenAI's is here: honoured, without a meaning for a search, or refused by its name."""

    input: list[Item] = Field(min_length=1, description="A text, or messages; reasoning items are left out.")
    instructions: str | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Tokens | None = None

    # Accepted: they say nothing about an answer.
    truncation: Annotated[Any, neutral("disabled", why="conversations are not cut here")] = None
    include: Annotated[Any, neutral([], ["reasoning.encrypted_content"], why="there is nothing more to include")] = None
    stream_options: Annotated[Any, neutral({}, {"include_obfuscation": False}, why="streams are not padded here")] = (
        None
    )

    # Refused, unless they say what is so anyway.
    text: TextFormat | None = None
    max_tool_calls: Annotated[Any, neutral(why=NO_TOOLS)] = None
    previous_response_id: Annotated[Any, neutral(why=NOT_KEPT)] = None
    conversation: Annotated[Any, neutral(why=NOT_KEPT)] = None
    prompt: Annotated[Any, neutral(why="there are no stored prompts here")] = None
    background: Annotated[Any, neutral(False, why="a response is waited for here")] = None
    context_management: Annotated[Any, neutral([], why="conversations are not cut here")] = None

    @field_validator("input", mode="before")
    @classmethod
    def _as_items(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        if isinstance(value, list):
            return [item for item in value if not (isinstance(item, dict) and item.get("type") == "reasoning")]
        return value

    def ask(self) -> Ask:
        """What it comes to."""
        first = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        turns = [{"role": _role(item.role), "content": text_of(item.content)} for item in self.input]
        reasoning = self.reasoning or Reasoning()
        return Ask(
            messages=[*first, *turns],
            field="input",
            model=self.model,
            search=self.search or SearchFields(),
            effort=reasoning.effort,
            strongest=reasoning.mode == "pro",
            sampling=self.sampling(),
            seed=self.seed,
            answer_tokens=self.max_output_tokens,
            warnings=tuple(self._without_effect(reasoning)),
        )

    def _without_effect(self, reasoning: Reasoning) -> Iterator[str]:
        if reasoning.summary or reasoning.generate_summary:
            yield "reasoning.summary: nothing is summed up: the chosen thinking is given as it is"
        if reasoning.mode == "pro" and reasoning.effort:
            yield "reasoning.effort: mode 'pro' is the server's strongest search, whatever the effort"
        if self.include:
            yield "include: nothing is encrypted: the chosen thinking is given as it is"


def _role(role: str) -> str:
    return "system" if role == "developer" else role
