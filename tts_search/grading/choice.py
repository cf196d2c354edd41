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

# What follows one of these is a declaration, if there is a letter in it.
_DECLARES = re.compile(
    r"(?i)\banswer\b|\b(?:correct|right|best)\s+(?:option|choice|one|letter)\b|\b(?:my|the|final)\s+(?:choice|pick|selection)\s+(?:is|of)\b"
    r"|\b(?:(?:i|we)(?:\s+(?:would|will|should))?|i'd|i'll|we'd|let's)\s+(?:choose|select|pick|go\s+with|say)\b|\b(?:choose|select)\s+(?=option\b|\()|"
    r"答案|答(?=[:：])|正确选项|正确的(?:选项)?是|(?<!不)(?<!可)(?<!备)选(?!项)(?:择)?"
)
_STOP = re.compile(r"[.!?;](?=\s|$)|[。！？；]|\n")
# A letter by itself. `I` and `A` are words where a small word follows.
_LEAD = re.compile(
    r"[\s*_:：】\])]*+(?:(?:is|are|be|was|would|should|must|will|是|为|应该?为?|选)(?![a-z])[\s:：*_]*+)*+"
)
_OPTION = re.compile(r"(?<![A-Za-z0-9\\'’_^])([A-Za-z])(?![A-Za-z0-9'’_^])")
_REASONS = r"(?:because|since|as|is|are|was|and|or|for|which|with|but|due|\.|correct|right|option|选)"
_WORD = re.compile(rf"(?-i:[AI])\s+(?!{_REASONS}\b)[a-z]|I\s+(?!because|since|is|and|or\b)\w|a\s")
_NOT = re.compile(
    r"(?i)(?:\bnot|n't|\brather\s+than|\binstead\s+of|\bneither|\bnor|\bexcept|\bthan|不是|不选|而非|并非|除了)\s*(?:\(|（|option\s*|选项\s*|\*){0,3}$"
)
_FRAME = r"[\s*_\"'“”(\[（【$)\]）】:：]*+"
# "Option C is correct", "(C) is the answer", "选项C正确"
_RIGHT = re.compile(
    r"(?:(?<![A-Za-z0-9\\'’_^])(?:(?i:option|choice|answer)\s+)?[*_(\[（“\"]{0,4}([A-Z])(?:[*_)\]）”\".:]{1,4}(?:\s?[^\W\d_][^.\n:;,。，]{0,60}?)?)?"
    r"\s{0,5}(?:is|would\s+be|must\s+be|seems)\s+(?:the\s+)?(?:only\s+|most\s+)?(?:correct|right|best|true|accurate|answer)\b"
    r"|(?:选项\s*)?([A-Z])\s*(?:选项|项)?\s*(?:是|为)?\s*(?:最)?正确"
    r"|\b(?i:so|therefore|thus|hence)[,:]?\s+(?:it(?:['’]s|\s+is|\s+must\s+be)\s+)?(?i:option\s+)?[(*]{0,3}([A-Z])[)*]{0,3}(?=[.!]?\s*$|[.!]\s|\n))"
)
_LETTER = re.compile(
    r"[\s*_()\[\]（）【】$.。:：`\"'“”]*+(?:(?i:option|choice|选项)\s*+)?(?:\\(?:text|textbf|mathrm|mathbf|textit)\s?\{)?\s?[(（]?([A-Za-z])[)）]?\}?"
    r"([.):：、。)）][^\n]*|[\s*_.。)\]）】$`\"'”]*)"
)
_REST = re.compile(r"[\s*_.。)\]）】$`\"'”]*")
_CONNECTED = re.compile(r"[:：=\n–—-]|(?i:\b(?:is|be|was|are|option|choice)\b)|[^\x00-\x7f]")
_ALONE = re.compile(
    r"(?:(?i:option|choice|选项)\s?)?[*(（\[]{0,3}([A-J])[*)）\].]{0,3}|[*(（]{0,3}([A-J])[*]{0,2}[.)）](?!\s?[A-Z]\.)[^\n]{1,200}"
)
_ITEM = re.compile(
    r"(?:^[ \t]{0,8}|(?<=[.;!] )|(?<=[。；]))(?:[-*•+]\s{1,3}|\d{1,2}[.)]\s{1,3}|#{1,6}\s{1,3})?"
    r"(?:(?i:option|choice|选项)\s?)?[*_(（]{0,4}([A-Za-z])[*_]{0,2}[.):：、）][*_]{0,2}(?=\s|[^\W\d_a-zA-Z]|$|[A-Z\d])",
    re.MULTILINE,
)
_MARKED = re.compile(
    r"(?i)✓|✔|✅|[(\[（]\s?correct(?:\s+answer)?\s?[)\]）]|[.:：—–-]\s*(?:this\s+is\s+)?(?:the\s+)?(?:correct|right)(?:\s+(?:answer|option|choice))?\b(?!\s*\?)|(?<!不)正确(?!的?是|吗)"
)
_WRONG = re.compile(r"(?i)\bincorrect|\bnot\s+(?:the\s+)?(?:correct|right)|\bwrong|✗|❌|不正确|错误")
_WINDOW = 160  # characters behind a declaration
_MOST = 50  # declarations, and options, that are looked at, from the last one on


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    r"""A grader of letters: `MultipleChoice()(answer, "B")`.

    Args:
        pattern: a regular expression whose one group is the letter, in place of the declarations that are known. One of
            your own should be linear: `*+` for `*`.
        take: which of several declarations counts.
        boxed: whether the last `\boxed{B}` goes before them, and a bare letter is an answer.
        letters: the options there are; any other letter is no answer.
    """

    pattern: str | None = None
    take: Literal["first", "last"] = "last"
    boxed: bool = True
    letters: str = "ABCDEFGHIJ"

    def __post_init__(self) -> None:
        if self.pattern is not None and re.compile(self.pattern).groups != 1:
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
        """The letter that an answer settles on, None where it declares none or two at once."""
        said = after_thinking(answer).strip()
        if self.boxed:
            box = last_boxed(said)
            if box == "":
                return None
            if box is not None and (inside := _LETTER.fullmatch(box)) and self._option(inside[1]):
                return inside[1].upper()
            if (alone := _LETTER.fullmatch(said)) and _REST.fullmatch(alone[2]) and self._option(alone[1]):
                return alone[1].upper()
        if self.pattern is not None:
            found = [letter.upper() for letter in re.findall(self.pattern, said) if self._option(letter)]
        else:
            found = self._declared(said)
            if not found and self.boxed:
                return self._listed(said)
        return found[0 if self.take == "first" else -1] if found else None

    def _option(self, letter: str) -> bool:
        return letter.upper() in self.letters

    def _declared(self, said: str) -> list[str | None]:
        """The letters of all declarations, in order; None for one that names two."""
        found: list[tuple[int, str | None]] = []
        clauses: list[tuple[int, int]] = []
        for place in self._taken(list(_DECLARES.finditer(said))):
            behind = said[place.end() : place.end() + _WINDOW]
            lead = _LEAD.match(behind)
            begin = lead.end() if lead else 0
            stop = _STOP.search(behind, begin)
            clause = behind[: stop.start() if stop else None]
            letters = self._letters(clause, begin)
            if letters and _is_said(place[0], behind, letters[0][0]):
                found.append((place.end() + letters[0][0], letters[0][1]))
                clauses.append((place.end(), place.end() + len(clause)))
        for right in self._taken(list(_RIGHT.finditer(said))):
            at = right.start(right.lastindex or 0)
            letter = right[right.lastindex or 0]
            is_word = right.lastindex == 1 and _WORD.match(said, at)
            if self._option(letter) and not is_word and not any(begin <= at < end for begin, end in clauses):
                found.append((at, letter))
        return [letter for _, letter in sorted(found, key=lambda one: one[0])]

    def _taken(self, places: list[re.Match[str]]) -> list[re.Match[str]]:
        return places[-_MOST:] if self.take == "last" else places[:_MOST]

    def _letters(self, clause: str, begin: int) -> list[tuple[int, str | None]]:
        """The letter that a declaration names, in a list of none or one."""
        named: list[tuple[int, str]] = []
        for option in _OPTION.finditer(clause, begin):
            letter = option[1]
            is_first = not clause[begin : option.start()].strip(" \t*_\"'“(（[【$\\{}:：")
            if letter.islower() and not (is_first and not re.match(r"\s+\w", clause[option.end() :])):
                continue
            if (
                not self._option(letter)
                or _WORD.match(clause, option.start())
                or _NOT.search(clause[max(0, option.start() - 40) : option.start()])
            ):
                continue
            named.append((option.start(), letter.upper()))
        if not named:
            return []
        at, letter = named[0]
        for other, second in named[1:]:
            between = clause[at + 1 : other]
            if second != letter and re.fullmatch(
                r"[\s*_)）.]*(?:,|，|、|and|or|&|/|和|或)+[\s*_(（]*(?:option\s*)?", between
            ):
                return [(at, None)]
        return [(at, letter)]

    def _listed(self, said: str) -> str | None:
        """Without a declaration: the one option that is given or marked as right, else the last line's bare letter."""
        items = [item for item in _ITEM.finditer(said) if self._option(item[1])][-_MOST:]
        if len({item[1] for item in items}) == 1 and items[0].start() == 0:
            return None if _WRONG.match(said, items[0].end()) else items[0][1].upper()
        ends = [*[item.start() for item in items[1:]], len(said)][: len(items)]
        marked = {
            item[1].upper()
            for item, end in zip(items, ends, strict=True)
            if _MARKED.search(part := said[item.start() : min(end, item.start() + 400)]) and not _WRONG.search(part)
        }
        if len(marked) == 1:
            return marked.pop()
        line = said[said.rfind("\n") + 1 :]
        last = _LETTER.fullmatch(line)
        is_bare = last is not None and (len(items) < 2 or _REST.fullmatch(last[2]))
        return last[1].upper() if last and is_bare and self._option(last[1]) else None


def option_alone(words: str) -> str | None:
    """The letter where words are nothing but an option: "B", "(B)", "B. Paris"; no initial ("J. K. Rowling")."""
    found = _ALONE.fullmatch(words.strip())
    return found[1] or found[2] if found else None


def _is_said(anchor: str, behind: str, at: int) -> bool:
    """Whether a letter behind "answer" is what the answer is: "The answer A. Shark is a mammal" settles nothing."""
    if _CONNECTED.search(anchor.lower().replace("option", "").replace("choice", "") + behind[:at]) or not re.search(
        r"(?i)answer|option|choice|letter|one$", anchor
    ):
        return True
    return not behind[at + 1 :].partition("\n")[0].strip(" *_).!")


multiple_choice = MultipleChoice()
released_choice = MultipleChoice(pattern=RELEASED_PATTERN, take="first", boxed=False, letters="ABCD")
