"""Which part of an answer is the program: the fenced block that fits the tests, no sample output, no shell line.

Nothing is run or parsed. Linear in the length of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from tts_search.grading.answers import after_thinking
from tts_search.grading.late import late

# A line with one fence: what stands before it, the fence, and its tag or whatever follows.
_FENCE = late(r"((?:[^`~]|`{1,2}(?!`)|~{1,2}(?!~))*+)(`{3,}|~{3,})[ \t]*([^`]*)$")
_HEAD = late(r"[ \t>]*(?:(?:[-*+]|\d{1,3}[.)])[ \t>]+)?")  # of a line: its indentation, quotation, item
_QUOTED = late(r"[ \t]*(?:> ?)+")
_TAG = late(r"[\w+#.{}-]*")
_PYTHON = ("python", "py", "python3", "py3", "python2", "pypy", "pypy3", "ipython", "cpython")
_CODE = late(
    r"(?m)^[ \t]*(?:def|class|import|from|for|while|if|try|with|return|print|async|@\w)\b"
    # an assignment of more than a value ("x = 6" is output), a call that is equated with nothing
    r"|^[ \t]*[A-Za-z_][\w.\[\], ]{0,80}(?:[-+*/|&%]|//|\*\*)?=(?!=)[^\n]{0,200}?(?:[(\[{]|\blambda\b)"
    r"|^[ \t]*[A-Za-z_][\w.]{0,80}\((?![^\n]{0,200}?\) ?= )"
)
_SHELL = late(
    r"[ \t]*(?:\$ |> |>>> |%|!|python3? |pip3? |cd |bash |sh |\./|echo |cat |sudo |apt |conda |g\+\+ |java |node )"
)
# Without a fence: tags around a program, each at the head of a line.
_OPENED = late(r"(?mi)^[ \t]*(?:<(?:answer|solution|pre|code|python)\b[^>\n]{0,80}>|(?-i:\[(?:ANSWER|CODE|PYTHON)\]))+")
_CLOSED = late(r"(?i)</(?:answer|solution|pre|code|python)>|(?-i:\[/(?:ANSWER|CODE|PYTHON)\])")
# A tag within a string, and no tag of the answer's.
_NAMED_TAG = late(r"(['\"])[^'\"\n]{0,40}</?[A-Za-z][^<>'\"\n]{0,20}>(?:[^'\"\n]{0,40}\1)")
_HIDDEN = "\x00"
_DEFINES = late(r"(?m)^(?:async[ \t]+)?(?:def|class)[ \t]+(\w{1,100})")
_READS = late(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its tag (`python`, or empty) and its text, without the indentation of its fence."""

    tag: str
    text: str

    @property
    def is_python(self) -> bool:
        """Whether it can be a program: tagged so, or untagged and looking so, and no shell's lines or session."""
        lines = [line for line in self.text.split("\n") if line.strip()]
        if all(_SHELL.match(line) for line in lines) or lines[0].lstrip().startswith(">>>"):
            return False
        return self.tag in _PYTHON if self.tag else _CODE.search(self.text) is not None


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text that have anything in them; the last may be cut off before its closing fence.

    Fences are of backticks or tildes. One opens a block at the head of a line, indented, quoted or in a list, or behind
    words with nothing but a tag after it. The block ends at a fence as long that has no tag (words may follow it, or
    code come right before it), or where another block begins with one.
    """
    found: list[Block] = []
    before, fence, tag = "", "", ""
    held: list[str] = []

    def end() -> None:
        lines = [_QUOTED.sub("", line, count=1) for line in held] if ">" in before and _HEAD.fullmatch(before) else held
        if first := next((line for line in lines if line.strip()), ""):
            indent = _indent(first) if before else 0
            found.append(Block(tag, "\n".join(line[min(indent, _indent(line)) :] for line in lines)))

    for line in text.split("\n"):
        line = line.rstrip("\r")
        mark = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if not fence:
            if mark and _opens(mark):
                before, fence, held = mark[1], mark[2], []
                words = mark[3].lower().replace("{", " ").replace(".", " ").split()
                tag = words[0] if words else ""
        elif mark and mark[2].startswith(fence) and _closes(mark):
            held += [] if _HEAD.fullmatch(mark[1]) else [mark[1]]
            end()
            fence = ""
        elif mark and mark[2][0] == fence[0] and mark[3].strip().lower() in _PYTHON and _HEAD.fullmatch(mark[1]):
            end()  # its own closing fence was forgotten
            before, fence, tag, held = mark[1], mark[2], mark[3].strip().lower(), []
        else:
            held.append(line)
    if fence:
        end()
    return found


def program(answer: str, *, defines: Collection[str] = (), reads: bool = False) -> str:
    """The program of an answer: of its Python blocks behind the thinking the last that fits, else the last.

    Args:
        answer: a whole response or its end; without a fence all of it is the program, or what it has in tags.
        defines: names that the tests call, so that a block with an example of use is not taken for the program.
        reads: whether the tests write to standard input, which one of several blocks may read.
    """
    text = after_thinking(_NAMED_TAG.sub(lambda tag: tag[0].replace("<", _HIDDEN), answer)).replace(_HIDDEN, "<")
    found = blocks(text)
    python = [block for block in found if block.is_python]
    if not found:
        return _unfenced(text)
    if not python and _CODE.search(head := text[: _first_fence(text)]):
        return _unfenced(head)
    python = _without_excerpts(python or [block for block in found if not block.tag] or found)
    fitting = [block for block in python if _fits(block.text, defines, reads)]
    return (fitting or python)[-1].text


def _first_fence(text: str) -> int:
    return min((at for fence in ("```", "~~~") if (at := text.find(fence)) >= 0), default=len(text))


def _without_excerpts(found: list[Block]) -> list[Block]:
    """Blocks but those that repeat lines of earlier ones, to explain them, or only call what they define."""
    kept: list[Block] = []
    seen: set[str] = set()
    defined: set[str] = set()
    for block in found:
        lines = {line.strip() for line in block.text.split("\n") if line.strip()}
        names = set(_DEFINES.findall(block.text))
        is_example = not names and not _READS.search(block.text) and defined & called(block.text)
        if not kept or not (is_example or lines <= seen):
            kept.append(block)
        seen |= lines
        defined |= names
    return kept


def released_program(answer: str) -> str:
    """As LiveCodeBench's released evaluation reads it: between the last two lines with a fence, thinking or not."""
    lines = answer.split("\n")
    fences = [at for at, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""


def called(tests: str) -> set[str]:
    """The names that Python tests call, other than methods, or hand over, as `check(add)` does."""
    handed = re.findall(r"(?m)^[A-Za-z_]\w{0,100}\(\s{0,9}([A-Za-z_]\w{0,100})\s{0,9}\)", tests)
    return {*handed, *re.findall(r"(?<![\w.])([A-Za-z_]\w{0,100})(?=\()", tests)}


def defined(tests: str) -> set[str]:
    """The names that Python tests define themselves."""
    return set(_DEFINES.findall(tests))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _opens(mark: re.Match[str]) -> bool:
    """At the head of a line, or behind words with one tag behind it; without a tag not right behind a word."""
    before, _, tag = mark.groups()
    if _HEAD.fullmatch(before):
        return True
    return _TAG.fullmatch(tag) is not None and (bool(tag) or before[-1] in " \t>:*")


def _closes(mark: re.Match[str]) -> bool:
    """With nothing or no tag behind it at the head of a line, or right behind code that is no string or comment."""
    before, _, rest = mark.groups()
    if _HEAD.fullmatch(before):
        return not rest or not (rest[0].isalnum() or rest[0] in "{_")
    return not rest and before[-1] not in " \t#\"'"


def _unfenced(text: str) -> str:
    """What the last tag at the head of a line opens, if there is one, without fences that hold nothing."""
    if opened := list(_OPENED.finditer(text)):
        closed = _CLOSED.search(text, opened[-1].end())
        text = text[opened[-1].end() : closed.start() if closed else None]
    lines = text.split("\n")
    fences = [_FENCE.match(line) if "```" in line or "~~~" in line else None for line in lines]
    is_left = [mark is None or not _HEAD.fullmatch(mark[1]) for mark in fences]
    return "\n".join(line for line, left in zip(lines, is_left, strict=True) if left)


def _fits(text: str, defines: Collection[str], reads: bool) -> bool:
    if defines:
        defined = re.findall(
            r"(?m)^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w{1,100})|^(\w{1,100})[ \t]*=(?!=)", text
        )
        return any(name in defines for pair in defined for name in pair if name)
    return not reads or _READS.search(text) is not None
