"""The Responses API over a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.searches import scripted
from tests.serving.servers import Paced, Running, lines, serving
from tts_search.testing.fakes import CLOSE, END


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(Paced(), served={"strongest": "BestOfN(n=5)"}) as running:
        yield running


def ask(running: Running, **fields: Any) -> Any:
    reply = running.http.post("/v1/responses", json={"input": "Why?", **fields})
    assert reply.status_code == 200, reply.text
    return lines(reply.text) if fields.get("stream") else reply.json()


def test_a_response_has_reasoning_and_a_message(server: Running) -> None:
    body = ask(server, seed=4, reasoning={"effort": "low"})
    assert (body["object"], body["model"]) == ("response", "fake")
    reasoning, message = body["output"]
    assert (reasoning["type"], message["type"], message["role"]) == ("reasoning", "message", "assistant")
    whole = server.chat(seed=4, reasoning_effort="low").json()
    assert message["content"][0]["text"] == whole["choices"][0]["message"]["content"]
    assert reasoning["content"][0]["text"] == whole["choices"][0]["message"]["reasoning"]
    assert body["usage"]["output_tokens"] == whole["usage"]["completion_tokens"]
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    assert body["search"]["strategy"] == "BestOfN(n=2)"


def test_pro_is_the_servers_strongest(server: Running) -> None:
    assert ask(server, reasoning={"mode": "pro", "effort": "low"})["search"]["strategy"] == "BestOfN(n=5)"
    assert ask(server, reasoning={"mode": "standard", "effort": "low"})["search"]["strategy"] == "BestOfN(n=2)"
    assert ask(server, model="fake:high", reasoning={"mode": "pro"})["search"]["strategy"] == "BestOfN(n=32)"


def test_what_is_accepted_without_effect_is_a_warning(server: Running) -> None:
    body = ask(server, reasoning={"mode": "pro", "effort": "low", "summary": "auto"})
    assert body["reasoning"] == {"mode": "pro", "effort": "low", "summary": None}
    assert [warning.split(":")[0] for warning in body["search"]["warnings"]] == [
        "reasoning.summary",
        "reasoning.effort",
    ]
    (warning,) = ask(server, include=["reasoning.encrypted_content"])["search"]["warnings"]
    assert warning.startswith("include")


@pytest.mark.parametrize("selector", [None, "majority"])
def test_a_stream_is_numbered_and_adds_up(server: Running, selector: str | None) -> None:
    events = ask(server, seed=4, stream=True, search={"selector": selector})
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    for part in ("reasoning_text", "output_text"):
        told = "".join(event["delta"] for event in events if event["type"] == f"response.{part}.delta")
        (done,) = [event["text"] for event in events if event["type"] == f"response.{part}.done"]
        assert told == done
    whole = events[-1]["response"]
    assert whole["output"][1]["content"][0]["text"] == done
    assert done == ask(server, seed=4, search={"selector": selector})["output"][-1]["content"][0]["text"]


def test_instructions_come_first_and_items_are_a_history() -> None:
    engine = Paced(script=scripted(97, CLOSE, 98, END))
    with serving(engine) as running:
        earlier = ask(running)["output"]
        turns = [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}, *earlier]
        ask(running, instructions="Be brief.", input=[*turns, {"role": "user", "content": "And now?"}])
        prompt = bytes(i for i in engine.requests[-1].prefix if i < 256).decode()
        assert prompt.startswith("Be brief.\nWhy?\nb\nAnd now?")


def test_an_answer_that_is_cut_is_incomplete() -> None:
    with serving(Paced(script=scripted(97, CLOSE, *b"one two", END))) as running:
        body = ask(running, max_output_tokens=3)
        assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert body["output"][1]["content"][0]["text"] == "one"
        assert ask(running, max_output_tokens=3, stream=True)[-1]["type"] == "response.incomplete"


def test_a_failure_in_the_middle_is_an_event() -> None:
    engine = Paced(pace=0.001)

    class Faulty(Paced):
        async def generate(self, request: Any) -> Any:
            if request.max_tokens > 1:
                raise RuntimeError("at /srv/secret")
            return await super().generate(request)

    engine = Faulty()
    with serving(engine) as running:
        last = ask(running, stream=True)[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert last["response"]["error"]["code"] == "search_failed"
        assert "secret" not in str(last)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"input": [{"type": "function_call_output", "output": "5"}]}, "input[0].type"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"mode": "amateur"}}, "reasoning.mode"),
        ({"n": 2}, "n"),
        ({"store": True}, "store"),
        ({"input": ""}, "input"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(server: Running, fields: dict[str, Any], param: str) -> None:
    reply = server.http.post("/v1/responses", json={"input": "Why?", **fields})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
