r"""What a text says its final answer is: in its last box, where it declares one, else at its end.

It finds words and expressions; what they mean is `plain`'s and the graders' matter. Linear in the length of the text:
every search looks at a bounded stretch of it.
"""

from __future__ import annotations

import re

from tts_search.grading.answers import after_thinking, last_boxed
from tts_search.grading.plain import latex, quantity
from tts_search.grading.units import split_unit

_DECLARES = re.compile(
    r"(?i)(?<![A-Za-z])(?:answer|solution|result)(?![A-Za-z])|####|\\boxed(?=\s+[^\s{])|<(?:final_)?(?:answer|output|solution)>|"
    r"答案|答(?=[:：])|结果(?=[是为:：])"
)
_SAYS = re.compile(
    r"(?i)(?:\s+(?:to|for|of|in|from)\s[^\n:：=.?]{0,80}?)?[\s_*\"'”)】\]]{0,5}"
    r"(?:(?:is|was|are|would\s+be|should\s+be|must\s+be|will\s+be|equals|comes\s+(?:out\s+)?to|应该是|应当是|应该为|应该|应为|应是|是|为|等于)(?![A-Za-z])"
    r"[\s_]{0,3}[:：]?|[:：=])"
)
_CUT = re.compile(r"(?<![A-Z\d])[.!?](?=\s)|(?<=\d)[.!?](?=\s+[A-Z])|[。！？]|</(?:final_)?(?:answer|output|solution)>")
_RIGHT = re.compile(
    r"(?i)[\s,]{0,3}(?:is|are|must\s+be|should\s+be)\s+(?:the|our|your|my)?\s*(?:(?:final|correct|right|desired)\s+)*(?:answer|solution|result)(?![A-Za-z])"
    r"|\s*是(?:正确|最终)?(?:的)?答案"
)
_FAREWELL = re.compile(
    r"(?i)hope\s+(?:this|that|it)\s|let\s+me\s+know|feel\s+free|if\s+you\s+(?:have|need|would)|any\s+(?:more|other|further)\s+questions"
    r"|happy\s+to\s+help|glad\s+to\s+help|good\s+luck|^\W*thank|^\W*you'?re\s+welcome|希望.{0,10}帮助|如有.{0,10}疑问"
)
_MARKS = re.compile(
    r"(?<![\w)\]])\*\*|\*\*(?![\w(\[])|(?<!\w)__|__(?!\w)|^\s{0,3}#{1,3}(?!#)\s*|^\s*>\s*|`", re.MULTILINE
)
_LABEL = re.compile(
    r"(?i)\s*(?:[-*•]\s+)?(?:(?:final\s+)?(?:answer|result|solution|output)\s*(?:[:：=]|is\b)|(?:A|Ans)\s*[:：])\s*(?=[-+$\\(\d√€£¥½])"
)
_MOST = 20  # declarations that are looked at, from the last one on
_WINDOW = 400  # characters behind one
_LINES = 40  # lines from the end

_AMOUNT = r"[-+−]?\s?\\?[$€£¥]?\s?-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?!\w))?"
_NUMBER = rf"{_AMOUNT}|(?<![\d.])[-+]?\.\d+"
_FRACTION = rf"(?:{_NUMBER})(?:\s?/\s?\d+(?!\s?[\d/]))?(?:\s*(?:\\?%|％|(?:thousand|million|billion)\b|°))?"
_NUMBERS = re.compile(rf"(?<![\w.\\^_])(?:{_FRACTION})")
_SPAN = re.compile(
    r"\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]|\$\$(.{1,300}?)\$\$|(?<![\\\w])\$([^$\n]{1,200}?)(?<!\\)\$(?!\d)"
)
_TOKEN = re.compile(
    r"\\[A-Za-z]+|\\.|(?:sqrt|pi|sin|cos|tan|log|ln|exp|inf|infinity|or|and)(?![A-Za-z])|[A-Za-z](?![A-Za-z])|[0-9]+(?:,\d{3})*"
    r"|[-+*/^=(){}\[\],.<>|!%°√∛π½⅓⅔¼¾²³⁰-⁹⁻×÷·−–∞±≤≥~_$€£¥&;，、或和与]|\s+"
)
_HEDGE = re.compile(
    r"(?i)(?:(?:a|an|the|about|approximately|exactly|roughly|only|around|just|total|sum|of|equal|to|simply|indeed)\s+)+(?=[-+$\\(\d.√€£¥])"
)
_CONCLUDES = re.compile(
    r"(?i)\W{0,3}(?:so|therefore|thus|hence|in\s+total|in\s+conclusion|finally|altogether|overall|this\s+means|that\s+means|consequently|(?:the\s+)?total|因此|所以|综上)(?![A-Za-z])"
)
_CALCULATOR = re.compile(r"<<[^<>]{0,200}>>")
_TEXTS = re.compile(r"\\(?:text|mathrm|textbf|mathbf|boldsymbol)\s*\{[^{}]{0,100}\}")
_BOLD = re.compile(rf"\*\*[^*\n\d]{{0,40}}?({_FRACTION})[^*\n\d]{{0,40}}\*\*")
_SAID = re.compile(
    rf"(?i)(?<![a-z])(?:is|are|was|were|be|has|have|had|equals?|costs?|needs?|makes?|made|earns?|earned|spends?|spent|saves?|saved|pays?|paid|sold|gets?"
    rf"|left|remain(?:s|ing)?|takes?|took|total(?:\s+of)?|approximately|about|exactly|now|ran|runs?|walk(?:s|ed)|bought|buys?|receives?|received|collects?|gives?)"
    rf"\s+(?:[a-z]+\s+){{0,2}}?({_FRACTION})"
)


def final_expression(text: str) -> str | None:
    r"""The mathematical expression that a text ends on, as it is written there: `\frac12`, `$18`, `5 km`, `x = 3`.

    None where there is none, and where the last box was never closed: that answer was cut off.
    """
    text = after_thinking(text)
    box = last_boxed(text)
    if box is not None:
        return box or None
    for said, is_in_front in _declared(text):
        if found := (_last_expression if is_in_front else _first_expression)(said):
            return found
    for line in _last_lines(text):
        if found := _last_expression(line):
            return found
    return None


def final_number(text: str) -> str | None:
    """The last number of what `final_expression` finds, else of the text."""
    said = final_expression(text) or ""
    behind = after_thinking(text)
    for place in (said, "" if last_boxed(behind) == "" else behind[-4_000:]):
        if numbers := _NUMBERS.findall(place):
            return numbers[-1].strip()
    return None


def final_words(text: str) -> tuple[str, bool] | None:
    """What a text of any kind answers, and whether it says so itself: in a box or a declaration.

    Else it is the last line with anything on it but farewells, marks and fences. None for an empty text, and where the
    last box was never closed.
    """
    text = after_thinking(text)
    box = last_boxed(text)
    if box is not None:
        return (box, True) if box else None
    for said, _ in _declared(text):
        return said, True
    for line in _last_lines(text):
        return _MARKS.sub("", line).strip(), False
    return None


def stated_expression(words: str, *, is_declared: bool) -> str | None:
    """The expression that an answer in words comes down to; None where the words are the answer.

    Numbers in passing ("Paris, the 2nd city") are none. What was not declared must be nothing but an expression or draw
    a conclusion ("So she has 18 left").
    """
    plain = _HEDGE.sub("", _LABEL.sub("", _MARKS.sub("", words).strip(" :："), count=1))
    if quantity(latex(plain)):
        return plain
    if whole := _prefix(plain, whole=True):
        return whole
    if not is_declared and not (_CONCLUDES.match(plain) or "=" in plain or _BOLD.search(words)):
        return None
    span = _SPAN.match(plain)
    if span and (joined := _joined(plain)):
        return joined
    if (
        is_declared
        and not re.match(r"\d+(?:st|nd|rd|th)\b|\d{1,2}[:.]\s|\d+-[A-Za-z]", plain)
        and (head := _prefix(plain))
    ):
        return head
    if found := _span(plain, last=True):
        return found
    at = max(plain.rfind("="), plain.rfind("≈"))
    if at >= 0 and (tail := _prefix(_CALCULATOR.sub("", plain[at + 1 :]))):
        return tail
    if bold := _BOLD.findall(words):
        return bold[-1].strip()
    said = list(_SAID.finditer(plain))
    number = _NUMBERS.match(plain, said[-1].start(1)) if said else None
    return _with_unit(plain, number) if number else None


def _declared(text: str) -> list[tuple[str, bool]]:
    """What the last declarations say, the last one first, and whether it stands in front ("42 is the answer")."""
    found: list[tuple[str, bool]] = []
    for place in list(_DECLARES.finditer(text))[-_MOST:][::-1]:
        word = place[0].lower()
        line = text[
            max(text.rfind("\n", max(0, place.start() - _WINDOW), place.start()), place.start() - _WINDOW)
            + 1 : place.end()
        ]
        if word in ("answer", "solution", "result", "答案"):
            window = _MARKS.sub("", text[place.end() : place.end() + _WINDOW])
            is_heading = re.fullmatch(
                r"[#*\s\d._]*(?:(?i:the|final|correct)\s+)*\W{0,2}(?i:answer|solution|result)|[#*【\s]*(?:最终)?答案",
                line,
            )
            says = _SAYS.match(window)
            if says:
                behind = window[says.end() :]
            elif is_heading and re.match(r"[\s】\])]*\n|】", window):
                behind = window.lstrip("】")
            else:
                said = _in_front(text, place)
                found += [(said, True)] if said else []
                continue
        else:
            behind = _MARKS.sub("", text[place.end() : place.end() + _WINDOW])
        if said := _sentence(behind):
            found.append((said, False))
    return found


def _in_front(text: str, place: re.Match[str]) -> str | None:
    """`42` in "42 is the correct answer"."""
    begin = text.rfind("\n", max(0, place.start() - _WINDOW), place.start()) + 1
    line = _MARKS.sub("", text[max(begin, place.start() - _WINDOW) : place.end()])
    right = None
    for right in _RIGHT.finditer(line):  # noqa: B007 - the last one
        pass
    if right is None or right.end() != len(line):
        return None
    head = line[: right.start()].strip()
    said = re.split(r"(?<=[.!?:;])\s|,\s(?!\d)|(?i:^|\s)(?:so|thus|hence|therefore)\s", head)[-1].strip()
    return said if said and not re.fullmatch(r"(?i)this|that|it|which|what|here|who", said) else None


def _sentence(behind: str) -> str:
    """The first sentence with anything in it, over line breaks and marks of displayed formulas."""
    for line in behind.split("\n"):
        words = line.strip().strip("*_ ")
        if not re.search(r"\w|\\[A-Za-z]|[√∞∅]", words):
            continue  # `\\[` and `$$`
        cut = _CUT.search(words)
        return (words[: cut.start()] if cut else words).strip().rstrip(" .。*_").lstrip(" :：*_").strip()
    return ""


def _last_lines(text: str) -> list[str]:
    """The lines at the end that say something, the last one first."""
    lines = [line for line in text.rsplit("\n", _LINES + 1)[-_LINES:] if re.search(r"\w", line)]
    kept = [
        line for line in lines if not line.lstrip().startswith(("```", "~~~")) and not _FAREWELL.search(line[:_WINDOW])
    ]
    return [line[-2_000:] for line in reversed(kept)]


def _first_expression(said: str) -> str | None:
    """The expression that a sentence begins with, else its first formula or number."""
    head = _LABEL.sub("", said, count=1)
    span = _SPAN.match(head.lstrip())
    if span and (whole := _joined(head.lstrip())):
        return whole
    if prefix := _prefix(head):
        return prefix
    if span := _span(head, last=False):
        return span
    number = _NUMBERS.search(head)
    return _with_unit(head, number) if number else None


def _last_expression(line: str) -> str | None:
    """The expression that a line ends on: its last formula, behind its last `=`, in bold, or behind a verb."""
    bold = _BOLD.findall(line)
    plain = _MARKS.sub("", line).strip()
    plain = _LABEL.sub("", plain, count=1)
    if whole := _prefix(plain, whole=True):
        return whole
    if span := _span(plain, last=True):
        return span
    at = max(plain.rfind("="), plain.rfind("≈"))
    if at >= 0 and (tail := _prefix(_CALCULATOR.sub("", plain[at + 1 :]))):
        return tail
    if bold:
        return bold[-1].strip()
    said = list(_SAID.finditer(plain))
    if said:
        number = _NUMBERS.match(plain, said[-1].start(1))
        return _with_unit(plain, number) if number else said[-1][1].strip()
    numbers = list(_NUMBERS.finditer(plain))
    return _with_unit(plain, numbers[-1]) if numbers else None


def _span(line: str, *, last: bool) -> str | None:
    """The content of a formula in a line, the last or the first; of an equation in it the last side."""
    spans = [
        content
        for found in _SPAN.finditer(line)
        if re.search(r"\w", content := next(part for part in found.groups() if part is not None))
        and (found[4] is None or not re.search(r"[a-z]{3}", re.sub(r"\\[A-Za-z]+(?:\{[a-z ]*\})?", "", content)))
    ]
    if not spans:
        return None
    return spans[-1 if last else 0].strip()


def _joined(text: str) -> str | None:
    r"""Formulas that stand together at the beginning: `\(1\) and \(2\)`."""
    parts: list[str] = []
    at = 0
    for found in _SPAN.finditer(text):
        if parts and not re.fullmatch(r"[\s,]*(?:and|or|或|和)?[\s,]*", text[at : found.start()]):
            break
        parts.append(next(part for part in found.groups() if part is not None).strip())
        at = found.end()
    if found := _span(text[:at], last=False):
        return ", ".join(parts) if len(parts) > 1 else _with_word(found, text[at : at + 60])
    return None


def _prefix(text: str, *, whole: bool = False) -> str | None:
    """What of the beginning can be read as mathematics; with `whole` None where words are left behind it."""
    text = text[:_WINDOW]
    at = 0
    while at < len(text):
        token = _TEXTS.match(text, at) or _TOKEN.match(text, at)
        if token is None:
            break
        at = token.end()
    head = text[:at].strip()
    rest = text[at:].strip()
    if rest and re.match(r"[A-Za-z]", rest):
        head = re.sub(r"(?:^|(?<=[\s,]))(?:[aAI]|and|or)$", "", head).strip()
    head = head.rstrip(" ,;:.(=&~").strip()
    if not re.search(r"\d|[A-Za-zπ∞√½⅓⅔¼¾]", head) or re.fullmatch(r"(?:and|or|[a-z]|[aAI])\W*", head):
        return None
    if whole and rest:
        return None
    if not re.search(r"[\d\\π∞√½⅓⅔¼¾=^*/+-]", head):
        return None
    return _with_word(head, rest)


def _with_unit(line: str, number: re.Match[str]) -> str:
    return _with_word(number[0].strip(), line[number.end() : number.end() + 60])


def _with_word(head: str, rest: str) -> str:
    """A number and the unit behind it, if the next word is one: `5` and ` km away` are `5 km`."""
    found = re.match(r"\s?((?:square\s|cubic\s)?[A-Za-z°%/]{1,20}(?:\^[23]|[²³])?)", rest)
    if found is None or not re.search(r"\d\s*$", head) or found[1] in ("in", "s", "a"):
        return head
    word = found[1].replace("²", "^2").replace("³", "^3")
    return f"{head} {word}" if split_unit(f"1 {word}")[1] else head
