"""The contracts: what a strategy, a generator, a scorer, a selector and a tokenizer are to each other.

Plug-in authors read this page. It holds no algorithm; `tts_search.testing` has a suite that checks each contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Generator as PlanGenerator
from dataclasses import dataclass
from enum import StrEnum
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tts_search.core.result import Candidate
from tts_search.core.tree import Node, Trajectory, Tree
from tts_search.errors import InvalidInputError
from tts_search.segmentation import Vocabulary

if TYPE_CHECKING:
    from tts_search.sprm.config import SPRMConfig

Messages = Sequence[Mapping[str, Any]]
"""Chat messages, each with `role` and `content`: a text, or a list of parts `{"type": "text", "text": ...}`."""

Question = str | Messages
"""What a user asks: a text, or a conversation whose last turn is the user's."""


class Until(StrEnum):
    """How far an expansion goes at most."""

    STEP = "step"  # stop after the next step token
    THOUGHT = "thought"  # stop at the end of the thinking part, or at the end of the response
    END = "end"  # stop at the end of the response

    def __repr__(self) -> str:
        """As it would be typed."""
        return f"Until.{self.name}"


@dataclass(frozen=True, slots=True)
class Expand:
    """All that a strategy can ask for: `n` continuations of `node`.

    The answer holds at most `n` new nodes: fewer when the budget pays for fewer, none when `node` has ended.
    """

    node: Node
    n: int = 1
    until: Until = Until.STEP
    max_tokens: int | None = None


Plan = PlanGenerator[Sequence[Expand], Sequence[Sequence[Node]], None]
"""A strategy at work: yields a round of expansions, receives the scored children of each, in order."""


@runtime_checkable
class Strategy(Protocol):
    """A pure algorithm: knows no engine, no scorer, no budget and no clock.

    `continues_paths`, where a strategy has it, says whether it goes on from anywhere but the root, which not every
    engine can.
    """

    def __call__(self, tree: Tree) -> Plan:
        """Begin a search of `tree`, which holds nothing but its root."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. The defaults are the paper's (section 4.1).

    `temperature` 0 takes the likeliest token. Of the tokens those are kept that are among the `top_k` likeliest (0: no
    limit), in the smallest set that holds `top_p` of the mass, and at least `min_p` times as likely as the likeliest.
    `repetition_penalty` divides the logits of tokens that occurred already (1: none).

    Raises:
        InvalidInputError: a value that is no number, or out of its range.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, lambda t: t >= 0, "0 (greedy) or more")
        _check_range("top_p", self.top_p, lambda p: 0 < p <= 1, "above 0 and at most 1 (no limit)")
        _check_range("top_k", self.top_k, lambda k: k >= 0 and k == int(k), "a whole number, 0 for no limit")
        _check_range("min_p", self.min_p, lambda p: 0 <= p < 1, "from 0 (no limit) to below 1")
        _check_range("repetition_penalty", self.repetition_penalty, lambda r: r > 0, "above 0, 1 for none")
        for name, kind in (("temperature", float), ("top_p", float), ("top_k", int), ("min_p", float)):
            object.__setattr__(self, name, kind(getattr(self, name)))  # numpy's numbers are as good as ours
        object.__setattr__(self, "repetition_penalty", float(self.repetition_penalty))


def _check_range(name: str, value: object, accepted: Callable[[Any], bool], wanted: str) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not accepted(value):
        raise InvalidInputError(f"{name} must be {wanted}; got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prefix to continue, once for every seed.

    `prefix` is a sequence of ids; it may be joined only when it is first read, so read it once. `stop_ids` end a
    completion and stay in it as its last token, and none of them stands anywhere else in it; the tokenizer's
    end-of-text ids are always among them. `max_tokens` bounds each completion. Requests of one `tree` (any number)
    share prefixes: an engine of many parts does well to keep them in one.

    A generator reports progress by `on_tokens(count)`, on the thread of the event loop: an engine that tells nothing
    and returns nothing for long is taken for hung. `on_delta(sample, ids)`, if given, streams: it is called with the
    place of the seed and the ids that came, in order, all of them before the completion is returned, by engines that
    can; nothing is missing where one does not. `on_completion(sample, completion)`, if given, is called as each is done
    by engines that say so with an attribute `reports_completions = True`: what is done can be kept then, whatever
    becomes of the others. What it is told is returned, too.

    `messages` are what the prefix was rendered from, given where nothing but the prompt is in it: all that an engine
    with `starts_anywhere` False reads of it.
    """

    prefix: Sequence[int]
    seeds: tuple[int, ...]
    max_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling = Sampling()
    tree: int = 0
    on_tokens: Callable[[int], None] | None = None
    on_delta: Callable[[int, Sequence[int]], None] | None = None
    on_completion: Callable[[int, Completion], None] | None = None
    messages: Question | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One continuation.

    `token_ids`: at least one, the last is a stop id unless `max_tokens` cut it off. `logprobs`: natural log-probability
    of each token under the model at temperature 1, None where the engine gives none. `scores`: for an engine that
    carries an SPRM head, the head's logit for each token *if that token is a step token*: the engine has applied the
    head's readout already. NaN where it could not be read; None without a head. `sampled_tokens`: what the engine
    really sampled for it, never more than `max_tokens`. `prompt_tokens`: what it counts for the prefix, None for as
    many as its ids; `cached_tokens` of them came out of the prefix cache. `warnings` are what a reader of the result
    should know.

    Of an engine with `starts_anywhere` False the ids are not those that were sampled: there may be more of them than
    `sampled_tokens`, `logprobs` has one for each token that the engine shows, and a last id that is no stop id says
    that the completion was cut off.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float] | None
    scores: Sequence[float] | None = None
    sampled_tokens: int
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Tokenizer(Vocabulary, Protocol):
    """Text to token ids and back, without loss."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end a response."""
        ...

    def render(self, messages: Question) -> tuple[int, ...]:
        """Token ids of the whole prompt: the chat template applied, the assistant's turn opened."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, tags kept, end-of-text tokens left out."""
        ...


@runtime_checkable
class Generator(Protocol):
    """An engine that continues token sequences. Calls overlap freely; the engine batches what is in flight.

    A method is called where a generator has it: `remark(question)` returns what a user should know of a question that
    the model is not made for, or None; it becomes one of the result's warnings.

    An attribute is read where a generator has it: `starts_anywhere`, False for one that answers questions from their
    beginning alone, as a chat service does. It is asked for whole responses, each in one request and never gone on
    with; reads `Request.messages`; and its `context_tokens` are the longest response, whatever the prompt.
    """

    @property
    def name(self) -> str:
        """What to call the model in results and logs."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model it runs."""
        ...

    @property
    def context_tokens(self) -> int:
        """The longest prefix plus completion that it can hold, in tokens."""
        ...

    @property
    def sampling(self) -> Sampling:
        """The model's own sampling defaults (its `generation_config.json`), the paper's where it has none."""
        ...

    @property
    def head_config(self) -> SPRMConfig | None:
        """The config of the SPRM head whose logits come with the completions, None where there is none."""
        ...

    async def generate(self, request: Request) -> Sequence[Completion]:
        """One completion per seed, in their order. Cancelling the call stops the work."""
        ...

    async def aclose(self) -> None:
        """Free the engine. Calling it twice is harmless."""
        ...


class Scores(list[Sequence[float]]):
    """What a scorer may return instead of a plain list: step scores per trajectory, and what they cost.

    `tokens` were run through a model of the scorer's own; they are charged to `Usage.scored_tokens`, not to the budget.
    `unread` says why some rows are shorter than their trajectories have steps, and what to do about it: what is behind
    is beyond what the scorer can read. It has no score, the path is worth what its scored steps are, and the result has
    a warning. Without `unread` a short row is an error.
    """

    def __init__(self, values: Iterable[Sequence[float]] = (), *, tokens: int = 0, unread: str | None = None) -> None:
        super().__init__(values)
        self.tokens = tokens
        self.unread = unread


@runtime_checkable
class Scorer(Protocol):
    """Values reasoning steps. Synchronous, because third-party reward models are.

    Six attributes are read where a scorer has them: `aggregation`, the name or function by which its step scores
    become a trajectory's unless the user says otherwise; `concurrency`, how many calls may overlap (1); `inline`,
    whether a call is too quick to be worth a thread (False); `at_step_tokens`, whether it can judge no step but one
    that ends with a step token, as a head (False: the end of a response ends its last step); `warnings`, what a reader
    of every result should know of it (texts); and `score_new`, a method like `score` that returns the scores of the
    steps behind `Trajectory.known_scores` alone, called instead of it: a step more then costs a step.
    """

    def score(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
        """For each trajectory one value in [0, 1] per finished step, in order; see `Scores` for how to count tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Selector:
    """Chooses among candidates (at least one is given) by index.

    `needs_answers`: every candidate is answered before the choice, and those tokens stand in `Usage.answer_tokens`.
    `needs_scores`: it means nothing without a scorer. `decided(candidates, remaining, margin)`: whether candidates yet
    to come (`remaining` of them, None if unknown) could change the choice by more than `margin`; None: it cannot tell.
    """

    name: str
    choose: Callable[[Sequence[Candidate]], int]
    needs_answers: bool = False
    needs_scores: bool = False
    decided: Callable[[Sequence[Candidate], int | None, float], bool] | None = None


class MergedVotes(Protocol):
    """Votes of which those that mean the same are spelled the same, in the order of the candidates."""

    @property
    def keys(self) -> tuple[str | None, ...]:
        """One for each candidate."""
        ...

    @property
    def comparer(self) -> str:
        """Who compared them."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        ...
