r"""Multiple choice in English and Chinese: which letter an answer settles on.

`multiple_choice` takes the last letter that is declared; `released_choice` reads as the released evaluation script of
MetaStone-S1 does (C-Eval): the first match of its own pattern. The two disagree where a model corrects itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tts_search.errors import InvalidInputError
from tts_search.grading.answers import after_thinking, last_boxed

RELEASED_PATTERN = r"(?i)(?:答案|answer)\s*[:：]\s*([A-D])"
# No part begins with what the run in front of it takes, so runs give nothing back (`*+`) and a search is linear.
PATTERN = (
    r"(?i)(?:答案|正确选项|\banswer\b|\bcorrect\s++(?:option|choice)\b)"
    r"[\s*_]*+(?:是|为|选|应为|应该是|is|would\s++be)?[\s*_]*+[:：]?"
    r"[\s*_\"'“(\[（【$]*+(?:option\s++|选项\s*+|\\(?:text|textbf|mathrm|mathbf)\{)?[\s*_\"'“(\[（【]*+"
    r"((?-i:[A-Z])(?![A-Za-z0-9'’])|[a-z](?![A-Za-z0-9'’])(?!\s++\w))"  # "answer: a lot of work" names no option
)
_LETTER = re.compile(
    r"[\s*_()\[\]（）【】$.。:：]*(?:\\(?:text|textbf|mathrm|mathbf)\{)?\(?([A-Za-z])\)?\}?(?:[.):：、].*|[\s*_.。)\]）】$]*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    r"""A grader of letters: `MultipleChoice()(answer, "B")`.

    Args:
        pattern: a regular expression whose one group is the letter. One of your own should be linear: `*+` for `*`.
        take: which of several matches counts.
        boxed: whether the last `\boxed{B}` goes before the pattern, and a bare letter is an answer.
        letters: the options there are; any other letter is no answer.
    """

    pattern: str = PATTERN
    take: Literal["first", "last"] = "last"
    boxed: bool = True
    letters: str = "ABCDEFGHIJ"

    def __post_init__(self) -> None:
        if re.compile(self.pattern).groups != 1:
            raise InvalidInputError(f"the pattern must have exactly one group, the letter: {self.pattern!r}")
        if self.take not in ("first", "last"):
            raise InvalidInputError(f"take must be 'first' or 'last', got {self.take!r}")

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether the letter that the answer settles on is the reference's.

        Raises:
            InvalidInputError: the reference is not one of the letters.
        """
        wanted = reference.strip().strip("()（）.").upper()
        if len(wanted) != 1 or wanted not in self.letters:
            raise InvalidInputError(
                f"the reference of a multiple-choice question is one of {self.letters}: {reference!r}"
            )
        return self.letter(answer) == wanted

    def letter(self, answer: str) -> str | None:
        """The letter that an answer settles on, None where it declares none."""
        said = after_thinking(answer)
        if self.boxed:
            for alone in (last_boxed(said), said):
                if alone is not None and (match := _LETTER.fullmatch(alone)) and match[1].upper() in self.letters:
                    return match[1].upper()
        found = [letter.upper() for letter in re.findall(self.pattern, said) if letter.upper() in self.letters]
        return found[0 if self.take == "first" else -1] if found else None


multiple_choice = MultipleChoice()
released_choice = MultipleChoice(pattern=RELEASED_PATTERN, take="first", boxed=False, letters="ABCD")
