r"""Which expression a sentence says: `18` in "She makes 9 * 2 = $18 every day, which is more than 9."

It takes it out as it is written; what it means is the matter of `plain`.
"""

from __future__ import annotations

import re

from tts_search.grading.late import late
from tts_search.grading.places import CONCLUDES, MARKS, NEGATIVE
from tts_search.grading.plain import NUMBER_WORDS, latex, quantity
from tts_search.grading.units import COMPOUND, MAGNITUDE, split_unit

_WINDOW = 400  # characters of a sentence
_LABEL = late(
    r"(?i)(?<!\s)\s*(?:[-*•]\s+)?(?:(?:final\s+)?(?:answer|result|solution|output)\s*(?:[:：=]|is\b)|(?:A|Ans)\s*[:：])\s*(?=[-+$\\(\d√€£¥½])"
)
_LONGEST = 2_000  # characters of an answer that may come down to an expression
_AMOUNT = (
    r"[-+−]?\s?\\?[$€£¥]?\s?-?(?:\d{1,3}(?:,\d{3})+(?!\d)|[1-9]\d{0,2}(?: \d{3})+(?![\d,])|\d+)"
    r"(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?!\w))?"
)
_NUMBER = rf"{_AMOUNT}|(?<![\d.])[-+]?\.\d+"
_FRACTION = (
    rf"(?:\d{{1,9}}\s(?=\d{{1,9}}/\d))?(?:{_NUMBER})(?:\s?/\s?\d+(?!\s?[\d/])|(?::\d{{1,9}}(?!\w))+)?"
    rf"(?:\s*(?:\\?%|％|{MAGNITUDE}|°))?"
)
_NOT_SO = late(rf"(?i)(?:\b(?:is|are|was)(?:n't|\s+not)\s+|不(?:是|为|等于)\s?)[-+$\\(]?{_FRACTION}")
_LATIN = r"A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"  # words of which run into numbers, as Chinese ones do not
NUMBERS = late(rf"(?<![{_LATIN}\d.\\^_])(?:{_FRACTION})")
_SPAN = late(
    r"\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]|\$\$(.{1,300}?)\$\$|(?<![\\A-Za-z0-9_])\$([^$\n]{1,200}?)(?<!\\)\$(?!\d)"
)
_CONNECTS = late(r"[\s,，]{0,9}(?:and|or|或者?|和)?[\s,，]{0,9}")
_TOKEN = late(
    r"\\[A-Za-z]+|\\.|(?:sqrt|pi|sin|cos|tan|log|ln|exp|inf|infinity|or|and)(?![A-Za-z])|[A-Za-z](?![A-Za-z])"
    rf"|[0-9]+(?:,\d{{3}})*|(?<=\d)(?:\s?[:：∶]\s?)(?=\d)|又(?=\d)|(?:[百千]?分之)(?=\d)|(?<=\d){MAGNITUDE}"
    r"|[-+*/^=≈(){}\[\],.<>|!%％°√∛π½⅓⅔¼¾¹²³⁰-⁹⁺⁻×÷·−–∞±≤≥~_$€£¥&;，、或和与]|\s+"
)
# Words in front of an amount that say nothing.
_HEDGE = late(
    r"(?i)(?:(?:a|an|the|about|approximately|exactly|roughly|only|around|just|total|sum|of|equal|to|simply|indeed)\s{1,3}){1,6}(?=[-+$\\(\d.√€£¥])"
)
_WORD = late(
    r"\s?((?:square\s|cubic\s)?(?:[A-Za-z°%/]{1,20}|[\u4e00-\u9fff]{1,4}(?:/[\u4e00-\u9fff]{1,2})?)(?:\^[23]|[²³])?)"
)
_MORE = late(rf"(?i)\s?(?:{COMPOUND}|[ap]\.?m\b\.?|{MAGNITUDE})")
# No amount: 3至5, 7 remainder 2, 大于7.
_RANGE = late(r"\d\s?(?:[到至余]|remainder|and\s+a\s+remainder\s+of)\s?\d|^\s*(?:大于|小于|不到|超过|高于|低于)")
_IS = late(r"(?i)\b(?:is|are|equals)\s|[是为]|等于")
# What says an amount anew: "7, i.e. one week", "160 minutes (2 hours and 40 minutes)".
_THAT_IS = late(r",?\s+[-–—]?\s?(?:i\.e\b|e\.g\b|that\s+is\b)")
# Ratios, and amounts of two things.
_TO = late(r"\s*\d{1,9}(?:\.\d{1,9})?\s+to\s+\d{1,9}(?:\.\d{1,9})?(?=\W*$)")
_EACH = late(r"\$?\d[\d.,]*\s(?:[a-z]+\s){1,3}(?:and|plus)\s\$?\d[\d.,]*\s[a-z]|\d+[\u4e00-\u9fff]{1,2}\d")
_REMARK = late(
    r"(?:(?<=[\d%}）)])|(?<=[a-z]{3}))\s+[(（][^()（）]{0,60}?(?:[A-Za-z]{3}|=|≈)[^()（）]{0,60}[)）](?=\s*(?:$|[.,。]))"
    r"|(?<=[\d%}])\s+[(（][-\d./ ]{1,12}[)）](?=\s*(?:$|[.,。]))"
)
_RATIO = late(
    r"(?:^|(?<!\d)[:：]\s*|[=是为]\s*|\b(?:is|are|be|of)\s+)(\d{1,9}(?:\.\d{1,9})?(?:(?:\s?[:：∶]\s?\d{1,9}(?:\.\d{1,9})?)+|\s+to\s+\d{1,9}))\W*$"
)
# Where an amount is attained, behind it and in front of it.
_CONDITION = late(
    r"(?i)(?<=[\d$)}\]%])[,，]?\s*\(?(?:which\s+)?(?:is\s+|are\s+)?(?:attained|achieved|occurs?|occurring|reached|obtained|taken)?\s*"
    r"\b(?:at|when|where|if)\s+\$?\\?\(?\s?[a-zθ](?:_\w|[₀-₉])?\s?=[^,;]*$|[,，](?:当且仅当|此时|其中).*$"
)
# A tuple, a set, an interval or several named values that a line ends on.
_GROUP = late(
    r"(?<![A-Za-z0-9_\\})])(?:[(\[（{]\s?[-+−\d√π∞\\a-z.][^()\[\]{}（）\n=]{0,60}[,，][^()\[\]{}（）\n=]{1,60}[)\]）}](?:\s?[∪∩]\s?(?=[(\[（{])|(?=\s?[.。]?$))){1,4}\s?[.。]?$"
    r"|(?<![A-Za-z0-9_\\])[a-z](?:_\w|[₀-₉])?\s?=\s?[-+−\d√\\][^=,，;；\n]{0,30}(?:\s?(?:[,，;；、]|\band\b|\bor\b|或|和)\s?(?:and\s|or\s)?[a-z](?:_\w|[₀-₉])?\s?=\s?[-+−\d√\\][^=,，;；\n]{0,30}){1,5}$"
)
# What follows an amount without being one: "out of 12", "in 3 hours", "of 14 and 21".
_ASIDE = late(
    r"(?i)(?<=[\d$])(?P<what>,?\s(?:[a-z]+\s){0,6}?)(?:(?:left\s)?out\s+of|from|per|between|of(?=\s+(?:the\s+)?\$?\d)|(?:greater|less|more|fewer|larger|smaller)\s+than|when|in(?=\s+\d+\s+(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)\b))\s[^=,;]*\d[^=,;]*$"
)
_FIRST = late(r"(?i)^\W*(?:当|when\b|if\b|for\b|at\b)[^,，]{1,60}[,，]\s*(?:有|则|then\s)?(?=.*\d)")
# Sentences that are about one number: "She has 42 apples left".
_OF_SOMEBODY = late(
    r"(?i:she|he|they|we|it|there|i|you|this|that|each|the\s+total)\b|[A-Z][a-z]{1,15}(?:['’]s)?\s(?<!The\s)(?!of\b|and\b|is\b(?!\snow))|[\u4e00-\u9fff]{1,8}\d"
)
_NEXT = late(r"(?<=\d)\s+(?=\d+-[A-Za-z])")  # of "5 30-minute episodes"
_SO = late(r"[,;]\s(?:so|thus|hence|therefore|and)\b")
_VARIABLE = late(r"(?<![A-Za-z])[a-zθ]\)?\s?$")
# An answer of one letter or one word that is a number.
_LETTER = late(rf"(?i)[b-hj-z]|infinity|{'|'.join(NUMBER_WORDS)}")
_TEXTS = late(r"\\(?:text|mathrm|textbf|mathbf|boldsymbol)\s*\{[^{}]{0,100}\}")
_BOLD = late(rf"\*\*[^*\n\d]{{0,40}}?({_FRACTION})[^*\n\d]{{0,40}}\*\*")
# A number behind a verb.
_SAID = late(
    rf"(?i)(?<![a-z])(?:is|are|was|were|be|has|have|had|equals?|costs?|needs?|makes?|made|earns?|earned|spends?|spent|saves?|saved|pays?|paid|sold|gets?"
    rf"|left|remains?|takes?|took|total(?:\s+of)?|approximately|about|exactly|now|ran|travels?|ends?\s+up\s+with|runs?|walk(?:s|ed)|bought|buys?|receives?|received|collects?|gives?)"
    rf"\s+(?:[a-z]+\s+){{0,2}}?({_FRACTION})|(?:是|为|有|等于|共|得到?|剩下?|花了?|用了?|需要?|今年|约)\s?({_FRACTION})"
)


def stated_expression(words: str, *, is_declared: bool) -> str | None:
    """The expression that an answer in words comes down to; None where the words are the answer.

    Numbers in passing ("Paris, the 2nd city") are none. What was not declared must be nothing but an expression, end on
    one ("The probability is 1/2.") or draw a conclusion ("So she has 18 left").
    """
    if len(words) > _LONGEST:
        return None
    plain = _HEDGE.sub("", _LABEL.sub("", MARKS.sub("", words).strip(" :："), count=1))
    if quantity(latex(plain)):
        return plain
    concludes = CONCLUDES.match(plain)
    if whole := _prefix(plain, whole=True):
        return whole
    tails = [plain[concludes.end() :] if concludes else "", _IS.split(plain)[-1]]
    if "=" not in plain and (whole := next((whole for tail in tails if (whole := _whole(tail))), None)):
        return whole
    if group := _GROUP.search(plain):
        return group[0].strip(" .。")
    if not is_declared and not (concludes or "=" in plain or _BOLD.search(words) or _tells(plain)):
        return None
    if _EACH.match(plain):
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
    if about := _about(plain):
        return about
    at = plain.rfind("=")
    if at >= 0 and (tail := _prefix(plain[at + 1 :])):
        return tail
    if bold := _BOLD.findall(words):
        return bold[-1].strip()
    return _last_said(plain)


def _whole(tail: str) -> str | None:
    r"""What stands behind "so" or "is", where that is an amount and nothing more: `42 apples`, `$2\sqrt{3}$ cm`."""
    tail = tail.strip(" ,，:：.。*")
    if quantity(latex(tail)):
        return tail
    span = _SPAN.match(tail)
    return _joined(tail) if span and len(tail) - span.end() < 20 else _prefix(tail, whole=True)


def _tells(plain: str) -> bool:
    """Whether a sentence does nothing but tell one number of somebody: "She has 42 apples left"."""
    if re.search(r"[.!?]\s+[A-Z]", plain):
        return False
    return _OF_SOMEBODY.match(plain) is not None and _last_said(plain) is not None and len(NUMBERS.findall(plain)) == 1


def first_expression(said: str) -> str | None:
    """The expression that a sentence begins with, else its first formula or number."""
    head = _LABEL.sub("", said, count=1)
    if ratio := _TO.match(head):
        return ratio[0].strip()
    if _RANGE.search(head) or (_EACH.match(head) and not quantity(latex(head))):
        return ""  # between two numbers, or of two things
    if _LETTER.fullmatch(head.strip()):
        return head.strip()
    span = _SPAN.match(head.lstrip())
    if span and (whole := _joined(head.lstrip())):
        return whole
    if prefix := _prefix(head):
        return prefix
    if span := _span(head, last=False):
        return span
    number = NUMBERS.search(head)
    return _with_unit(head, number) if number else None


def last_expression(line: str) -> str | None:
    """The expression that a line ends on: its last formula, behind its last `=`, in bold, or behind a verb."""
    bold = _BOLD.findall(line)
    plain = NEGATIVE.sub("-", _NOT_SO.sub("", MARKS.sub("", line))).strip(" *_\t")
    plain = _FIRST.sub("", _CONDITION.sub("", _REMARK.sub("", _LABEL.sub("", plain, count=1))))
    if whole := _prefix(plain, whole=True):
        return whole
    if ratio := _RATIO.search(plain):
        return ratio[1]
    if group := _GROUP.search(plain):
        return group[0].strip(" .。")
    if "=" not in plain and (whole := _whole(_IS.split(plain)[-1])):
        return whole
    plain = _ASIDE.sub(r"\g<what>", plain)
    said = _last_said(plain)
    if (span := _span(plain, last=True)) and not (said and re.search(r"\$\s(?:is|equals)\s[^$]*$", plain)):
        return span
    if about := _about(plain):
        return about
    at = plain.rfind("=")
    is_condition = (
        at >= 0 and (_VARIABLE.search(plain[:at]) or _SO.search(plain, at)) and _SAID.search(plain, at + 1)
    )  # at x = 3 it is 7
    if at >= 0 and not is_condition and (tail := _prefix(plain[at + 1 :])):
        return tail
    if bold:
        return bold[-1].strip()
    if said:
        return said
    numbers = list(NUMBERS.finditer(plain))
    return _with_unit(plain, numbers[-1]) if numbers else None


def _about(plain: str) -> str | None:
    """`3/7 ≈ 0.43` with what it rounds."""
    at = plain.rfind("≈")
    if at < 0:
        return None
    begin = plain.rfind("=", 0, at) + 1
    for begins in _IS.finditer(plain, begin, at):
        begin = begins.end()
    chain = _prefix(plain[begin:])
    return chain if chain and "≈" in chain else _prefix(plain[at + 1 :])


def _last_said(plain: str) -> str | None:
    """The number behind the last verb, with what belongs to it: `2√3`, `1.6×10⁻¹⁹`, `10 am`."""
    said = None
    for said in _SAID.finditer(plain):  # noqa: B007 - the last one
        pass
    if said is None:
        return None
    begin = said.start(said.lastindex or 1)
    number = NUMBERS.match(plain, begin)
    if number is None:
        return said[said.lastindex or 1].strip()
    if re.match(r"\s?[√π^×·(\\]|\s[x*]\s?10\^", plain[number.end() :]) and (longer := _prefix(plain[begin:])):
        return longer
    return _with_unit(plain, number)


def _span(line: str, *, last: bool) -> str | None:
    """The content of a formula in a line, the first, or the last with those that stand together with it."""
    spans = [
        (found, content.strip())
        for found in _SPAN.finditer(line)
        if re.search(r"\w", content := next(part for part in found.groups() if part is not None))
        and (found[4] is None or not re.search(r"[a-z]{3}", re.sub(r"\\[A-Za-z]+(?:\{[a-z ]*\})?", "", content)))
    ]
    if not spans or not last:
        return spans[0][1] if spans else None
    begin = len(spans) - 1
    while begin and _CONNECTS.fullmatch(line, spans[begin - 1][0].end(), spans[begin][0].start()):
        begin -= 1
    return ", ".join(content for _, content in spans[begin:])


def _joined(text: str) -> str | None:
    r"""Formulas that stand together at the beginning: `\(1\) and \(2\)`."""
    parts: list[str] = []
    at = 0
    for found in _SPAN.finditer(text):
        if parts and not _CONNECTS.fullmatch(text, at, found.start()):
            break
        parts.append(next(part for part in found.groups() if part is not None).strip())
        at = found.end()
    if found := _span(text[:at], last=False):
        return ", ".join(parts) if len(parts) > 1 else _with_word(found, text[at : at + 60])
    return None


def _prefix(text: str, *, whole: bool = False) -> str | None:
    """What of the beginning can be read as mathematics; with `whole` None where words are left behind it."""
    text = _NEXT.split(text, maxsplit=1)[0]
    text = _THAT_IS.split(_REMARK.sub("", text[:_WINDOW]), maxsplit=1)[0]
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
    head = head.rstrip(" ,;:.(=&~≈，；：、。-–—").strip()
    if re.sub(r"\\[{}]", "", head).count("{") != re.sub(r"\\[{}]", "", head).count("}"):
        return None  # cut in the middle
    if rest[:1].isupper() and re.search(r"\\[A-Za-z]+$", head):
        return None  # \\triangle ABC
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
    """A number with what makes another of it: `5 km`, `3 hours and 20 minutes`, `10 am`, `3 million`."""
    if not re.search(r"\d\s*$", head):
        return head
    if more := _MORE.match(rest):
        return head + more[0].rstrip()
    found = _WORD.match(rest)
    if found is None or found[1] in ("in", "s", "a"):
        return head
    word = found[1].replace("²", "^2").replace("³", "^3")
    return f"{head} {word}" if split_unit(f"1 {word}")[1] else head
