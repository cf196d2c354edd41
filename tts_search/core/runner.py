"""The core: drives a plan through an engine, scores what grows, and answers from the best of it.

Only the runner (with its `sampler`) touches an engine, so one engine serves many questions at once and none waits for
another's round. It knows no algorithm: what to expand is the strategy's to say.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Generator as PlanGenerator
from dataclasses import dataclass, replace
from typing import TypeVar

from tts_search.core.budget import Budget, Usage
from tts_search.core.draw import Draw
from tts_search.core.protocols import Expand, Generator, Question, Sampling, Selector, Strategy, Until
from tts_search.core.result import Candidate, SearchResult, Step, StopReason
from tts_search.core.sampler import Sampler
from tts_search.core.scoring import Scoring
from tts_search.core.tree import Ending, Node, Tree
from tts_search.errors import InvalidInputError, StrategyError, TTSError
from tts_search.segmentation import Phase, Segmenter

A = TypeVar("A")
T = TypeVar("T")

MAX_IDLE_ROUNDS = 1000  # rounds in a row that grow nothing, before a strategy is called endless
POLL_SECONDS = 0.05  # how soon a halt is seen


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search has come: tokens sampled so far (those in flight included), its cap, nodes in its tree."""

    question: Question
    sampled_tokens: int
    budget: int | None
    nodes: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How one question is to be searched; see `tts_search.options.Options` for the meaning of each."""

    strategy: Strategy
    selector: Selector
    budget: int | None = None
    seed: int = 0
    seconds: float | None = None
    early_stop: float | None = None
    stop_when: Callable[[Tree], bool] | None = None
    halt: threading.Event | None = None
    on_progress: OnProgress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Everything that the questions of one searcher share.

    `max_tokens` bounds the thinking of one path, `answer_tokens` its answer. Of a budget a quarter, but no more than
    `answer_tokens`, is held back for the answer; the whole quarter if the selector wants every candidate answered. If
    no path has come to the end of its thinking when a budget is spent, half of that may take the best one there. Where
    a model answers without a thinking part, its first whole response releases what is held back, and until then all of
    it may take the best path to its end.
    """

    generator: Generator
    scoring: Scoring | None
    segmenter: Segmenter
    aggregate: Callable[[Sequence[float]], float]
    extract: Callable[[str], str | None]
    sampling: Sampling
    max_tokens: int
    answer_tokens: int

    async def run(self, question: Question, job: Job) -> SearchResult:
        """Search one question to its answer.

        Raises:
            TTSError: the question, the strategy, the generator or the scorer failed; the message says which.
        """
        return await _Search(self, question, job).run()


class _Search:
    """One question in flight."""

    def __init__(self, shared: Runner, question: Question, job: Job) -> None:
        self.shared = shared
        self.question = question
        self.job = job
        tokenizer = shared.generator.tokenizer
        prompt = tokenizer.render(question)
        self.room = shared.generator.context_tokens - len(prompt)
        if self.room < 2:
            raise InvalidInputError(
                f"the question is {len(prompt)} tokens long, and the model's context holds "
                f"{shared.generator.context_tokens}: shorten the question, or use a model with a longer context"
            )
        self.thinking_room = min(shared.max_tokens, self.room - min(shared.answer_tokens, self.room // 4))
        self.tree = Tree(question, prompt, shared.segmenter, tokenizer.decode)
        quarter = 0 if job.budget is None else job.budget // 4
        answer_reserve = quarter if job.selector.needs_answers else min(quarter, shared.answer_tokens)
        self.budget = Budget(job.budget, answer_reserve=answer_reserve)
        counted = job.on_progress or job.halt or job.seconds is not None
        self.sampler = Sampler(
            self.tree,
            shared.generator,
            shared.segmenter,
            shared.sampling,
            self.budget,
            job.seed,
            self._report if counted else None,
        )
        self.finals: dict[int, Node] = {}  # by end of thinking: the end of its answer

    async def run(self) -> SearchResult:
        started = time.perf_counter()
        reason = await self._search(started)
        left = self.budget.available if reason is StopReason.EARLY and self.job.budget else 0
        self.budget.release()
        ends = self._ends()
        if not ends and reason in (StopReason.BUDGET, StopReason.COMPLETED):
            await self._finish_best()
        ends = ends or self._ends() or self.tree.leaves()
        candidates, chosen = await self._choose(ends)
        end = ends[chosen]
        final = self.finals.get(end.index, end)
        text, answer = self.tree.split(final)
        if not (text + answer).strip():
            reason = StopReason.EMPTY
        elif reason is StopReason.COMPLETED and self.sampler.clipped:
            reason = StopReason.BUDGET
        elif reason is StopReason.COMPLETED and not end.ended:
            reason = StopReason.LENGTH
        scored = self.shared.scoring is not None
        steps = self.tree.trajectory(end).steps
        scores = end.step_scores if scored else (None,) * len(steps)
        usage = replace(self.sampler.usage, saved_tokens=left, seconds=time.perf_counter() - started)
        return SearchResult(
            question=self.question,
            answer=answer,
            thinking=text,
            steps=tuple(Step(step, score) for step, score in zip(steps, scores, strict=True)),
            score=end.value if scored else None,
            stop_reason=reason,
            usage=usage,
            candidates=tuple(candidates),
            chosen=chosen,
            strategy=repr(self.job.strategy),
            selector=self.job.selector.name,
            model=self.shared.generator.name,
            seed=self.job.seed,
            budget=self.job.budget,
            tree=self.tree,
        )

    # The search.

    async def _search(self, started: float) -> StopReason:
        """Follow the plan until it ends, or the budget, the clock, the user or a decided race ends it."""
        plan = asyncio.ensure_future(self._follow_plan())
        deadline = math.inf if self.job.seconds is None else started + self.job.seconds
        try:
            while not plan.done():
                wait = None if deadline == math.inf and self.job.halt is None else POLL_SECONDS
                await asyncio.wait({plan}, timeout=wait)
                halted = self.job.halt is not None and self.job.halt.is_set()
                if not plan.done() and (halted or time.perf_counter() >= deadline):
                    plan.cancel()
                    await asyncio.wait({plan})
                    self.sampler.count_cancelled()
                    return StopReason.HALTED if halted else StopReason.TIME
            return plan.result()
        finally:
            plan.cancel()

    async def _follow_plan(self) -> StopReason:
        strategy = self.job.strategy
        plan = self._call(strategy, self.tree)
        if not isinstance(plan, PlanGenerator):
            raise StrategyError(
                f"strategy {strategy!r} returned {plan!r}: it must be a generator function that yields Expands"
            )
        try:
            wanted = self._call(next, plan)
            idle = 0
            while self.budget.available >= self.sampler.least_tokens and not self.sampler.clipped:
                grown = await self._expand(wanted)
                idle = 0 if any(grown) else idle + 1
                if idle > MAX_IDLE_ROUNDS:
                    raise StrategyError(f"strategy {strategy!r} asked {idle} times for what cannot grow")
                wanted = self._call(plan.send, grown)
                if await self._decided():
                    return StopReason.EARLY
        except StopIteration:
            return StopReason.COMPLETED
        finally:
            plan.close()
        return StopReason.BUDGET

    def _call(self, function: Callable[[A], T], argument: A) -> T:
        """Run a piece of the user's code, and name the strategy if it raises."""
        try:
            return function(argument)
        except (TTSError, StopIteration):
            raise
        except Exception as error:
            raise StrategyError(f"strategy {self.job.strategy!r} raised {type(error).__name__}: {error}") from error

    async def _expand(self, wanted: Sequence[Expand]) -> list[list[Node]]:
        groups = [self._draws_for(expand) for expand in wanted]
        draws = [draw for group in groups for draw in group]
        try:
            await self.sampler.sample(draws)
        except asyncio.CancelledError:  # halted: what is complete is kept
            await self._grow([draw for draw in draws if draw.ending])
            raise
        groups = [[draw for draw in group if draw.part] for group in groups]
        nodes = iter(await self._grow([draw for group in groups for draw in group]))
        return [[next(nodes) for _ in group] for group in groups]

    def _draws_for(self, expand: Expand) -> list[Draw]:
        node = expand.node
        if expand.n < 1 or (expand.max_tokens is not None and expand.max_tokens < 1):
            raise StrategyError(
                f"strategy {self.job.strategy!r} asked for n={expand.n}, max_tokens={expand.max_tokens}: 1 is the least"
            )
        want = min(self.thinking_room - node.length, expand.max_tokens or self.thinking_room)
        if node.ended or want < self.sampler.least_tokens:
            return []
        return [self.sampler.draw(node, expand.until, want) for _ in range(expand.n)]

    async def _grow(self, draws: Sequence[Draw]) -> list[Node]:
        """Make finished draws nodes of the tree, in order; those that finished a step are scored."""
        first = len(self.tree)
        nodes = [draw.to_node(first + i) for i, draw in enumerate(draws)]
        fresh = [i for i, draw in enumerate(draws) if draw.step_ends]
        if self.shared.scoring is not None and fresh:
            trajectories = [self.tree.trajectory(nodes[i]) for i in fresh]
            scores, tokens = await self.shared.scoring.score(trajectories)
            self.sampler.usage += Usage(scored_tokens=tokens)
            for i, steps in zip(fresh, scores, strict=True):
                nodes[i] = replace(nodes[i], step_scores=steps, value=self.shared.aggregate(steps))
        return [self.tree.add(node) for node in nodes]

    async def _decided(self) -> bool:
        """Whether the user, or the state of the race, says that more search would change nothing."""
        job = self.job
        if job.stop_when is not None and self._call(job.stop_when, self.tree):
            return True
        ends = self._ends() if job.early_stop is not None else []
        if not ends or job.early_stop is None or job.selector.decided is None:
            return False
        if job.selector.needs_answers:
            await self._complete(ends)
        remaining = getattr(job.strategy, "remaining", None)
        candidates = [self._candidate(end) for end in ends]
        return job.selector.decided(candidates, None if remaining is None else remaining(self.tree), job.early_stop)

    # The answer.

    def _ends(self) -> list[Node]:
        """Where thinking ended, answers themselves left out."""
        answers = {final.index for final in self.finals.values()}
        return [node for node in self.tree if node.ended and node.index not in answers]

    async def _finish_best(self) -> None:
        """Take the best path to the end of its thinking, if what is left of the budget (half is an answer's) does."""
        best = max(self.tree.leaves(), key=lambda node: (node.value, -node.index))
        left = self.budget.available if best.state.phase is Phase.PLAIN else self.budget.available // 2
        want = min(self.thinking_room - best.length, left)
        if want >= self.sampler.least_tokens:
            draw = self.sampler.draw(best, Until.THOUGHT, want)
            await self.sampler.sample([draw])
            await self._grow([draw] if draw.part else [])

    async def _choose(self, ends: list[Node]) -> tuple[list[Candidate], int]:
        """Choose among the ends of paths and let the policy answer from the chosen thinking (paper, Eq. 7)."""
        if self.job.selector.needs_answers:
            await self._complete(ends)
        candidates = [self._candidate(end) for end in ends]
        chosen = self._call(self.job.selector.choose, candidates)
        if not 0 <= chosen < len(candidates):
            raise InvalidInputError(
                f"selector {self.job.selector.name!r} chose {chosen} of {len(candidates)} candidates"
            )
        await self._complete([ends[chosen]])
        candidates[chosen] = self._candidate(ends[chosen])
        return candidates, chosen

    async def _complete(self, ends: Sequence[Node]) -> None:
        """Take paths to the end of their response, closing the thinking part of those that did not."""
        draws: list[Draw] = []
        for end in ends:
            if end.ending is Ending.END or end.index in self.finals:
                continue
            closing = self._closing(end)
            want = min(self.shared.answer_tokens, self.room - end.length - len(closing))
            if want < self.sampler.least_tokens:
                continue
            draw = self.sampler.draw(end, Until.END, want)
            draw.force(closing, self.shared.segmenter)
            draws.append(draw)
        answering, self.sampler.answering = self.sampler.answering, True
        await self.sampler.sample(draws)
        self.sampler.answering = answering
        for node in await self._grow([draw for draw in draws if draw.part]):
            assert node.parent is not None
            self.finals[node.parent] = node

    def _closing(self, end: Node) -> tuple[int, ...]:
        if end.state.phase is not Phase.THINKING or self.shared.segmenter.thinking is None:
            return ()
        text = self.tree.decode(self.tree.token_ids(end)[-4:])
        newline = () if text.endswith("\n") or not text else self.shared.generator.tokenizer.encode("\n")
        return (*newline, self.shared.segmenter.thinking[1])

    def _candidate(self, end: Node) -> Candidate:
        final = self.finals.get(end.index, end)
        logprobs = [p for node in self.tree.path(final) for p in node.logprobs]
        answer = self.tree.split(final)[1] if final.ending is Ending.END or final is not end else None
        return Candidate(
            node=end.index,
            score=end.value,
            mean_logprob=math.fsum(logprobs) / len(logprobs) if logprobs else 0.0,
            answer=answer,
            vote=None if answer is None else self.shared.extract(answer),
        )

    def _report(self, tokens: int) -> None:
        if self.job.on_progress:
            self.job.on_progress(Progress(self.question, tokens, self.job.budget, len(self.tree)))
