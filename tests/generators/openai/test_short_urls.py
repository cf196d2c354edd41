"""The address of a server without a path means the usual one."""

from __future__ import annotations

import pytest

from tts_search.generators.openai.access import Access


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("http://user:word@host", "http://host/v1"),
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("https://host/api/openai/", "https://host/api/openai"),
    ],
)
def test_a_url_without_a_path(given: str, meant: str) -> None:
    access = Access.of(given, "key")
    assert access.address.name == meant
    assert access.address.at("/models") == f"{meant}/models"


def test_a_query_stays() -> None:
    assert Access.of("http://host?version=2", "key").address.at("/models") == "http://host/v1/models?version=2"
