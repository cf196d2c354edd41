"""One question, searched over a log: an engine and a scorer that look there first, and a clock that goes on.

What is found is as good as new; what is not is asked for, and kept the moment it is there.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from tts_search.core.draw import check_completions
from tts_search.core.protocols import Completion, Generator, Request, Sampling, Scorer, Scores, Tokenizer
from tts_search.core.scoring import Scoring
from tts_search.core.tree import Trajectory
from tts_search.errors import NotRecordedError, TTSError
from tts_search.log.columns import only_steps, pack, unpack
from tts_search.log.file import SearchLog
from tts_search.log.identity import completion_keys, trajectory_key
from tts_search.sprm.config import SPRMConfig

COMPLETION, SCORES = b"g", b"v"


class Clock:
    """Seconds of search since the question was begun, those of earlier runs included: a completion brings its own."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._before = 0.0

    def __call__(self) -> float:
        return time.perf_counter() - self._began + self._before

    def catch_up(self, seconds: float) -> None:
        """It is at least so late."""
        self._before = max(self._before, seconds - (time.perf_counter() - self._began))


_asked: WeakKeyDictionary[SearchLog, dict[tuple[int, bytes], asyncio.Future[None]]] = WeakKeyDictionary()


def _in_flight(log: SearchLog, key: bytes) -> asyncio.Future[None] | None:
    """Done when the completion is in the log that this event loop is waiting for; None where none is asked for."""
    return _asked.get(log, {}).get((id(asyncio.get_running_loop()), key))


@contextmanager
def _asking(log: SearchLog, keys: Sequence[bytes]) -> Iterator[None]:
    """An engine is being asked for the completions of these keys."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    flying = _asked.setdefault(log, {})
    flying.update({(id(loop), key): done for key in keys})
    try:
        yield
    finally:
        for key in keys:
            flying.pop((id(loop), key), None)
        done.set_result(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedGenerator:
    """An engine that looks into a log first. What another search is asking for over the same log is waited for.

    `asks` False: the engine is never asked. `engine_key` is the digest of its identity; `step_ids` are the tokens at
    which the head's logits are kept; `context_tokens` is the engine's own, or was when the log was written.
    """

    engine: Generator
    log: SearchLog
    engine_key: bytes
    step_ids: frozenset[int]
    clock: Clock
    context_tokens: int
    asks: bool = True

    @property
    def name(self) -> str:
        """The engine's."""
        return self.engine.name

    @property
    def tokenizer(self) -> Tokenizer:
        """The engine's."""
        return self.engine.tokenizer

    @property
    def sampling(self) -> Sampling:
        """The engine's."""
        return self.engine.sampling

    @property
    def head_config(self) -> SPRMConfig | None:
        """The engine's."""
        return self.engine.head_config

    def __getattr__(self, name: str) -> Any:
        """Whatever else an engine may have, such as `remark` and `starts_anywhere`."""
        return getattr(self.engine, name)

    async def aclose(self) -> None:
        """Nothing: the engine is its searcher's."""

    async def generate(self, request: Request) -> Sequence[Completion]:
        """One completion per seed, in their order: of the log, or else of the engine.

        Raises:
            NotRecordedError: the engine is not to be asked, and the log does not hold all.
        """
        request = replace(request, prefix=tuple(request.prefix))  # it may be joined anew at every look
        key_of = completion_keys(request, self.engine_key, self.step_ids)
        keys = [key_of(seed) for seed in request.seeds]
        found: dict[int, Completion] = {}
        while len(found) < len(keys):
            missing = [place for place in range(len(keys)) if place not in found]
            known = {place: one for place in missing if (one := self._look_up(keys[place])) is not None}
            found |= self._told(request, known)
            missing = [place for place in missing if place not in known]
            if missing and not self.asks:
                raise NotRecordedError(
                    f"{self.log.path} does not hold {len(missing)} of {len(keys)} completions of at most "
                    f"{request.max_tokens} tokens behind {len(request.prefix)}"
                )
            flying = {place: one for place in missing if (one := _in_flight(self.log, keys[place])) is not None}
            free = [place for place in missing if place not in flying]
            if free:
                with _asking(self.log, [keys[place] for place in free]):
                    found |= await self._ask(request, keys, free)
            elif flying:  # equal questions, at once: what fails for the other is asked for here
                await asyncio.wait(flying.values())
        return [found[place] for place in range(len(keys))]

    def _told(self, request: Request, found: dict[int, Completion]) -> dict[int, Completion]:
        """What the log held, and the request's listeners hear of as if it were new."""
        for place, completion in found.items():
            if request.on_delta is not None:
                request.on_delta(place, completion.token_ids)
        if found and request.on_tokens is not None:
            request.on_tokens(sum([completion.sampled_tokens for completion in found.values()]))
        return found

    def _look_up(self, key: bytes) -> Completion | None:
        content = self.log.get(COMPLETION, key)
        if content is None:
            return None
        kept = unpack(content, self.step_ids)
        self.clock.catch_up(kept.seconds)
        return kept.completion

    async def _ask(self, request: Request, keys: Sequence[bytes], missing: Sequence[int]) -> dict[int, Completion]:
        """The missing completions, each kept as soon as it is there.

        An engine that says when each is done gets one request; one that does not, gets one for each.
        """
        if not getattr(self.engine, "reports_completions", False):
            return await self._ask_one_by_one(request, keys, missing)
        kept: dict[int, Completion] = {}

        def keep(sample: int, completion: Completion) -> None:
            place = missing[sample]
            if place not in kept:
                kept[place] = self._keep(keys[place], _part(request, [place]), completion)

        def keep_early(sample: int, completion: Completion) -> None:
            try:
                keep(sample, completion)
            except TTSError:  # in an engine's callback it would reach nobody: it is met again below
                return

        asked = replace(_part(request, missing), on_completion=keep_early)
        completions = await self.engine.generate(asked)
        check_completions(completions, asked, self._known_ids, whole=self._whole)
        for sample, completion in enumerate(completions):
            keep(sample, completion)
        return kept

    async def _ask_one_by_one(
        self, request: Request, keys: Sequence[bytes], missing: Sequence[int]
    ) -> dict[int, Completion]:
        async def ask(place: int) -> Completion:
            part = _part(request, [place])
            completions = await self.engine.generate(part)
            check_completions(completions, part, self._known_ids, whole=self._whole)
            return self._keep(keys[place], part, completions[0])

        calls = [asyncio.ensure_future(ask(place)) for place in missing]
        try:
            return dict(zip(missing, await asyncio.gather(*calls), strict=True))
        finally:
            for call in calls:  # only if one failed, or we were cancelled, are others still at work
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def _keep(self, key: bytes, request: Request, completion: Completion) -> Completion:
        """Into the log, if it is one: what breaks the contract would be wrong at every replay."""
        check_completions([completion], request, self._known_ids, whole=self._whole)
        self.log.add(COMPLETION, key, pack(completion, self.clock(), self.step_ids))
        return only_steps(completion, self.step_ids)

    @property
    def _whole(self) -> bool:
        return not getattr(self.engine, "starts_anywhere", True)

    @property
    def _known_ids(self) -> int:
        tokenizer = self.engine.tokenizer
        return getattr(tokenizer, "id_limit", len(tokenizer.pieces))


def _part(request: Request, places: Sequence[int]) -> Request:
    """The request for some of its seeds alone."""
    stream = request.on_delta
    return replace(
        request,
        seeds=tuple([request.seeds[place] for place in places]),
        on_delta=None if stream is None else lambda sample, ids: stream(places[sample], ids),
    )


class RecordedScoring:
    """A scorer's answers, of a log first. `scoring` None: the scorer is not at hand, and nobody is asked."""

    def __init__(self, scoring: Scoring | None, log: SearchLog, scorer_key: bytes, *, only_new: bool) -> None:
        self.only_new = only_new
        self._scoring = scoring
        self._log = log
        self._scorer_key = scorer_key

    @property
    def scorer(self) -> Scorer | None:
        """The scorer, None where it is not at hand."""
        return None if self._scoring is None else self._scoring.scorer

    async def score(self, trajectories: Sequence[Trajectory]) -> tuple[Scores, int]:
        """As `Scoring.score`. Tokens are counted as they were when the scores were new.

        Raises:
            NotRecordedError: the log lacks some, and there is no scorer to ask.
        """
        keys = [trajectory_key(t, self._scorer_key, only_new=self.only_new) for t in trajectories]
        contents = [self._log.get(SCORES, key) for key in keys]
        missing = [place for place, content in enumerate(contents) if content is None]
        if missing:
            if self._scoring is None:
                raise NotRecordedError(f"{self._log.path} does not hold the scores of {len(missing)} paths")
            scores, tokens = await self._scoring.score([trajectories[place] for place in missing])
            for number, (place, steps) in enumerate(zip(missing, scores, strict=True)):
                cost = tokens if number == 0 else 0  # of a call as a whole
                contents[place] = _packed(steps, cost, scores.unread)
                self._log.add(SCORES, keys[place], contents[place] or b"")
        found = [_unpacked(content or b"") for content in contents]
        unread = next((text for _, _, text in found if text), None)
        total = sum([cost for _, cost, _ in found])
        return Scores([steps for steps, _, _ in found], tokens=total, unread=unread), total


def _packed(steps: Sequence[float], tokens: int, unread: str | None) -> bytes:
    numbers = array("d", [tokens, *steps])
    return len(numbers).to_bytes(4) + numbers.tobytes() + (unread or "").encode()


def _unpacked(content: bytes) -> tuple[tuple[float, ...], int, str]:
    end = 4 + 8 * int.from_bytes(content[:4])
    numbers = array("d", content[4:end])
    return tuple(numbers[1:]), int(numbers[0]), content[end:].decode()
