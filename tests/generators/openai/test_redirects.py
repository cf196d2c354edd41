"""Redirects: within a server they are followed, elsewhere nothing is sent, and what is sent stays a POST."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("aiohttp")

from tests.generators.openai.asking import ask
from tests.generators.openai.misbehaving_server import KEY, MODEL, ByHeart
from tts_search.errors import GeneratorError
from tts_search.generators.openai import OpenAIGenerator
from tts_search.generators.openai.redirects import MOST_REDIRECTS, followed, shown

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_another_server_is_asked_nothing(
    serve: Callable[..., ByHeart], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    server, other = serve(), serve()
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Api-Key: custom-secret-123456")
    place = other.url.replace("://", "://user:word@") + "/completions"
    server.faults.append(f"{status} to {place}?code=very-secret")
    with pytest.raises(
        GeneratorError, match=rf"status {status}, pointing to {other.url}/completions: .*base_url"
    ) as caught:
        ask(server, api_key=KEY, max_retries=3)
    assert not [secret for secret in ("user:word", "very-secret", KEY) if secret in str(caught.value)]
    assert len(server.bodies) == 1, "nothing is tried again"
    assert (other.paths, other.bodies) == ([], [])


@pytest.mark.parametrize("status", ["307", "308"])
def test_within_a_server_a_post_stays_a_post(serve: Callable[..., ByHeart], status: str) -> None:
    server = serve()
    server.faults.extend([f"{status} to /v1/elsewhere", f"{status} to {server.url}/again?version=2"])
    (one,) = ask(server, api_key=KEY)
    assert one.token_ids == server.words
    assert server.paths[-3:] == ["/v1/completions", "/v1/elsewhere", "/v1/again?version=2"]
    assert server.bodies[0] == server.bodies[1] == server.bodies[2]
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("status", ["301", "302", "303"])
def test_no_post_becomes_a_get(serve: Callable[..., ByHeart], status: str) -> None:
    server = serve()
    server.faults.append(f"{status} to /v1/elsewhere")
    with pytest.raises(
        GeneratorError, match=rf"status {status}, pointing to {server.url}/elsewhere: .*no POST made a GET"
    ):
        ask(server)
    assert server.paths[-1] == "/v1/completions"


def test_redirects_without_end_are_told(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.extend(["307 to /v1/completions"] * 20)
    with pytest.raises(GeneratorError, match=rf"led through {MOST_REDIRECTS} redirects, .*/v1/completions: "):
        ask(server)
    assert len(server.bodies) == MOST_REDIRECTS + 1


def test_a_list_of_models_may_have_moved_within_its_server(serve: Callable[..., ByHeart]) -> None:
    server, other = serve(), serve()
    server.moved = f"{other.url}/models"
    with pytest.raises(GeneratorError, match=rf"GET {server.url}/models answered .* pointing to {other.url}/models"):
        OpenAIGenerator(server.url)
    assert other.paths == []
    server.moved = "/v1/list"
    assert OpenAIGenerator(server.url).name == MODEL
    assert server.paths[-1] == "/v1/list"


HERE = "http://host/v1/models?key=secret"


@pytest.mark.parametrize(
    ("location", "there", "for_eyes"),
    [
        ("list", "http://host/v1/list", "http://host/v1/list"),
        ("//HOST:80/list?a=b", "http://HOST:80/list?a=b", "http://HOST:80/list"),
        ("https://host/v1/models", None, "https://host/v1/models"),
        ("http://host:8080/v1/models", None, "http://host:8080/v1/models"),
        ("http://me:word@host/v1/models", None, "http://host/v1/models"),
        ("http://me:word@host:99999/", None, "http://host:99999/"),
        ("http://[::1/models", None, "http://[::1/models"),
        ("ftp://host/x", None, "ftp://host/x"),
        ("", None, "nowhere"),
        (None, None, "nowhere"),
    ],
)
def test_where_a_redirect_leads(location: str | None, there: str | None, for_eyes: str) -> None:
    assert followed(HERE, "GET", 301, location) == followed(HERE, "POST", 307, location) == there
    assert followed(HERE, "POST", 302, location) is None
    assert shown(HERE, location) == for_eyes
