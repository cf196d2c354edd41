"""What the library says in Python's words (`budget=160_000`), said in those of the command (`--budget 160000`).

It knows the options of the command at work, and no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

_TEXT = r"""(?:'[^']*'|"[^"]*")"""
_VALUE = rf"(?P<value>\({_TEXT}, {_TEXT}\)|{_TEXT}|\.\.\.|-?\d[\w.]*(?!\w)|[A-Za-z][\w-]*)?"
_UNSAID = {"True", "...", None}
_PLURALS = {"budget": "budgets", "strategy": "strategies"}
_NAMES = {"step": "step_rule"}  # options by a shorter name than the library's
_WORDS = {"base_url": "the server's URL", "engine_args": "--engine-arg"}
_options: dict[str, str] = {}


class Parameter(Protocol):
    """What is asked of a command's parameter."""

    name: str | None
    opts: list[str]


def speak_of(parameters: Sequence[Parameter]) -> None:
    """From now on, the options that messages name are these."""
    _options.clear()
    _options.update({p.name: max(p.opts, key=len) for p in parameters if p.name and p.opts[0].startswith("-")})
    for short, name in _NAMES.items():
        if short in _options:
            _options[name] = _options[short]
    for one, many in _PLURALS.items():
        if many in _options:
            _options.setdefault(one, _options[many])


def in_options(message: str, options: Mapping[str, str] | None = None) -> str:
    """The message with `--top-p 0.5` for `top_p=0.5`, and `--top-p must be` for `top_p must be`.

    What stands in the brackets of a call, as in `BestOfN(n=16)`, and what is no option here stays as it is.
    """
    options = _options if options is None else options
    if not options:
        return message
    for word, said in _WORDS.items():
        message = re.sub(rf"\b{word}\b", said, message)
    calls = list(_calls(message))

    def option(match: re.Match[str]) -> str:
        if any(start < match.start() < end for start, end in calls):
            return match[0]
        flag, value = options[match["name"]], match["value"]
        if value == "False":
            return f"no {flag}"
        if value is not None and value[0] == "(":  # two texts, as a shell takes them
            return f"{flag} {value[1:-1].replace(', ', ' ', 1)}"
        said = (value or "").strip("'\"")
        said = said.replace("_", "") if said[:1].isdigit() else "none" if said == "None" else said
        return flag if value in _UNSAID else f"{flag} {said}"

    names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
    message = re.sub(rf"(?<![\w.-])(?P<name>{names})={_VALUE}", option, message)
    subject = rf"^(?P<name>{names})(?= (?:must|is|cannot|belongs)\b)"
    message = re.sub(subject, lambda match: options[match["name"]], message)
    long = "|".join(re.escape(name) for name in options if "_" in name) or "(?!)"
    return re.sub(rf"(?<![\w.'\"-])({long})(?![\w=.'\"])", lambda match: options[match[1]], message)


def _calls(text: str) -> Iterator[tuple[int, int]]:
    """Where calls such as `BestOfN(n=16)` begin and end, the outer ones."""
    depth = start = 0
    for place, sign in enumerate(text):
        if sign == "(" and (depth or (place and text[place - 1].isalnum())):
            start = start if depth else place
            depth += 1
        elif sign == ")" and depth:
            depth -= 1
            if not depth:
                yield start, place
