"""Fakes that can be spoilt in one respect: for `faulty_generators`."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tts_search.core.protocols import Completion, Question, Request
from tts_search.errors import GeneratorError, InvalidInputError
from tts_search.testing.fakes import FakeGenerator, FakeTokenizer

Change = Callable[[Completion], Completion]


@dataclass(frozen=True, kw_only=True)
class Bent(FakeGenerator):
    """A fake that reads every request by `ask`, and whose answers to those of `when` are spoilt by `bend`."""

    scores: bool = False
    context_tokens: int = 300
    ask: Callable[[Request], Request] = lambda request: request
    when: Callable[[Request], bool] = lambda _: True
    bend: Callable[[list[Completion]], list[Completion]] = lambda answers: answers

    async def generate(self, request: Request) -> list[Completion]:
        answers = await super().generate(self.ask(request))
        return self.bend(answers) if self.when(request) else answers


def asks(*seeds: int, temperature: float | None = None, max_tokens: int | None = None) -> Callable[[Request], bool]:
    """Tells the requests of one test of the suite from all others."""

    def when(request: Request) -> bool:
        return (
            request.seeds == seeds
            and temperature in (None, request.sampling.temperature)
            and max_tokens in (None, request.max_tokens)
        )

    return when


ONE, SINGLE, STOPPED, TOGETHER = asks(1, 2, 3, temperature=1), asks(1, 2, max_tokens=1), asks(0, 1), asks(2, 102)


def each(change: Change) -> Callable[[list[Completion]], list[Completion]]:
    return lambda answers: [change(one) for one in answers]


def last(change: Change) -> Callable[[list[Completion]], list[Completion]]:
    return lambda answers: [*answers[:-1], change(answers[-1])]


def logprobs(one: Completion) -> Sequence[float]:
    return one.logprobs or ()


def empty(one: Completion) -> Completion:
    none = None if one.scores is None else ()
    return dataclasses.replace(one, token_ids=(), logprobs=(), scores=none, sampled_tokens=24)


def longer(one: Completion) -> Completion:
    """One more token behind the last."""
    return dataclasses.replace(
        one,
        token_ids=(*one.token_ids, one.token_ids[-1]),
        logprobs=(*logprobs(one), -1.0),
        sampled_tokens=one.sampled_tokens + 1,
    )


def stopless(one: Completion) -> Completion:
    """As of an engine that swallows the stop token."""
    return dataclasses.replace(one, token_ids=one.token_ids[:-1], logprobs=logprobs(one)[:-1])


def undercounted(one: Completion) -> Completion:
    return dataclasses.replace(one, sampled_tokens=len(one.token_ids) - 1)


def other(one: Completion) -> Completion:
    return dataclasses.replace(one, token_ids=(ord("x"), *one.token_ids[1:]))


def set_to(**values: Any) -> Change:
    return lambda one: dataclasses.replace(one, **values)


def shifted(by: float) -> Change:
    return lambda one: dataclasses.replace(one, scores=tuple(score + by for score in one.scores or ()))


def short_logprobs(one: Completion) -> Completion:
    return dataclasses.replace(one, logprobs=logprobs(one)[1:])


def short_scores(one: Completion) -> Completion:
    return dataclasses.replace(one, scores=(one.scores or ())[1:])


def with_first(logprob: float) -> Change:
    return lambda one: dataclasses.replace(one, logprobs=(logprob, *logprobs(one)[1:]))


def unread(one: Completion) -> Completion:
    return dataclasses.replace(one, scores=(math.nan, *(one.scores or ())[1:]))


@dataclass(frozen=True, kw_only=True)
class Remembers(Bent):
    """What happened to it shows once in what it answers next."""

    seen: list[str] = field(default_factory=list)

    def spoilt(self, answers: list[Completion]) -> list[Completion]:
        return answers[:-1] if self.seen and self.seen.pop() else answers


@dataclass(frozen=True, kw_only=True)
class Cancelled(Remembers):
    """Long requests take their time; cancelling one raises `error`, or leaves the engine out of step."""

    error: Exception | None = None

    async def generate(self, request: Request) -> list[Completion]:
        if len(request.seeds) < 16:
            return self.spoilt(await super().generate(request))
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            if self.error is not None:
                raise self.error from None
            self.seen.append("cancelled")
            raise
        return await super().generate(request)


@dataclass(frozen=True, kw_only=True)
class Overflowing(Remembers):
    """A request that is too long raises `error`, or is answered all the same."""

    error: Exception | None = None
    stumbles: bool = False

    async def generate(self, request: Request) -> list[Completion]:
        if len(request.prefix) + request.max_tokens <= self.context_tokens:
            return self.spoilt(await super().generate(request))
        if self.stumbles:
            self.seen.append("too long")
        if self.error is not None:
            raise self.error
        return await super().generate(dataclasses.replace(request, prefix=request.prefix[-9:]))


@dataclass(frozen=True, kw_only=True)
class Whole(Remembers):
    """As a chat service: whole responses, in ids that are not its tokens; asked to go on, raises `error`, or does."""

    starts_anywhere: ClassVar[bool] = False

    thinks: bool = False
    error: Exception | None = field(default_factory=lambda: InvalidInputError("it goes on from nothing"))
    stumbles: bool = False

    async def generate(self, request: Request) -> list[Completion]:
        if request.messages is None:
            if self.stumbles:
                self.seen.append("asked to go on")
            if self.error is not None:
                raise self.error
        answers = await super().generate(request)
        return self.spoilt([self.read(one, request) for one in answers])

    def read(self, one: Completion, request: Request) -> Completion:
        more = () if one.token_ids[-1] in request.stop_ids else (ord("+"), ord("+"))
        logprobs = None if len(one.token_ids) % 2 else (one.logprobs or ())[:1]
        return dataclasses.replace(one, token_ids=(*one.token_ids, *more), logprobs=logprobs, prompt_tokens=3)


@dataclass(frozen=True, kw_only=True)
class Crowded(Bent):
    """Mixes answers up while more than one request is in flight."""

    flying: list[Request] = field(default_factory=list)

    async def generate(self, request: Request) -> list[Completion]:
        self.flying.append(request)
        try:
            await asyncio.sleep(0)
            answers = await super().generate(request)
            return each(other)(answers) if len(self.flying) > 1 else answers
        finally:
            self.flying.remove(request)


@dataclass(frozen=True, kw_only=True)
class Closing(Bent):
    """Closing it again raises `again`; a request to it when it is closed raises `late`, None: is answered."""

    again: Exception | None = None
    late: Exception | None = field(default_factory=lambda: GeneratorError("closed"))

    async def generate(self, request: Request) -> list[Completion]:
        if not self.closed:
            return await super().generate(request)
        if self.late is not None:
            raise self.late
        return await Bent().generate(request)

    async def aclose(self) -> None:
        if self.closed and self.again is not None:
            raise self.again
        await super().aclose()


class Late:
    """Knows its context once it has run."""

    def __init__(self) -> None:
        self._engine = Bent()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property
    def context_tokens(self) -> int:
        return self._engine.context_tokens if self._engine.requests else 0


@dataclass(frozen=True, kw_only=True)
class Speaking(Bent):
    """Has a tokenizer of its own."""

    speaks: FakeTokenizer

    @property
    def tokenizer(self) -> FakeTokenizer:
        return self.speaks


def tokenizer(
    *,
    read: Callable[[str], str] = lambda text: text,
    render: Callable[[Question], Question] = lambda question: question,
    pieces: Sequence[bytes] | None = None,
    eos_ids: frozenset[int] = FakeTokenizer().eos_ids,
) -> Callable[[], Speaking]:
    """Encodes what `read` makes of a text, renders what `render` makes of a question."""

    class Odd(FakeTokenizer):
        def encode(self, text: str) -> tuple[int, ...]:
            return super().encode(read(text))

        def render(self, messages: Question) -> tuple[int, ...]:
            return super().render(render(messages))

        def decode(self, ids: Sequence[int]) -> str:
            return FakeTokenizer().decode(ids)

    odd = Odd()
    odd.eos_ids = eos_ids
    odd.pieces = pieces or odd.pieces
    return lambda: Speaking(speaks=odd)


def shouted(question: Question) -> Question:
    return question if isinstance(question, str) else f"user: {question[0]['content']}"


def refused(question: Question) -> Question:
    if isinstance(question, str):
        return question
    raise InvalidInputError("this model has no chat template")
