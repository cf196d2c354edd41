"""Selectors and the reading of final answers."""

import pytest

from tts_search.errors import InvalidInputError
from tts_search.result import SELECTORS, Candidate, final_answer, resolve_selector


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


def test_without_any_vote_the_best_score_wins() -> None:
    assert SELECTORS["majority"].choose([candidate(0.1, None), candidate(0.2, None)]) == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{1} and then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"never closed \boxed{1", r"never closed \boxed{1"),
        ("The answer is 42.", "42"),
        ("Answer: $x  + 1$", "x + 1"),
        ("First this.\n\n(13 - 4) * 9 + 6 = 87\n", "(13 - 4) * 9 + 6 = 87"),
        ("", None),
        (" \n ", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_unknown_selector_names_the_choices() -> None:
    with pytest.raises(InvalidInputError, match=r"'worst'.*best, majority, weighted, logprob"):
        resolve_selector("worst")


def test_a_function_is_a_selector() -> None:
    selector = resolve_selector(lambda candidates: len(candidates) - 1)
    assert selector.needs_answers
    assert selector.choose(CANDIDATES) == 3
