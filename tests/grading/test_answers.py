"""Where the answer stands in a text, however long or broken the text is; exact match and letters on top of it."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.errors import InvalidInputError
from tts_search.grading.answers import after_thinking, boxes, last_boxed, reference_of
from tts_search.grading.choice import MultipleChoice, multiple_choice, released_choice
from tts_search.grading.named import exact_match

CHOICES = [json.loads(line) for line in (Path(__file__).parent / "choice_cases.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\boxed{ \fbox{5} }}", "5"),
        (r"\boxed{x \boxed{5}}", r"x \boxed{5}"),
        (r"\boxed{1}" + " " * 20 + r"\boxed{2}", "1, 2"),
        (r"\boxed{1}" + " " * 21 + r"\boxed{2}", "2"),
        (r"\boxed{1} and $\boxed{2}$", "1, 2"),
        (r"\boxed{1}, but no: \boxed{2}", "2"),
        (r"\boxed{1} ... \boxed{2", ""),
        (r"\boxed{1} ... \boxed{\frac{1}{2", ""),
        (r"\boxed{1} in \boxed{}", "1"),
        (r"in \boxed{} it is \boxed{1}", "1"),
        (r"\boxed{1 \boxed{2}", "2"),
        (r"}} \boxed{3}", "3"),
        (r"\boxed{}", ""),
        ("5", None),
    ],
)
def test_the_last_box(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\{", "1", " and ", "\\"]), max_size=40).map("".join))
def test_boxes_lie_beside_each_other(text: str) -> None:
    found = boxes(text)
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    assert all(text[start:end].endswith("{" + content + "}") for start, end, content in found)


def test_what_stands_behind_the_thinking() -> None:
    assert after_thinking("<think>a</think>b") == "b"
    assert after_thinking("a</think>b</think>c") == "b\nc"
    assert after_thinking("<think>a</think>b</think>").strip() == "b"
    assert after_thinking("<think>a<think>b</think>c") == "c"
    assert after_thinking("<think>a</think>b<think>c</think>d") == "bd"
    assert after_thinking("<think>a") == ""
    assert after_thinking("a</think>") == "", "the template had opened it"
    assert after_thinking("a") == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<thinking>a<reflection>b</reflection>c</thinking>d", "d"),
        ("[THINK]a[/THINK]b", "b"),
        ("◁think▷a◁/think▷b", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>b", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>", "b"),
        ("<|channel|>analysis<|message|>a", ""),
        ("<musing>a</musing>b", "b"),
        ("<musing>a</musing><again>b</again>c", "c"),
        ("<musing>a</musing>", "<musing>a</musing>"),
        ("<answer>a</answer> so", "<answer>a</answer> so"),
        ("[analysis] a", "[analysis] a"),
    ],
)
def test_thoughts_in_other_tags(text: str, said: str) -> None:
    assert after_thinking(text) == said


@given(st.lists(st.sampled_from(["<think>", "</think>", "<x>", "</x>", "a", " ", "[/THINK]"]), max_size=9).map("".join))
def test_what_is_cut_off_once_is_cut_off(text: str) -> None:
    said = after_thinking(text)
    assert after_thinking(said) == said
    assert "think>" not in said


def test_exact_match() -> None:
    assert exact_match("  New\n York ", "New York")
    assert exact_match(r"It is \boxed{New York}.", "New York")
    assert exact_match("<think>London</think>Paris", "Paris")
    assert exact_match("ﬁne", "fine"), "one Unicode form"
    assert exact_match("fine", "ﬁne")
    assert exact_match("Zu\u0308rich", "Zürich")
    assert exact_match("Zürich", "Zu\u0308rich")
    assert not exact_match("It is New York", "New York")
    assert not exact_match("new york", "New York")
    assert not exact_match("", "")


@given(st.text(st.sampled_from("aé\u0301\u0327ﬁĳ½\u3000\u00a8각\u1100\u1161 "), max_size=8))
def test_a_text_matches_each_of_its_unicode_forms(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert all(exact_match(form, text) == exact_match(text, form) == bool(text.split()) for form in forms)


def test_letters_agree_with_every_hand_label() -> None:
    assert len(CHOICES) >= 40
    assert [case for case in CHOICES if multiple_choice(case["answer"], case["reference"]) != case["correct"]] == []


@pytest.mark.parametrize(
    ("letter", "texts"),
    [
        ("C", ["The answer is not A, B, or D; it is C.", "The correct answer is not (A) or (B) but (C).",
               "The answer cannot be A; it must be C.", "The answer is neither A nor B; it's C.",
               "The answer isn't A. It's C.", "答案不是A、B，而是C。", "答案不能选A，应该选C。"]),
        (None, ["The answer is not A, B, or C.", "I don't think A is correct.", "I would not choose option C."]),
        ("B", ["The answer is: A... no wait, B.", "The answer is A. Actually, it's B.", "Answer: A. No, B."]),
        ("B", ["The answer might seem to be A, but it's actually B.",
               "You may think the answer is A. In fact, it is B.",
               "The correct answer is B. Students often choose option A.",
               "I originally thought the answer is A. It's B."]),
        (None, ["The answer might seem to be A.", "Many would say the answer is A.", "Could the answer be A?"]),
        ("C", ["The correct answer is (C). If we choose A, we get a contradiction.",
               "The answer is C.\n\nIf the question had asked about mass, the answer would be A.",
               "The answer is C. Had it been dark, the answer would have been B.", "If x = 5 then the answer is C.",
               "If I had to guess, I would say C.", "It might seem hard, but the answer is C.", "若x=1，则答案为C。",
               "The answer would have to be C."]),
        (None, ["If the answer is A, then x = 2.", "Suppose the answer is A.", "Let's check whether A is correct.",
                "如果选A，则矛盾。"]),
        ("B", ["The answer is B.\nA simple check of the answer: A = 5.",
               "The answer is B. To double check the answer: if A = 5 then B = 6"]),
        ("D", ["A. ✗ B. ✗ C. ✗ D. ✓", "A ✗\nB ✗\nD ✓", "A. wrong B. wrong C. wrong D. correct",
               "A - wrong\nB - wrong\nD - right"]),
        (None, ["A) 1, B) 2, C) 3, D) 4", "(A) 5 (B) 6 (C) 7", "A. Acute angle\nB. Right angle\nC. Obtuse angle",
                "A\nB\nC\nD", "A. No. B. Yes. C. No."]),
        ("C", ["C\n\nExplanation: x is 5.", "**C**\n\nA and B are wrong.", "C\n\n解析：A错误，B错误，D错误。",
               "C。\n\n解释：因为A、B、D都不对。", "Thus x = 5.\n#### C", "C - Mercury"]),
        ("C", ["<answer>C</answer>", "So\n<answer>\nC\n</answer>", "<answer>Option C</answer>", "{'answer': 'C'}",
               "Answer: option c", "_Answer: C_", "The answer is __C__.", "The answer is 'C'.",
               "The correct answer is:\n```\nC\n```"]),
        ("C", [r"\boxed{\text{Option C}}", r"\boxed{C (Mercury)}", r"\boxed{C - Mercury}", r"\boxed{\text{选项C}}",
               r"\boxed{C\text{. Mercury}}", r"\boxed{\rm C}", r"\boxed{\textbf{(C)}\ 12}"]),
        ("C", ["The correct response is C.", "The correct statement is C.", "The correct answer (C) follows.",
               "The correct answer, C, is supported.", "The most plausible option is C.", "C is my answer."]),
        ("C", ["It is C.", "It must be C.", "This corresponds to option C.", "Option C best describes this.",
               "Among the four options, only C satisfies the equation.", "Select C.", "Choose C.", "Pick C.",
               "Therefore x = 5, option C.", "The value is 12, which is option C.", "C is the only option that works.",
               "只有C选项符合题意。", "C为本题答案。"]),
        (None, ["A simple check shows x = 5.", "I think so.", "It is a mammal.", "It is A, B or C.", "Plan B is risky.",
                "It is vitamin C.", "I think it's E. coli.", "It is J. K. Rowling.", "A - B = 5",
                "I think A is larger.",
                "5 corresponds to option A. 6 corresponds to option B.", "Choose A first, then B.",
                "The first letter is A."]),
    ],
)  # fmt: skip
def test_a_letter_that_is_refused_supposed_or_pointed_at(letter: str | None, texts: list[str]) -> None:
    assert [text for text in texts if multiple_choice.letter(text) != letter] == []


def test_the_released_script_takes_the_first_match() -> None:
    corrected = "答案：A。不对，答案：B"
    assert multiple_choice.letter(corrected) == "B"
    assert released_choice.letter(corrected) == "A"
    assert released_choice.letter(r"\boxed{B}") is None
    assert released_choice.letter("Answer:c") == "C"


def test_an_option_that_there_is_not_is_refused() -> None:
    assert multiple_choice("Answer: E", "E")
    with pytest.raises(InvalidInputError, match="one of ABCD: 'E'"):
        released_choice("Answer: E", "E")


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'42'"):
        multiple_choice("B", "42")
    with pytest.raises(InvalidInputError, match="exactly one group"):
        MultipleChoice(pattern="(a)(b)")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("48 / 2 = 24\n#### 72", "72"),
        (r"so \boxed{\frac12}", r"\frac12"),
        (" 7 ", "7"),
        ("a #### b #### 1,000", "1,000"),
    ],
)
def test_references(answer: str, reference: str) -> None:
    assert reference_of(answer) == reference


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<|channel>thought\nIt is \\boxed{9}.\n<channel|>42<turn|>", "42"),
        ("<|plamo:begin_think:plamo|>x<|plamo:end_think:plamo|>42", "42"),
        ("<|open|>think<|sep|>x<|close|>think<|sep|>42", "42"),
        ("<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>42<|END_RESPONSE|>", "42"),
        ("42<｜end▁of▁sentence｜>", "42"),
        ("42<|im_end|>\n<|im_start|>assistant\n", "42"),
        ("42<pad><pad>", "42"),
        ("<choice>B</choice>\nBecause it is.", "<choice>B</choice>\nBecause it is."),
        ("<final-answer>42</final-answer> Done.", "<final-answer>42</final-answer> Done."),
    ],
)
def test_tags_and_tokens_of_other_models(text: str, answer: str) -> None:
    assert after_thinking(text) == answer
