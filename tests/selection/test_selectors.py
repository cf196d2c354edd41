"""Selectors."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_search.core.budget import Usage
from tts_search.core.result import Candidate, SearchResult, Step, StopReason
from tts_search.errors import InvalidInputError
from tts_search.metrics import majority_at_k
from tts_search.selection.selectors import SELECTORS, mean_logprob, resolve_selector

VOTES = st.sampled_from(["a", "b", "c", None])
EIGHTHS = st.integers(0, 8).map(lambda n: n / 8)


def candidate(score: float, vote: str | None, logprob: float = -1.0) -> Candidate:
    return Candidate(node=1, score=score, mean_logprob=logprob, answer=vote, vote=vote)


CANDIDATES = [candidate(0.5, "a", -0.3), candidate(0.6, "a", -0.9), candidate(0.9, "b", -0.5), candidate(0.95, None)]


@pytest.mark.parametrize(("name", "chosen"), [("best", 3), ("majority", 1), ("weighted", 1), ("logprob", 0)])
def test_selectors(name: str, chosen: int) -> None:
    assert SELECTORS[name].choose(CANDIDATES) == chosen


def test_weights_can_overrule_a_majority() -> None:
    few = [candidate(0.1, "a"), candidate(0.2, "a"), candidate(0.9, "b")]
    assert SELECTORS["majority"].choose(few) == 1
    assert SELECTORS["weighted"].choose(few) == 2


def test_ties_go_to_the_first() -> None:
    assert SELECTORS["best"].choose([candidate(0.5, "a")] * 3) == 0
    assert SELECTORS["majority"].choose([candidate(0.5, "a"), candidate(0.5, "b")]) == 0
    assert SELECTORS["weighted"].choose([candidate(0.5, "a"), candidate(0.5, "a")]) == 0
    assert SELECTORS["logprob"].choose([candidate(0.5, "a")] * 3) == 0
    assert SELECTORS["majority"].choose([candidate(0.2, "a"), candidate(0.5, "b"), candidate(0.4, "c")]) == 0
    assert SELECTORS["weighted"].choose([candidate(0.25, "a"), candidate(0.5, "b"), candidate(0.25, "a")]) == 0


@given(st.lists(VOTES, min_size=1, max_size=7), st.lists(EIGHTHS, min_size=7, max_size=7))
def test_the_majority_is_that_of_the_metrics(votes: list[str | None], scores: list[float]) -> None:
    cast = [candidate(score, vote) for score, vote in zip(scores, votes, strict=False)]
    for right in "abc":
        chosen = cast[SELECTORS["majority"].choose(cast)].vote == right
        assert majority_at_k([[vote == right for vote in votes]], [votes], len(votes))[0] == chosen


def test_votes_are_added_up() -> None:
    thrice = [candidate(0.2, "a"), candidate(0.3, "b"), candidate(0.1, "a"), candidate(0.2, "a")]
    assert SELECTORS["majority"].choose(thrice) == 0
    assert SELECTORS["weighted"].choose(thrice) == 0
    ahead = [candidate(0.9, None), candidate(0.8, "b"), candidate(0.1, "a"), candidate(0.3, "a")]
    assert SELECTORS["majority"].choose(ahead) == 3, "the best path of the winning answer, not of all"


def test_what_a_selector_needs() -> None:
    needs = {name: (s.needs_answers, s.needs_scores, s.decided is not None) for name, s in SELECTORS.items()}
    assert needs == {
        "best": (False, True, True),
        "majority": (True, False, True),
        "weighted": (True, True, True),
        "logprob": (True, False, False),
    }


ballots = st.lists(st.builds(candidate, EIGHTHS, VOTES), min_size=1, max_size=7)


@settings(max_examples=300)
@given(ballots, st.integers(0, 4), st.sampled_from(["majority", "weighted"]))
def test_a_vote_is_decided_when_nothing_to_come_can_turn_it(cast: list[Candidate], remaining: int, name: str) -> None:
    """The worst that may come: all that remain, of full weight, for the strongest other answer, or for a new one."""
    selector = SELECTORS[name]
    assert selector.decided is not None
    if not any(c.vote for c in cast):
        assert not selector.decided(cast, remaining, 0.0)
        return
    weights = dict.fromkeys((c.vote for c in cast if c.vote), 0.0)
    for c in cast:
        if c.vote:
            weights[c.vote] += 1.0 if name == "majority" else c.score or 0.0
    leader = max(weights, key=lambda vote: weights[vote])
    others = [weight for vote, weight in weights.items() if vote != leader] + [0.0]
    safe = all(weights[leader] > other + remaining for other in others)
    assert selector.decided(cast, remaining, 0.0) == safe
    assert not selector.decided(cast, None, 0.0), "nobody knows how many are to come"
    if safe:
        chosen = cast[selector.choose(cast)].vote
        for rival in "abcd":
            assert cast[selector.choose(cast)].vote == leader == chosen
            full = [*cast, *[candidate(1.0, rival)] * remaining]
            assert full[selector.choose(full)].vote == leader


@pytest.mark.parametrize(
    ("scores", "margin", "sure"),
    [([0.75], 0.25, True), ([0.5, 0.75], 0.25, True), ([0.75, 0.5], 0.25, True), ([0.74], 0.25, False),
     ([1.0], 0.0, True), ([0.999], 0.0, False), ([0.0], 1.0, True)],
)  # fmt: skip
def test_a_leader_is_sure_from_the_margin_on(scores: list[float], margin: float, sure: bool) -> None:
    decided = SELECTORS["best"].decided
    assert decided is not None
    assert decided([candidate(score, None) for score in scores], None, margin) is sure


def test_without_any_vote_the_best_score_wins() -> None:
    assert SELECTORS["majority"].choose([candidate(0.1, None), candidate(0.2, None)]) == 1


def test_unknown_selector_names_the_choices() -> None:
    with pytest.raises(InvalidInputError, match=r"'worst'.*best, majority, weighted, logprob"):
        resolve_selector("worst")


def test_a_function_is_a_selector() -> None:
    selector = resolve_selector(lambda candidates: len(candidates) - 1)
    assert selector.needs_answers
    assert selector.choose(CANDIDATES) == 3


def test_a_result_as_json_holds_everything_but_the_tree() -> None:
    result = SearchResult(
        question=({"role": "user", "content": "é?"},),
        answer="a",
        thinking="So.",
        steps=(Step("So.", 0.5), Step("It is.", None)),
        score=0.5,
        stop_reason=StopReason.EARLY,
        usage=Usage(sampled_tokens=7, requests=2),
        candidates=(candidate(0.5, "a"), candidate(0.25, None)),
        chosen=0,
        strategy="BestOfN(n=2)",
        selector="best",
        model="fake",
        seed=3,
        budget=50,
        error=InvalidInputError("no"),
        index=4,
    )
    text = result.to_json()
    assert "é" in text
    assert json.loads(text) == {
        "question": [{"role": "user", "content": "é?"}],
        "answer": "a",
        "thinking": "So.",
        "steps": [{"text": "So.", "score": 0.5}, {"text": "It is.", "score": None}],
        "score": 0.5,
        "stop_reason": "early",
        "usage": {
            "sampled_tokens": 7,
            "answer_tokens": 0,
            "saved_tokens": 0,
            "scored_tokens": 0,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "requests": 2,
            "seconds": 0.0,
        },
        "candidates": [
            {"node": 1, "score": 0.5, "mean_logprob": -1.0, "answer": "a", "vote": "a"},
            {"node": 1, "score": 0.25, "mean_logprob": -1.0, "answer": None, "vote": None},
        ],
        "chosen": 0,
        "strategy": "BestOfN(n=2)",
        "selector": "best",
        "model": "fake",
        "seed": 3,
        "budget": 50,
        "error": "InvalidInputError: no",
        "index": 4,
        "comparer": None,
        "warnings": [],
        "step_rule": "",
    }


def test_log_probabilities_that_nobody_gave_choose_nothing() -> None:
    answered = [Candidate(node=i, score=None, mean_logprob=None, answer="a", vote="a") for i in range(3)]
    with pytest.raises(InvalidInputError, match="selector='majority'"):
        mean_logprob(answered)
    known = Candidate(node=3, score=None, mean_logprob=-9.0, answer="b", vote="b")
    assert mean_logprob([*answered, known]) == 3
    assert mean_logprob(answered[:1]) == 0
    assert mean_logprob([Candidate(node=i, score=None, mean_logprob=None) for i in range(3)]) == 0
