"""Takes draws to their endings: reserves budget, asks the engine, keeps the token account of one question.

It knows no strategy, no scorer and no tree search; `draw` knows when a sample is done, the runner what becomes of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import operator
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

from tts_search.core.budget import Budget, Usage
from tts_search.core.draw import Draw, check_completions, stop_ids
from tts_search.core.protocols import Generator, Question, Request, Sampling, Until
from tts_search.core.tree import Ending, Node, Tree
from tts_search.errors import GeneratorError, TTSError, told
from tts_search.segmentation import Phase, Segmenter

MARGIN = 1.25  # how much longer than usual a sample may get before the budget cuts it off
SHARE = 8  # of what is available, the part that all samples together may take before the first of them has ended
LEAST_GRANT = 16  # below this, a look at all samples costs more requests than it tells
LOOK_TOKENS = 32  # the first grant where an early stop is looked for; later ones are a quarter of what was sampled
LOOK_SHARE = 4
GENERATOR_SECONDS = 3600.0


class Sampler:
    """One question's way to the engine.

    `messages` are what the prompt was rendered from. `whole` says that the engine answers from the beginning alone, so
    that every sample is one request. `usage` is its account so far, `warnings` what the engine had to say. `clipped`
    says that the budget cut a sample off, or did not pay for one. `on_tokens`, if given, is called with the count of
    sampled tokens, those in flight included, as it grows. `seconds` limits an engine's silence: the time of a whole
    request where nobody wants to hear of tokens, which costs an engine something. `closing_room` is how long a path may
    get, where the end of one ends its last step.
    """

    def __init__(
        self,
        tree: Tree,
        generator: Generator,
        segmenter: Segmenter,
        sampling: Sampling,
        budget: Budget,
        seed: int,
        on_tokens: Callable[[int], None] | None,
        seconds: float | None = GENERATOR_SECONDS,
        closing_room: int | None = None,
        messages: Question | None = None,
    ) -> None:
        self.tree = tree
        self._closing_room = closing_room
        self.generator = generator
        self.segmenter = segmenter
        self.sampling = sampling
        self.budget = budget
        self.on_tokens = on_tokens
        self.messages = messages
        self.whole = not getattr(generator, "starts_anywhere", True)
        self.usage = Usage()
        self.warnings: dict[str, None] = {}  # each once, in order
        self.clipped = False
        self.answering = False  # from now on, tokens are the answer's
        head = generator.head_config
        # Read at the step token itself, a score costs an engine the token behind it.
        self.least_tokens = 2 if head is not None and head.readout == "step" else 1
        tokenizer = generator.tokenizer
        self._eos_ids = tokenizer.eos_ids
        self._known_ids = getattr(tokenizer, "id_limit", len(tokenizer.pieces))
        self._stops = {until: stop_ids(until, segmenter, tokenizer) for until in Until}
        self._seconds = seconds
        self._live_tokens = 0
        self._seed = hashlib.blake2b(repr((seed, tree.prompt_ids)).encode(), digest_size=8).digest()
        self._draws: Counter[int] = Counter()
        self._ended: Counter[Until] = Counter()  # draws that came to their own end, and their sampled tokens
        self._ended_tokens: Counter[Until] = Counter()

    def draw(self, node: Node, until: Until, want: int, *, answers: bool = False) -> Draw:
        """The next sample from `node`; the draws of a node are numbered over the whole search.

        One that `answers` goes on behind the end of the path.
        """
        number = self._draws[node.index]
        self._draws[node.index] += 1
        room = None if answers else self._closing_room
        is_last = room is not None and (self.whole or node.length + want >= room)
        closes = room is not None
        return Draw(node, number, until, want, node.state, self.whole, closes_step=closes, is_last=is_last)

    async def sample(self, draws: Sequence[Draw]) -> None:
        """Take every draw to its ending, as far as the budget goes."""
        pending = self.open(draws)
        while pending and await self.turn(pending):
            pending = self.open(pending)

    def open(self, draws: Sequence[Draw]) -> list[Draw]:
        """Those of the draws that have not ended and may go on."""
        return [draw for draw in draws if draw.ending is None and draw.left >= self.least_tokens]

    async def turn(
        self,
        pending: Sequence[Draw],
        *,
        look: bool = False,
        on_delta: Callable[[Sequence[int]], None] | None = None,
    ) -> bool:
        """Extend as many of the draws by one grant as the budget should; False where it pays for none.

        All get what they want where that can be paid. Otherwise all begin with a small share, so that the budget costs
        no time, and as long as none has ended the first goes on alone: a few whole samples are worth more than many
        that were cut off. Once it is known how long samples get, as many go on as should come to their ends; what pays
        for less than half of one begins none. With `look`, grants are small steps that all take together, so that
        whoever asks can stop between them. The outcome depends on the samples alone, never on who was first.
        Samples that cannot be gone on with have one grant each: the first alone where not all can be paid.
        """
        wants = self._wants(pending, look=look)
        grants = self.budget.reserve(wants)
        funded = [(d, grant) for d, grant in zip(pending, grants, strict=False) if grant >= self.least_tokens]
        for grant in grants:
            if grant < self.least_tokens:
                self.budget.settle(grant, 0)
        if not funded:
            self.clipped = True
            return False
        together = groupby(funded, lambda pair: (pair[1], pair[0].prefix_key))
        await _gather([self._spend([draw for draw, _ in group], grant, on_delta) for (grant, _), group in together])
        if self.whole and self.budget.available < self.least_tokens:
            self.clipped |= any(draw.ending is Ending.LENGTH and draw.left > 0 for draw, _ in funded)
        if any(draw.ending is Ending.END and draw.state.phase is Phase.PLAIN for draw, _ in funded):
            self.budget.release()  # a whole response without a thinking part: nothing is left to pay for
        return True

    def _wants(self, pending: Sequence[Draw], *, look: bool) -> list[int]:
        """What the first of the pending draws are to be granted at most; the others wait."""
        wants = [draw.left for draw in pending]
        if look and not self.whole:
            step = max(LOOK_TOKENS, max(draw.sampled for draw in pending) // LOOK_SHARE)
            wants = [min(want, max(step, self.least_tokens)) for want in wants]
        available = self.budget.available
        if sum(wants) <= available:
            return wants
        usual = [self._ended_tokens[u] / self._ended[u] for u in {draw.until for draw in pending} if self._ended[u]]
        if not usual:
            share = available // (SHARE * len(pending))
            begins = len(pending) > 1 and not any(draw.sampled for draw in pending)
            if share >= LEAST_GRANT and begins and not self.whole:
                return [min(want, share) for want in wants]
            return wants[: max(1, available // max(wants))]
        length = MARGIN * max(usual)
        needs, count = 0.0, 0
        for draw in pending:  # one that is longer than usual already may get half as long again
            needs += length - draw.sampled if draw.sampled < length else length / 2
            if needs > available + length / 2:  # of what is half paid for, as often as not enough is left over
                break
            count += 1
        return wants[: max(count, bool(pending[0].sampled))]

    def count_cancelled(self) -> None:
        """Account for tokens of requests that were cancelled, as far as the engine told of them.

        Their grants stay reserved: the engine may have gone a little further than it told.
        """
        lost = self._live_tokens - self.usage.sampled_tokens
        self.usage += Usage(sampled_tokens=max(0, lost))

    async def _spend(self, draws: list[Draw], grant: int, on_delta: Callable[[Sequence[int]], None] | None) -> None:
        """Sample up to `grant` tokens for each of some draws that share their prefix."""
        limits = {id(draw): draw.sampled + grant for draw in draws}
        await self._request(draws, grant, on_delta)
        # A stop that turned out to end no step (the second token of a run) is gone past, each sample for itself.
        further = [draw for draw in draws if self._goes_on(draw, limits[id(draw)])]
        await _gather([self._go_on(draw, limits[id(draw)], on_delta) for draw in further])
        for draw in draws:
            self.budget.settle(grant, draw.sampled - (limits[id(draw)] - grant))
            if draw.ending is not None:
                self._ended[draw.until] += 1
                self._ended_tokens[draw.until] += draw.sampled

    def _goes_on(self, draw: Draw, limit: int) -> bool:
        return draw.ending is None and draw.sampled + self.least_tokens <= limit

    async def _go_on(self, draw: Draw, limit: int, on_delta: Callable[[Sequence[int]], None] | None) -> None:
        while self._goes_on(draw, limit):
            await self._request([draw], limit - draw.sampled, on_delta)

    async def _request(
        self, draws: list[Draw], max_tokens: int, on_delta: Callable[[Sequence[int]], None] | None
    ) -> None:
        first, name = draws[0], self.generator.name
        async with _named_errors(name, self._seconds) as clock:
            request = Request(
                prefix=self.tree.prefix(first.node, first.tokens),
                seeds=tuple([self._seed_of(draw) for draw in draws]),
                max_tokens=max_tokens,
                stop_ids=self._stops[first.until],
                sampling=self.sampling,
                tree=int.from_bytes(self._seed),
                on_tokens=self._listener(clock) if self.on_tokens else None,
                on_delta=None if on_delta is None else lambda _, ids: on_delta(ids),
                messages=None if first.node.length or first.tokens else self.messages,
            )
            completions = await self.generator.generate(request)
        check_completions(completions, request, self._known_ids, whole=self.whole)
        sampled = prompt = cached = 0
        for draw, completion in zip(draws, completions, strict=True):
            draw.absorb(completion, self.segmenter, self._eos_ids)
            sampled += int(completion.sampled_tokens)
            prompt += len(request.prefix) if completion.prompt_tokens is None else int(completion.prompt_tokens)
            cached += int(completion.cached_tokens)
            self.warnings |= dict.fromkeys(completion.warnings)
        self.usage += Usage(
            sampled_tokens=sampled,
            answer_tokens=sampled if self.answering else 0,
            prompt_tokens=prompt,
            cached_tokens=cached,
            requests=len(draws),
        )
        self._count_live(0)

    def _listener(self, clock: asyncio.Timeout) -> Callable[[int], None]:
        """Counts tokens as they come, and takes the engine for alive while it tells of any."""
        loop, seconds = asyncio.get_running_loop(), self._seconds
        heard = loop.time()

        def on_tokens(count: int) -> None:
            nonlocal heard
            count = max(0, operator.index(count))
            now = loop.time()
            if seconds is not None and now - heard > seconds / 8 and not clock.expired():  # thousands come a second
                heard = now
                clock.reschedule(now + seconds)
            self._count_live(count)

        return on_tokens

    def _count_live(self, tokens: int) -> None:
        self._live_tokens = max(self._live_tokens + tokens, self.usage.sampled_tokens)
        if self.on_tokens:
            self.on_tokens(self._live_tokens)

    def _seed_of(self, draw: Draw) -> int:
        """From (seed, question, node, draw, request), never from arrival order; 63 bits."""
        place = repr((draw.node.index, draw.number, draw.part)).encode()
        return int.from_bytes(hashlib.blake2b(self._seed + place, digest_size=8).digest()) >> 1


@asynccontextmanager
async def _named_errors(name: str, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
    """Whatever an engine does but answer is an error that names it; so is silence for longer than `seconds`."""
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            yield clock
    except TTSError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # it is we who are cancelled
        raise GeneratorError(f"generator {name!r} raised CancelledError: it gave a request up by itself") from error
    except BaseException as error:  # SystemExit, too: it would end the loop that all questions share
        if isinstance(error, TimeoutError) and clock.expired():
            raise GeneratorError(
                f"generator {name!r} told nothing for {seconds:g} seconds: mend it, or allow it more with "
                "generator_seconds"
            ) from error
        raise GeneratorError(f"generator {name!r} raised {told(error)}") from error


async def _gather(work: Sequence[Coroutine[object, object, None]]) -> None:
    """All of it, or the first failure with everything else cancelled."""
    if len(work) <= 1:  # most rounds are one request: a task for it would only cost
        for coroutine in work:
            await coroutine
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in work:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
