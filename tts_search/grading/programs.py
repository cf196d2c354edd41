"""Which part of an answer is the program: the fenced block that fits the tests, no sample output, no shell line.

Nothing is run or parsed. Linear in the length of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from tts_search.grading.answers import after_thinking

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*([^\n`]*)$")
_PYTHON = ("python", "py", "python3", "py3", "python2", "pypy", "pypy3", "ipython", "cpython")
_CODE = re.compile(
    r"(?m)^[ \t]*(?:def|class|import|from|for|while|if|try|with|return|print|async|@\w)\b"
    r"|^[ \t]*[A-Za-z_][\w.\[\], ]{0,80}(?:[-+*/|&%]|//|\*\*)?=(?!=)|^[ \t]*[A-Za-z_][\w.]{0,80}\("
)
_SHELL = re.compile(
    r"[ \t]*(?:\$ |> |>>> |%|!|python3? |pip3? |cd |bash |sh |\./|echo |cat |sudo |apt |conda |g\+\+ |java |node )"
)
_READS = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its tag (`python`, or empty) and its text, without the indentation of its fence."""

    tag: str
    text: str

    @property
    def is_python(self) -> bool:
        """Whether it can be a program: tagged so, or untagged and looking so."""
        if self.tag:
            return self.tag in _PYTHON
        lines = [line for line in self.text.split("\n") if line.strip()]
        return _CODE.search(self.text) is not None and not all(_SHELL.match(line) for line in lines)


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text that have anything in them; the last may be cut off before its closing fence.

    Fences are of backticks or tildes and may be indented. A block ends at a fence as long as its own without a tag, or
    where another block begins with one.
    """
    found: list[Block] = []
    fence, tag, indent = "", "", 0
    held: list[str] = []

    def end() -> None:
        if any(line.strip() for line in held):
            found.append(Block(tag, "\n".join(held)))

    for line in text.split("\n"):
        line = line.rstrip("\r")
        mark = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if mark and not fence:
            fence, indent = mark[1], mark.start(1)
            words = mark[2].lower().replace("{", " ").replace(".", " ").split()
            tag, held = (words[0] if words else ""), []
        elif mark and mark[1].startswith(fence) and not mark[2].strip():
            end()
            fence = ""
        elif mark and mark[1][0] == fence[0] and mark[2].strip().lower() in _PYTHON:
            end()  # its own closing fence was forgotten
            fence, indent, tag, held = mark[1], mark.start(1), mark[2].strip().lower(), []
        elif fence:
            held.append(line[min(indent, len(line) - len(line.lstrip())) :])
    if fence:
        end()
    return found


def program(answer: str, *, defines: Collection[str] = (), reads: bool = False) -> str:
    """The program of an answer: of its Python blocks behind the thinking the last that fits, else the last.

    Args:
        answer: a whole response or its end; without a fence all of it is the program.
        defines: names that the tests call, so that a block with an example of use is not taken for the program.
        reads: whether the tests write to standard input, which one of several blocks may read.
    """
    text = after_thinking(answer)
    found = blocks(text)
    if not found:
        return "\n".join(
            line for line in text.split("\n") if not (("```" in line or "~~~" in line) and _FENCE.match(line))
        )
    python = [block for block in found if block.is_python] or [block for block in found if not block.tag] or found
    fitting = [block for block in python if _fits(block.text, defines, reads)]
    return (fitting or python)[-1].text


def released_program(answer: str) -> str:
    """As LiveCodeBench's released evaluation reads it: between the last two lines with a fence, thinking or not."""
    lines = answer.split("\n")
    fences = [at for at, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""


def called(tests: str) -> set[str]:
    """The names that Python tests call, other than methods."""
    return set(re.findall(r"(?<![\w.])([A-Za-z_]\w{0,100})(?=\()", tests))


def _fits(text: str, defines: Collection[str], reads: bool) -> bool:
    if defines:
        defined = re.findall(
            r"(?m)^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w{1,100})|^(\w{1,100})[ \t]*=(?!=)", text
        )
        return any(name in defines for pair in defined for name in pair if name)
    return not reads or _READS.search(text) is not None
