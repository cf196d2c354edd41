r"""Where in a text the answer stands: behind the thinking, in the last `\boxed{...}`.

It finds the place and changes nothing; what an answer means is its grader's matter. Linear in the length of the text.
"""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"
MARK = "####"
"""What GSM8K writes in front of the final answer."""

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_BETWEEN = re.compile(r"[\s$,;.&\\]*(?:and|or|和|或|与)?[\s$,;.&\\]*")
_LONGEST_CONNECTION = 20  # characters
_MOST_TOGETHER = 50  # boxes


def after_thinking(text: str) -> str:
    """What stands behind the last `</think>`: all of a text without tags, nothing of an unclosed thought."""
    thinking, closed, answer = text.rpartition(CLOSE)
    if closed:
        return answer
    return "" if OPEN in text else thinking or answer


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Every closed `\boxed{...}` (or `\fbox{...}`) that is in no other, as (start, end, content), in order."""
    found: list[tuple[int, int, int, int]] = []  # start, end, and those of the content
    opened: list[tuple[int, int, bool]] = []  # start, begin of the content, is a box
    for brace in _BRACES.finditer(text):
        token = brace[0]
        if token in (r"\{", r"\}"):
            continue
        if token != "}":
            opened.append((brace.start(), brace.end(), len(token) > 1))
        elif opened:
            start, begin, is_box = opened.pop()
            if is_box:
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, brace.end(), begin, brace.start()))
    return [(start, end, text[begin:close]) for start, end, begin, close in found]


def last_boxed(text: str) -> str | None:
    r"""The content of the last box; several that stand together (`\boxed{1} and \boxed{2}`) are one, with commas.

    A box in a box counts as its content. None without a closed box.
    """
    found = boxes(text)
    if not found:
        return None
    run = [found[-1]]
    for box in reversed(found[-_MOST_TOGETHER:-1]):
        between = text[box[1] : run[0][0]]
        if len(between) > _LONGEST_CONNECTION or not _BETWEEN.fullmatch(between):
            break
        run.insert(0, box)
    return ", ".join(_unwrapped(content) for _, _, content in run)


def reference_of(answer: str) -> str:
    r"""The final answer of a worked solution: behind the last `####`, else in the last `\boxed{}`, else all of it."""
    if MARK in answer:
        return answer.rpartition(MARK)[2].strip()
    box = last_boxed(answer)
    return (answer if box is None else box).strip()


def _unwrapped(content: str) -> str:
    content = content.strip()
    for _ in range(5):
        inner = boxes(content)
        if len(inner) != 1 or (inner[0][0], inner[0][1]) != (0, len(content)):
            break
        content = inner[0][2].strip()
    return content
