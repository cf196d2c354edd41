"""From a search's result to what its asker is given: up to `n` different answers, each cut as asked, and the account.

It knows no API's objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tts_search.core.result import Candidate, SearchResult
from tts_search.core.tree import Ending, Tree
from tts_search.selection.votes import up_to
from tts_search.serving.fields import Ask


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it is given, the thinking it came from, why it ends where it does, and how many tokens it shows."""

    text: str
    thinking: str
    finish: Literal["stop", "length"]
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What all of it cost, as the APIs count: the prompt once, everything sampled, what of it no answer shows."""

    prompt: int
    sampled: int
    hidden: int
    cached: int


class Cut:
    """Ends a text in front of the first of the stops, as it comes: what may begin one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.ended = False

    def feed(self, text: str) -> str:
        """What of the text so far can be told."""
        if self.ended or not self._stops:
            return "" if self.ended else text
        self._held += text
        told, self.ended = up_to(self._held, self._stops)
        if self.ended:
            self._held = ""
            return told
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        told = self._held[: len(self._held) - keep]
        self._held = self._held[len(told) :]
        return told

    def close(self) -> str:
        """The rest, when no more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How long an end of the text is that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def answers(result: SearchResult, ask: Ask) -> list[Answer]:
    """The chosen answer, then the best of the others that differ from it and from each other: `n` at most."""
    tree, chosen = result.tree, result.chosen
    if tree is None or chosen is None:
        text, stopped = up_to(result.answer, ask.stop)
        return [Answer(text, result.thinking, "stop" if stopped or result.answer else "length")]
    order = [chosen, *(i for i in _ranking(result) if i != chosen)]
    given: dict[str, Answer] = {}
    for index in order:
        candidate = result.candidates[index]
        if index != chosen and candidate.answer is None:
            continue
        answer = _answer(tree, candidate, ask)
        key = candidate.vote if candidate.vote is not None else answer.text
        given.setdefault(key, answer)
        if len(given) == ask.n:
            break
    return list(given.values())


def account(result: SearchResult, given: Sequence[Answer]) -> Account:
    """Of a finished search of which these answers are given."""
    tree, usage = result.tree, result.usage
    prompt = 0 if tree is None else len(tree.prompt_ids)
    if tree is not None and any(node.counted_tokens is not None for node in tree):  # the service counts its prompts
        prompt = usage.prompt_tokens // max(1, usage.requests)
    shown = sum(answer.tokens for answer in given)
    return Account(
        prompt=prompt,
        sampled=usage.sampled_tokens,
        hidden=max(0, usage.sampled_tokens - shown),
        cached=min(prompt, usage.cached_tokens),
    )


def extension(name: str, result: SearchResult, warnings: Sequence[str]) -> dict[str, Any]:
    """The object `search` of a reply: how the answer was come by."""
    return {
        "id": name,
        "strategy": result.strategy,
        "selector": result.selector,
        "stop_reason": str(result.stop_reason),
        "score": result.score,
        "chosen": result.chosen,
        "candidates": [_shown(candidate) for candidate in result.candidates],
        "comparer": result.comparer,
        "seed": result.seed,
        "budget": result.budget,
        "saved_tokens": result.usage.saved_tokens,
        "usage": asdict(result.usage),
        "warnings": [*warnings, *result.warnings],
    }


def remarks(ask: Ask, given: Sequence[Answer]) -> list[str]:
    """What the asker did not get as asked."""
    if len(given) < ask.n:
        return [f"n={ask.n} answers were asked for, and the search came to {len(given)} different ones"]
    return []


def _answer(tree: Tree, candidate: Candidate, ask: Ask) -> Answer:
    end = tree.answered(tree.nodes[candidate.node])
    thinking, text = tree.split(end)
    length = tree.answer_length(end)
    if len(tree.answer_ids(end)) == end.length:  # a model that does not think: all of it is the answer
        thinking = ""
    complete = end.ending is Ending.END
    if ask.answer_tokens is not None and length > ask.answer_tokens:
        ids = tree.answer_ids(end)
        text, complete = tree.decode(ids[: len(ids) * ask.answer_tokens // length]).strip(), False
    text, stopped = up_to(text, ask.stop)
    shown = length if ask.answer_tokens is None else min(length, ask.answer_tokens)
    return Answer(text, thinking, "stop" if stopped or complete else "length", shown)


def _ranking(result: SearchResult) -> list[int]:
    """The candidates, those of much-voted answers first where votes choose, else by score."""
    candidates = result.candidates
    votes: dict[str, int] = {}
    for candidate in candidates:
        if candidate.vote is not None:
            votes[candidate.vote] = votes.get(candidate.vote, 0) + 1
    voted = result.selector in ("majority", "weighted")

    def rank(index: int) -> tuple[float, float, float, int]:
        candidate = candidates[index]
        count = votes.get(candidate.vote or "", 0) if voted else 0
        return (-count, -(candidate.score or 0.0), -(candidate.mean_logprob or 0.0), index)

    return sorted(range(len(candidates)), key=rank)


def _shown(candidate: Candidate) -> dict[str, Any]:
    return {
        "answer": candidate.answer,
        "vote": candidate.vote,
        "score": candidate.score,
        "mean_logprob": candidate.mean_logprob,
    }
