"""What the library says in Python's words (`budget=160_000`), said in those of the command (`--budget 160000`).

It knows the options of the command at work, and no message.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

_TEXT = r"""(?:'[^']*'|"[^"]*")"""
_VALUE = rf"(?P<value>\({_TEXT}, {_TEXT}\)|{_TEXT}|\.\.\.|-?\d[\w.]*(?!\w)|[A-Za-z][\w-]*)?"
_UNSAID = {"True", "...", None}
_PLURALS = {"budget": "budgets", "strategy": "strategies"}
_NAMES = {"step": "step_rule"}  # options by a shorter name than the library's
_WORDS = {"base_url": "the server's URL", "engine_args": "--engine-arg"}
_ENGINE_ARGS = (
    *("api_key", "context_tokens", "dtype", "gpu_memory_utilization", "kv_cache_gib", "logprobs", "max_concurrency"),
    *("max_model_len", "max_retries", "tensor_parallel_size", "timeout_seconds", "tokens"),
)
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
    if "engine_arg" in options:
        message = _engine_arguments(message)
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
    message = re.sub(rf"(?<!--engine-arg )(?<![\w.-])(?P<name>{names})={_VALUE}", option, message)
    subject = rf"^(?P<name>{names})(?= (?:must|is|cannot|belongs)\b)"
    message = re.sub(subject, lambda match: options[match["name"]], message)
    long = "|".join(re.escape(name) for name in options if "_" in name) or "(?!)"
    return re.sub(rf"(?<![\w.'\"-])({long})(?![\w=.'\"])", lambda match: options[match[1]], message)


def _engine_arguments(message: str) -> str:
    """What engines' constructors take is one option for all: `--engine-arg dtype=float32`."""

    def argument(match: re.Match[str]) -> str:
        value = match["value"].strip("'\"")
        return f"--engine-arg {match['name']}={shlex.quote(value)}"

    message = re.sub(rf"engine_args=\{{'(?P<name>\w+)': (?P<value>{_TEXT})\}}", argument, message)
    names = "|".join(_ENGINE_ARGS)
    message = re.sub(rf"(?<![\w.-])(?P<name>{names})=(?P<value>{_TEXT}|[\w.]*\w)", argument, message)
    long = "|".join(name for name in _ENGINE_ARGS if "_" in name)
    return re.sub(rf"(?<=[a-z,] )({long})(?![\w=.'\"])", r"--engine-arg \1", message)


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
