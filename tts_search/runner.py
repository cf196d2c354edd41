"""The one async core module: drives a plan through an engine, charges the budget, scores, and answers.

Only the runner touches an engine, so one engine serves many questions at once and none waits for another's round. It
knows no algorithm: what to expand is the strategy's to say. Many `Runner.run` calls may be in flight together.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Generator as PlanGenerator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from tts_search.budget import Budget, Usage
from tts_search.draw import Draw, check_completions, stop_ids
from tts_search.errors import GeneratorError, InvalidInputError, ScorerError, StrategyError, TTSError
from tts_search.protocols import Expand, Generator, Question, Request, Sampling, Scorer, Strategy, Until
from tts_search.result import Candidate, SearchResult, Selector, Step, StopReason
from tts_search.segmentation import Phase, Segmenter
from tts_search.tree import Ending, Node, Tree

A = TypeVar("A")
T = TypeVar("T")

MAX_IDLE_ROUNDS = 1000  # rounds in a row that grow nothing, before a strategy is called endless


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search has come: tokens sampled so far (those in flight included), its cap, nodes in its tree."""

    question: Question
    sampled_tokens: int
    budget: int | None
    nodes: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Everything that the questions of one searcher share.

    `max_tokens` bounds the thinking of one path, `answer_tokens` its answer. Of a budget a quarter, but no more than
    `answer_tokens`, is held back for the answer; the whole quarter if the selector wants every candidate answered.
    """

    generator: Generator
    scorer: Scorer | None
    segmenter: Segmenter
    aggregate: Callable[[Sequence[float]], float]
    extract: Callable[[str], str | None]
    sampling: Sampling
    max_tokens: int
    answer_tokens: int

    async def run(
        self,
        question: Question,
        strategy: Strategy,
        *,
        selector: Selector,
        budget: int | None,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> SearchResult:
        """Search one question to its answer.

        Raises:
            TTSError: the question, the strategy, the generator or the scorer failed; the message says which.
        """
        return await _Search(self, question, strategy, selector, budget, seed, on_progress).run()


class _Search:
    """One question in flight."""

    def __init__(
        self,
        shared: Runner,
        question: Question,
        strategy: Strategy,
        selector: Selector,
        budget: int | None,
        seed: int,
        on_progress: OnProgress | None,
    ) -> None:
        self.shared = shared
        self.question = question
        self.strategy = strategy
        self.selector = selector
        self.seed = seed
        self.on_progress = on_progress
        self.tokenizer = shared.generator.tokenizer
        quarter = 0 if budget is None else budget // 4
        self.budget = Budget(
            budget, held_back=quarter if selector.needs_answers else min(quarter, shared.answer_tokens)
        )
        prompt = self.tokenizer.render(question)
        self.room = shared.generator.context_tokens - len(prompt)
        if self.room < 2:
            raise InvalidInputError(
                f"the question is {len(prompt)} tokens long, and the model's context holds "
                f"{shared.generator.context_tokens}: shorten the question, or use a model with a longer context"
            )
        self.thinking_room = min(shared.max_tokens, self.room - min(shared.answer_tokens, self.room // 4))
        self.tree = Tree(question, prompt, shared.segmenter, self.tokenizer.decode)
        self.root_seed = hashlib.blake2b(repr((seed, prompt)).encode(), digest_size=8).digest()
        self.draw_counts: Counter[int] = Counter()
        self.usage = Usage()
        self.live_tokens = 0
        self.clipped = False  # the budget cut a path off, or did not pay for all that was asked
        self.answering = False

    async def run(self) -> SearchResult:
        started = time.perf_counter()
        completed = await self._follow_plan()
        leaves = self.tree.leaves()
        ends = [leaf for leaf in leaves if leaf.ended] or leaves
        candidates, chosen, final = await self._answer(ends)
        end, scored = ends[chosen], self.shared.scorer is not None
        text, answer = self.tree.split(final)
        if not (text + answer).strip():
            reason = StopReason.EMPTY
        elif self.clipped or not completed:
            reason = StopReason.BUDGET
        else:
            reason = StopReason.COMPLETED if end.ended else StopReason.LENGTH
        steps = self.tree.trajectory(end).steps
        scores = end.step_scores if scored else (None,) * len(steps)
        return SearchResult(
            question=self.question,
            answer=answer,
            thinking=text,
            steps=tuple(Step(step, score) for step, score in zip(steps, scores, strict=True)),
            score=end.value if scored else None,
            stop_reason=reason,
            usage=replace(self.usage, seconds=time.perf_counter() - started),
            candidates=tuple(candidates),
            chosen=chosen,
            strategy=repr(self.strategy),
            selector=self.selector.name,
            model=self.shared.generator.name,
            seed=self.seed,
            budget=self.budget.tokens,
            tree=self.tree,
        )

    async def _follow_plan(self) -> bool:
        """Run the strategy; True if it ended by itself, False if the budget ended it."""
        plan = self._call(self.strategy, self.tree)
        if not isinstance(plan, PlanGenerator):
            raise StrategyError(
                f"strategy {self.strategy!r} returned {plan!r}: it must be a generator function that yields Expands"
            )
        try:
            wanted = self._call(next, plan)
            idle = 0
            while self.budget.available:
                grown = await self._expand(wanted)
                idle = 0 if any(grown) else idle + 1
                if idle > MAX_IDLE_ROUNDS:
                    raise StrategyError(
                        f"strategy {self.strategy!r} asked {idle} times for what cannot grow; it would never end"
                    )
                wanted = self._call(plan.send, grown)
        except StopIteration:
            return True
        finally:
            plan.close()
        return False

    def _call(self, function: Callable[[A], T], argument: A) -> T:
        """Run a piece of the strategy's code, and name the strategy if it raises."""
        try:
            return function(argument)
        except (TTSError, StopIteration):
            raise
        except Exception as error:
            raise StrategyError(f"strategy {self.strategy!r} raised {type(error).__name__}: {error}") from error

    async def _expand(self, wanted: Sequence[Expand]) -> list[list[Node]]:
        groups = [self._draws_for(expand) for expand in wanted]
        await self._sample([draw for group in groups for draw in group])
        groups = [[draw for draw in group if draw.part] for group in groups]
        nodes = iter(await self._grow([draw for group in groups for draw in group]))
        return [[next(nodes) for _ in group] for group in groups]

    def _draws_for(self, expand: Expand) -> list[Draw]:
        node = expand.node
        if expand.n < 1 or (expand.max_tokens is not None and expand.max_tokens < 1):
            raise StrategyError(
                f"strategy {self.strategy!r} asked for n={expand.n}, max_tokens={expand.max_tokens}: at least 1 each"
            )
        want = min(self.thinking_room - node.length, expand.max_tokens or self.thinking_room)
        if node.ended or want < 1:
            return []
        return [self._draw(node, expand.until, want) for _ in range(expand.n)]

    def _draw(self, node: Node, until: Until, want: int) -> Draw:
        number = self.draw_counts[node.index]
        self.draw_counts[node.index] += 1
        return Draw(node, number, until, want, node.state)

    async def _sample(self, draws: Sequence[Draw]) -> None:
        """Take every draw to its ending, as far as the budget goes.

        What early finishers leave of their share goes to those that were cut off, round by round: the outcome depends
        on the samples alone, never on who was first.
        """
        pending = list(draws)
        while pending:
            grants = self.budget.reserve([draw.want - draw.sampled for draw in pending])
            funded = [(draw, grant) for draw, grant in zip(pending, grants, strict=True) if grant]
            if not funded:
                self.clipped = True
                return
            together = groupby(funded, lambda pair: (pair[1], pair[0].prefix_key))
            await _gather(self._spend([draw for draw, _ in group], grant) for (grant, _), group in together)
            pending = [draw for draw in pending if draw.ending is None]

    async def _spend(self, draws: list[Draw], grant: int) -> None:
        """Sample up to `grant` tokens for each of some draws that share their prefix."""
        limits = {id(draw): draw.sampled + grant for draw in draws}
        await self._request(draws, grant)
        # A stop that turned out to end no step (the second token of a run) is gone past, each sample for itself.
        await _gather(self._go_on(draw, limits[id(draw)]) for draw in draws)
        for draw in draws:
            self.budget.settle(grant, draw.sampled - (limits[id(draw)] - grant))

    async def _go_on(self, draw: Draw, limit: int) -> None:
        while draw.ending is None and draw.sampled < limit:
            await self._request([draw], limit - draw.sampled)

    async def _request(self, draws: list[Draw], max_tokens: int) -> None:
        first, generator = draws[0], self.shared.generator
        prefix = (*self.tree.prompt_ids, *self.tree.token_ids(first.node), *first.tokens)
        request = Request(
            prefix=prefix,
            seeds=tuple(self._seed(draw) for draw in draws),
            max_tokens=max_tokens,
            stop_ids=stop_ids(first.until, self.shared.segmenter, self.tokenizer),
            sampling=self.shared.sampling,
            on_tokens=self._count_live if self.on_progress else None,
        )
        try:
            completions = await generator.generate(request)
        except TTSError:
            raise
        except Exception as error:
            raise GeneratorError(f"generator {generator.name!r} raised {type(error).__name__}: {error}") from error
        check_completions(completions, request)
        for draw, completion in zip(draws, completions, strict=True):
            draw.absorb(completion, self.shared.segmenter, self.tokenizer.eos_ids)
            self.usage += Usage(
                sampled_tokens=completion.sampled_tokens,
                answer_tokens=completion.sampled_tokens if self.answering else 0,
                prompt_tokens=len(prefix),
                cached_tokens=completion.cached_tokens,
                requests=1,
            )
        self._count_live(0)

    def _count_live(self, tokens: int) -> None:
        self.live_tokens = max(self.live_tokens + tokens, self.usage.sampled_tokens)
        if self.on_progress:
            self.on_progress(Progress(self.question, self.live_tokens, self.budget.tokens, len(self.tree)))

    def _seed(self, draw: Draw) -> int:
        """From (seed, question, node, draw, request), never from arrival order; 63 bits."""
        place = repr((draw.node.index, draw.number, draw.part)).encode()
        return int.from_bytes(hashlib.blake2b(self.root_seed + place, digest_size=8).digest()) >> 1

    async def _grow(self, draws: Sequence[Draw]) -> list[Node]:
        """Make finished draws nodes of the tree, in order; those that finished a step are scored."""
        first = len(self.tree)
        nodes = [draw.to_node(first + i) for i, draw in enumerate(draws)]
        fresh = [i for i, draw in enumerate(draws) if draw.step_ends]
        if self.shared.scorer is not None and fresh:
            scores = await self._score([nodes[i] for i in fresh], self.shared.scorer)
            for i, steps in zip(fresh, scores, strict=True):
                nodes[i] = replace(nodes[i], step_scores=steps, value=self.shared.aggregate(steps))
        return [self.tree.add(node) for node in nodes]

    async def _score(self, nodes: Sequence[Node], scorer: Scorer) -> list[tuple[float, ...]]:
        trajectories = [self.tree.trajectory(node) for node in nodes]
        name = type(scorer).__name__
        try:
            if getattr(scorer, "inline", False):
                scores = scorer.score(trajectories)
            else:
                scores = await asyncio.to_thread(scorer.score, trajectories)
        except TTSError:
            raise
        except Exception as error:
            raise ScorerError(f"scorer {name} raised {type(error).__name__}: {error}") from error
        if len(scores) != len(trajectories):
            raise ScorerError(
                f"scorer {name} returned {len(scores)} lists of scores for {len(trajectories)} trajectories"
            )
        checked = [tuple(float(s) for s in steps) for steps in scores]
        for steps, node in zip(checked, nodes, strict=True):
            if len(steps) != len(node.step_ends):
                raise ScorerError(f"scorer {name} returned {len(steps)} scores for {len(node.step_ends)} steps")
            wrong = [s for s in steps if not (math.isfinite(s) and 0.0 <= s <= 1.0)]
            if wrong:
                raise ScorerError(f"scorer {name} returned {wrong[0]}: every score is a number in [0, 1]")
        return checked

    async def _answer(self, ends: list[Node]) -> tuple[list[Candidate], int, Node]:
        """Choose among the ends of paths and let the policy answer from the chosen thinking (paper, Eq. 7)."""
        self.budget.release()
        self.answering = True
        finals = ends
        if self.selector.needs_answers:
            finals = await self._complete(ends)
        candidates = [self._candidate(end, final) for end, final in zip(ends, finals, strict=True)]
        chosen = self.selector.choose(candidates)
        if not self.selector.needs_answers:
            finals = list(ends)
            finals[chosen] = (await self._complete([ends[chosen]]))[0]
            candidates[chosen] = self._candidate(ends[chosen], finals[chosen])
        return candidates, chosen, finals[chosen]

    async def _complete(self, ends: Sequence[Node]) -> list[Node]:
        """Take paths to the end of their response, closing the thinking part of those that did not."""
        draws: dict[int, Draw] = {}
        for end in ends:
            closing = self._closing(end)
            want = min(self.shared.answer_tokens, self.room - end.length - len(closing))
            if end.ending is not Ending.END and want > 0:
                draw = draws[end.index] = self._draw(end, Until.END, want)
                draw.force(closing, self.shared.segmenter)
        await self._sample(list(draws.values()))
        answered = [draw for draw in draws.values() if draw.part]
        nodes = {node.parent: node for node in await self._grow(answered)}
        return [nodes.get(end.index, end) for end in ends]

    def _closing(self, end: Node) -> tuple[int, ...]:
        if end.state.phase is not Phase.THINKING or self.shared.segmenter.thinking is None:
            return ()
        closing = self.shared.segmenter.thinking[1]
        text = self.tree.decode(self.tree.token_ids(end)[-4:])
        newline = () if text.endswith("\n") or not text else self.tokenizer.encode("\n")
        return (*newline, closing)

    def _candidate(self, end: Node, final: Node) -> Candidate:
        logprobs = [p for node in self.tree.path(final) for p in node.logprobs]
        answer = self.tree.split(final)[1] if final.ending is Ending.END or final is not end else None
        return Candidate(
            node=end.index,
            score=end.value,
            mean_logprob=math.fsum(logprobs) / len(logprobs) if logprobs else 0.0,
            answer=answer,
            vote=None if answer is None else self.shared.extract(answer),
        )


async def _gather(work: Iterable[Coroutine[object, object, None]]) -> None:
    """All of it, or the first failure with everything else cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in work:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
