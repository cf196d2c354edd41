"""What people keep under names such as `api_key`, `token` or `headers`: it is used, and never shown or written down.

It knows names alone. What stands in a URL, `addresses` takes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HIDDEN = "***"
_NAMES = {
    *("apikey", "auth", "authorization", "bearer", "cookie", "cookies", "credential", "credentials", "header"),
    *("headers", "key", "keys", "passphrase", "passwd", "password", "passwords", "pwd", "secret", "secrets", "token"),
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SAID = re.compile(r"(?<![\w-])([A-Za-z_][\w-]*)['\"]?\s*[=:]\s*")
_PLAIN = {"", "None", "True", "False", "null", "true", "false"}


def is_confidential(name: str) -> bool:
    """Whether a value of this name is to be kept: one of its words says so, as in `apiKey` or `x-user-token`."""
    return not _NAMES.isdisjoint(word.lower() for word in _WORD.findall(name))


def without_secrets(text: str, instead: Callable[[str], str] = lambda _: HIDDEN) -> str:
    """A text in which `api_key='...'`, `"token": "..."` and the likes hold something else instead."""
    found, place = list[str](), 0
    while (said := _SAID.search(text, place)) is not None:
        end = said.end()
        if is_confidential(said[1]) and not text.startswith("//", end):
            end = _value_end(text, end)
            value = text[said.end() : end]
            kept = value if value in _PLAIN else instead(value)
            found += [text[place : said.end()], kept]
        else:
            found.append(text[place:end])
        place = end
    return "".join(found) + text[place:]


def shown_arguments(words: list[str]) -> list[str]:
    """A command's words as they may be shown."""
    found = list[str]()
    hides = False
    for word in words:
        found.append(HIDDEN if hides else _shown_argument(word))
        hides = word.startswith("--") and "=" not in word and is_confidential(word)
    return found


def _shown_argument(word: str) -> str:
    """`--engine-arg=api_key=anything, with commas` is one value."""
    name, mark, rest = word.partition("=")
    if mark and re.fullmatch(r"[\w-]+", name):
        if is_confidential(name):
            return name + mark + HIDDEN
        if name.startswith("--"):
            return name + mark + _shown_argument(rest)
    return without_secrets(word)


def _value_end(text: str, place: int) -> int:
    """Where a value ends: in front of the comma or bracket behind it, whatever its own brackets and quotes hold."""
    depth, quote = 0, ""
    while place < len(text):
        sign = text[place]
        if quote:
            place += sign == "\\"
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            if not depth:
                break
            depth -= 1
        elif not depth and sign in ",;&\n":
            break
        place += 1
    return min(place, len(text))
