"""Searches to export: trees of any size, models that write any byte, logits that are no numbers."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tts_search import BestOfN, Expand, Plan, Searcher, SearchResult, Tree, Until
from tts_search.core.protocols import Completion, Request
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.fakes import CLOSE, END, STEP

NAN = float("nan")

# What breaks pages that trust their data. The lone surrogate stands for texts that came in some other way than through
# a tokenizer.
HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2"><!--<script>'
    "<svg onload='window.hacked=3'>{{data}}{{policy}}\u2028\u2029\u202e]]>&lt;&amp;\x00\x1b[31m\ud800\r\n`${1}`\\"
)


@dataclass(frozen=True)
class Grow:
    """Expands the best open leaf again and again: a tree of as many nodes as one likes."""

    rounds: int = 8
    n: int = 4
    until: Until = Until.STEP
    max_tokens: int | None = None

    def __call__(self, tree: Tree) -> Plan:
        for _ in range(self.rounds):
            leaves = [leaf for leaf in tree.leaves() if not leaf.ended]
            if not leaves:
                return
            leaf = max(leaves, key=lambda leaf: (leaf.value - 0.03 * leaf.depth, -leaf.index))
            yield [Expand(leaf, self.n, self.until, self.max_tokens)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotANumber(FakeGenerator):
    """Logits as they come from a head that could not read some tokens."""

    def _complete(self, request: Request, seed: int) -> Completion:
        completion = FakeGenerator._complete(self, request, seed)
        if completion.scores is None:
            return completion
        odd = (NAN, float("inf"), float("-inf"))
        scores = tuple(
            odd[i] if i < 3 else s for i, s in ((random.Random(s).randrange(9), s) for s in completion.scores)
        )
        return replace(completion, scores=scores, logprobs=(float("-inf"), *(completion.logprobs or ())[1:]))


def any_byte(prefix: tuple[int, ...], seed: int) -> int:
    """Every byte there is, so also characters cut in the middle."""
    chance = random.Random(hash((prefix, seed)))
    draw = chance.random()
    if draw < 0.1:
        return STEP
    if draw < 0.15 and CLOSE not in prefix:
        return CLOSE
    return END if draw < 0.2 else chance.randrange(256)


def spelled(text: str) -> Callable[[tuple[int, ...], int], int]:
    """A model that writes this text in its thinking and in its answer."""
    data = text.encode("utf-8", "replace")

    def script(prefix: tuple[int, ...], seed: int) -> int:
        del seed
        start = (prefix.index(CLOSE) if CLOSE in prefix else prefix.index(257)) + 1
        place = len(prefix) - start
        if place < len(data):
            return data[place]
        return END if CLOSE in prefix else STEP if place == len(data) else CLOSE

    return script


def run(strategy: Any = BestOfN(n=4), generator: Any = None, **options: Any) -> SearchResult:  # noqa: B008 # frozen
    question = options.pop("question", "How many apples?")
    shared = {"scorer": FakeScorer(), "max_tokens": 400, "answer_tokens": 40}
    shared |= {name: options.pop(name) for name in ("scorer", "step_rule", "max_tokens") if name in options}
    with Searcher(generator=generator or FakeGenerator(), **shared) as searcher:
        return searcher.search(question, strategy=strategy, **options)
