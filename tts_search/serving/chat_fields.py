"""The body of `POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from tts_search.serving.fields import (
    NO_LENGTHS,
    NO_LOGPROBS,
    PLAIN_TEXT,
    Ask,
    Effort,
    RequestFields,
    SearchFields,
    Stops,
    Strict,
    Tokens,
    Turn,
    neutral,
)

NAMES_UNREAD = "messages: their names are not shown to the model, which knows roles alone"


class StreamOptions(Strict):
    """`include_usage` asks for a last chunk with the account."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, neutral(False, why="streams are not padded here")] = None


class ChatRequest(RequestFields):
    """Every field of OpenAI's is here: honoured, without a meaning for a search, or refused by its name."""

    messages: list[Turn] = Field(min_length=1)
    reasoning_effort: Effort | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: Stops = Field(default=[])
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stream_options: StreamOptions | None = None

    # Accepted: they say nothing about an answer.
    session_id: str | None = None

    # Refused, unless they say what is so anyway.
    functions: Annotated[Any, neutral([], why="this model calls no functions")] = None
    function_call: Annotated[Any, neutral("none", "auto", why="this model calls no functions")] = None
    response_format: Annotated[Any, neutral({"type": "text"}, why=PLAIN_TEXT)] = None
    logprobs: Annotated[Any, neutral(False, why=NO_LOGPROBS)] = None
    logit_bias: Annotated[Any, neutral({}, why="tokens are not weighed here")] = None
    frequency_penalty: Annotated[Any, neutral(0, 0.0, why="this engine has repetition_penalty instead")] = None
    presence_penalty: Annotated[Any, neutral(0, 0.0, why="this engine has repetition_penalty instead")] = None
    modalities: Annotated[Any, neutral(["text"], why="answers are text alone")] = None
    audio: Annotated[Any, neutral(why="answers are text alone")] = None
    prediction: Annotated[Any, neutral(why="nothing is predicted here")] = None
    web_search_options: Annotated[Any, neutral(why="nothing is looked up on the web")] = None
    verbosity: Annotated[Any, neutral("medium", why=NO_LENGTHS)] = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _said_once(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("max_tokens") not in (None, value):
            raise ValueError("max_tokens means the same here, and says something else: send one of them")
        return value

    def ask(self) -> Ask:
        """What it comes to."""
        return Ask(
            messages=[turn.plain() for turn in self.messages],
            field="messages",
            model=self.model,
            search=self.search or SearchFields(),
            effort=self.reasoning_effort,
            sampling=self.sampling(),
            seed=self.seed,
            answer_tokens=self.max_completion_tokens or self.max_tokens,
            stop=tuple(self.stop),
            n=self.n or 1,
            warnings=(NAMES_UNREAD,) if any(turn.name for turn in self.messages) else (),
        )
