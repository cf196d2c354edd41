"""What requests of either API have in common: strict fields, each honoured or refused by its name, never ignored.

`ask` is what all of them come to. It knows no model and no search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from tts_search.scorers.aggregate import AGGREGATIONS
from tts_search.selection.selectors import SELECTORS
from tts_search.selection.votes import EXTRACTS

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
MAX_STOPS, MAX_STOP_LENGTH = 16, 1000
NO_TOOLS = "this model calls no tools"
NO_LOGPROBS = "a search has no log-probabilities of one text to give"
PLAIN_TEXT = "answers are plain text"
NO_LENGTHS = "a model's answers are as long as they are"
_PARTS = ("text", "input_text", "output_text")
_OF_PART = ("type", "text", "annotations", "logprobs", "cache_control")  # of earlier answers, of costs


class Strict(BaseModel):
    """No field that is not here, no value of another type, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def neutral(*values: Any, why: str) -> BeforeValidator:
    """A field of OpenAI's that does nothing here: it may be left out, be null, or have one of `values`."""

    def check(value: Any) -> Any:
        if value is not None and not any(value == v and type(value) is type(v) for v in values):
            raise ValueError(f"{why}; leave it out")
        return value

    return BeforeValidator(check)


def one_of(names: Mapping[str, object]) -> AfterValidator:
    """A name in a table."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"unknown: choose from {', '.join(names)}")
        return name

    return AfterValidator(check)


def text_of(content: Any) -> Any:
    """A message's content as one text: a text, or parts that are texts. What else a part says is no part of it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError("a text or a list of text parts is due")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in _PARTS:
            raise ValueError(f"a part of type {str(kind)[:40]!r} cannot be read: this model reads text alone")
        if not isinstance(part.get("text"), str):
            raise ValueError("a text part must have its text")
        if unknown := [name for name in part if name not in _OF_PART]:
            raise ValueError(f"a text part has no field {unknown[0][:100]!r}: nothing that is sent is ignored")
        texts.append(part["text"])
    return "".join(texts)


_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"enum": list(_PARTS)}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
    ]
}
Content = Annotated[str, BeforeValidator(text_of), WithJsonSchema(_CONTENT_SCHEMA)]


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise ValueError(f"a text, or a list of at most {MAX_STOPS}, is due")
    if any(not isinstance(stop, str) or len(stop) > MAX_STOP_LENGTH for stop in stops):
        raise ValueError(f"each must be a text of at most {MAX_STOP_LENGTH} characters")
    return [stop for stop in stops if stop]


Stops = Annotated[
    list[str],
    BeforeValidator(_stops),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}),
]
Tokens = Annotated[int, Field(ge=1, le=1 << 31)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Metadata = Annotated[dict[str, str] | None, Field(description="Accepted; nothing is done with it.")]


class Turn(Strict):
    """One message of a conversation. What clients send back with an assistant's message is left out of the prompt."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: Annotated[Any, neutral(why="refusals are no part of a history here")] = None
    annotations: Annotated[Any, neutral([], why="annotations are no part of a history here")] = None
    audio: Annotated[Any, neutral(why="this model reads text alone")] = None
    tool_calls: Annotated[Any, neutral([], why=NO_TOOLS)] = None
    function_call: Annotated[Any, neutral(why="this model calls no functions")] = None

    def plain(self) -> dict[str, str]:
        """The message as chat templates know it; a developer's is the system's."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class SearchFields(Strict):
    """The body's `search`: how to search, where a client can say so. `max_tokens` is the limit of one thought."""

    strategy: str | None = Field(default=None, max_length=500)
    effort: Effort | None = None
    budget: Tokens | None = None
    repeat: bool | None = None
    selector: Annotated[str, one_of(SELECTORS)] | None = None
    aggregation: Annotated[str, one_of(AGGREGATIONS)] | None = None
    extract: Annotated[str, one_of(EXTRACTS)] | None = None
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    early_stop: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Tokens | None = None


class SamplingFields(Strict):
    """How tokens are drawn; what is not said is the model's own. The last three are those of vLLM's server."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None

    def sampling(self) -> dict[str, float]:
        """What was said."""
        said = {name: getattr(self, name) for name in SamplingFields.model_fields}
        said = {name: value for name, value in said.items() if value is not None}
        if said.get("top_k") == -1:
            said["top_k"] = 0  # both mean no limit
        return said


class RequestFields(SamplingFields):
    """What requests of both APIs may say."""

    model: str | None = Field(default=None, max_length=500)
    search: SearchFields | None = None
    seed: Seed | None = None
    stream: bool | None = None

    # Accepted: they say nothing about an answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    metadata: Metadata = None
    service_tier: Literal["auto", "default"] | None = None

    # Refused, unless they say what is so anyway.
    store: Annotated[Any, neutral(False, why="nothing is stored")] = None
    tools: Annotated[Any, neutral([], why=NO_TOOLS)] = None
    tool_choice: Annotated[Any, neutral("none", "auto", why=NO_TOOLS)] = None
    parallel_tool_calls: Annotated[Any, neutral(True, False, why=NO_TOOLS)] = None
    top_logprobs: Annotated[Any, neutral(0, why=NO_LOGPROBS)] = None

    @field_validator("stream_options", check_fields=False)
    @classmethod
    def _of_a_stream(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and not info.data.get("stream"):
            raise ValueError("only a stream has options: send `stream` with them, or leave them out")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, whichever API it came by: what is asked, and how much the asker said about the search.

    `field` is the one that `messages` came in, `warnings` what was said and has no effect.
    """

    messages: list[dict[str, str]]
    field: str
    model: str | None
    search: SearchFields
    effort: Effort | None
    strongest: bool = False
    sampling: dict[str, float] = attribute(default_factory=dict)
    seed: int | None = None
    answer_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    warnings: tuple[str, ...] = ()
