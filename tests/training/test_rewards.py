"""Rewards as TRL calls them, and the cleaning of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tts_search.cli import app
from tts_search.errors import InvalidInputError
from tts_search.grading.named import resolve_grader
from tts_search.training import cleaning
from tts_search.training.problems import Problem
from tts_search.training.rewards import Correctness, length_limit, text_of, well_formed


def test_correctness_looks_behind_the_thinking() -> None:
    reward = Correctness(resolve_grader("exact"))
    completions = ["so 4</think>4", "so 4</think>5", "4", "so</think>", "a</think>4", "b</think>4"]
    references: list[Any] = ["4", "4", "4", "4", None, " "]
    got = reward(prompts=[""] * 6, completions=completions, answer=references, completion_ids=[], trainer_state=None)
    assert got == [1.0, 0.0, 0.0, 0.0, None, None]
    assert reward.__name__ == "correctness"
    assert Correctness(resolve_grader("exact"), thinks=False)(completions=["4", "5"], answer=["4", 4]) == [1.0, 0.0]
    chat = [[{"role": "assistant", "content": "so</think>7"}]]
    assert Correctness(resolve_grader("exact"), column="gold")(completions=chat, gold=["7"]) == [1.0]
    with pytest.raises(InvalidInputError, match="needs the column 'gold'"):
        Correctness(resolve_grader("exact"), column="gold")(completions=["4"], answer=["4"])


def test_a_mathematical_reward_wants_a_box() -> None:
    reward = Correctness(resolve_grader("math-boxed"))
    completions = [r"so</think>\boxed{72}", "so</think>72", r"\boxed{72}</think>I do not know"]
    assert reward(completions=completions, answer=["72"] * 3) == [1.0, 0.0, 0.0]


def test_terms() -> None:
    texts = ["a</think>b", "a</think>", "a", "a</think>b</think>c"]
    assert well_formed(completions=texts) == [1.0, 0.0, 0.0, 0.0]
    term = length_limit(100, soft_tokens=20)
    assert term(completions=[], completion_ids=[[0] * n for n in (80, 90, 100, 120)]) == [0.0, -0.5, -1, -1]
    for soft in (0, 100):
        with pytest.raises(InvalidInputError, match="soft_tokens"):
            length_limit(100, soft_tokens=soft)
    assert text_of([{"content": "a"}, {"content": "b"}]) == "ab"


def problem(question: str, reference: str = "1") -> Problem:
    return Problem(question, reference, {"question": question, "answer": reference})


def test_each_stage_says_what_it_took_out() -> None:
    long = "Tom has three apples and buys four more apples at the big market in town"
    problems = [
        problem("What is 1 + 1?", "2"),
        problem("what is  1 + 1 ?", "2"),
        problem("What is 2 + 2?", "4"),
        problem("What is 2 + 2 ?", "5"),
        problem(f"{long}. How many has he now?", "7"),
        problem("Prove it.", "word " * 40),
        problem("Nothing", " "),
        problem("Too easy", "3"),
        problem("Too hard", "3"),
        problem("Just right", "3"),
    ]
    rates = {"Too easy": 1.0, "Too hard": 0.0, "Just right": 0.5}
    kept, reports = cleaning.clean(
        problems,
        {
            "deduplicate": cleaning.deduplicate,
            "decontaminate": cleaning.decontaminate({"bench": [f"Yesterday, {long}!", "Prove it"]}),
            "verifiable": cleaning.verifiable(resolve_grader("exact")),
            "solvable": cleaning.solvable(rates),
        },
    )
    assert [p.text for p in kept] == ["What is 1 + 1?", "Prove it.", "Just right"][::2]
    assert [(r.before, r.after) for r in reports] == [(10, 7), (7, 6), (6, 4), (4, 2)]
    assert reports[0].reasons == {"asked before": 1, "the same question with different answers": 2}
    assert reports[1].reasons == {"in bench": 1}
    assert reports[2].reasons == {"whose reference is a text, not an answer": 1, "without a reference": 1}
    assert reports[3].examples["hardly ever solved by the policy"] == ("Too hard",)
    assert str(reports[1]) == "decontaminate: 7 -> 6 (1 in bench)"


def test_short_questions_are_compared_whole_and_numbers_make_a_difference() -> None:
    stage = cleaning.decontaminate({"b": ["How old is Ann?", "Is it?"]})
    asked = [problem("how OLD is ann"), problem("How old is Anna?"), problem("Is it?"), problem("")]
    assert stage(asked) == ["in b", None, None, None]
    with pytest.raises(InvalidInputError, match="at least 3 words"):
        cleaning.decontaminate({}, n=2)


words = st.lists(st.sampled_from("abc"), max_size=12)


@settings(max_examples=300)
@given(words, words, st.integers(3, 6))
def test_a_run_of_words_is_found_wherever_it_stands(asked: list[str], published: list[str], n: int) -> None:
    def runs(text: list[str]) -> set[str]:
        """All its runs of n words, or all of its words where they are fewer, unless those say nothing."""
        found = {" ".join(text[i : i + n]) for i in range(len(text) - n + 1)}
        return found or ({" ".join(text)} if len(text) >= 3 else set())

    (verdict,) = cleaning.decontaminate({"bench": [" ".join(published)]}, n=n)([problem(" ".join(asked))])
    assert (verdict == "in bench") is bool(runs(asked) & runs(published))


def test_a_rate_at_the_border_teaches_nothing() -> None:
    rates = {name: float(name) for name in ("0.0", "0.2", "0.21", "0.5", "0.79", "0.8", "1.0")}
    asked = [*map(problem, rates), problem("never sampled")]
    never, always = "hardly ever solved by the policy", "nearly always solved by the policy"
    assert cleaning.solvable(rates)(asked) == [never, *[None] * 5, always, None]
    narrow = cleaning.solvable(rates, above=0.2, below=0.8)
    assert narrow(asked) == [never, never, None, None, None, always, always, None]


def test_rates_are_shares_of_right_samples(tmp_path: Path) -> None:
    file = tmp_path / "solved.jsonl"
    lines = [("a", True), ("b", False), ("a", False), ("a", False), ("a", False), ("c", True)]
    rows = [{"question": question, "response": "x", "correct": right} for question, right in lines]
    chat = [{"role": "user", "content": "a"}]
    rows += [{"prompt": chat, "response": "x", "reward": reward} for reward in (0.5, 0.49)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rates = cleaning.solve_rates(file)
    assert rates == {"a": 0.25, "b": 0.0, "c": 1.0, Problem(chat, "", {}).key: 0.5}


def test_what_is_asked_twice_stays_once_and_contradictions_go() -> None:
    asked = [problem("A?", "1"), problem("b", "2"), problem("a", "1"), problem("B!", "3"), problem("Ａ", "1")]
    twice, contradicted = "asked before", "the same question with different answers"
    assert cleaning.deduplicate(asked) == [None, contradicted, twice, contradicted, twice]


def test_a_reference_that_is_a_text_is_no_answer() -> None:
    def verdicts(*counts: int) -> list[str | None]:
        return cleaning.verifiable(resolve_grader("exact"))([problem("q", "word " * count) for count in counts])

    assert verdicts(30, 31) == [None, "whose reference is a text, not an answer"]


def test_a_report_names_the_most_frequent_reason_first_and_a_few_of_each() -> None:
    stages = {"some": lambda problems: [None if p.text == "good" else f"as it is {p.text[0]}" for p in problems]}
    names = ["good", "x1", *(f"y{i}" for i in range(7)), "x2"]
    kept, (report,) = cleaning.clean([problem(name) for name in names], stages)
    assert [p.text for p in kept] == ["good"]
    assert str(report) == "some: 10 -> 1 (7 as it is y; 2 as it is x)"
    assert report.examples["as it is y"] == ("y0", "y1", "y2", "y3", "y4")


def test_graders_that_cannot_be_trusted() -> None:
    def raises(answer: str, reference: str) -> bool:
        raise KeyError(answer)

    asked = [problem("q")]
    assert cleaning.verifiable(raises)(asked) == ["on which the grader raised KeyError"]
    assert cleaning.verifiable(lambda a, r: True)(asked) == ["whose grader accepts nonsense"]
    assert cleaning.verifiable(lambda a, r: False)(asked) == ["whose reference the grader does not accept as an answer"]


def test_the_command(tmp_path: Path) -> None:
    raw, out, solved = tmp_path / "raw.jsonl", tmp_path / "clean.jsonl", tmp_path / "t.jsonl"
    rows = [{"question": f"question number {q} of all", "answer": f"so #### {q}", "id": q} for q in (1, 2, 2, 3)]
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench = tmp_path / "bench.jsonl"
    bench.write_text('{"question": "Question number 3 of all", "answer": "3"}')
    solved.write_text('{"question": "question number 1 of all", "response": "x", "correct": false}\n')
    args = ["clean", str(raw), "--out", str(out), "--grader", "exact", "--against", str(bench), "--solved", str(solved)]
    made = CliRunner().invoke(app, args)
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines() == [
        "deduplicate: 4 -> 3 (1 asked before)",
        "decontaminate: 3 -> 2 (1 in bench.jsonl)",
        "verifiable: 2 -> 2",
        "solvable: 2 -> 1 (1 hardly ever solved by the policy)",
    ]
    assert [json.loads(line) for line in out.read_text().splitlines()] == [rows[1]]
