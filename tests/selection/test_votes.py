"""What an answer counts as in a vote, and which votes are one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tts_search.errors import InvalidInputError
from tts_search.grading.math_judges import Judges
from tts_search.selection import votes
from tts_search.selection.votes import EXTRACTS, final_answer, means_values, merge_votes, resolve_extract

SAME = {
    "42": [
        *(
            "42",
            ": 42",
            "42.",
            "$42$",
            r"\(42\)",
            "**42**",
            "42.0",
            "x = 42",
            "42 apples",
            "$42",
            "A: 42",
            "```\n42\n```",
        ),
        *("The final answer is:\n\n42", "**Answer: 42**", "Answer: 42", "**Answer:** 42", "Answer:\n42", "#### 42"),
        *(r"\boxed{42}", r"\boxed{x=42}", r"The answer is \(42\).", "The answer is:\n\\[\n42\n\\]", "## Answer\n\n42"),
        *(
            "The answer is 42. I hope this helps!",
            "42\n\nI hope this helps!",
            "So the answer is 42 apples.",
            "答案：42",
        ),
        *(
            "Therefore, she has 42 apples left.",
            "The total number of apples is 42.",
            "42 is the correct answer.",
            "<answer>42</answer>",
            "答案是42。",
        ),
        *("<think>\\boxed{9}</think>42", "<musing>\\boxed{9}</musing>The answer is 42", "Thus, 6 * 7 = 42"),
        *(
            "The correct answer is 42 because 6*7 = 42.",
            "She had 50.\nSo the answer is $42.",
            "<think>a</think>42</think>",
        ),
    ],
    "0.5": ["0.5", r"\boxed{\frac12}", "1/2", r"$\frac{1}{2}$", "½", ".5", "The answer is 1/2."],
    "1000": ["1,000", "1000", r"\boxed{1{,}000}", "1e3", "$1,000"],
    "17+25=32": ["17 + 25 = 32", "17 + 25 = 32 is the correct answer", "17+25=32."],
    "(13-4)*9+6=87": ["First this.\n\n(13 - 4) * 9 + 6 = 87\n", "(13 - 4) × 9 + 6 = 87"],
    "Paris": ["Paris", "The answer is Paris.", "**Answer:** Paris", "Paris\n\nLet me know if you need anything else!"],
    "B": ["B", "(B)", "B. Paris", "The answer is B.", r"\boxed{\text{B}}", "**B**", "Answer: (B) Paris"],
    "Yes": ["Yes", "yes.", "Yes, 7 is prime.", "The answer is yes"],
    "No": ["No, 7 is not even."],
    "1,2": [r"\boxed{1} and \boxed{2}", r"\boxed{1, 2}", "The answer is 1 and 2", r"\boxed{1，2}"],
    "9,2": [r"\boxed{9} and \boxed{2}"],
    "5 km": ["5 km", r"\boxed{5\text{ km}}"],
    "5 m": ["5 m"],
    "J. K. Rowling": ["The answer is J. K. Rowling."],
    "The capital is Paris. It has 2 million people": ["The capital is Paris. It has 2 million people."],
    "x+1": ["Answer: $x  + 1$", "x+1"],
}


@pytest.mark.parametrize("wanted", SAME)
def test_what_says_the_same_is_one_vote(wanted: str) -> None:
    assert {text: final_answer(text) for text in SAME[wanted]} == dict.fromkeys(SAME[wanted], wanted)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        ":",
        "```",
        "I hope this helps!",
        r"\boxed{1} no \boxed{2",
        r"<think>\boxed{1}",
        "---\n**",
        r"\boxed{}",
        "Answer:",
        "**Final Answer**",
        "7 * 6 = 42\n\nThe final answer is:",
        "<answer></answer>",
        "最终答案：",
    ],
)
def test_what_says_nothing_is_no_vote(text: str) -> None:
    assert final_answer(text) is None


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("因此，小明一共有42元。", "42"),
        ("答：一共有42个。", "42"),
        ("答案是C", "C"),
        ("因此，正确答案是C。", "C"),
        ("答案是Paris。", "Paris"),
        ("结果是42。", "42"),
        ("\\boxed{42个}", "42"),
        ("The answer is 10!", "10"),
        ("The answer is 42</s>", "42"),
        ("**Answer**: 42<|im_end|>", "42"),
        ("故选：C", "C"),
        ("故选C。", "C"),
        ("Option C is correct.", "C"),
        ("Answer: I think it is C", "C"),
        ("The answer is C because A is wrong.", "C"),
        ("The correct answer is C: Mercury", "C"),
        ("\\boxed{\\text{(C)}}", "C"),
        ("\\boxed{\\textbf{(C)}\\ 12}", "C"),
        ("42\n\nIs there anything else you'd like to know?", "42"),
        ("42\n\nWould you like me to explain further?", "42"),
        ("42\n\nHappy learning!", "42"),
        ("42\n\nCheers!", "42"),
        ("42\n\nHave a great day!", "42"),
        ("42\n\n如果您有任何问题，请随时告诉我。", "42"),
        ("42\n\n如果你还有其他问题，欢迎继续提问！", "42"),
        ("42\n\n祝你学习愉快！", "42"),
        ("Therefore, 42.", "42"),
        ("So, 42 is the answer.", "42"),
        ("The probability is 1/2.", "0.5"),
        ("(-3)", "-3"),
        ("= 42", "42"),
        ("[42]", "42"),
        ("• 42", "42"),
        ("*42*", "42"),
        ("The answer is Paris!", "Paris"),
        ("The ratio is 3:4.", "3:4"),
        ("The answer is Vitamin K.", "Vitamin K"),
        ("The answer is J. K. Rowling.", "J. K. Rowling"),
    ],
)
def test_what_people_and_models_write_around_an_answer_is_no_part_of_it(text: str, vote: str) -> None:
    assert final_answer(text) == vote


@pytest.mark.parametrize(
    ("name", "text", "vote"),
    [
        ("math", "She makes $18 every day.", "18"),
        ("math", r"So \(x=\frac12\) it is", "0.5"),
        ("math", "Nothing.", None),
        ("number", "He is 7, she is 12 years old", "12"),
        ("number", r"\boxed{x+12}", "12"),
        ("number", r"\boxed{\frac{1}{2}}", "0.5"),
        ("number", "一共有42个苹果。", "42"),
        ("number", r"12 \boxed{3", None),
        ("choice", "A. No.\nB. Yes.\n\nThe answer is B.", "B"),
        ("choice", "The answer is 42", None),
        ("code", "```python\nx = 1  \n\nprint(x)\n```\nIt prints:\n```\n1\n```", "x = 1\nprint(x)"),
        ("text", "<think>a</think> It is\n Paris. ", "It is Paris"),
        ("auto", "It is\nParis.", "Paris"),
    ],
)
def test_extractors_by_name(name: str, text: str, vote: str | None) -> None:
    assert resolve_extract(name)(text) == vote


def test_what_an_extractor_can_be() -> None:
    assert resolve_extract(str.upper)("a") == "A"
    with pytest.raises(InvalidInputError, match=r"'maths'.*auto, math, number, choice, code, text"):
        resolve_extract("maths")
    assert {name for name, extract in EXTRACTS.items() if means_values(extract)} == {"auto", "math", "number"}
    assert not means_values(str.upper)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("5 MHz", "5 kHz", False),
        ("3 dozen", "3", True),
        ("10 am", "10 pm", False),
        ("192.168.0.1", "192.168.0.2", False),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}", True),
        ("42元", "42", True),
        ("5 days", "5 hours", False),
        ("3:30 pm", "3:30 PM", True),
    ],
)
def test_units_and_notations_tell_votes_apart_or_make_them_one(first: str, second: str, same: bool) -> None:
    keys = merge_votes([final_answer(first), final_answer(second)]).keys
    assert (keys[0] == keys[1]) == same


def test_votes_that_mean_the_same_are_merged_into_the_earlier() -> None:
    keys = [
        "x^2+2x+1",
        "(x+1)^2",
        None,
        "0.5",
        "50%",
        "5 km",
        "5000 m",
        "5 m",
        "paris",
        "Paris",
        r"\frac{x}{2}",
        "0.5x",
    ]
    merged = merge_votes([*keys, "17+25=42", "42", "13*3+3=42"])
    assert merged.keys[:8] == ("x^2+2x+1", "x^2+2x+1", None, "0.5", "0.5", "5 km", "5 km", "5 m")
    assert merged.keys[8:12] == ("paris", "paris", r"\frac{x}{2}", r"\frac{x}{2}")
    assert merged.keys[12:] == ("17+25=42", "42", "13*3+3=42"), "how a number is reached is an answer of its own"
    assert (merged.comparer, merged.warnings) == ("math-verify", ())


class Counts(Judges):
    """Says what it is told, and notes what it was asked."""

    def __init__(self, verdict: bool | None) -> None:
        super().__init__(cpu_seconds=1, memory_mb=1)
        self.verdict, self.asked = verdict, []

    def judge(self, reference: str, answer: str, sides: object = ()) -> bool | None:
        self.asked.append((reference, answer))
        return self.verdict


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    judges = Counts(False)
    monkeypatch.setattr(votes, "_judges", lambda _: judges)
    votes._compared.cache_clear()
    return judges


def test_every_pair_is_compared_once_and_numbers_never(counts: Counts) -> None:
    keys = ["x+1", "7", "x+2", "8", "x+1", "Paris", "7"]
    assert merge_votes(keys).keys == tuple(keys)
    pairs = [(a.partition("{")[2].rstrip("}") or a, b.partition("{")[2].rstrip("}") or b) for a, b in counts.asked]
    assert sorted(pairs) == [("7", "x+2"), ("x+1", "7"), ("x+1", "8"), ("x+1", "x+2"), ("x+2", "8")]
    merge_votes([*keys, "9", "Rome"])
    assert len(counts.asked) == len(set(counts.asked)) == 7, "only what is new"


def test_a_comparison_without_an_end_is_different_and_said(counts: Counts) -> None:
    counts.verdict = None
    merged = merge_votes(["x+1", "x+2"])
    assert merged.keys == ("x+1", "x+2")
    assert merged.timed_out == 1
    assert "1 comparisons of votes came to no end" in merged.warnings[0]


def test_comparisons_are_bounded(counts: Counts) -> None:
    keys = [f"x+{i}" for i in range(40)]
    merged = merge_votes(keys)
    assert merged.keys == tuple(keys)
    assert len(counts.asked) == votes.COMPARISONS
    assert merged.left_out == 40 * 39 // 2 - votes.COMPARISONS
    assert "were not compared" in merged.warnings[0]


def test_without_math_verify_spelling_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes, "_judges", lambda _: None)
    merged = merge_votes(["x+1", "1+x", "1/3", "5 km", "5000 m"])
    assert merged.keys == ("x+1", "1+x", "1/3", "5 km", "5 km")
    assert merged.comparer == "plain"


def test_a_hostile_vote_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    judges = Judges(cpu_seconds=0.5, memory_mb=1024, workers=1)
    monkeypatch.setattr(votes, "_judges", lambda _: judges)
    votes._compared.cache_clear()
    try:
        merged = merge_votes(["9^{9^{9^9}}", "9^{9^{9^8}}"])
        assert (merged.keys, merged.timed_out) == (("9^{9^{9^9}}", "9^{9^{9^8}}"), 1)
    finally:
        judges.close()


VOTES = [json.loads(line) for line in (Path(__file__).parent / "vote_cases.jsonl").read_text("utf-8").splitlines()]


def test_what_models_write_is_one_vote_or_two_as_people_would_say() -> None:
    def are_one(extract: str, answers: list[str]) -> bool:
        keys = [resolve_extract(extract)(answer) for answer in answers]
        return None not in keys and len(set(merge_votes(keys).keys)) == 1

    assert len(VOTES) > 100
    assert [case for case in VOTES if are_one(case["extract"], case["answers"]) is not case["one"]] == []
