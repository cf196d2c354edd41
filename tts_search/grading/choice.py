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
from tts_search.grading.late import late

RELEASED_PATTERN = r"(?i)(?:答案|answer)\s*[:：]\s*([A-D])"

# What follows one of these is a declaration, if there is a letter in it. The last line corrects what was said before.
_DECLARES = late(
    r"(?i)\b(?:correct|right|best|better|likely|plausible|appropriate|suitable|accurate|final|closest)\s+"
    r"(?:answer|option|choice|one|letter|response|statement|match)\b"
    r"|\b(?:(?:false|incorrect|wrong|untrue)\s+(?:answer|option|choice|one|statement)|not\s+(?:correct|true))\s+is\b"
    r"|\b(?:leaving|leaves?)(?:\s+us)?(?:\s+with)?(?:\s+only)?\s+(?=(?:option\s)?[(*]{0,3}(?-i:[A-Z])\b)|\b(?:conclusion|response|ans|verdict|pick)[*_]{0,2}\s?[:：]"
    r"|\"(?:choice|option|letter|selected)\"\s?:"
    r"|(?<!</)(?<![^\W_])answer\b|\b(?:my|the|final)\s+(?:choice|pick|selection)\s+(?:is|of)\b"
    r"|\b(?:(?:i|we)(?:\s+(?:would|will|should))?|i'd|i'll|we'd|let's)\s+(?:choose|select|pick|go\s+with|say)\b"
    r"|\b(?:i|we)(?:'m|'re|\s+am|\s+are)\s+going\s+with\b|\b(?:choose|select)\s+(?=option\b|\()"
    r"|答案|答(?=[:：])|正确选项|(?:最佳|最合适|符合题意|不?正确|错误)的?(?:选项|一项|说法)?(?:是|为)|对应(?=\s?(?:选项\s?)?[A-J])|与(?=(?:选项)?[A-J])|即(?=[A-J])|(?<!不)(?<!可)(?<!备)选(?!项)(?:择)?"
    r"|(?:\b(?:wait|actually|sorry|correction|i\s+mean)[ ,:—–-]{1,4}|\bno(?:[,—–]|\s[—–-])\s?)"
    r"(?:it(?:['’]s|\s+is)\s)?(?=[(*]{0,3}(?-i:[A-Z])[)*]{0,3}(?:[.!;](?!\w|\s[a-z])|\n|\Z))"
)
_NOUN = late(r"(?i)(?:answer|option|choice|one|letter|response|statement)$")
_STOP = late(r"[.!?;](?=\s|$)|[。！？；]|\n")
_LEAD = late(
    r"[\s*_:：】\])>`\"'“‘]*+"
    r"(?:(?:is|are|be|was|would|should|must|will|option|choice|是|为|应该?为?|选项?)(?![a-z])[\s:：*_`\"'“‘(]*+)*+"
)
# A letter by itself, in quotes or underscores, too. `I` and `A` are words where a small word follows.
_BEFORE, _BEHIND = r"(?<![A-Za-z0-9\\^])(?<![A-Za-z0-9]['’_])", r"(?![A-Za-z0-9^])(?!['’_][A-Za-z0-9])"
_OPTION = late(rf"{_BEFORE}([A-Za-z]){_BEHIND}")
_REASONS = r"(?:because|since|as|is|are|was|and|or|for|which|with|but|due|\.|correct|right|option|选)"
_WORD = late(rf"(?-i:[AI])\s+(?!{_REASONS}\b)[a-z]|I\s+(?!because|since|is|and|or\b)\w|a\s")
_VARIABLE = late(r".\s?(?:[+≈≤≥]|=(?!>))|.\s[<>]\s")
_AMPERES = late(r"\d\s\Z")
_ASKED = late(r".[\s*_)\]\"”]{0,4}[?？]")
_ALSO = late(r"[\s*_)）.]{0,6}(?:(?:,|，|、|and|or|&|/|和|或)\s?){1,3}[*_(（]{0,4}(?:option\s)?([A-Z])(?![A-Za-z0-9])")
# In front of a letter in its sentence: it is one of those that are refused or merely named, ...
_NOT = late(
    r"(?i)(?:\bnot|cannot|n['’]t|\bnever|\brather\s+than|\binstead\s+of|\bneither|\bnor|\bexcept|\bthan|\bamong|\bbetween"
    r"|\b(?:none|one|out)\s+of|不是|不能?选|不应选|而非|并非|除了)"
    r"(?:[\s,，、()（）*_\"'“”/&]|选项|和|或|(?<![A-Za-z])(?:be|to|choose|select|pick|think|believe|say|that"
    r"|either|options?|choices?|or|nor|and|[A-Z])(?![A-Za-z]))*+$"
)
# ... it is supposed, or somebody else's opinion: in its own part of the sentence, ...
_TURN = late(r"(?i)[,;:，：；]|\b(?:but|then|however)\b|那么|则")
_SUPPOSED = late(
    r"(?i)\b(?:do\s+not|don['’]t|not)\s+(?:think|believe)\b|\bdoubt\b|\bunlikely\b"
    r"|\b(?:if|whether|(?<!\bi )(?:suppose|assume)|supposing|assuming|initially|originally|tempt\w{0,5})\b"
    r"|\b(?:wrong|mistake)\s+to\b|\b(?:may|might|could)\s+(?:\w{1,12}\s+)?"
    r"(?:think|seem|look|appear|say|believe|assume|guess|argue|choose|select|pick)\b"
    r"|\b(?:many|some|others|people|students)\b(?:\s+(?!i\b|we\b)\w{1,20}){0,3}?\s+"
    r"(?:think|say|choose|select|pick|argue|believe|(?<!the\s)answer)\b|如果|假如|假设|若"
)
# ... or it would be the answer to another question.
_UNREAL = late(r"(?i)(?:\bif\b(?!\s+(?:i|we)\s+ha(?:d|ve)\s+to\b)|^\W*had\b).*\bwould\b|\bwould\s+have\s+been\b")
# "Option C is correct", "(C) is the answer", "选项C正确"
_RIGHT = late(
    rf"(?:{_BEFORE}(?:(?i:option|choice|answer)\s+)?[*_(\[（“\"]{{0,4}}([A-Z])(?:[*_)\]）”\".:]{{1,4}}(?:\s?[^\W\d_][^.\n:;,。，]{{0,60}}?)?)?"
    r"\s{0,5}(?:is|would\s+be|must\s+be|seems)\s+(?:the\s+|my\s+)?(?:only\s+|most\s+)?(?:correct|right|best|better|true|accurate|answer)\b"
    r"|(?:选项\s*)?(?<![A-Z][、,，和与])([A-Z])\s*(?:选项|项)?\s*(?:是|为)?\s*(?:最)?(?:正确|符合题意|对(?=[。.]?$))"
    r"|([A-Z])\s{0,3}(?:选项|项)?\s{0,3}(?:是|为)(?:本题|此题)的?(?:正确)?答案"
    r"|\b(?i:so|therefore|thus|hence|in conclusion)[,:]?\s+"
    r"(?:it(?:['’]s|\s+is|\s+must\s+be)\s+)?(?i:option\s+)?[(*]{0,3}([A-Z])[)*]{0,3}(?=[.!]?\s*$|[.!]\s|\n)"
    r"|(?:∴|→|=>|⇒|\bi\.e\.,?)\s{0,3}(?:option\s)?[(*]{0,3}([A-J])[)*]{0,3}(?=[.!]?\s*$|[.!]\s|\n)"
    r"|(?:^|\n)[*_(]{0,4}([A-J])[*_)]{0,4},?\s+(?:because|since)\b)"
)
# What points at a letter without calling it the answer. In front of it: "It must be C.", "which is option C", "Pick C."
_POINTED = r"(?:(?i:option|choice) )?[*_(\[“\"]{0,4}([A-HJ-Z])[)\]*_”\"]{0,4}"
_ENDS = (
    r"(?=\s{0,3}(?:[.](?!\w|\s[a-z]|\s?[A-Z]\.)|[!;]|\n|\Z|(?i:because|since)\b"
    r"|,(?!\s?(?:[*(]{0,3}[A-Z]\b|and\b|or\b))))"
)
_POINTS = late(
    r"(?:(?i:\b(?:it|this|that|which)(?:['’]s| (?:is|must be|has to be|should be|can only be))"
    r"(?: (?:actually|really|indeed|definitely))? "
    r"|\b(?:corresponds? to|match(?:es)?|i\.e\.|i (?:think|believe)|probably|most likely) |[,(] ?(?=option\b|choice\b)"
    r"|(?:^|(?<=[.!:] ))[*_]{0,2}(?:choose|select|pick) "
    r"|\b(?:ans|correct|final|solution|result|choice|option)(?:[*_]{0,2}[:：][*_]{0,2} ?| is ))"
    rf"{_POINTED}{_ENDS}"
    # and behind it: "only C satisfies it", "Option C best describes this", "C is the one."
    rf"|{_BEFORE}(?i:(?:only )?option |only ){_POINTED} "
    r"(?i:best|satisf(?:y|ies)|fits?|match(?:es)?|works?|holds?|remains?|is the (?:one|only|most|closest))\b"
    rf"|{_BEFORE}{_POINTED} (?i:best (?:describes|fits|matches|explains)|fits best|is the only (?:option|choice|one))\b"
    rf"|{_BEFORE}{_POINTED} (?i:it is|is the one|is (?:the )?most (?:likely|plausible|appropriate))(?=[.!])"
    r"|[\s*]\(([A-J])\)[*_]{0,3}[.。]?\s{0,3}\Z|[\s.]\*\*\(?([A-J])\)?\*\*[.。]?\s{0,3}\Z"
    r"|(?:只有|仅有?)\s?(?:选项)?\s?([A-Z])\s?(?:选项|项)?(?:符合|满足|成立|对))",
    re.MULTILINE,
)
_MACRO = late(r"\\(?:text(?:bf|it|rm)?|math(?:bf|it|rm)|rm|bf)(?![A-Za-z])\s?|\\ |[{}$]")
_REST = r"[\s*_.。)\]）】`\"'”]*"
_BARE = (
    r"[\s*_()\[\]（）【】.。:：`\"'“”#>]*+(?:(?i:option|choice|选项)\s*+)?[*_(（]{0,3}([A-Za-z])(?![A-Za-z0-9])[)）]?"
)
_LETTER = late(rf"{_BARE}{_REST}")
_LETTER_AND_WORDS = late(rf"{_BARE}(?:[.):：、。）．][^\n]*|(?:选项|项))")
_BOXED = late(rf"{_BARE}(?:(?:[.):：、。）]|\s*[-–—(（]\s?[^\W\d_]{{2}})[^\n]*|{_REST})")
_CONNECTED = late(r"[:：=>\n–—-]|(?i:\b(?:is|be|was|are|option|choice)\b)|[^\x00-\x7f]")
_ASIDE = late(r"(?i)(?:correct|right|best|final)\s+\w+(?:\s?\([A-Z]\)|,\s\(?[A-Z]\)?,)")
_ALONE = late(
    r"(?:(?i:option|choice|选项)\s?)?[*(（\[]{0,3}([A-J])[*)）\].．]{0,3}(?:选项|项)?|[*(（]{0,3}([A-J])[*]{0,2}[.)）．](?!\s?[A-Z]\.)[^\n]{1,200}"
    r"|[*]{0,2}\(?([a-e])\)[*]{0,2}(?:\s[^\n]{1,200})?"
)
_ITEM = late(
    r"(?:^[ \t]{0,8}|(?<=[.;!] )|(?<=[。；]))(?:[-*•+]\s{1,3}|\d{1,2}[.)]\s{1,3}|#{1,6}\s{1,3})?"
    r"(?:(?i:option|choice|选项)\s?)?[*_(（]{0,4}([A-Za-z])[*_]{0,2}"
    r"(?:[.):：、）][*_]{0,2}(?=\s|[^\W\d_a-zA-Z]|$|[A-Z\d])|\s[-–—](?=\s[^\W\d_]{2})|\s?(?=[✓✔✅✗✘❌]))",
    re.MULTILINE,
)
# The options of a list on one line, "A. 5 B. 6 C. 7", from the first letter on.
_IN_LINE = late(r"(?<!\S)[*_(（]{0,4}([A-Z])[*_]{0,2}[.):：、）][*_]{0,2}(?=\s)")
_MARKED = late(
    r"(?i)✓|✔|✅|[(\[（]\s?correct(?:\s+answer)?\s?[)\]）]"
    r"|[.:：)—–-][*_]{0,2}\s*(?:this\s+is\s+)?(?:the\s+)?(?:correct|right)(?:\s+(?:answer|option|choice))?\b"
    r"(?=[*_]{0,2}\s*(?:[.,;:!)—–-]|\Z|\n|(?:because|since|as)\b))|(?<!不)正确(?!的?是|吗)"
)
_WRONG = late(r"(?i)\bincorrect|\bnot\s+(?:the\s+)?(?:correct|right)|\bwrong|✗|✘|❌|不正确|错误")
_WINDOW = 160  # characters behind a declaration
_SHORT = 200  # characters of a text that may be but a letter
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
            if letter := (box and self._only(_BOXED, box)) or self._only(_LETTER, said):
                return letter
        if self.pattern is not None:
            found = [letter.upper() for letter in re.findall(self.pattern, said) if self._option(letter)]
        else:
            found = self._declared(said)
            if not found and self.boxed:
                return self._on_a_line(said) or self._pointed_at(said) or self._listed(said)
        return found[0 if self.take == "first" else -1] if found else None

    def _option(self, letter: str) -> bool:
        return letter.upper() in self.letters

    def _only(self, shape: re.Pattern[str], text: str) -> str | None:
        """The letter of a short text that has a shape, whatever LaTeX it is set in."""
        found = shape.fullmatch(_MACRO.sub("", text)) if len(text) <= _SHORT else None
        return found[1].upper() if found and self._option(found[1]) else None

    def _declared(self, said: str) -> list[str | None]:
        """The letters of all declarations, in order; None for one that names two."""
        found: list[tuple[int, str | None]] = []
        clauses: list[tuple[int, int]] = []
        for place in self._taken(list(_DECLARES.finditer(said))):
            limit = min(place.end() + _WINDOW, len(said))
            lead = _LEAD.match(said, place.end(), limit)
            begin = lead.end() if lead else place.end()
            stop = _STOP.search(said, begin, limit)
            end = stop.start() if stop else limit
            named = self._named(said, begin, end)
            if named and _is_said(place[0], said[place.end() : limit], named[0] - place.end()):
                found.append(named)
                clauses.append((place.end(), end))
        for right in self._taken(list(_RIGHT.finditer(said))):
            at = right.start(right.lastindex or 0)
            letter = right[right.lastindex or 0]
            is_word = right.lastindex == 1 and _WORD.match(said, at)
            is_own = not any(begin <= at < end for begin, end in clauses)
            if self._option(letter) and not is_word and is_own and _is_meant(said, at):
                found.append((at, letter))
        return [letter for _, letter in sorted(found, key=lambda one: one[0])]

    def _taken(self, places: list[re.Match[str]]) -> list[re.Match[str]]:
        return places[-_MOST:] if self.take == "last" else places[:_MOST]

    def _named(self, said: str, begin: int, end: int) -> tuple[int, str | None] | None:
        """Where a declaration names its letter, and the letter; None for the letter where it names two."""
        for option in _OPTION.finditer(said, begin, end):
            at, letter = option.start(), option[1]
            is_first = not said[begin:at].strip(" \t*_\"'“(（[【$\\{}:：")
            if letter.islower() and not (is_first and not re.match(r"\s+\w", said[at + 1 : end])):
                continue
            if _VARIABLE.match(said, at) or _AMPERES.search(said, begin, at):
                return None  # "the answer: A = 5", "5 A"
            if not self._option(letter) or _WORD.match(said, at, end) or _ASKED.match(said, at):
                continue
            if not _is_meant(said, at):
                continue
            also = _ALSO.match(said, at + 1, end)
            if also and also[1] != letter.upper() and self._option(also[1]) and not _WORD.match(said, also.start(1)):
                return at, None
            return at, letter.upper()
        return None

    def _on_a_line(self, said: str) -> str | None:
        """The letter that is all of the first or the last line, where no line is another letter."""
        lines = said.split("\n")
        letter = self._only(_LETTER, lines[0]) or self._only(_LETTER, lines[-1])
        return letter if letter and {self._only(_LETTER, line) for line in lines} <= {letter, None} else None

    def _pointed_at(self, said: str) -> str | None:
        """The one letter that something points at without calling it the answer; None where there are two."""
        letters = {
            place[place.lastindex or 0]
            for place in self._taken(list(_POINTS.finditer(said)))
            if _is_meant(said, place.start(place.lastindex or 0))
        }
        letter = letters.pop() if len(letters) == 1 else None
        return letter if letter and self._option(letter) else None

    def _listed(self, said: str) -> str | None:
        """Without a declaration: the one option that is given or marked as right, else that of the last line."""
        items = self._items(said)
        if len({item[1] for item in items}) == 1 and items[0].start() == 0:
            return (
                None
                if _WRONG.match(said[items[0].end() : items[0].end() + 40].strip(" *_-–—"))
                else items[0][1].upper()
            )
        ends = [*[item.start() for item in items[1:]], len(said)][: len(items)]
        marked = {
            item[1].upper()
            for item, end in zip(items, ends, strict=True)
            if _MARKED.search(part := said[item.start() : min(end, item.start() + 400)]) and not _WRONG.search(part)
        }
        if len(marked) == 1:
            return marked.pop()
        return None if len(items) > 1 else self._only(_LETTER_AND_WORDS, said[said.rfind("\n") + 1 :])

    def _items(self, said: str) -> list[re.Match[str]]:
        """The options that are walked through, each at the head of a line or a sentence, or all in one line."""
        items = [item for item in _ITEM.finditer(said) if self._option(item[1])]
        in_line: list[re.Match[str]] = []
        for item in _IN_LINE.finditer(said):
            if item[1] == "ABCDEFGHIJ"[len(in_line) : len(in_line) + 1]:
                in_line.append(item)
        return max(items, in_line, key=len)[-_MOST:]


def option_alone(words: str) -> str | None:
    """The letter where words are but an option: "B", "(B)", "B. Paris", in LaTeX too; no initial ("J. K. Rowling")."""
    found = _ALONE.fullmatch(_MACRO.sub("", words).strip())
    return next(letter for letter in found.groups() if letter).upper() if found else None


def _is_said(anchor: str, behind: str, at: int) -> bool:
    """Whether a letter behind "answer" is what the answer is: "The answer A. Shark is a mammal" settles nothing."""
    between = re.sub(r"(?i)option|choice", "", anchor) + behind[:at]
    if not _NOUN.search(anchor) or _CONNECTED.search(between) or _ASIDE.match(anchor + behind):
        return True
    return not behind[at + 1 :].partition("\n")[0].strip(" *_).!")


def _is_meant(said: str, at: int) -> bool:
    """Whether what stands in front of a letter affirms it: no "not A, B or", no "if we choose", no "many would say"."""
    front = _STOP.split(said[max(0, at - _WINDOW) : at])[-1]
    return not (_NOT.search(front[-60:]) or _SUPPOSED.search(_TURN.split(front)[-1]) or _UNREAL.search(front))


multiple_choice = MultipleChoice()
released_choice = MultipleChoice(pattern=RELEASED_PATTERN, take="first", boxed=False, letters="ABCD")
