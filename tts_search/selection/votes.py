r"""What an answer counts as in a vote, and which votes are one. Reads texts; it knows no candidate.

A vote is a key: `\boxed{\frac12}`, "The answer is 0.5." and "**Answer: 1/2**" all count as `0.5`. What a spelling
cannot settle, such as `(x+1)^2` and `x^2+2x+1`, `merge_votes` asks math-verify.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from tts_search.errors import InvalidInputError
from tts_search.grading.answers import after_thinking, last_boxed
from tts_search.grading.choice import multiple_choice, option_alone
from tts_search.grading.late import late
from tts_search.grading.math import same
from tts_search.grading.math_judges import Judges
from tts_search.grading.plain import is_mathematical, key, latex, quantity
from tts_search.grading.programs import program
from tts_search.grading.reading import final_expression, final_number, final_words
from tts_search.grading.sentences import stated_expression

Extract = Callable[[str], str | None]
"""From an answer's text to what it counts as; None for an answer without a vote."""

COMPARISONS = 200
"""Comparisons by math-verify that one set of votes may cost; keys beyond them count as different."""
_CPU_SECONDS, _MEMORY_MB, _WORKERS = 1.0, 1024, 2  # of one comparison
_NORMALIZED = 2_000  # characters: a run of accents takes time in its square
_AT_ONCE = late(r"(?i)[\s*_]*(yes|no|true|false)[\s*_]*(?:[.,;:!](?!\d)|$)")
_AT_LAST = late(r"(?i)^the (?:statement|claim|answer) is (true|false)\W*$")
_VERDICT = late(r"(?i)[\s*_]*(yes|no|true|false)[\s*_.,!]*\n")  # on a line of its own, reasons behind it
_OPTION_FIRST = late(r"[\s*_(]*(?:[Oo]ption\s+)?[A-J]\b")
_IT_IS = late(r"^(?:It|That|This)(?:['’]s|\s(?:is|was|will\sbe))\s(?=[^\n]{1,40}$)")
_SHOUTED = late(r"(?<=[^\W\d_]{3})[!！]+$")  # x! is no shout
_PROSE = late(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}|[A-Za-z]{4}")
_NAMED = late(
    r"(?<![A-Za-z0-9])(?!A:\s?[-\d$\\])[A-J](?![A-Za-z0-9]|\.\s?[A-Z]\.)"
)  # an option in words, and no initial


def final_answer(text: str) -> str | None:
    r"""What an answer of any kind counts as: the extractor "auto". None for no answer.

    Read is the last `\boxed{...}` behind the thinking, else what the text declares ("The answer is ...", "Answer: ...",
    "#### ...", "... is the correct answer", 答案), else the last line that is no farewell. A number counts as its
    value, an expression as its LaTeX without spaces, an option as its letter ("B. Paris"), "Yes, because ..." as yes,
    and anything else as its words. An answer whose last box is never closed was cut off: None.
    """
    found = final_words(text)
    if found is None:
        return None
    words, is_declared = found
    alone, named = option_alone(words), _NAMED.findall(words)
    letter = multiple_choice.letter(text) if alone or named else None
    if alone and (letter or is_declared):
        return letter or alone  # it may be one of several that are walked through
    if letter and (letter in named or (not is_declared and _OPTION_FIRST.match(words))):
        return letter
    first = option_alone(after_thinking(text).strip().partition("\n")[0].strip(" *_"))
    if first and not is_declared and "\n\n" in text and multiple_choice.letter(text) == first:
        return first  # with its reasons behind it
    if box := last_boxed(after_thinking(text)):
        return _in_a_box(box)
    if verdict := _AT_ONCE.match(words) or _AT_LAST.search(words):
        return verdict[1].capitalize()
    if not is_declared and (verdict := _VERDICT.match(after_thinking(text))):
        return verdict[1].capitalize()
    if expression := stated_expression(words, is_declared=is_declared):
        return key(expression)
    return _folded(_IT_IS.sub("", words))


def _in_a_box(box: str) -> str | None:
    """A box is read as a whole: what is no number, formula or sentence about one counts as its words."""
    if quantity(latex(box)) or not _PROSE.search(re.sub(r"\\[A-Za-z]+", " ", box)):
        return key(box) or None
    expression = stated_expression(box, is_declared=False)
    return key(expression) if expression else _folded(box)


def _math(text: str) -> str | None:
    found = final_expression(text)
    return key(found) or None if found else None


def _number(text: str) -> str | None:
    found = final_number(text)
    return key(found) if found else None


def _code(text: str) -> str | None:
    lines = [line.rstrip() for line in program(text).split("\n")]
    return "\n".join(line for line in lines if line) or None


def _text(text: str) -> str | None:
    return _folded(after_thinking(text))


EXTRACTS: dict[str, Extract] = {
    "auto": final_answer,
    "math": _math,  # as the grader "math" reads: the last expression
    "number": _number,  # the last number
    "choice": multiple_choice.letter,  # as the grader "choice" reads: the last letter that is declared
    "code": _code,  # the program, without blank lines
    "text": _text,  # all of the answer, white space folded
}
_VALUES = frozenset({final_answer, _math, _number})


def resolve_extract(extract: str | Extract) -> Extract:
    """An extractor by its name in `EXTRACTS`, or the function that was given.

    Raises:
        InvalidInputError: there is no such name.
    """
    if callable(extract):
        return extract
    if not isinstance(extract, str) or extract not in EXTRACTS:
        raise InvalidInputError(f"unknown extract {extract!r}: choose from {', '.join(EXTRACTS)}, or pass a function")
    return EXTRACTS[extract]


def extract_name(extract: Extract) -> str:
    """What to call an extractor in logs: its name here, or the function's own."""
    own = getattr(extract, "__qualname__", type(extract).__qualname__)
    return next((name for name, known in EXTRACTS.items() if known == extract), own)


def means_values(extract: Extract) -> bool:
    """Whether its keys that differ may mean the same, so that `merge_votes` has something to do.

    The words of "text", programs, letters, and what a function of the user's returns count as they are.
    """
    return (extract.extract if isinstance(extract, UpTo) else extract) in _VALUES


@dataclass(frozen=True, slots=True)
class UpTo:
    """Reads an answer up to the first of the `stops`, as its asker will: what a model writes behind it is no vote."""

    extract: Extract
    stops: tuple[str, ...]

    def __call__(self, answer: str) -> str | None:
        """The vote."""
        return self.extract(up_to(answer, self.stops)[0])


def up_to(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text in front of the stop that is complete first, as if it came by characters; whether there is one."""
    ends = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(ends)[1]], True) if ends else (text, False)


@dataclass(frozen=True, slots=True)
class MergedVotes:
    """`keys` in the order of the candidates, each the earliest that means the same; None stays None.

    `comparer` is "math-verify", or "plain" where that is not installed. `timed_out` comparisons came to no end within
    their limits, `left_out` were more than `COMPARISONS`: both count as different.
    """

    keys: tuple[str | None, ...]
    comparer: str
    timed_out: int = 0
    left_out: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        said = []
        if self.timed_out:
            said.append(
                f"{self.timed_out} comparisons of votes came to no end within their limits: taken for different"
            )
        if self.left_out:
            said.append(
                f"{self.left_out} pairs of votes beyond the first {COMPARISONS} were not compared: taken for different"
            )
        return tuple(said)


def merge_votes(keys: Sequence[str | None]) -> MergedVotes:
    """Give keys that mean the same one spelling, that of the earlier candidate.

    Equal keys, plain numbers and words need no comparing. Of the others every pair is compared once in the life of this
    process, by math-verify in processes of its own under limits of time and memory. It blocks: call it in a thread,
    never on an event loop. Any number of threads may.
    """
    leaders: list[str] = []
    leader_of: dict[str, str] = {}
    asked = timed_out = left_out = 0
    judges = _judges(os.getpid())
    for vote in keys:
        if vote is None or vote in leader_of:
            continue
        for leader in leaders:
            verdict = _same_at_once(leader, vote)
            if verdict is None and judges is not None:
                if asked >= COMPARISONS:
                    left_out += 1
                    continue
                asked += 1
                verdict = _compared(leader, vote, os.getpid())
                timed_out += verdict is None
            if verdict:
                leader_of[vote] = leader
                break
        else:
            leaders.append(vote)
            leader_of[vote] = vote
    merged = tuple(None if vote is None else leader_of[vote] for vote in keys)
    return MergedVotes(merged, "plain" if judges is None else "math-verify", timed_out, left_out)


def _same_at_once(first: str, second: str) -> bool | None:
    """What needs no library: numbers with their units, and words. None where it takes one."""
    ours, theirs = quantity(latex(first)), quantity(latex(second))
    if ours and theirs:
        return ours.agrees(theirs)
    if is_mathematical(first) and is_mathematical(second):
        return None
    return first.casefold() == second.casefold() and not is_mathematical(first)


@functools.lru_cache(maxsize=10_000)
def _compared(first: str, second: str, process: int) -> bool | None:
    return same(latex(first), latex(second), _judges(process))


@functools.cache
def _judges(_: int) -> Judges | None:
    """One for a process: after a fork the pipes of the first belong to two."""
    if find_spec("math_verify") is None:
        return None
    return Judges(cpu_seconds=_CPU_SECONDS, memory_mb=_MEMORY_MB, workers=_WORKERS)


def _folded(words: str) -> str | None:
    folded = " ".join(words.split())
    if len(folded) <= _NORMALIZED:
        folded = unicodedata.normalize("NFKC", folded)
    folded = _SHOUTED.sub("", folded.strip(" *_`\"'“”:：").rstrip(" .。"))
    return folded.strip(' *_`"“”').rstrip(" .。") or None
