"""From the ends of paths to the one answer: who is chosen, what closes a thought, and what of a budget that needs.

Knows the selector and the sampler; what grows the tree is the runner's.
"""

from __future__ import annotations

import asyncio
import math
import operator
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from tts_search.core.draw import Draw
from tts_search.core.events import Answering, Chosen, Event
from tts_search.core.job import Job, Rechoice
from tts_search.core.protocols import MergedVotes, Until
from tts_search.core.result import Candidate
from tts_search.core.sampler import Sampler
from tts_search.core.text_stream import TextStream
from tts_search.core.tree import Ending, Node, Tree
from tts_search.errors import InvalidInputError, NotRecordedError, shown
from tts_search.segmentation import Phase

ANSWERS_KEPT = 2  # of what is kept for the answer, so many times its length stays when one is there


class Answers:
    """The answers of one question so far. Candidates are made once and kept.

    `room` is how long prompt and response may get in the model's context, less the prompt; `scored` says whether
    anything scores steps. `grow`, `call` and `emit` are the runner's: draws to nodes, code of the user's, events.
    """

    def __init__(
        self,
        tree: Tree,
        sampler: Sampler,
        job: Job,
        *,
        room: int,
        scored: bool,
        grow: Callable[[Sequence[Draw]], Awaitable[list[Node]]],
        call: Callable[..., Any],
        emit: Callable[[Event], None],
    ) -> None:
        self._tree = tree
        self._sampler = sampler
        self._job = job
        self._room = room
        self._scored = scored
        self._grow = grow
        self._call = call
        self._emit = emit
        self._finals: dict[int, Node] = {}  # by end of thinking: the end of its answer
        self._candidates: dict[int, Candidate] = {}
        self._valued: dict[int, Node] = {}  # ends as they were valued anew
        self._compared: tuple[str | None, ...] = ()
        self._merged: MergedVotes | None = None
        self._given_back_at = 0  # ends that were there when the answer's share was looked at

    def final(self, end: Node) -> Node:
        """The end of the answer that goes on from `end`; `end` itself where there is none."""
        return self._finals.get(end.index, end)

    async def choose(self, ends: Sequence[Node]) -> tuple[list[Candidate], int]:
        """Choose among the ends of paths and let the policy answer from the chosen thinking (paper, Eq. 7)."""
        selector = self._job.selector
        if selector.needs_answers:
            await self.complete(ends)
        chosen = await self._choice(ends)
        end = ends[chosen]
        thinking, _ = self._tree.split(end)
        self._emit(Chosen(self._tree.question, end, thinking, self._score(end)))
        if self.final(end) is end and end.ending is not Ending.END:
            text = TextStream(self._tree.decode, lambda text: self._emit(Answering(self._tree.question, text)))
            await self.complete([end], on_delta=text.feed)
            text.close(self._tree.split(self.final(end))[1])
        else:
            self._emit(Answering(self._tree.question, self._tree.split(self.final(end))[1]))
        return await self._candidates_of(ends), chosen

    async def choose_again(
        self, ends: Sequence[Node], again: Rechoice, valued: Sequence[Node] | None
    ) -> tuple[list[Candidate], int, tuple[str, ...]]:
        """Choose among the same ends by other rules; `valued` are copies with what they are worth now.

        Nothing is sampled for it: a path whose answer nobody recorded has none.
        """
        self._job = replace(self._job, selector=again.selector, extract=again.extract, merge=again.merge)
        self._candidates, self._compared, self._merged = {}, (), None
        if valued is not None:
            self._scored = True
            self._valued = {end.index: end for end in valued}
        known = [await self._recorded(end) for end in ends] if again.selector.needs_answers else None
        chosen = await self._choice(ends)
        said = (again.note,)
        if known is not None and not all(known):
            said += (f"{len(known) - sum(known)} of {len(known)} paths were never answered: they have no vote",)
        if not (known[chosen] if known else await self._recorded(ends[chosen])):
            said += ("the chosen path was never answered: record with a selector that has every path answered",)
        return await self._candidates_of(ends), chosen, said

    async def _recorded(self, end: Node) -> bool:
        """Whether the path has an answer, or its answer is on record."""
        try:
            await self.complete([end])
        except NotRecordedError:
            return False
        return end.ending is Ending.END or end.index in self._finals

    async def _choice(self, ends: Sequence[Node]) -> int:
        selector = self._job.selector
        candidates = await self._candidates_of(ends)
        chosen: object = self._call(f"selector {selector.name!r}", selector.choose, tuple(candidates))
        try:
            place = -1 if isinstance(chosen, bool) else operator.index(chosen)  # pyright: ignore[reportArgumentType]
        except TypeError:
            place = -1
        if not 0 <= place < len(candidates):
            raise InvalidInputError(
                f"selector {selector.name!r} chose {shown(chosen)} of {len(candidates)} candidates: "
                "the index of one is due"
            )
        return place

    async def decided(self, ends: Sequence[Node], remaining: int | None) -> bool:
        """Whether the selector says that what is still to come changes nothing."""
        selector, margin = self._job.selector, self._job.early_stop
        if selector.decided is None or margin is None:
            return False
        if selector.needs_answers:
            await self.complete(ends)
        candidates = await self._candidates_of(ends)
        return bool(self._call(f"selector {selector.name!r}", selector.decided, tuple(candidates), remaining, margin))

    async def give_back(self, ends: Sequence[Node]) -> bool:
        """Answer from the best so far, and give of what is kept for that all but twice its length back to the plan.

        Where every candidate is answered, as much is kept as those still to come should need. Whether there was
        anything to give.
        """
        budget = self._sampler.budget
        if not budget.answer_reserve or len(ends) <= self._given_back_at:
            return False
        self._given_back_at = len(ends)
        budget.release()
        needs_all = self._job.selector.needs_answers
        await self.complete(ends if needs_all else [ends[await self._choice(ends)]])
        lengths = [len(node.ids) - node.forced_tokens for node in self._finals.values()]
        if not lengths:
            return False
        keep = ANSWERS_KEPT * max(lengths)
        if needs_all:  # even if all thoughts to come are as short as the shortest so far
            keep = max(keep, math.ceil(budget.available * keep / (keep + max(1, min(end.length for end in ends)))))
        budget.keep(keep)
        if budget.available < self._sampler.least_tokens:
            return False
        self._sampler.clipped = False
        return True

    async def complete(self, ends: Sequence[Node], on_delta: Callable[[Sequence[int]], None] | None = None) -> None:
        """Take paths to the end of their response, closing the thinking part of those that did not."""
        draws = [draw for end in ends if (draw := self._draw(end)) is not None]
        if not draws:
            return
        answering, self._sampler.answering = self._sampler.answering, True
        try:
            pending = draws
            while pending and await self._sampler.turn(pending, on_delta=on_delta):
                pending = self._sampler.open(pending)
        finally:
            self._sampler.answering = answering
        for node in await self._grow([draw for draw in draws if draw.part]):
            assert node.up is not None
            self._finals[node.up.index] = node
            self._candidates.pop(node.up.index, None)

    def _draw(self, end: Node) -> Draw | None:
        if end.ending is Ending.END or end.index in self._finals or self._sampler.whole:
            return None
        closing = self._closing(end)
        want = min(self._job.answer_tokens, self._room - end.length - len(closing))
        if want < self._sampler.least_tokens:
            return None
        draw = self._sampler.draw(end, Until.END, want, answers=True)
        draw.force(closing, self._sampler.segmenter)
        return draw

    def _closing(self, end: Node) -> tuple[int, ...]:
        tag = self._sampler.segmenter.closing
        if end.state.phase is not Phase.THINKING or tag is None:
            return ()
        tail, node = list[int](), end
        while node is not None and len(tail) < 4:
            tail = [*node.ids[-4:], *tail]
            node = node.up
        text = self._tree.decode(tuple(tail[-4:]))
        alone = not text or text.endswith("\n") or tag.is_header
        return (*(() if alone else self._sampler.generator.tokenizer.encode("\n")), *tag.ids)

    async def _candidates_of(self, ends: Sequence[Node]) -> list[Candidate]:
        """The candidates, with votes that mean the same spelled the same: compared beside the event loop."""
        candidates = [self._candidate(end) for end in ends]
        votes = tuple([candidate.vote for candidate in candidates])
        merge = self._job.merge
        if merge is None or len({vote for vote in votes if vote is not None}) < 2:
            return candidates
        if votes != self._compared:
            self._merged = await asyncio.to_thread(self._call, "comparing votes", merge, votes)
            self._compared = votes
        assert self._merged is not None
        return [replace(candidate, vote=vote) for candidate, vote in zip(candidates, self._merged.keys, strict=True)]

    @property
    def comparer(self) -> str | None:
        """Who compared the votes, None where nobody had to."""
        return None if self._merged is None else self._merged.comparer

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the result should know of its votes."""
        return () if self._merged is None else self._merged.warnings

    def _candidate(self, end: Node) -> Candidate:
        if end.index not in self._candidates:
            final = self.final(end)
            answer = self._tree.split(final)[1] if final.ending is Ending.END or final is not end else None
            self._candidates[end.index] = Candidate(
                node=end.index,
                score=self._score(end),
                mean_logprob=final.logprob_sum / final.logprob_count if final.logprob_count else None,
                answer=answer,
                vote=None if answer is None else self._vote(answer),
            )
        return self._candidates[end.index]

    def _score(self, end: Node) -> float | None:
        """What a path is worth, None where nothing scores steps or the scorer read none of the path's.

        By a head, a path without steps is worth 0 (released code).
        """
        end = self._valued.get(end.index, end)
        unread = end.last_score is None if end.step_count else self._job.closes_steps
        return end.value if self._scored and not unread else None

    def _vote(self, answer: str) -> str | None:
        extract = self._job.extract
        name = getattr(extract, "__qualname__", None) or type(extract).__qualname__
        vote = self._call(f"extract={name}", extract, answer)
        if vote is not None and not isinstance(vote, str):
            raise InvalidInputError(f"extract={name} returned {shown(vote)}: the text that is voted on is due, or None")
        return vote
