r"""Where in a text an answer stands that is in no box: behind what declares it, in front of that, or at the end.

It finds sentences and lines; what they say is the matter of `sentences`. Linear in the length of the text: every search
looks at a bounded stretch of it.
"""

from __future__ import annotations

import re

from tts_search.grading.late import late

_DECLARES = late(
    r"(?i)(?<![A-Za-z])(?:(?:answer|solution|result)s?|roots?(?=\s+(?:is|are)\b))(?![A-Za-z])|####|\\boxed(?=\s+[^\s{])"
    r"|<(?:final_)?(?:answer|output|solution|response)>|答案|答(?=[:：])|结果(?=[是为:：])"
)
_SAYS = late(
    r"(?i)(?:\s+(?:to|for|of|in|from)\s[^\n:：=.?]{0,80}?)?[\s_*\"'”)】\]]{0,5}"
    r"(?:(?:(?:is|was|are|would\s+be|should\s+be|must\s+be|will\s+be|equals|comes\s+(?:out\s+)?to)(?![A-Za-z])|应该是|应当是|应该为|应该|应为|应是|是|为|等于)"
    r"[\s_]{0,3}[:：]?|[:：=→]|\s?[-–—]\s)"
)
_CUT = late(
    r"(?<![A-Z\d])[.!?](?=\s)|(?<=\d)[.!?](?=\s+[A-Z])|[。！？]|</(?:final_)?(?:answer|output|solution|response)>"
)
_RIGHT = late(
    r"(?i)[\s,]{0,3}(?:is|are|must\s+be|should\s+be)\s+(?:the|our|your|my)?\s*(?:(?:final|correct|right|desired)\s+)*(?:answer|solution|result)(?![A-Za-z])"
    r"|\s*是(?:正确|最终)?(?:的)?答案"
)
_FAREWELL = late(
    r"(?i)hope\s+(?:this|that|it)\s|let\s+me\s+know|feel\s+free|if\s+you\s+(?:have|need|would)|any\s+(?:more|other|further)\s+questions"
    r"|(?:happy|glad)\s+to\s+help|good\s+luck|^\W*(?:thank|you'?re\s+welcome|cheers\b|best\s+(?:regards|wishes)|take\s+care|happy\s+[a-z]{3,20}ing\b)"
    r"|is\s+there\s+anything\s+else|would\s+you\s+like\s+(?:me|to)|have\s+a\s+(?:great|good|nice|wonderful|lovely)\s"
    r"|希望.{0,10}帮助|如[果有].{0,10}(?:疑问|问题)|祝(?:你|您)"
)
MARKS = late(
    r"(?<![\w)\]])\*\*|\*\*(?![\w(\[])|(?<!\w)__|__(?!\w)|^\s{0,3}#{1,3}(?!#)\s*|^[^\S\n]*(?:>|[•●▪])[^\S\n]*|`",
    re.MULTILINE,
)
_MOST = 20  # declarations that are looked at, from the last one on
_WINDOW = 400  # characters behind one
_LINES = 40  # lines from the end
NEGATIVE = late(r"(?i)\b(?:negative|minus)\s+(?=[\d.√])|负(?=[\d.√])")
CONCLUDES = late(
    r"(?i)\W{0,3}(?:so|therefore|thus|hence|in\s+total|in\s+conclusion|finally|altogether|overall|this\s+means|that\s+means|consequently|(?:the\s+)?total|因此|所以|综上|故|一共|总共)(?![A-Za-z])"
)
_CALCULATOR = late(r"<<[^<>]{0,200}>>")
_SYMBOLS = late(r"[\s\u2600-\u27bf\U0001f300-\U0001faff\ufe0f]+$")
_ITEM = late(r"^\s*[-*+•]\s+(?=\S)")
_CHECKS = late(
    r"(?i)[\W\d]{0,9}(?:(?:to|let['’]?s|let\s+us|we\s+can|now|quick|a)\s+){0,2}(?:verif(?:y|ication|ying)\b"
    r"|(?:double[- ]?)?check(?:ing)?\b[^:\n]{0,40}[:：]|sanity\s+check|验证|检验|验算)"
)


def declared(text: str) -> list[tuple[str, bool]]:
    """What the last declarations say, the last one first, and whether it stands in front ("42 is the answer")."""
    found: list[tuple[str, bool]] = []
    for place in list(_DECLARES.finditer(text))[-_MOST:][::-1]:
        word = place[0].lower()
        line = text[
            max(text.rfind("\n", max(0, place.start() - _WINDOW), place.start()), place.start() - _WINDOW)
            + 1 : place.end()
        ]
        if word.rstrip("s") in ("answer", "solution", "result", "root", "答案", "结果"):
            window = MARKS.sub("", text[place.end() : place.end() + _WINDOW])
            is_heading = re.fullmatch(
                r"[#*\s\d._]*(?:(?i:the|final|correct)\s+)*\W{0,2}(?i:answer|solution|result)s?|[#*【\s]*(?:最终)?答案",
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
            behind = MARKS.sub("", text[place.end() : place.end() + _WINDOW])
        if (said := _sentence(behind)) and not re.match(r"(?i)not\s", said):
            found.append((said, False))
    return found


def _in_front(text: str, place: re.Match[str]) -> str | None:
    """`42` in "42 is the correct answer"."""
    begin = text.rfind("\n", max(0, place.start() - _WINDOW), place.start()) + 1
    line = MARKS.sub("", text[max(begin, place.start() - _WINDOW) : place.end()])
    right = None
    for right in _RIGHT.finditer(line):  # noqa: B007 - the last one
        pass
    if right is None or right.end() != len(line):
        return None
    head = line[: right.start()].strip()
    said = re.split(r"(?<=[.!?:;])\s|,\s(?!\d)|(?i:^|\s)(?:so|thus|hence|therefore),?\s", head)[-1].strip()
    return said if said and not re.fullmatch(r"(?i)this|that|it|which|what|here|who", said) else None


def _sentence(behind: str) -> str:
    """The first sentence with anything in it, over line breaks and marks of displayed formulas."""
    for line in behind.split("\n"):
        words = _CALCULATOR.sub("", line).strip().strip("*_ ")
        if not re.search(r"\w|\\[A-Za-z]|[√∞∅]", words):
            continue  # `\\[` and `$$`
        cut = _CUT.search(words)
        said = (words[: cut.start()] if cut else words).strip().rstrip(" .。!！*_").lstrip(" :：*_").strip()
        return NEGATIVE.sub("-", said)
    return ""


def last_lines(text: str) -> list[str]:
    """The lines at the end that say something, the last one first."""
    lines = [line for line in text.rsplit("\n", _LINES + 1)[-_LINES:] if re.search(r"[\w∞∅]", line)]
    kept = [
        line for line in lines if not line.lstrip().startswith(("```", "~~~")) and not _FAREWELL.search(line[:_WINDOW])
    ]
    concluded = max((at for at, line in enumerate(kept) if CONCLUDES.match(line)), default=-1)
    checks = next((at for at, line in enumerate(kept) if at > max(concluded, 0) and _CHECKS.match(line)), len(kept))
    return [_ITEM.sub("", _SYMBOLS.sub("", _CALCULATOR.sub("", line[-2_000:]))) for line in reversed(kept[:checks])]
