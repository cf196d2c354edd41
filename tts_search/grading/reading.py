r"""What a text says its final answer is: in its last box, where it declares one, else at its end.

`places` finds where that is, `sentences` the expression there; what it means is the matter of `plain` and the graders.
"""

from __future__ import annotations

from tts_search.grading.answers import after_thinking, last_boxed
from tts_search.grading.late import late
from tts_search.grading.places import MARKS, declared, last_lines
from tts_search.grading.plain import latex, quantity
from tts_search.grading.sentences import NUMBERS, first_expression, last_expression

_HEADER = late(
    r"(?i)\W*(?:the\s+)?(?:(?:final|correct)\s+)?(?:answer|solution|result|output)\s?(?:is|are)?\W*|\W*(?:最终)?答案\W*|(?:<[^<>]{1,20}>\s?)+"
)
_STARTS = late(r"(?:In|On|After|At|For|By|With|When|If)\s[^,]{0,60}\d[^,]{0,60},|The\s+\d")


def final_expression(text: str) -> str | None:
    r"""The mathematical expression that a text ends on, as it is written there: `\frac12`, `$18`, `5 km`, `x = 3`.

    None where there is none, and where the last box was never closed: that answer was cut off.
    """
    text = after_thinking(text)
    box = last_boxed(text)
    if box is not None:
        return box or None
    for said, is_in_front in declared(text):
        is_sentence = _STARTS.match(said) is not None
        found = (last_expression if is_in_front or is_sentence else first_expression)(said)
        if found is not None:
            return found or None
    for line in last_lines(text):
        if found := last_expression(line):
            return found
    return None


def final_number(text: str) -> str | None:
    """The number that `final_expression` finds, or the last one in it; else that of the text."""
    said = final_expression(text) or ""
    if quantity(latex(said)):
        return said
    behind = after_thinking(text)
    for place in (said, "" if last_boxed(behind) == "" else behind[-4_000:]):
        if numbers := NUMBERS.findall(place):
            return numbers[-1].strip()
    return None


def final_words(text: str) -> tuple[str, bool] | None:
    """What a text of any kind answers, and whether it says so itself: in a box or a declaration.

    Else it is the last line with anything on it but farewells, marks and fences. None for an empty text, and where the
    answer was cut off: its last box was never closed, or nothing stands behind "Answer:".
    """
    text = after_thinking(text)
    box = last_boxed(text)
    if box is not None:
        return (box, True) if box else None
    for said, _ in declared(text):
        return said, True
    for line in last_lines(text):
        words = MARKS.sub("", line).strip(" *_\t")
        return None if _HEADER.fullmatch(words) else (words, False)
    return None
