"""What generators share that hand their sampling to an engine: one engine request per seed, and the head's readout.

It knows what a completion is and where a score belongs. How a request reaches the engine is `Sample`'s matter.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tts_search.core.protocols import Completion, Request, Tokenizer
from tts_search.errors import GeneratorError, InvalidInputError
from tts_search.sprm.config import SPRMConfig
from tts_search.thinking import Tag

SEED_MASK = 2**63 - 1  # engines take 64-bit seeds, and read -1 as none
TAIL_SEED = 0x5DEECE66D  # the draw behind a completion must not repeat the completion's first


class Run(NamedTuple):
    """What one engine request gave. Row i belongs to the position that predicts token i."""

    tokens: list[int]
    logprobs: list[float]
    rows: list[float]  # the head's logits; empty without a head
    sampled_tokens: int
    cached_tokens: int

    def checked(self) -> Run:
        """Itself.

        Raises:
            GeneratorError: a log-probability or a score is no number.
        """
        for what, values in (("policy's log-probability", self.logprobs), ("SPRM head's output", self.rows)):
            if not all(map(math.isfinite, values)):
                position, value = next((i, value) for i, value in enumerate(values) if not math.isfinite(value))
                raise GeneratorError(
                    f"the {what} is {value} at generated token {position}: the weights hold or lead to numbers out "
                    'of range; check the checkpoint, or load it with dtype="float32"'
                )
        return self


Sample = Callable[[Sequence[int], int, int], Coroutine[Any, Any, Run]]
"""One engine request: continue a prefix, with a seed, by at most so many tokens."""


async def for_all_seeds(
    request: Request, complete: Callable[[int], Coroutine[Any, Any, Completion]]
) -> Sequence[Completion]:
    """What `complete` gives for the place of each seed, all at once, in their order; each is told of when it is there.

    Cancelling the call, or a failure, cancels every one of them.
    """

    async def told(place: int) -> Completion:
        completion = await complete(place)
        if request.on_completion is not None:
            request.on_completion(place, completion)
        return completion

    calls = [asyncio.ensure_future(told(place)) for place in range(len(request.seeds))]
    try:
        return await asyncio.gather(*calls)
    finally:
        # Only if one failed, or we were cancelled, are others still at work: nobody will want their results.
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Completing:
    """How a model's completions are asked for.

    `context_tokens`: the longest prefix plus completion. `head_config`: of the head whose logits come as rows.
    `final_ids`: tokens that end a completion and can end no step, whatever the step rule.
    """

    context_tokens: int
    head_config: SPRMConfig | None
    final_ids: frozenset[int]

    @classmethod
    def by(cls, tokenizer: Tokenizer, context_tokens: int, head_config: SPRMConfig | None) -> Completing:
        """For a model with this tokenizer."""
        closing = Tag(tokenizer.thinking[1], tokenizer.pieces) if tokenizer.thinking else None
        # The last token of a longer tag may just as well end no tag, and a step.
        final = closing.ends if closing is not None and closing.is_single else ()
        return cls(context_tokens, head_config, tokenizer.eos_ids.union(final))

    def check(self, request: Request) -> None:
        """Refuse a prefix that is empty or leaves no room.

        Raises:
            InvalidInputError: it is.
        """
        if not request.prefix or len(request.prefix) >= self.context_tokens:
            raise InvalidInputError(
                f"a prefix must hold 1 to {self.context_tokens - 1} tokens, got {len(request.prefix)}: shorten the "
                "question, or have the engine hold more (max_model_len, context_tokens) if the model allows it"
            )

    async def all(self, request: Request, sample: Sample) -> Sequence[Completion]:
        """One completion per seed, in their order. Cancelling the call, or a failure, cancels every engine request."""
        return await for_all_seeds(request, lambda place: self._one(request, request.seeds[place], sample))

    async def _one(self, request: Request, seed: int, sample: Sample) -> Completion:
        """One completion of at most `max_tokens` sampled tokens, with the head's readout applied."""
        limit = min(request.max_tokens, self.context_tokens - len(request.prefix))
        # Read at the step token itself, a score appears one row later than its token. Unless the last token is known to
        # end no step, the last token of the limit pays for that row.
        late = self.head_config is not None and self.head_config.readout == "step"
        probes = late and limit > 1
        prefix = tuple(request.prefix)
        run = await sample(prefix, seed, limit - probes)
        sampled, rows = run.sampled_tokens, run.rows
        if probes and run.tokens[-1] not in request.stop_ids & self.final_ids:
            more = await sample((*prefix, *run.tokens), seed ^ TAIL_SEED, 1)
            sampled += more.sampled_tokens
            rows = [*rows, *more.rows]
        scores = None
        if self.head_config is not None:
            known = rows[late:]
            scores = (*known, *[math.nan] * (len(run.tokens) - len(known)))
        return Completion(
            token_ids=tuple(run.tokens),
            logprobs=tuple(run.logprobs),
            scores=scores,
            sampled_tokens=sampled,
            cached_tokens=run.cached_tokens,
        )
