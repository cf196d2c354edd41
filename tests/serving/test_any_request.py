"""Whatever is sent, no request is answered with a 5xx, and every error has OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import Case

from tests.serving.servers import Running, serving
from tts_search.serving.chat_fields import ChatRequest
from tts_search.serving.fields import SearchFields
from tts_search.serving.limits import Limits
from tts_search.serving.responses_fields import ResponsesRequest

OPERATIONS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/searches/{name}"),
    ("DELETE", "/v1/searches/{name}"),
    ("GET", "/v1/searches/{name}/events"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/version"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    limits = Limits(request_tokens=300, request_seconds=2)
    with serving(limits=limits) as running:
        yield running


@pytest.fixture(scope="module")
def schema(server: Running) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_operation_is_fuzzed(schema: Any) -> None:
    told = {(method.upper(), path) for path in schema for method in schema[path]}
    assert told == set(OPERATIONS)


@settings(max_examples=40)
@given(st.data())
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_schema_fuzzed(schema: Any, method: str, path: str, data: st.DataObject) -> None:
    case: Case = data.draw(schema[path][method].as_strategy())
    response = case.call()
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert set(response.json()) == {"error"}
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
ODD = JSON | st.sampled_from([0, -1, 2, 1e308, 2**70, "", "high", "MCTS()", "../x", "/etc/passwd", {}, [], [[]], True])
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Why?"}]},
    "/v1/responses": {"input": "Why?"},
}
FIELDS = {"/v1/chat/completions": ChatRequest.model_fields, "/v1/responses": ResponsesRequest.model_fields}


@settings(max_examples=150)
@given(st.data())
def test_odd_values_in_every_field(server: Running, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(GOOD)))
    names = st.sampled_from(sorted(FIELDS[path])) | st.text(max_size=8)
    body = {**GOOD[path], **data.draw(st.dictionaries(names, ODD, max_size=3))}
    if data.draw(st.booleans()):
        body["search"] = data.draw(st.dictionaries(st.sampled_from(sorted(SearchFields.model_fields)), ODD, max_size=3))
    reply = server.http.post(path, json=body)
    assert reply.status_code < 500, (body, reply.text)
    if reply.status_code >= 400:
        assert reply.json()["error"]["message"]


@settings(max_examples=50)
@given(st.binary(max_size=200), st.sampled_from(sorted(GOOD)))
def test_any_bytes_as_a_body(server: Running, content: bytes, path: str) -> None:
    reply = server.http.post(path, content=content, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500
    assert reply.json()["error"]["message"]
