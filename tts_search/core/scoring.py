"""The only caller of a scorer: gives it turns and a time limit, and holds its answers to the contract.

Knows no search.
"""

from __future__ import annotations

import asyncio
import math
import operator
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from tts_search.core.protocols import Scorer, Scores
from tts_search.core.tree import Node, Trajectory, Tree
from tts_search.errors import InvalidInputError, ScorerError, TTSError, told

SCORER_SECONDS = 600.0
MOST_NAMED = 4  # candidates in a warning

Score = Callable[[Sequence[Trajectory]], Sequence[Sequence[float]]]


class Scoring:
    """One scorer, at work for all questions of a searcher.

    A scorer is called in a thread, `scorer.concurrency` calls at a time (1 where it has no such attribute), because
    models and tokenizers are seldom safe to share between threads. One that is `inline` (a look-up) is called at once.

    Args:
        scorer: whose answers are checked.
        seconds: limit of one call, None for no limit. A call that exceeds it fails and is left behind: Python cannot
            end a thread. Waiting for a turn does not count.

    Raises:
        InvalidInputError: the scorer's `concurrency` is no whole number of at least 1.
    """

    def __init__(self, scorer: Scorer, seconds: float | None = SCORER_SECONDS) -> None:
        self.scorer = scorer
        self.seconds = seconds
        asked: object = getattr(scorer, "concurrency", 1)
        try:
            concurrency = operator.index(asked)  # pyright: ignore[reportArgumentType]
        except TypeError:
            concurrency = 0
        if concurrency < 1:
            raise InvalidInputError(
                f"scorer {type(scorer).__name__} has concurrency={asked!r}: it is a whole number of at least 1"
            )
        self._inline: bool = getattr(scorer, "inline", False)
        self.only_new = hasattr(scorer, "score_new")
        self._method: Score = getattr(scorer, "score_new", scorer.score)
        self._turns = asyncio.Semaphore(concurrency)

    async def score(self, trajectories: Sequence[Trajectory]) -> tuple[Scores, int]:
        """Step scores of each trajectory, and how many tokens the scorer ran through a model of its own.

        The scores are those of the steps behind `known_scores` where the scorer can go on from them (`only_new`), else
        one for every step; fewer where the scorer says that it could read no further (`Scores.unread`).

        Raises:
            ScorerError: the scorer raised, hung, or returned too few or too many scores, NaN, or values outside [0, 1].
        """
        name = type(self.scorer).__name__
        due = [len(t.new_step_ends) if self.only_new else t.step_count for t in trajectories]
        try:
            scores = self._method(trajectories) if self._inline else await self._in_turn(trajectories)
            if isinstance(scores, Coroutine):
                scores.close()  # or Python complains that nobody awaited it
                raise ScorerError(f"scorer {name} has an async score(), and a plain one is due: it runs in a thread")
            checked = [tuple([float(score) for score in steps]) for steps in scores]
        except TTSError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it is we who are cancelled
            raise ScorerError(f"scorer {name} raised CancelledError") from error
        except _LateError as error:
            raise ScorerError(
                f"scorer {name} did not answer within {self.seconds or 0:g} seconds: mend it, or allow it more with "
                "scorer_seconds"
            ) from error
        except BaseException as error:  # SystemExit, too: it would end the loop that all questions share
            raised = error.error if isinstance(error, _RaisedError) else error
            if isinstance(raised, TTSError):
                raise raised from None
            raise ScorerError(f"scorer {name} raised {told(raised)}") from raised
        unread = scores.unread if isinstance(scores, Scores) and isinstance(scores.unread, str) else None
        _check(name, checked, due, whole=unread is None)
        tokens = scores.tokens if isinstance(scores, Scores) else 0
        return Scores(checked, tokens=tokens, unread=unread), tokens

    async def _in_turn(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
        await self._turns.acquire()
        return await _Call(self._method, trajectories, self._turns).begin(self.seconds)


class StepScoring(Protocol):
    """Whoever answers for a scorer: `Scoring`, or a log of what it said."""

    only_new: bool

    @property
    def scorer(self) -> Scorer | None:
        """The scorer, None where it is not at hand."""
        ...

    async def score(self, trajectories: Sequence[Trajectory]) -> tuple[Scores, int]:
        """See `Scoring.score`."""
        ...


class Valuation:
    """From a scorer's step scores to what a path is worth, going on from its parent's: a step more costs a step."""

    def __init__(self, scoring: StepScoring, aggregate: Callable[[Sequence[float]], float]) -> None:
        self._scoring = scoring
        self._aggregate = aggregate
        self._unread = ""  # why the scorer left steps without a score

    async def value(self, tree: Tree, nodes: Sequence[Node]) -> tuple[list[Node], int]:
        """The nodes with scores and values, and how many tokens the scorer ran through a model of its own.

        Raises:
            ScorerError: see `Scoring.score`.
            InvalidInputError: the aggregation raised, or returned no number.
        """
        scores, tokens = await self._scoring.score(tuple([tree.trajectory(node) for node in nodes]))
        self._unread = scores.unread or self._unread
        return [self._valued(node, tuple(steps)) for node, steps in zip(nodes, scores, strict=True)], tokens

    def warnings(self, ends: Sequence[Node]) -> tuple[str, ...]:
        """What a reader of a result with these candidates should know of their scores."""
        said: object = getattr(self._scoring.scorer, "warnings", ())
        own = [text for text in said if isinstance(text, str)] if isinstance(said, list | tuple) else []
        short = [
            f"candidate {number} (step {read + 1} of {end.step_count} is the first without a score)"
            for number, end in enumerate(ends)
            if (read := len(end.step_scores)) < end.step_count
        ]
        if not short:
            return (*own,)
        named = ", ".join(short[:MOST_NAMED]) + (f" and {len(short) - MOST_NAMED} more" * (len(short) > MOST_NAMED))
        count = f"{len(short)} of {len(ends)} candidates"
        return (*own, f"{count} could not be scored to the end: {named}; {self._unread}")

    async def value_again(self, tree: Tree, nodes: Sequence[Node], *, score: bool) -> tuple[list[Node], int]:
        """Copies of finished paths' ends, valued by this aggregation: from the scores they have, or (`score`) anew.

        Raises: as `value`.
        """
        scores, tokens = [node.step_scores for node in nodes], 0
        if score:
            found, tokens = await self._scoring.score(tuple([_unscored(tree.trajectory(node)) for node in nodes]))
            self._unread = found.unread or self._unread
            scores = [tuple(steps) for steps in found]
        values = [self._aggregated(None, steps)[1] for steps in scores]
        return [
            replace(node, new_step_scores=steps, rescored=True, carry=None, value=value)
            for node, steps, value in zip(nodes, scores, values, strict=True)
        ], tokens

    def _valued(self, node: Node, scores: tuple[float, ...]) -> Node:
        assert node.up is not None
        rescored = False
        if not self._scoring.only_new:
            known = node.up.step_scores
            rescored = scores[: len(known)] != known
            scores = scores if rescored else scores[len(known) :]
        carry, value = self._aggregated(None if rescored else node.up, scores)
        return replace(node, new_step_scores=scores, rescored=rescored, value=value, carry=carry)

    def _aggregated(self, up: Node | None, scores: Sequence[float]) -> tuple[Any, float]:
        """What to go on from, and the value: of these scores, behind those of the path up to `up`."""
        carry = None if up is None else up.carry
        extend = getattr(self._aggregate, "extend", None)
        try:
            if not scores and (up is None or not up.step_scores):
                value = 0.0  # nothing of it could be read
            elif extend is not None:
                carry = extend(carry, scores)
                value = self._aggregate.value(carry)  # pyright: ignore[reportFunctionMemberAccess]
            else:
                value = self._aggregate(scores if up is None else (*up.step_scores, *scores))
            value = float(value)
        except BaseException as error:
            raise InvalidInputError(f"{self._name()} raised {told(error)}") from error
        if not math.isfinite(value):
            steps = len(scores) + (0 if up is None else up.step_count)
            raise InvalidInputError(f"{self._name()} returned {value} for {steps} steps: a number is due")
        return carry, value

    def _name(self) -> str:
        return f"aggregation={getattr(self._aggregate, '__name__', type(self._aggregate).__qualname__)}"


def _unscored(path: Trajectory) -> Trajectory:
    """The path as if nothing had scored it."""
    return Trajectory(
        question=path.question,
        prompt_ids=path.prompt_ids,
        token_ids=path.token_ids,
        step_ends=path.step_ends,
        token_scores=path.token_scores,
        known_scores=(),
        decode=path.decode,
    )


class _LateError(Exception):
    """The time of a call is up: not the `TimeoutError` that a scorer may raise."""


class _RaisedError(Exception):
    """What a scorer raised in its thread, `error`: no future takes a `StopIteration`, nor a loop a `SystemExit`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Call:
    """One call under way. Its turn is over when it ends or its time is up, whether or not anyone still waits for it."""

    def __init__(self, score: Score, trajectories: Sequence[Trajectory], turns: asyncio.Semaphore) -> None:
        self._score = score
        self._trajectories = trajectories
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Sequence[Sequence[float]]] = self._loop.create_future()
        self._limit: asyncio.TimerHandle | None = None
        self._over = False

    def begin(self, seconds: float | None) -> asyncio.Future[Sequence[Sequence[float]]]:
        """Start the thread: a daemon, so that a scorer that hangs does not keep the program alive."""
        if seconds is not None:
            self._limit = self._loop.call_later(seconds, self._end, _LateError())
        threading.Thread(target=self._run, name="tts-search-scorer", daemon=True).start()
        return self._answer

    def _run(self) -> None:
        try:
            outcome: Sequence[Sequence[float]] | Exception = self._score(self._trajectories)
        except BaseException as error:
            outcome = _RaisedError(error)
        with suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            self._loop.call_soon_threadsafe(self._end, outcome)

    def _end(self, outcome: Sequence[Sequence[float]] | Exception) -> None:
        if self._over:
            return
        self._over = True
        self._turns.release()
        if self._limit is not None:
            self._limit.cancel()
        if self._answer.done():  # cancelled
            return
        if isinstance(outcome, Exception):
            self._answer.set_exception(outcome)
        else:
            self._answer.set_result(outcome)


def _check(name: str, scores: Sequence[Sequence[float]], due: Sequence[int], *, whole: bool) -> None:
    if len(scores) != len(due):
        raise ScorerError(f"scorer {name} returned {len(scores)} lists of scores for {len(due)} trajectories")
    for steps, count in zip(scores, due, strict=True):
        if len(steps) > count or (whole and len(steps) < count):
            raise ScorerError(f"scorer {name} returned {len(steps)} scores for {count} steps")
        for number, score in enumerate(steps, start=1):
            if not 0.0 <= score <= 1.0:  # nor is NaN
                raise ScorerError(
                    f"scorer {name} returned {score} for step {number} of {len(steps)}: scores are numbers in [0, 1]"
                )
