"""Warnings of many searches, each once."""

from __future__ import annotations

from tts_search.evaluation.warned import Warned, collected


def test_each_is_told_once_with_a_count() -> None:
    searches = [
        ("low", ["the best path has a score of 0.01, so", "no step"]),
        ("low", ["the best path has a score of 0.03, so"]),
        ("high", ["the best path has a score of 0.03, so", "no step"]),
        ("high", []),
        (
            "high",
            ["2 of 8 candidates could not be scored to the end: candidate 1 (step 2 of 3); it reads 4,096"],
        ),
        ("high", ["1 of 8 candidates could not be scored to the end: candidate 3; it reads 4,096"]),
    ]
    assert collected(searches) == (
        Warned("the best path has a score of …, so", {"low": 2, "high": 1}),
        Warned("no step", {"low": 1, "high": 1}),
        Warned("… of … candidates could not be scored to the end: …; it reads …", {"high": 2}),
    )


def test_numbers_stay_where_they_are_the_same() -> None:
    twice = [("a", ["2 of 8 votes were not compared"])] * 2
    assert collected(twice) == (Warned("2 of 8 votes were not compared", {"a": 2}),)
    assert collected([("a", ["<think:x7> and <|im_1|>"]), ("b", ["same", "same"])]) == (
        Warned("<think:x7> and <|im_1|>", {"a": 1}),
        Warned("same", {"b": 1}),
    )
