"""Addresses of servers: what is in them in confidence is sent, and shown in no writing."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.addresses import Address, Redaction, without_credentials
from tts_search.cli import terminal
from tts_search.errors import InvalidInputError

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=5, max_size=12)


@given(user=words, password=words, path=st.sampled_from(["", "/", "/v1", "/v1/"]), port=st.sampled_from(["", ":8000"]))
def test_an_address_is_shown_without_what_is_sent(user: str, password: str, path: str, port: str) -> None:
    url = f"http://{quote(user, safe='')}:{quote(password, safe='')}@host{port}{path}"
    address = Address.of(url, "it")
    assert address.name == address.url == f"http://host{port}{path.rstrip('/')}"
    assert address.authorization is not None
    assert b64decode(address.authorization.removeprefix("Basic ")).decode() == f"{user}:{password}"
    assert repr(address) == f"Address(name={address.name!r})"
    assert without_credentials(url) == f"http://host{port}{path}"
    assert without_credentials(f"--generator={url}?key=x") == f"--generator=http://host{port}{path}"


@given(secret=words, before=st.text(max_size=5), after=st.text(max_size=5))
def test_no_writing_of_a_secret_stays(secret: str, before: str, after: str) -> None:
    redact = Redaction([secret, ""])
    writings = (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""))
    for writing in (*writings, b64encode(secret.encode()).decode()):
        text = redact(f"{before} {writing} {after}")
        assert "(credentials)" in text
        error = ValueError("outer")
        error.__cause__ = ValueError(f"{before}{writing}")
        assert redact.shows(error)
    assert not redact.shows(ValueError(redact(secret)))


@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8), before=st.binary(max_size=9))
def test_no_base64_shows_a_secret_among_others(secret: str, before: bytes) -> None:
    """`Authorization: Bearer sk-...` as a whole, say: where a secret begins decides how it is written."""
    for encode in (b64encode, urlsafe_b64encode):
        shown = Redaction([secret])(encode(before + secret.encode() + b" and more").decode())
        begun, _, rest = shown.partition("(credentials)")
        assert len(begun) <= -(-len(before) * 8 // 6), "only what holds bits of others is left"
        assert len(rest) <= len(b64encode(b" and more")) + 4


@pytest.mark.parametrize("at", [":p@ss/word@", ":1234/topsecret@", "/topsecret@", ":1234?topsecret@", ":a#topsecret@"])
def test_a_password_that_may_end_elsewhere_is_refused_unseen(at: str) -> None:
    url = f"http://user{at}host/v1"
    with pytest.raises(InvalidInputError, match=r"it must be like .* %2F") as caught:
        Address.of(url, "it")
    assert not [part for part in ("p@ss", "ss/", "1234", "topsecret", "user:") if part in str(caught.value)]
    assert without_credentials(url) == ("http://host/v1" if ":" in at else "http://user/topsecret@host/v1")
    assert Address.of("http://user:1234%2Ftop%40secret@host/v1/%40org", "it").name == "http://host/v1/%40org"


def test_what_is_no_secret_stays() -> None:
    address = Address.of("https://api:secret-1@host/v1?api-version=3", "it")
    assert Redaction(address.secrets)("the api of version 3 says secret-1") == "the api of version 3 says (credentials)"
    assert address.at("/models") == "https://host/v1/models?api-version=3"
    alone = Address.of("https://sk-1@host/v1", "it")
    assert Redaction(alone.secrets)("sk-1") == "(credentials)"
    assert Address.of("http://host/v1", "it").authorization is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no address", "no address"), ("vllm", "vllm"), ("http://host:80/v1", "http://host:80/v1"),
        ("http://host/v1/@org/model", "http://host/v1/@org/model"), ("http://a:b/c@host/v1", "http://host/v1"),
        ("http://a:b@host/v1?key=k#f", "http://host/v1"), ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("http://a@[::1]/v1", "http://[::1]/v1"),
    ],
)  # fmt: skip
def test_how_an_address_is_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_a_report_shows_the_command_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["tts-search", "compare", "--generator", "http://me:secret@host/v1", "--generator=https://k@host", "a b"]
    monkeypatch.setattr(sys, "argv", words)
    shown = "tts-search compare --generator http://host/v1 --generator=https://host 'a b'"
    assert terminal.command_line() == shown
