r"""Where in a text the answer stands: behind the thinking, in the last `\boxed{...}`.

This is the one place that cuts thinking off, for graders and votes alike. It finds and changes nothing; what an answer
means is its grader's matter. Linear in the length of the text.
"""

from __future__ import annotations

from tts_search.grading.late import late

OPEN, CLOSE = "<think>", "</think>"
MARK = "####"
"""What GSM8K writes in front of the final answer."""

_NAMES = r"(?:seed:)?(think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad|rationale)"
_TAG = late(
    rf"(?i)<\|?(/?){_NAMES}\|?>|\[(/?)(think(?:ing)?)\]|◁(/?)(think(?:ing)?)▷|<\|(begin_of_|end_of_)(thought)\|>"
)
_FINAL = late(r"<\|channel\|>final\s?(?:<\|constrain\|>\s?\w{1,20})?<\|message\|>")
_CHANNEL = "<|channel|>"
_PLAIN_CHANNELS = ("analysis", "assistantfinal")  # the same, by a tokenizer that hides control tokens
_SPELLED = {  # Cohere, Gemma, PLaMo; frames of an answer
    "<|START_THINKING|>": "<think>",
    "<|END_THINKING|>": "</think>",
    "<unused94>": "<think>",
    "<unused95>": "</think>",
    "<|channel>thought": "<think>",
    "<channel|>": "</think>",
    "<|plamo:begin_think:plamo|>": "<think>",
    "<|plamo:end_think:plamo|>": "</think>",
    "<|open|>think<|sep|>": "<think>",
    "<|close|>think<|sep|>": "</think>",
    **dict.fromkeys(("<|begin_of_box|>", "<|end_of_box|>", "<|begin_of_solution|>", "<|end_of_solution|>"), ""),
    **dict.fromkeys(("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ""),
}
_END = late(
    r"(?:<[|｜](?!(?:begin|end)_of_thought)[A-Za-z_▁]{1,20}[|｜]>(?:\s*assistant)?|</s>|<eos>|<pad>|<end_of_turn>|<turn\|>)\Z"
)
_LONGEST_END = 40  # characters
_ANYTHING = late(r"\S")
_AT_ONCE = late(  # what is no answer and no HTML
    r"(?i)\s*<(?!(?:[\w-]{0,20}answer|ans|final|final[_-]response|choice|option|number|json|python|translation|section|blockquote|mark|kbd|small|solution|output|response|result|summary|conclusion|a|b|i|p|u|br|hr|h\d|li|ol|ul"
    r"|em|div|pre|su[bp]|svg|code|math|span|html|body|table|strong|center|details)>)([a-z][\w:.-]{0,40})>"
)
_BRACES = late(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_BETWEEN = late(r"[\s$,;.&\\]*(?:and|or|和|或|与)?[\s$,;.&\\]*")
_LONGEST_CONNECTION = 20  # characters
_MOST_TOGETHER = 50  # boxes


def after_thinking(text: str) -> str:
    """The answer's part of a text: all of it without tags, nothing of a thought that is not closed.

    Thoughts are `<think>...</think>` and the like (`<thinking>`, `[THINK]`, `◁think▷`, channels other than the final
    one), and whatever stands at the very beginning in a pair of tags that has something behind it. What precedes a
    closing tag that was never opened is a thought, as templates open it in the prompt. Any further closing tag, or one
    at the end of an answer, means nothing.
    """
    if _CHANNEL in text:
        *_, final = _FINAL.split(text)
        text = final.partition("<|")[0] if final != text else text.partition(_CHANNEL)[0]
    elif text.startswith(_PLAIN_CHANNELS[0]) and _PLAIN_CHANNELS[1] in text:
        text = text.rpartition(_PLAIN_CHANNELS[1])[2]
    for spelling, tag in _SPELLED.items():
        text = text.replace(spelling, tag)
    text = _without_ends(text)
    said: list[str] = []
    at, inside, is_first = 0, "", True
    for tag in _TAG.finditer(text):
        mark, name = (part.lower() for part in tag.groups() if part is not None)
        if mark not in ("/", "end_of_"):
            if not inside:
                said.append(text[at : tag.start()])
                inside = name[:5]
        elif inside:
            if name[:5] != inside:
                continue  # `</reflection>` within `<thinking>`
            inside = ""
        elif is_first:
            said.clear()  # the template had opened it
        else:
            said += [text[at : tag.start()], "\n"]
        is_first = False
        at = tag.end()
    if not inside:
        said.append(text[at:])
    answer, begin = "".join(said), 0
    while leading := _AT_ONCE.match(answer, begin):
        closing = f"</{leading[1]}>"
        end = answer.find(closing, leading.end())
        if end < 0 or not _ANYTHING.search(answer, end + len(closing)):
            break
        begin = end + len(closing)
    return answer[begin:]


def _without_ends(text: str) -> str:
    """A text without the end-of-text tokens that some engines show."""
    begin = end = len(text.rstrip())
    while token := _END.search(text, max(0, end - _LONGEST_END), end):
        end = token.start()
        while end and text[end - 1].isspace():
            end -= 1
    return text[:end] if end < begin else text


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Every closed `\boxed{...}` (or `\fbox{...}`) that is in no other, as (start, end, content), in order."""
    return _scan(text)[0]


def last_boxed(text: str) -> str | None:
    r"""The content of the last box; several that stand together (`\boxed{1} and \boxed{2}`) are one, with commas.

    A box in a box counts as its content, and an empty one that mentions the format not at all. Without a box None;
    where the last one is never closed it is empty, because the answer was cut off, and what an earlier one holds was
    given up.
    """
    found, is_cut = _scan(text)
    if is_cut:
        return ""
    full = [box for box in found if box[2].strip()] or found
    if not full:
        return None
    run = [full[-1]]
    for box in reversed(full[-_MOST_TOGETHER:-1]):
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


def _scan(text: str) -> tuple[list[tuple[int, int, str]], bool]:
    """The closed boxes, and whether a later one is never closed."""
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
    last = max((start for start, _, is_box in opened if is_box), default=-1)
    is_cut = last > (found[-1][0] if found else -1)
    return [(start, end, text[begin:close]) for start, end, begin, close in found], is_cut


def _unwrapped(content: str) -> str:
    content = content.strip()
    for _ in range(5):
        inner = boxes(content)
        if len(inner) != 1 or (inner[0][0], inner[0][1]) != (0, len(content)):
            break
        content = inner[0][2].strip()
    return content
