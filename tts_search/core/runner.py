"""The core: drives a plan through an engine, scores what grows, and answers from the best of it.

Only the runner (with its `sampler`) touches an engine, so one engine serves many questions at once and none waits for
another's round. It knows no algorithm: what to expand is the strategy's to say. Whatever a strategy, a selector or
another piece of the user's does, it ends its own question, with an error that names it, and no other.
"""

from __future__ import annotations

import asyncio
import math
import operator
import time
from collections.abc import Callable, Sequence
from collections.abc import Generator as PlanGenerator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, TypeVar

from tts_search.core.answering import Answers
from tts_search.core.budget import Budget, Usage
from tts_search.core.draw import Draw
from tts_search.core.events import Event, Failed, Finished, Grown, Sampled, Started
from tts_search.core.job import Job, Rechoice
from tts_search.core.protocols import Expand, Generator, Question, Until
from tts_search.core.result import SearchResult, Step, StopReason, doubt
from tts_search.core.sampler import GENERATOR_SECONDS, Sampler
from tts_search.core.scoring import StepScoring, Valuation
from tts_search.core.tree import Node, Tree
from tts_search.errors import InvalidInputError, StrategyError, TTSError, shown, told
from tts_search.segmentation import Phase
from tts_search.thinking import spoken_thought

T = TypeVar("T")

MAX_IDLE_ROUNDS = 1000  # rounds in a row that grow nothing, before a strategy is called endless
MAX_EMPTY_NODES = 64  # nodes in a row without any text: a model that ends at once has nothing more to give
FREE_DRAWS = 4096  # of a round that asks for no more, each expansion is asked by itself whether a budget could pay it
MAX_DRAWS = 100_000  # samples that a round may ask for at once
POLL_SECONDS = 0.05  # how soon a halt is seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Everything that the questions of one searcher share: an engine and a scorer. `clock` counts a search's seconds.

    Of a job, `max_tokens` bounds the thinking of one path, `answer_tokens` its answer. Of a budget a quarter, but no
    more than `answer_tokens`, is kept for the answer; the whole quarter if the selector wants every candidate answered.
    When the rest is spent, the best path so far is answered, and of what is still kept all but twice that answer's
    length goes back to the plan, which goes on; if another path wins in the end, it is answered from that. If no path
    has come to the end of its thinking when a budget is spent, half of what is kept may take the best one there. Where
    a model answers without a thinking part, its first whole response releases what is kept, and until then all of it
    may take the best path to its end.
    """

    generator: Generator
    scoring: StepScoring | None
    generator_seconds: float | None = GENERATOR_SECONDS
    clock: Callable[[], float] = time.perf_counter

    @property
    def whole(self) -> bool:
        """Whether the engine answers from the beginning alone, and counts its prompts itself."""
        return not getattr(self.generator, "starts_anywhere", True)

    def prompt_of(self, question: Question, job: Job) -> tuple[int, ...]:
        """The token ids that the model is asked with.

        Raises:
            InvalidInputError: the model's context leaves no room for a response.
        """
        prompt = self.generator.tokenizer.render(_prompt(question, job.system))
        context = self.generator.context_tokens
        if context - (0 if self.whole else len(prompt)) < 2:
            raise InvalidInputError(
                f"the question is {len(prompt)} tokens long, and the model's context holds {context}: shorten the "
                "question, or use a model with a longer context"
            )
        return prompt

    async def run(self, question: Question, job: Job) -> SearchResult:
        """Search one question to its answer.

        Raises:
            TTSError: the question, the strategy, the generator, the scorer or another piece of the user's failed; the
                message says which.
        """
        return await _Search(self, question, job).run()


class _Search:
    """One question in flight."""

    def __init__(self, shared: Runner, question: Question, job: Job) -> None:
        self.shared = shared
        self.question = question
        self.job = job
        self.tokenizer = shared.generator.tokenizer
        prompt = shared.prompt_of(question, job)
        self.room = shared.generator.context_tokens - (0 if shared.whole else len(prompt))
        # One request brings thinking and answer where neither can be gone on with.
        self.answer_room = min(job.answer_tokens, self.room // 4) if shared.whole else 0
        self.thinking_room = min(job.max_tokens, self.room - min(job.answer_tokens, self.room // 4))
        self.tree = Tree(question, prompt, job.segmenter, self.tokenizer.decode, job.seed)
        quarter = 0 if job.budget is None else job.budget // 4
        reserve = quarter if job.selector.needs_answers else min(quarter, job.answer_tokens)
        self.budget = Budget(job.budget, answer_reserve=0 if shared.whole else reserve)
        self.sampler = Sampler(
            self.tree,
            shared.generator,
            job.segmenter,
            job.sampling,
            self.budget,
            job.seed,
            self._report if job.on_event or job.halt or job.seconds is not None else None,
            shared.generator_seconds,
            self.thinking_room if job.closes_steps else None,
            _prompt(question, job.system),
        )
        self.valuation = None if shared.scoring is None else Valuation(shared.scoring, job.aggregate)
        self.answers = Answers(
            self.tree,
            self.sampler,
            job,
            room=self.room,
            scored=self.valuation is not None,
            grow=self._grow,
            call=self._call,
            emit=self._emit,
        )
        self.ends: list[Node] = []  # where thinking ended, answers themselves left out
        self.empty = 0  # nodes in a row without any text
        self.broken: TTSError | None = None  # what the user's handler of events raised
        self.task: asyncio.Task[SearchResult] | None = None

    async def run(self) -> SearchResult:
        started = self.shared.clock()
        self._emit(Started(self.question, self.tree, self.job.budget))
        if self.broken is not None:
            raise self.broken
        self.task = asyncio.ensure_future(self._run(started))
        try:
            result = await self.task
        except TTSError as error:
            self._emit(Failed(self.question, error))
            raise
        except asyncio.CancelledError:
            if self.broken is None:
                raise
            raise self.broken from None
        finally:
            self.task.cancel()
        self._emit(Finished(self.question, result))
        if self.broken is not None:
            raise self.broken
        return result

    async def _run(self, started: float) -> SearchResult:
        reason = await self._search(started)
        left = self.budget.available if reason is StopReason.EARLY and self.job.budget else 0
        self.budget.release()
        if not self.ends and not self.sampler.whole and reason in (StopReason.BUDGET, StopReason.COMPLETED):
            await self._finish_best()
        ends = self.ends or self.tree.leaves()
        candidates, chosen = await self.answers.choose(ends)
        valuation, said = self.valuation, tuple[str, ...]()
        if (again := self.job.rechoice) is not None:
            valued, valuation = await self._value_again(ends, again)
            candidates, chosen, said = await self.answers.choose_again(ends, again, valued if valuation else None)
            ends = valued
        end = ends[chosen]
        text, answer = self.tree.split(self.answers.final(end))
        if not (text + answer).strip():
            reason = StopReason.EMPTY
        elif reason is StopReason.COMPLETED and self.sampler.clipped:
            reason = StopReason.BUDGET
        elif reason is StopReason.COMPLETED and not end.ended:
            reason = StopReason.LENGTH
        steps = self.tree.trajectory(end).steps
        scores = () if valuation is None else end.step_scores
        steps = tuple(Step(step, score) for step, score in zip_longest(steps, scores))
        score = candidates[chosen].score
        usage = replace(self.sampler.usage, saved_tokens=left, seconds=self.shared.clock() - started)
        return SearchResult(
            question=self.question,
            answer=answer,
            thinking=text,
            steps=steps,
            score=score,
            stop_reason=reason,
            usage=usage,
            candidates=tuple(candidates),
            chosen=chosen,
            strategy=self.job.strategy_name,
            selector=(again or self.job).selector.name,
            model=self.shared.generator.name,
            seed=self.job.seed,
            budget=self.job.budget,
            tree=self.tree if self.job.keep_tree else None,
            comparer=self.answers.comparer,
            step_rule=repr(self.job.segmenter.rule),
            warnings=(
                *self._unfit(),
                *(() if valuation is None else valuation.warnings(ends)),
                *doubt(score, steps),
                *self._step_warnings(),
                *self._thinking_warnings(end),
                *self.answers.warnings,
                *self.sampler.warnings,
                *said,
            ),
        )

    def _step_warnings(self) -> list[str]:
        """What to know of a step rule that found nothing where steps are scored."""
        nodes = [node for node in self.tree if node.ids]
        if self.valuation is None or not nodes or any(node.state.found for node in nodes):
            return []
        meaning = "each path was scored as one step" if self.job.closes_steps else "no path has a score"
        also = "" if self.job.finds_rule else ', or "auto"'
        return [
            f"the step rule {self.job.segmenter.rule!r} found no step in anything that the model wrote, so that "
            f'{meaning}: give step_rule= what this model writes between steps, such as "\\n\\n"{also}'
        ]

    def _thinking_warnings(self, end: Node) -> list[str]:
        """What to know of thoughts that only their text gave away, and of those that nothing would."""
        final = self.answers.final(end)
        if final.state.phase is not Phase.PLAIN:
            return []
        spoken = spoken_thought(self.tree.decode(self.tree.token_ids(final)))
        if spoken is None:
            if not getattr(self.shared.generator, "hides_tags", False):
                return []
            return [
                f"{self.shared.generator.name!r} thinks between control tokens, which its server leaves out of texts: "
                "if it thought, its thought is part of the answer. Use a server that takes and shows token ids, or "
                "that writes control tokens (--special of llama.cpp)"
            ]
        tags = (spoken.opening, spoken.closing)
        return [
            f"the model thinks between {tags[0]} and {tags[1]}, which its tokenizer does not announce, so that whole "
            f"responses were searched: say thinking_tags={tags!r} to search its thoughts"
        ]

    def _unfit(self) -> tuple[str, ...]:
        """What the engine says of a question that its model is not made for, if it says anything."""
        remark = getattr(self.shared.generator, "remark", None)
        said = None if remark is None else self._call("the generator's remark", remark, self.question)
        return () if said is None else (str(said),)

    # The search.

    async def _value_again(self, ends: Sequence[Node], again: Rechoice) -> tuple[Sequence[Node], Valuation | None]:
        """The ends as the other choice values them, and by what; None where nothing scores them."""
        scoring = again.scoring or self.shared.scoring
        if scoring is None:
            return ends, None
        valuation = Valuation(scoring, again.aggregate)
        ends, tokens = await valuation.value_again(self.tree, ends, score=again.scoring is not None)
        self.sampler.usage += Usage(scored_tokens=tokens)
        return ends, valuation

    async def _search(self, started: float) -> StopReason:
        """Follow the plan until it ends, or the budget, the clock, the user or a decided race ends it."""
        plan = asyncio.ensure_future(self._follow_plan())
        deadline = math.inf if self.job.seconds is None else started + self.job.seconds
        try:
            while not plan.done():
                left = max(0.0, deadline - self.shared.clock())
                wait = POLL_SECONDS if self.job.halt is not None else left
                await asyncio.wait({plan}, timeout=None if wait == math.inf else wait)
                halted = self.job.halt is not None and self.job.halt.is_set()
                if not plan.done() and (halted or self.shared.clock() >= deadline):
                    plan.cancel()
                    await asyncio.wait({plan})
                    self.sampler.count_cancelled()
                    return StopReason.HALTED if halted else StopReason.TIME
            return plan.result()
        finally:
            plan.cancel()

    async def _follow_plan(self) -> StopReason:
        what = f"strategy {self.job.strategy_name}"
        plan = self._call(what, self.job.strategy, self.tree)
        if not isinstance(plan, PlanGenerator):
            raise StrategyError(f"{what} returned {shown(plan)}: it must be a generator function that yields Expands")
        try:
            wanted = self._advance(plan, None)
            idle = 0
            while await self._affords_more():
                grown = await self._expand(wanted)
                if grown is None:
                    return StopReason.EARLY
                idle = 0 if any(grown) else idle + 1
                if idle > MAX_IDLE_ROUNDS:
                    raise StrategyError(f"{what} asked {idle} times for what cannot grow")
                wanted = self._advance(plan, grown)
                if await self._decided():
                    return StopReason.EARLY
                if self.empty >= MAX_EMPTY_NODES:
                    return StopReason.COMPLETED
        except StopIteration:
            return StopReason.COMPLETED
        finally:
            self._call(what, lambda _: plan.close(), None)
        return StopReason.BUDGET

    def _advance(self, plan: PlanGenerator[Any, Any, Any], grown: list[list[Node]] | None) -> Any:
        try:
            return plan.send(grown)
        except (TTSError, StopIteration):
            raise
        except BaseException as error:
            raise self._misused(f"raised {told(error)}") from error

    async def _affords_more(self) -> bool:
        """Whether the budget pays for a sample, if need be out of what is kept for the answer."""
        if self.budget.available >= self.sampler.least_tokens and not self.sampler.clipped:
            return True
        return await self.answers.give_back(self.ends)

    async def _expand(self, wanted: Sequence[Expand]) -> list[list[Node]] | None:
        """Grow what a plan asks for; None where the race was decided in the middle of it."""
        wanted = self._checked(wanted)
        look = self.job.early_stop is not None and any(expand.until != Until.STEP for expand in wanted)
        groups = self._draws_of(wanted)
        pending = [draw for group in groups for draw in group]
        grown: dict[Draw, Node] = {}
        try:
            while pending:
                paid = await self.sampler.turn(pending, look=look)
                ended = [draw for draw in pending if draw.ending is not None]
                pending = self.sampler.open(pending)
                grown |= await self._grown(ended)
                if pending and look and ended and await self._decided():
                    return None
                if not paid and not await self.answers.give_back(self.ends):
                    break
        except asyncio.CancelledError:  # halted: what is complete is kept
            await self._grown([draw for draw in pending if draw.ending])
            raise
        cut = [draw for group in groups for draw in group if draw.part and draw not in grown]
        self.sampler.clipped |= bool(cut)
        grown |= await self._grown(cut)
        return [[grown[draw] for draw in group if draw in grown] for group in groups]

    def _checked(self, wanted: object) -> Sequence[Expand]:
        """What a plan yielded, if it is what a plan may yield."""
        if isinstance(wanted, str | bytes) or not isinstance(wanted, Sequence):
            raise self._misused(f"yielded {shown(wanted)}: a list of Expands is due")
        for expand in wanted:
            if not isinstance(expand, Expand):
                raise self._misused(f"yielded {shown(expand)} in its list: an Expand is due")
            if not self.tree.holds(expand.node):
                raise self._misused(f"asked to expand {shown(expand.node)}, which is no node of this tree")
        return wanted

    def _draws_of(self, wanted: Sequence[Expand]) -> list[list[Draw]]:
        """The draws of a round, of which none is made before it is known that a budget could pay for it."""
        least, groups, made = self.sampler.least_tokens, list[list[Draw]](), 0
        for expand in wanted:
            node, n, until, want = self._asked(expand)
            if node.ended or want < least:
                n = 0
            elif self.job.budget is not None:
                payable = max(1, self.budget.available // least)
                n = min(n, payable)
                if made + n > FREE_DRAWS:
                    n = max(0, min(n, payable - made))
            made += n
            if made > MAX_DRAWS:
                raise self._misused(
                    f"asked for n={made} samples at once, {MAX_DRAWS:,} are the most: ask for fewer a round"
                )
            groups.append([self.sampler.draw(node, until, want) for _ in range(n)])
        return groups

    def _asked(self, expand: Expand) -> tuple[Node, int, Until, int]:
        """Of an expansion its node, its n, how far it goes, and what one of its samples may cost."""
        node = expand.node
        try:
            n = operator.index(expand.n)
            limit = self.thinking_room if expand.max_tokens is None else operator.index(expand.max_tokens)
            until = Until(expand.until)
        except (TypeError, ValueError) as error:
            raise self._misused(f"asked for n={expand.n!r}, max_tokens={expand.max_tokens!r}: {error}") from error
        if n < 1 or limit < 1:
            raise self._misused(f"asked for n={n}, max_tokens={expand.max_tokens}: 1 is the least")
        if self.sampler.whole:
            until = self._whole(node, until)
        return node, n, until, min(self.thinking_room - node.length, limit) + self.answer_room

    def _whole(self, node: Node, until: Until) -> Until:
        """How far a sample goes where the engine gives whole responses alone; a plan that asks for less is refused."""
        if node.up is not None or until is Until.STEP:
            place = "a single step" if node.up is None else "a path to be gone on with"
            raise self._misused(
                f"asked for {place}, and {self.shared.generator.name!r} is a chat service: it gives whole responses "
                "alone. Take strategy='best_of_n', or a server with /v1/completions"
            )
        return Until.END

    async def _grown(self, draws: Sequence[Draw]) -> dict[Draw, Node]:
        nodes = await self._grow(draws)
        for node in nodes:
            self.empty = 0 if node.length > (node.up.length if node.up else 0) + self._eos(node) else self.empty + 1
        self.ends += [node for node in nodes if node.ended]
        return dict(zip(draws, nodes, strict=True))

    def _eos(self, node: Node) -> int:
        return int(bool(node.ids) and node.ids[-1] in self.tokenizer.eos_ids)

    async def _grow(self, draws: Sequence[Draw]) -> list[Node]:
        """Make finished draws nodes of the tree, in order; those that finished a step are scored."""
        first = len(self.tree)
        nodes = [draw.to_node(first + i) for i, draw in enumerate(draws)]
        if self.valuation is not None:
            fresh = [i for i, node in enumerate(nodes) if node.new_step_ends]
            if fresh:
                valued, tokens = await self.valuation.value(self.tree, [nodes[i] for i in fresh])
                self.sampler.usage += Usage(scored_tokens=tokens)
                for i, node in zip(fresh, valued, strict=True):
                    nodes[i] = node
        for node in nodes:
            self.tree.add(node)
        if nodes:
            self._emit(Grown(self.question, tuple(nodes)))
        return nodes

    async def _decided(self) -> bool:
        """Whether the user, or the state of the race, says that more search would change nothing."""
        job = self.job
        if job.stop_when is not None and self._call(
            _name("stop_when", job.stop_when), _verdict, job.stop_when, self.tree
        ):
            return True
        if job.early_stop is None or not self.ends or job.selector.decided is None:
            return False
        return await self.answers.decided(self.ends, self._remaining())

    def _remaining(self) -> int | None:
        """How many candidates the strategy says are yet to come, None where it does not say."""
        remaining = getattr(self.job.strategy, "remaining", None)
        left: object = None
        if remaining is not None:
            left = self._call(f"strategy {self.job.strategy_name}", remaining, self.tree)
        try:
            if left is None or operator.index(left) >= 0:  # pyright: ignore[reportArgumentType]
                return left  # pyright: ignore[reportReturnType]
        except TypeError:
            pass
        raise self._misused(f"says that {shown(left)} candidates remain: a whole number, or None, is due")

    async def _finish_best(self) -> None:
        """Take the best path to the end of its thinking, if what is left of the budget (half is an answer's) does."""
        best = max(self.tree.leaves(), key=lambda node: (node.value, -node.index))
        left = self.budget.available if best.state.phase is Phase.PLAIN else self.budget.available // 2
        want = min(self.thinking_room - best.length, left)
        if want >= self.sampler.least_tokens:
            draw = self.sampler.draw(best, Until.THOUGHT, want)
            await self.sampler.sample([draw])
            await self._grown([draw] if draw.part else [])

    # Pieces of the user's, and what they are told.

    def _call(self, what: str, function: Callable[..., T], *arguments: Any) -> T:
        """Run a piece of the user's code, and name it if it raises; SystemExit, too: others share the loop."""
        try:
            return function(*arguments)
        except TTSError:
            raise
        except BaseException as error:
            kind = StrategyError if what.startswith("strategy") else InvalidInputError
            raise kind(f"{what} raised {told(error)}") from error

    def _misused(self, what: str) -> StrategyError:
        return StrategyError(f"strategy {self.job.strategy_name} {what}")

    def _emit(self, event: Event) -> None:
        """Tell the user's handler. What it raises ends the question, once: it hears of nothing more."""
        if self.job.on_event is None or self.broken is not None:
            return
        try:
            self._call(_name("on_event", self.job.on_event), self.job.on_event, event)
        except TTSError as error:
            self.broken = error
            if self.task is not None:  # from within an engine's callback, raising would reach the engine alone
                self.task.cancel()

    def _report(self, tokens: int) -> None:
        self._emit(Sampled(self.question, tokens, self.job.budget, len(self.tree)))


def _prompt(question: Question, system: str | None) -> Question:
    """What the model is asked: the question with the system message in front."""
    if system is None:
        return question
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    return [{"role": "system", "content": system}, *turns]


def _name(what: str, function: object) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{what}={name}"


def _verdict(function: Callable[[Tree], object], tree: Tree) -> bool:
    """What a function says, if it says yes or no: a coroutine, for one, would be taken for yes.

    Raises:
        TypeError: it does not.
    """
    said = function(tree)
    if said is not None and said not in (True, False):
        raise TypeError(f"it returned {shown(said)}, where True or False is due")
    return bool(said)
