"""Credentials are sent, and never shown: not in an error, its causes, a log, a name or a repr, in no writing."""

from __future__ import annotations

import base64
import gc
import logging
import traceback
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from tests.generators.openai.asking import ask, request
from tests.generators.openai.misbehaving_server import MODEL, ByHeart
from tts_search.addresses import Redaction
from tts_search.api import Searcher
from tts_search.errors import InvalidInputError, TTSError
from tts_search.generators.openai import OpenAIGenerator
from tts_search.generators.openai.access import Access
from tts_search.generators.openai.troubles import Troubles

USER, PASSWORD, TOKEN = "somebody-7", "p@ss/w:rd'ü", "query-token-99"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
BASIC_LATIN = base64.b64encode(f"{USER}:{PASSWORD}".encode("latin-1")).decode()
SHOWN = (USER, PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), repr(PASSWORD)[1:-1], BASIC, BASIC.rstrip("="))
SHOWN += (BASIC_LATIN.rstrip("="), base64.b64encode(PASSWORD.encode()).decode(), TOKEN, "p\\u00fc", "w:rd'\\u00fc")

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def private(url: str) -> str:
    return url.replace("://", f"://{USER}:{quote(PASSWORD, safe='')}@") + f"?token={TOKEN}"


def leaks(*texts: str) -> list[str]:
    return [secret for secret in SHOWN if any(secret in text for text in texts)]


def test_a_user_and_a_password_in_a_url_are_sent(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    (one,) = ask(server, url=private(server.url), api_key="sk-another")
    assert one.token_ids == server.words
    assert server.keys == {f"Basic {BASIC}"}
    assert server.paths == [f"/v1/models?token={TOKEN}", f"/v1/completions?token={TOKEN}"]


def test_without_a_key_no_authorization_is_sent(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    ask(server)
    assert server.keys == {None}


@pytest.mark.parametrize(
    "fault",
    [
        "400",
        "401",
        "404",
        "418",
        "429",
        "500",
        "echo error",
        "echo chunk",
        "echo finish",
        "echo status",
        "cut",
        "silence",
        "hang",
    ],
)
def test_no_error_shows_credentials(
    serve: Callable[..., ByHeart], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve()
    server.repeats = f"{'.' * 120} {BASIC} {PASSWORD} {quote(PASSWORD, safe='')} {PASSWORD!r} token={TOKEN} {USER}"
    server.faults.extend([fault] * 9)
    with pytest.raises(TTSError) as caught:
        ask(server, url=private(server.url), max_retries=1, timeout_seconds=0.3)
    assert server.url in str(caught.value)
    gc.collect()
    assert leaks("".join(traceback.format_exception(caught.value)), caplog.text) == []


def test_a_log_shows_no_credentials(serve: Callable[..., ByHeart], caplog: pytest.LogCaptureFixture) -> None:
    server = serve("hosted")
    server.repeats = f"Basic {BASIC}, {PASSWORD}"
    server.faults.append("400")
    ask(server, url=private(server.url), tokenizer=server.folder)
    assert "takes no token ids" in caplog.text
    assert leaks(caplog.text) == []


@given(before=st.integers(0, 500), length=st.sampled_from([80, 200, 400]))
def test_no_part_of_a_secret_is_left_where_words_are_cut_short(before: int, length: int) -> None:
    troubles = Troubles("server", Redaction(["0123456789"]), 1.0)
    assert "0" not in troubles.quote("." * before + "0123456789" * 3, length)


def test_a_server_that_is_not_there_shows_none() -> None:
    with pytest.raises(TTSError, match=r"http://127\.0\.0\.1:9/v1/models cannot be reached") as caught:
        OpenAIGenerator(private("http://127.0.0.1:9/v1"), max_retries=0)
    assert leaks("".join(traceback.format_exception(caught.value))) == []


@pytest.mark.parametrize(
    "url",
    [f"ftp://{USER}:secret@here/v1?token={TOKEN}", f"http://{USER}:se/cr@et@here/v1",
     f"http://{USER}:p@ss/secret@here/v1", f"http://{USER}:1234/secret@here/v1", f"{USER}:secret@here:80/v1?{TOKEN}",
     f"https://{USER}:secret@here:port/v1", f"http://{USER}:secret@", f"http://{USER}:secret@[::1/v1"],
)  # fmt: skip
def test_an_address_that_is_none_is_shown_without_them(url: str) -> None:
    with pytest.raises(InvalidInputError, match="base_url must be like") as caught:
        OpenAIGenerator(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in (USER, "secret", "se/cr", "et@", TOKEN) if secret in shown]


def test_a_generator_and_its_results_show_none(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    generator = OpenAIGenerator(private(server.url), model=MODEL)
    with Searcher(generator=generator, max_tokens=100) as searcher:
        result = searcher.search("Make 87.", strategy="single", budget=150)
    access = Access.of(private(server.url), None)
    assert leaks(repr(generator), generator.name, repr(result), repr(access), repr(searcher.settings)) == []


@pytest.mark.parametrize("key", ["sk-\nsecret", "sk-säcret", "sk-\rsecret"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(serve: Callable[..., ByHeart], key: str) -> None:
    with pytest.raises(InvalidInputError, match="header Authorization can hold printable ASCII only") as caught:
        OpenAIGenerator(serve().url, api_key=key)
    assert "cret" not in str(caught.value)


def test_a_key_with_a_line_end_is_that_key(serve: Callable[..., ByHeart], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-a-file\n")
    ask(server)
    assert server.keys == {"Bearer sk-from-a-file"}


def test_the_environments_headers_are_sent_and_not_shown(
    serve: Callable[..., ByHeart], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    server.repeats = "gateway-key-8"
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-2")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: gateway-key-8\nuser-agent: mine\nno header")
    server.faults.append("400")
    with pytest.raises(TTSError) as caught:
        ask(server, tokens="ids")
    sent = {name.lower(): value for name, value in server.headers[0].items()}
    names = ("openai-organization", "openai-project", "x-gateway", "user-agent")
    assert [sent[name] for name in names] == ["org-1", "proj-2", "gateway-key-8", "mine"]
    assert "gateway-key-8" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("header", "repeated"),
    [
        (f"Authorization: Bearer {TOKEN}", TOKEN),
        ("Authorization: Bearer k-7", "k-7"),
        (f"authorization: {TOKEN}", TOKEN),
        (f"Authorization: Basic {BASIC}", BASIC),
        (f"Authorization: Basic {BASIC}", f"{USER}:{PASSWORD}"),
        (f"Authorization: Basic {BASIC}", PASSWORD),
        (f"Cookie: session={TOKEN}; theme=dark", TOKEN),
        (f"X-Keys: first, {TOKEN}", TOKEN),
        ("OpenAI-Beta: none", base64.b64encode(b"Authorization: Bearer sk-of-api-key").decode()),
        ("OpenAI-Beta: none", base64.b64encode(b"Bearer sk-of-api-key").decode()),
    ],
)
def test_a_part_of_a_header_is_not_shown_either(
    serve: Callable[..., ByHeart], monkeypatch: pytest.MonkeyPatch, header: str, repeated: str
) -> None:
    server = serve()
    server.repeats = f"the key {repeated}."
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", header)
    server.faults.append("429")
    with pytest.raises(TTSError, match=r"the key [A-Za-z0-9]*\(credentials\)[A-Za-z0-9]?=*\.") as caught:
        ask(server, api_key="sk-of-api-key", max_retries=0)
    assert repeated not in "".join(traceback.format_exception(caught.value))


def test_headers_that_are_no_secret_are_shown(serve: Callable[..., ByHeart], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    server.repeats = "application/json, please"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Content-Type: application/json\nAuthorization: Basic none")
    server.faults.append("429")
    with pytest.raises(TTSError, match="application/json, please"):
        ask(server, max_retries=0)


def test_a_proxy_of_the_environment_is_used(serve: Callable[..., ByHeart], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    proxy = private(server.url).partition("/v1")[0]
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    (one,) = ask(server, url="http://model.invalid/v1")
    assert one.token_ids == server.words
    assert server.paths == ["http://model.invalid/v1/models", "http://model.invalid/v1/completions"]
    assert server.headers[0]["Proxy-Authorization"] == f"Basic {BASIC_LATIN}"
    server.repeats = f"{PASSWORD} {BASIC}"
    server.faults.extend(["407"] * 2)
    with pytest.raises(TTSError, match="407") as caught:
        ask(server, url="http://model.invalid/v1", max_retries=0)
    assert leaks("".join(traceback.format_exception(caught.value))) == []


def test_some_addresses_need_no_proxy(serve: Callable[..., ByHeart], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    monkeypatch.setenv("all_proxy", "socks5://somebody:secret@127.0.0.1:9")
    with pytest.raises(InvalidInputError, match=r"socks5://127\.0\.0\.1:9, is none that speaks HTTP.*NO_PROXY"):
        OpenAIGenerator(server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (one,) = ask(server, request(server))
    assert one.token_ids == server.words


@pytest.mark.parametrize("exception", ["::1", "[::1]", "localhost,::1", "[::1]:8000", "*"])
def test_an_ipv6_address_may_need_no_proxy(monkeypatch: pytest.MonkeyPatch, exception: str) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", exception)
    assert Access.of("http://[::1]:8000/v1", None).proxy is None
    assert (Access.of("http://[::2]:8000/v1", None).proxy is None) == (exception == "*")
