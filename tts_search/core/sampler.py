"""Takes draws to their endings: reserves budget, asks the engine, keeps the token account of one question.

It knows no strategy, no scorer and no tree search; `draw` knows when a sample is done, the runner what becomes of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import groupby

from tts_search.core.budget import Budget, Usage
from tts_search.core.draw import Draw, check_completions, stop_ids
from tts_search.core.protocols import Generator, Request, Sampling, Until
from tts_search.core.tree import Ending, Node, Tree
from tts_search.errors import GeneratorError, TTSError
from tts_search.segmentation import Phase, Segmenter

MARGIN = 1.25  # how much longer than usual a sample may get before the budget cuts it off


class Sampler:
    """One question's way to the engine.

    `usage` is its account so far. `clipped` says that the budget cut a sample off, or did not pay for one. `on_tokens`,
    if given, is called with the count of sampled tokens, those in flight included, as it grows.
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
    ) -> None:
        self.tree = tree
        self.generator = generator
        self.segmenter = segmenter
        self.sampling = sampling
        self.budget = budget
        self.on_tokens = on_tokens
        self.usage = Usage()
        self.clipped = False
        self.answering = False  # from now on, tokens are the answer's
        head = generator.head_config
        # Read at the step token itself, a score costs an engine the token behind it.
        self.least_tokens = 2 if head is not None and head.readout == "step" else 1
        self._live_tokens = 0
        self._seed = hashlib.blake2b(repr((seed, tree.prompt_ids)).encode(), digest_size=8).digest()
        self._draws: Counter[int] = Counter()
        self._ended: Counter[Until] = Counter()  # draws that came to their own end, and their sampled tokens
        self._ended_tokens: Counter[Until] = Counter()

    def draw(self, node: Node, until: Until, want: int) -> Draw:
        """The next sample from `node`; the draws of a node are numbered over the whole search."""
        number = self._draws[node.index]
        self._draws[node.index] += 1
        return Draw(node, number, until, want, node.state)

    async def sample(self, draws: Sequence[Draw]) -> None:
        """Take every draw to its ending, as far as the budget goes.

        Where it may not pay for all, as many go first as it should, and what they leave pays for the next: a few whole
        samples are worth more than many that were cut off. The outcome depends on the samples alone, never on who was
        first.
        """
        pending = list(draws)
        while pending:
            turn = pending[: self._affordable(pending)]
            grants = self.budget.reserve([draw.want - draw.sampled for draw in turn])
            funded = [(d, grant) for d, grant in zip(turn, grants, strict=True) if grant >= self.least_tokens]
            for grant in grants:
                if grant < self.least_tokens:
                    self.budget.settle(grant, 0)
            if not funded:
                self.clipped = True
                return
            together = groupby(funded, lambda pair: (pair[1], pair[0].prefix_key))
            await _gather(self._spend([draw for draw, _ in group], grant) for (grant, _), group in together)
            if any(draw.ending is Ending.END and draw.state.phase is Phase.PLAIN for draw in turn):
                self.budget.release()  # a whole response without a thinking part: nothing is left to pay for
            pending = [d for d in pending if d.ending is None and d.want - d.sampled >= self.least_tokens]

    def _affordable(self, pending: Sequence[Draw]) -> int:
        """How many of the draws to sample at once, so that what is available should take them to their own ends."""
        available = self.budget.available
        wants = [draw.want - draw.sampled for draw in pending]
        if sum(wants) <= available:
            return len(pending)
        usual = [self._ended_tokens[u] / self._ended[u] for u in {draw.until for draw in pending} if self._ended[u]]
        return max(1, int(available / (MARGIN * max(usual) if usual else max(wants))))

    def count_cancelled(self) -> None:
        """Account for tokens of requests that were cancelled, as far as the engine told of them.

        Their grants stay reserved: the engine may have gone a little further than it told.
        """
        lost = self._live_tokens - self.usage.sampled_tokens
        self.usage += Usage(sampled_tokens=max(0, lost))

    async def _spend(self, draws: list[Draw], grant: int) -> None:
        """Sample up to `grant` tokens for each of some draws that share their prefix."""
        limits = {id(draw): draw.sampled + grant for draw in draws}
        await self._request(draws, grant)
        # A stop that turned out to end no step (the second token of a run) is gone past, each sample for itself.
        await _gather(self._go_on(draw, limits[id(draw)]) for draw in draws)
        for draw in draws:
            self.budget.settle(grant, draw.sampled - (limits[id(draw)] - grant))
            if draw.ending is not None:
                self._ended[draw.until] += 1
                self._ended_tokens[draw.until] += draw.sampled

    async def _go_on(self, draw: Draw, limit: int) -> None:
        while draw.ending is None and draw.sampled + self.least_tokens <= limit:
            await self._request([draw], limit - draw.sampled)

    async def _request(self, draws: list[Draw], max_tokens: int) -> None:
        first = draws[0]
        prefix = (*self.tree.prompt_ids, *self.tree.token_ids(first.node), *first.tokens)
        request = Request(
            prefix=prefix,
            seeds=tuple(self._seed_of(draw) for draw in draws),
            max_tokens=max_tokens,
            stop_ids=stop_ids(first.until, self.segmenter, self.generator.tokenizer),
            sampling=self.sampling,
            tree=int.from_bytes(self._seed),
            on_tokens=self._count_live if self.on_tokens else None,
        )
        try:
            completions = await self.generator.generate(request)
        except TTSError:
            raise
        except Exception as error:
            name = self.generator.name
            raise GeneratorError(f"generator {name!r} raised {type(error).__name__}: {error}") from error
        check_completions(completions, request)
        for draw, completion in zip(draws, completions, strict=True):
            draw.absorb(completion, self.segmenter, self.generator.tokenizer.eos_ids)
            self.usage += Usage(
                sampled_tokens=completion.sampled_tokens,
                answer_tokens=completion.sampled_tokens if self.answering else 0,
                prompt_tokens=len(prefix),
                cached_tokens=completion.cached_tokens,
                requests=1,
            )
        self._count_live(0)

    def _count_live(self, tokens: int) -> None:
        self._live_tokens = max(self._live_tokens + tokens, self.usage.sampled_tokens)
        if self.on_tokens:
            self.on_tokens(self._live_tokens)

    def _seed_of(self, draw: Draw) -> int:
        """From (seed, question, node, draw, request), never from arrival order; 63 bits."""
        place = repr((draw.node.index, draw.number, draw.part)).encode()
        return int.from_bytes(hashlib.blake2b(self._seed + place, digest_size=8).digest()) >> 1


async def _gather(work: Iterable[Coroutine[object, object, None]]) -> None:
    """All of it, or the first failure with everything else cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in work:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
