"""Patterns that are compiled when they are first used."""

from __future__ import annotations

import re

import pytest

from tts_search.grading.late import late


def test_it_is_the_pattern() -> None:
    pattern = late(r"(?i)(a+)", re.MULTILINE)
    compiled = re.compile(r"(?i)(a+)", re.MULTILINE)
    text = "baa Aa\nb"
    assert pattern.findall(text) == compiled.findall(text)
    assert [found.span() for found in pattern.finditer(text, 2)] == [
        found.span() for found in compiled.finditer(text, 2)
    ]
    assert pattern.sub("x", text) == compiled.sub("x", text)
    assert (pattern.pattern, pattern.flags, pattern.groups) == (compiled.pattern, compiled.flags, compiled.groups)
    assert pattern.search == pattern.search, "found once"


def test_what_is_wrong_with_it_is_said_at_its_first_use() -> None:
    pattern = late("(")
    with pytest.raises(re.error):
        pattern.search("a")
    with pytest.raises(AttributeError):
        late("a").finds  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
