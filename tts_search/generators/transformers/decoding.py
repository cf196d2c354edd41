"""Continuous batching over a transformers model: every row in flight moves by one token per step.

Rows join between two steps, as soon as a slot is free, and leave as soon as they are done. This module is synchronous
and single-threaded; it knows no event loop, no files and no text.
"""

from __future__ import annotations

import math
import random
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tts_search.core.protocols import Completion, Request
from tts_search.errors import GeneratorError, HeadMismatchError
from tts_search.generators.transformers.kv_cache import SlotCache, attention_windows, slot_mask
from tts_search.generators.transformers.prefix_cache import PrefixCache, token_array
from tts_search.generators.transformers.sampling import Draws, draw, penalized
from tts_search.generators.transformers.state_pool import States, cut
from tts_search.sprm.module import SPRM


@dataclass(eq=False, slots=True)
class Job:
    """One request at work. What it calls is called from the decoding thread; `deliver` once, unless it was cancelled.

    `progress` hears how many tokens were sampled; `delta` the index of a seed, and its new tokens; `done` the index of
    one that is complete, and its completion.
    """

    request: Request
    prefix: array[int]
    stop_ids: frozenset[int]
    deliver: Callable[[Sequence[Completion] | Exception], None]
    progress: Callable[[int], None] | None = None
    delta: Callable[[int, tuple[int, ...]], None] | None = None
    done: Callable[[int, Completion], None] | None = None
    cancelled: bool = False
    over: bool = False
    started: int = 0  # rows
    cached_tokens: int = 0
    prefill: _Prefill | None = None
    completions: dict[int, Completion] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Prefill:
    """What the prefix leaves behind for its continuations. `states`: for those that wait for a slot."""

    logits: Tensor  # [1, vocabulary]
    score: Tensor | None  # [1]
    states: States = ()


@dataclass(eq=False, slots=True)
class _Row:
    """One continuation at work. `closing`: all is sampled, and the last token's own hidden state is still to come."""

    job: Job
    index: int
    stream: random.Random
    length: int  # tokens in the cache
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    closing: bool = False
    done: bool = False


class Decoder:
    """Owns a model, its head and their caches.

    Args:
        model: a causal language model of transformers, in eval mode.
        head: the SPRM head on the model's device, None to go without scores.
        vocabulary: ids from here on have no token: they are never sampled, and hold no probability.
        max_rows: continuations in flight at once; more of them wait.
        max_tokens: the longest sequence.
        prefix_tokens: how many tokens of earlier sequences to keep, to begin later ones from; None goes by the memory
            at hand (see `PrefixCache`).
    """

    def __init__(
        self,
        model: Any,
        head: SPRM | None,
        *,
        vocabulary: int,
        max_rows: int,
        max_tokens: int,
        prefix_tokens: int | None,
    ) -> None:
        self._model = model
        self._head = head
        self._at_step = head is not None and head.config.readout == "step"
        self._vocabulary = vocabulary
        self._device: torch.device = model.device
        self._max_rows = max_rows
        self._windows = attention_windows(model.config.get_text_config())
        self._hidden: Tensor | None = None
        if head is not None:
            _tapped_layer(model).register_forward_hook(self._tap)
        self._slots = SlotCache(max_rows, max_tokens)
        self._prefixes = PrefixCache(prefix_tokens, context_tokens=max_tokens, sequences=max_rows)
        self._waiting: deque[Job] = deque()
        self._rows: list[_Row] = []
        self._draws: Draws | None = None  # of `_rows`; None when they changed

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._rows or self._waiting)

    def submit(self, job: Job) -> None:
        """Put a job in line."""
        self._waiting.append(job)

    def fail(self, error: GeneratorError) -> None:
        """Fail every job, and forget everything that was cached: what broke may have left it half written."""
        for job in {*self._waiting, *(row.job for row in self._rows)}:
            copy = GeneratorError(*error.args)  # each caller raises its own
            copy.__cause__ = error.__cause__
            _finish(job, copy)
        self._waiting.clear()
        self._rows = []
        self._draws = None
        self._slots.clear()
        self._prefixes.clear()

    @torch.inference_mode()
    def step(self) -> None:
        """Let rows leave and join, then move all of them by one token."""
        self._remove_done()
        self._admit()
        self._remove_done()
        if self._rows:
            lengths = [row.length for row in self._rows]
            self._slots.aim(lengths, self._device)
            ids = torch.tensor([row.tokens[-1:] for row in self._rows], device=self._device)
            positions = torch.tensor(lengths, device=self._device).unsqueeze(1)
            mask = slot_mask(lengths, self._windows, self._model.dtype, self._device)
            logits, score = self._forward(ids, positions, self._slots.cache, mask)
            for row in self._rows:
                row.length += 1
            if self._draws is None:
                self._draws = self._settings(self._rows)
            self._take(self._rows, logits, score, self._draws)
        self._remove_done()
        # At rest the slots may hold what comes next, but no more than is allowed to be held for that.
        if self.idle and self._slots.tokens > (self._prefixes.max_tokens or 0):
            self._slots.clear()

    def _admit(self) -> None:
        while self._waiting and len(self._rows) < self._max_rows:
            job = self._waiting[0]
            if job.cancelled or job.over:
                self._waiting.popleft()
                continue
            first = len(self._rows)
            count = min(len(job.request.seeds) - job.started, self._max_rows - first)
            self._slots.reserve(first + count, 1 + max([len(job.prefix), *(row.length for row in self._rows)]))
            try:
                prefill = self._begin(job, first)
            except Exception as error:
                self._waiting.popleft()
                _finish(job, _explained(error))
                continue
            self._slots.spread(first, count, job.prefix)
            rows = [
                _Row(job, index, random.Random(job.request.seeds[index]), len(job.prefix))
                for index in range(job.started, job.started + count)
            ]
            self._rows += rows
            self._draws = None
            job.started += count
            if job.started == len(job.request.seeds):
                self._waiting.popleft()
                job.prefill = None
            elif job.prefill is None:
                prefill.states = [(k.clone(), v.clone()) for k, v in self._slots.read(first, 0, len(job.prefix))]
                job.prefill = prefill
            score = None if prefill.score is None else prefill.score.expand(count)
            self._take(rows, prefill.logits.expand(count, -1), score, self._settings(rows))
            if not job.over:  # what is not finite is not remembered
                self._remember(first, job.prefix)

    def _begin(self, job: Job, row: int) -> _Prefill:
        """Put the prefix of a job into a row; what is not known of it runs through the model."""
        prefix = job.prefix
        if (prefill := job.prefill) is not None:
            self._slots.begin(row, prefix, len(prefix), lambda n: cut(prefill.states, n))
            return prefill
        places = self._prefixes.find(prefix)
        job.cached_tokens = known = len(places)
        self._slots.begin(row, prefix, known, lambda n: self._prefixes.read(places[n:]))
        ids = torch.frombuffer(prefix[known:], dtype=torch.int64).to(self._device)
        positions = torch.arange(known, len(prefix), device=self._device)
        return _Prefill(*self._forward(ids[None], positions[None], self._slots.cache, None))

    def _remember(self, row: int, tokens: array[int]) -> None:
        self._slots.note(row, tokens)
        self._prefixes.add(tokens, lambda known: self._slots.read(row, known, len(tokens)))

    def _forward(self, ids: Tensor, positions: Tensor, cache: Any, mask: Any) -> tuple[Tensor, Tensor | None]:
        """Logits `[rows, vocabulary]` in fp32, and the head's logits `[rows]`, at the last token of each row."""
        output = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1, : self._vocabulary].float()
        if self._head is None:
            return logits, None
        hidden, self._hidden = self._hidden, None
        assert hidden is not None
        return logits, self._head(hidden[:, -1])

    def _tap(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._hidden = output if isinstance(output, Tensor) else output[0]

    def _settings(self, rows: Sequence[_Row]) -> Draws:
        return Draws.of([row.job.request.sampling for row in rows], self._vocabulary, self._device)

    def _penalized(self, rows: Sequence[_Row], logits: Tensor) -> Tensor:
        penalties = [row.job.request.sampling.repetition_penalty for row in rows]
        if all(penalty == 1 for penalty in penalties):
            return logits
        return penalized(logits, [([*row.job.prefix, *row.tokens], p) for row, p in zip(rows, penalties, strict=True)])

    def _take(self, rows: Sequence[_Row], logits: Tensor, score: Tensor | None, draws: Draws) -> None:
        """Sample a token for each of `rows`, and hand the head's logits to the tokens that they are for."""
        uniforms = torch.tensor([[0.5 if row.closing else row.stream.random()] for row in rows], device=self._device)
        tokens, logprobs = draw(self._penalized(rows, logits), draws, uniforms, logits)
        columns = [tokens.float(), logprobs, *([] if score is None else [score])]  # ids below 2^24 are exact in fp32
        values = torch.stack(columns).tolist()  # one transfer from the device
        counts: dict[Job, int] = {}
        complete: list[_Row] = []
        for i, row in enumerate(rows):
            if score is not None and (row.tokens or not self._at_step):
                row.scores.append(values[2][i])
            if row.closing:
                complete.append(row)
                continue
            if not math.isfinite(values[1][i]):
                _finish(row.job, GeneratorError(f"the model's logits are NaN or infinite behind {row.length} tokens"))
                continue
            row.tokens.append(token := int(values[0][i]))
            row.logprobs.append(min(values[1][i], 0.0))
            counts[row.job] = counts.get(row.job, 0) + 1
            if row.job.delta is not None and not row.job.cancelled:
                row.job.delta(row.index, (token,))
            if token in row.job.stop_ids or len(row.tokens) == row.job.request.max_tokens:
                row.closing = self._at_step
                if not self._at_step:
                    complete.append(row)
        for job, count in counts.items():  # before the results, which are the last that a request hears
            if job.progress is not None and not job.cancelled:
                job.progress(count)
        for row in complete:
            self._complete(row)

    def _complete(self, row: _Row) -> None:
        row.done = True
        job = row.job
        job.completions[row.index] = Completion(
            token_ids=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            scores=tuple(row.scores) if self._head is not None else None,
            sampled_tokens=len(row.tokens),
            cached_tokens=job.cached_tokens,
        )
        if job.done is not None and not job.cancelled:
            job.done(row.index, job.completions[row.index])
        if len(job.completions) == len(job.request.seeds):
            _finish(job, [job.completions[i] for i in range(len(job.request.seeds))])

    def _remove_done(self) -> None:
        """Free the slots of rows that are done, or whose job is; the last rows move into the gaps."""
        for i in range(len(self._rows) - 1, -1, -1):
            row = self._rows[i]
            if not (row.done or row.job.cancelled or row.job.over):
                continue
            if row.done:
                self._remember(i, (row.job.prefix + token_array(row.tokens))[: row.length])
            else:
                self._slots.erase(i)
            last = self._rows.pop()
            if last is not row:
                self._rows[i] = last
                self._slots.move(len(self._rows), i, last.length)
            self._draws = None


def _finish(job: Job, result: Sequence[Completion] | Exception) -> None:
    if not job.over:
        job.over = True
        job.prefill = None
        job.deliver(result)


def _explained(error: Exception) -> GeneratorError:
    failure = GeneratorError(f"the model could not read the prefix: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _tapped_layer(model: Any) -> Any:
    """The second-to-last block: its output is `hidden_states[-2]`."""
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None or len(layers) < 2:
        raise HeadMismatchError(
            f"{type(model).__name__} shows no `layers` of which the SPRM head could read the second to last: "
            "load the model with head=None"
        )
    return layers[-2]
