"""What is kept under a name that says so is never shown, and everything else is."""

from __future__ import annotations

import re
import sys

import pytest

from tts_search.cli import terminal
from tts_search.confidential import is_confidential, without_secrets


@pytest.mark.parametrize(
    "name",
    ["api_key", "apiKey", "API_KEY", "key", "x-api-key", "user_token", "password", "HTTPHeaders", "Authorization"],
)
def test_names_that_say_so(name: str) -> None:
    assert is_confidential(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "context_tokens", "keyboard", "monkey", "author", "url"])
def test_names_that_do_not(name: str) -> None:
    assert not is_confidential(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("PRM(url='http://h', api_key='sk-1, 2', n=4)", "PRM(url='http://h', api_key=***, n=4)"),
        ("PRM(api_key=Secret(b'sk-1'), n=4)", "PRM(api_key=***, n=4)"),
        ('{"a": {"user_token": "tok-1\\"2"}, "b": 1}', '{"a": {"user_token": ***}, "b": 1}'),
        ("{'headers': {'X': 'sk-1', 'Y': ['a', 'b']}, 'b': 1}", "{'headers': ***, 'b': 1}"),
        ("Authorization: Bearer sk-1", "Authorization: ***"),
        ("PRM(api_key=None, token='')", "PRM(api_key=None, token=***)"),
        ("BestOfN(n=16)", "BestOfN(n=16)"),
        ("api_key='never closed", "api_key=***"),
        ("What is the key: a or b", "What is the key: ***"),
    ],
)
def test_how_a_text_is_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_report_shows_the_command_without_what_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "compare",
        "--engine-arg",
        "api_key=sk-1 = , 2",
        "--engine-arg=api_key=sk-2",
        "--api-key",
        "sk-3",
        "-n",
        "4",
    ]
    words += [
        "--scorer",
        "PRM(url='http://u:sk-4@h/v1', api_key='sk-5')",
        "--engine-arg",
        'extra_body={"token": "sk-6"}',
    ]
    words += ["--engine-arg=default_headers={'X': 'sk-7'}", "--max-tokens", "80", "--system=Say a word: yes"]
    monkeypatch.setattr(sys, "argv", ["tts-search", *words])
    shown = terminal.command_line()
    assert not re.findall(r"sk-\d", shown)
    for said in (
        "compare --engine-arg 'api_key=***' ",
        "-n 4",
        "--max-tokens 80",
        "'--system=Say a word: yes'",
        "PRM(",
    ):
        assert said in shown
