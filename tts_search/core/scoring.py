"""The only caller of a scorer: gives it turns and a time limit, and holds its answers to the contract.

Knows no search.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from contextlib import suppress

from tts_search.core.protocols import Scorer, Scores
from tts_search.core.tree import Trajectory
from tts_search.errors import InvalidInputError, ScorerError, TTSError

SCORER_SECONDS = 600.0


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
        concurrency: object = getattr(scorer, "concurrency", 1)
        if not isinstance(concurrency, int) or concurrency < 1:
            raise InvalidInputError(
                f"scorer {type(scorer).__name__} has concurrency={concurrency!r}: it is a whole number of at least 1"
            )
        self._turns = asyncio.Semaphore(concurrency)

    async def score(self, trajectories: Sequence[Trajectory]) -> tuple[list[tuple[float, ...]], int]:
        """Step scores of each trajectory, and how many tokens the scorer ran through a model of its own.

        Raises:
            ScorerError: the scorer raised, hung, or returned too few or too many scores, NaN, or values outside [0, 1].
        """
        name = type(self.scorer).__name__
        try:
            inline = getattr(self.scorer, "inline", False)
            scores = self.scorer.score(trajectories) if inline else await self._in_turn(trajectories)
            checked = [tuple(float(score) for score in steps) for steps in scores]
        except TTSError:
            raise
        except TimeoutError as error:
            raise ScorerError(
                f"scorer {name} did not answer within {self.seconds:g} seconds: mend it, or allow it more with "
                "scorer_seconds"
            ) from error
        except Exception as error:
            raise ScorerError(f"scorer {name} raised {type(error).__name__}: {error}") from error
        _check(name, checked, trajectories)
        return checked, scores.tokens if isinstance(scores, Scores) else 0

    async def _in_turn(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
        await self._turns.acquire()
        return await _Call(self.scorer, trajectories, self._turns).begin(self.seconds)


class _Call:
    """One call under way. Its turn is over when it ends or its time is up, whether or not anyone still waits for it."""

    def __init__(self, scorer: Scorer, trajectories: Sequence[Trajectory], turns: asyncio.Semaphore) -> None:
        self._scorer = scorer
        self._trajectories = trajectories
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Sequence[Sequence[float]]] = self._loop.create_future()
        self._limit: asyncio.TimerHandle | None = None
        self._over = False

    def begin(self, seconds: float | None) -> asyncio.Future[Sequence[Sequence[float]]]:
        """Start the thread: a daemon, so that a scorer that hangs does not keep the program alive."""
        if seconds is not None:
            self._limit = self._loop.call_later(seconds, self._end, TimeoutError())
        threading.Thread(target=self._run, name="tts-search-scorer", daemon=True).start()
        return self._answer

    def _run(self) -> None:
        try:
            outcome: Sequence[Sequence[float]] | Exception = self._scorer.score(self._trajectories)
        except Exception as error:
            outcome = error
        except BaseException as error:  # SystemExit in a thread would vanish without a word
            outcome = RuntimeError(f"{type(error).__name__}: {error}")
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


def _check(name: str, scores: Sequence[Sequence[float]], trajectories: Sequence[Trajectory]) -> None:
    if len(scores) != len(trajectories):
        raise ScorerError(f"scorer {name} returned {len(scores)} lists of scores for {len(trajectories)} trajectories")
    for steps, trajectory in zip(scores, trajectories, strict=True):
        if len(steps) != len(trajectory.step_ends):
            raise ScorerError(f"scorer {name} returned {len(steps)} scores for {len(trajectory.step_ends)} steps")
        for number, score in enumerate(steps, start=1):
            if not (math.isfinite(score) and 0.0 <= score <= 1.0):
                raise ScorerError(
                    f"scorer {name} returned {score} for step {number} of {len(steps)}: scores are numbers in [0, 1]"
                )
