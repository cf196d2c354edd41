"""A tokenizer, a generator and a scorer without a model: instant, seeded, and with every habit a real one can have.

For the logic of algorithms. What a fake samples is a pure function of prefix and seed, so equal seeds give equal trees
whatever else is in flight.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tts_search.core.events import OnProgress, as_events
from tts_search.core.job import Job
from tts_search.core.protocols import Completion, Generator, Question, Request, Sampling, Scorer, Selector, Strategy
from tts_search.core.result import Candidate, SearchResult
from tts_search.core.runner import Runner
from tts_search.core.scoring import Scoring
from tts_search.core.tree import Trajectory, Tree
from tts_search.errors import GeneratorError
from tts_search.scorers.aggregate import geometric_mean
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.segmentation import Segmenter
from tts_search.selection.selectors import resolve_selector
from tts_search.selection.votes import final_answer
from tts_search.strategies.best_of_n import BestOfN

if TYPE_CHECKING:
    from tts_search.sprm.config import SPRMConfig

DEFAULT_STRATEGY = BestOfN(n=4)
END, OPEN, CLOSE, STEP = 256, 257, 258, 259
_SPECIAL = (b"<end>", b"<think>", b"</think>", b".\n\n")
_PIECES = (*(bytes([i]) for i in range(256)), *_SPECIAL)


class FakeTokenizer:
    r"""One token a byte, and one each for the end of text, the thinking tags and `.\n\n`."""

    def __init__(self, *, thinks: bool = True) -> None:
        self.pieces: Sequence[bytes] = _PIECES
        self.thinking: tuple[int, int] | None = (OPEN, CLOSE) if thinks else None
        self.eos_ids: frozenset[int] = frozenset({END})

    def encode(self, text: str) -> tuple[int, ...]:
        r"""Bytes, with `.\n\n` as its one token."""
        parts = text.encode().split(_SPECIAL[3])
        ids = list(parts[0])
        for part in parts[1:]:
            ids += [STEP, *part]
        return tuple(ids)

    def render(self, messages: Question) -> tuple[int, ...]:
        """The texts of all turns, and the thinking part opened."""
        text = messages if isinstance(messages, str) else "\n".join(m["content"] for m in messages)
        return (*self.encode(text), OPEN) if self.thinking else self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text, without the end of text."""
        return b"".join(self.pieces[i] for i in ids if i not in self.eos_ids).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGenerator:
    """Writes words, step tokens, closing tags and ends of text by chance.

    `step`, `close` and `end` are the chances per token of each; `end` counts only outside the thinking part unless
    `ends_anywhere`. With a `head_config` that reads at the step token, a token is spent on reading the last score, as
    vLLM does. `script`, if given, maps a prefix and a seed to the next token instead. `delay_seconds` makes
    completions arrive out of order. `scores` come without a `head_config` too, for tests of what reads them: give it
    one, or switch them off, where the fake has to keep the contract to the letter.
    """

    thinks: bool = True
    step: float = 0.15
    close: float = 0.05
    end: float = 0.2
    ends_anywhere: bool = False
    scores: bool = True
    context_tokens: int = 100_000
    delay_seconds: float = 0.0
    script: Callable[[tuple[int, ...], int], int] | None = None
    name: str = "fake"
    sampling: Sampling = field(default_factory=Sampling)
    head_config: SPRMConfig | None = None
    requests: list[Request] = field(default_factory=list, repr=False)
    closed: bool = field(default_factory=bool, init=False, repr=False)  # set for dataclasses that extend it, too

    @property
    def tokenizer(self) -> FakeTokenizer:
        """A fake one."""
        return FakeTokenizer(thinks=self.thinks)

    async def generate(self, request: Request) -> list[Completion]:
        """One completion per seed."""
        wanted = len(request.prefix) + request.max_tokens
        if self.closed:
            raise GeneratorError("this fake is closed: make a new one")
        if wanted > self.context_tokens:
            raise GeneratorError(f"{wanted} tokens are asked for, and the fake holds {self.context_tokens}")
        self.requests.append(request)
        if self.delay_seconds:
            await asyncio.sleep(random.Random(request.seeds[0]).random() * self.delay_seconds)
        completions = [self._complete(request, seed) for seed in request.seeds]
        if request.on_tokens is not None:
            request.on_tokens(sum(completion.sampled_tokens for completion in completions))
        return completions

    async def aclose(self) -> None:
        """Nothing to free."""
        object.__setattr__(self, "closed", True)

    def _complete(self, request: Request, seed: int) -> Completion:
        greedy = request.sampling.temperature == 0
        prefix = tuple(request.prefix)
        chance = _chance(prefix, seed)
        tokens: list[int] = []
        thinking = self.thinks and CLOSE not in prefix
        late = self.head_config is not None and self.head_config.readout == "step" and request.max_tokens > 1
        while len(tokens) < request.max_tokens - late and not (tokens and tokens[-1] in request.stop_ids):
            if self.script is not None:
                tokens.append(self.script((*prefix, *tokens), seed))
                continue
            if greedy:  # the text in front decides, however it was asked for
                chance = _chance((*prefix, *tokens))
            draw = chance.random()
            if draw < self.step:
                tokens.append(STEP)
            elif thinking and draw < self.step + self.close:
                tokens.append(CLOSE)
                thinking = False
            elif (not thinking or self.ends_anywhere) and draw > 1 - self.end:
                tokens.append(END)
            else:
                tokens.append(chance.choice(b"abcdefgh "))
        places = [_chance((*prefix, *tokens[: i + 1])) if greedy else chance for i in range(len(tokens))]
        return Completion(
            token_ids=tuple(tokens),
            logprobs=tuple(-place.random() for place in places),
            scores=tuple(place.gauss(0, 2) for place in places) if self.scores else None,
            sampled_tokens=len(tokens) + (late and tokens[-1] not in request.stop_ids & {CLOSE, END}),
        )


def _chance(*what: object) -> random.Random:
    return random.Random(hashlib.blake2b(repr(what).encode()).digest())


@dataclass(frozen=True, slots=True)
class FakeScorer:
    """Scores each step by a function of its text; by default a fixed chance value of text and place."""

    inline: ClassVar[bool] = True  # it is instant: a thread for every call would cost more than the call

    value: Callable[[str], float] | None = None

    def score(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
        """One value per step."""
        return [[self._value(step, i) for i, step in enumerate(t.steps)] for t in trajectories]

    def _value(self, text: str, place: int) -> float:
        if self.value is not None:
            return self.value(text)
        return random.Random(f"{place}:{text}").random()


def run_search(
    generator: Generator,
    strategy: Strategy = DEFAULT_STRATEGY,
    *,
    question: Question = "Why?",
    scorer: Scorer | None = None,
    selector: str | Selector | Callable[[Sequence[Candidate]], int] = "best",
    budget: int | None = None,
    seed: int = 0,
    max_tokens: int = 300,
    answer_tokens: int = 40,
    scorer_seconds: float | None = None,
    seconds: float | None = None,
    early_stop: float | None = None,
    stop_when: Callable[[Tree], bool] | None = None,
    halt: threading.Event | None = None,
    on_progress: OnProgress | None = None,
) -> SearchResult:
    """One search in an event loop of its own, on a generator that scores its steps unless `scorer` does."""
    runner = Runner(generator=generator, scoring=Scoring(scorer or EngineSPRM(), scorer_seconds))
    job = Job(
        strategy=strategy,
        strategy_name=repr(strategy),
        selector=resolve_selector(selector),
        segmenter=Segmenter(generator.tokenizer),
        aggregate=geometric_mean,
        extract=final_answer,
        sampling=generator.sampling,
        max_tokens=max_tokens,
        answer_tokens=answer_tokens,
        budget=budget,
        seed=seed,
        seconds=seconds,
        early_stop=early_stop,
        stop_when=stop_when,
        halt=halt,
        on_event=None if on_progress is None else as_events(on_progress),
    )
    return asyncio.run(runner.run(question, job))
