"""Chat completions over a real server: names of searches, every field, answers, streams."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from tests.searches import scripted
from tests.serving.servers import Paced, Running, serving
from tts_search import BestOfN, Searcher
from tts_search.generators.openai import ChatGenerator
from tts_search.testing.fakes import CLOSE, END, STEP


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(Paced()) as running:
        yield running


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    """A model that neither thinks nor has a scorer."""
    with serving(Paced(thinks=False, script=scripted(*b"abc def. XY z", END, thinks=False)), scorer=None) as running:
        yield running


def last_request(running: Running) -> Any:
    return running.opened[-1].requests[-1]


def text_of(chunks: list[Any], field: str = "content") -> str:
    return "".join(c["choices"][0]["delta"].get(field) or "" for c in chunks if c != "[DONE]" and c["choices"])


def test_a_completion_has_all_that_clients_read(server: Running) -> None:
    reply = server.chat(seed=3)
    assert reply.status_code == 200
    body = reply.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "fake"
    (choice,) = body["choices"]
    assert choice["finish_reason"] in ("stop", "length")
    message = choice["message"]
    assert message["role"] == "assistant"
    assert isinstance(message["content"], str)
    assert message["reasoning"] == message["reasoning_content"]
    usage, search = body["usage"], body["search"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == len("Why?") + 1
    assert usage["completion_tokens"] == search["usage"]["sampled_tokens"]
    assert 0 <= usage["completion_tokens_details"]["reasoning_tokens"] <= usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]
    assert search["strategy"] == "BestOfN(n=8)"
    assert len(search["candidates"]) == 8
    assert search["seed"] == 3


@pytest.mark.parametrize(
    ("fields", "strategy"),
    [
        ({}, "BestOfN(n=8)"),
        ({"reasoning_effort": "none"}, "BestOfN(n=1)"),
        ({"reasoning_effort": "minimal"}, "BestOfN(n=2)"),
        ({"reasoning_effort": "xhigh"}, "BestOfN(n=64)"),
        ({"model": "fake:high"}, "BestOfN(n=32)"),
        ({"model": "fake:high", "reasoning_effort": "low"}, "BestOfN(n=32)"),
        ({"model": "fake:beam"}, "StepBeamSearch"),
        ({"model": "fake:high", "search": {"strategy": "beam"}}, "StepBeamSearch"),
        ({"model": "fake:high", "search": {"effort": "low"}}, "BestOfN(n=2)"),
        ({"model": "fake:low", "search": {"budget": 300}}, "BestOfN(n=2)"),
        ({"search": {"strategy": "mcts", "budget": 300}}, "MCTS"),
        ({"search": {"strategy": "MCTS(children=2)", "budget": 300}}, "MCTS(children=2"),
        ({"search": {"strategy": "Repeat(BestOfN(n=3))", "budget": 300}}, "Repeat(strategy=BestOfN(n=3))"),
    ],
)
def test_the_first_that_names_a_search_counts(server: Running, fields: dict[str, Any], strategy: str) -> None:
    reply = server.chat(**fields)
    assert reply.status_code == 200, reply.text
    assert reply.json()["search"]["strategy"].startswith(strategy)
    assert reply.json()["search"]["budget"] == fields.get("search", {}).get("budget")


def test_a_search_without_an_end_has_a_budget(server: Running) -> None:
    with serving(served={"budget": 500}) as running:
        assert running.chat(model="fake:mcts").json()["search"]["budget"] == 500


def test_equal_seeds_give_equal_replies_and_none_gives_others(server: Running) -> None:
    replies = [server.chat(seed=5).json()["choices"] for _ in range(2)]
    assert replies[0] == replies[1]
    seeds = {server.chat(reasoning_effort="none").json()["search"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_stream_tells_rounds_thinking_and_answer(server: Running) -> None:
    whole = server.chat(seed=4).json()
    chunks = server.stream(seed=4, stream_options={"include_usage": True})
    assert chunks[-1] == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(chunks) == whole["choices"][0]["message"]["content"]
    reasoning = text_of(chunks, "reasoning")
    assert reasoning == text_of(chunks, "reasoning_content")
    assert "8 paths, best 0." in reasoning
    assert whole["choices"][0]["message"]["reasoning"].strip() in reasoning
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"] == whole["usage"]
    assert [chunk["usage"] for chunk in chunks[:-2]] == [None] * len(chunks[:-2])
    assert chunks[-3]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-3]["search"]["score"] == whole["search"]["score"]
    assert {chunk["id"] for chunk in chunks[:-1]} == {chunks[0]["id"]}


def test_what_this_package_has_is_not_looked_for_in_others(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which packages are installed takes longer to find out than all else that is done for a request."""
    monkeypatch.setattr("tts_search.discovery.installed", lambda group: pytest.fail(group))
    for strategy in ("BestOfN(n=2)", "best_of_n(n=2)", "Repeat(BestOfN(n=2))", "low"):
        assert server.chat(search={"strategy": strategy, "budget": 200}).status_code == 200
    assert server.chat(model="fake:low").status_code == 200


def test_a_single_sample_streams_like_a_model_without_a_server_of_searches(server: Running) -> None:
    whole = server.chat(seed=4, reasoning_effort="none").json()["choices"][0]["message"]
    chunks = server.stream(seed=4, reasoning_effort="none")
    assert text_of(chunks, "reasoning").strip() == (whole["reasoning"] or "").strip()
    assert text_of(chunks) == whole["content"]


def test_a_client_of_ours_asks_it_for_samples_and_not_for_searches(server: Running) -> None:
    generator = ChatGenerator(f"{server.url}/v1", max_retries=0)
    assert generator.name == "fake:none"
    with Searcher(generator=generator) as searcher:
        result = searcher.search("Why?", strategy=BestOfN(n=3), budget=300, max_tokens=90)
    assert 0 < result.usage.sampled_tokens <= 300
    assert len(result.candidates) == 3
    assert not any("path" in step.text for step in result.steps)


def test_an_answer_streams_as_it_is_sampled_and_one_voted_on_comes_at_once() -> None:
    script = scripted(97, CLOSE, *b"one two three", END)
    with serving(Paced(pace=0.01, script=script)) as running:
        pieces = [c for c in running.stream()[1:-2] if c["choices"][0]["delta"].get("content")]
        assert len(pieces) > 2
        assert text_of(pieces) == "one two three"
        (piece,) = [
            c for c in running.stream(search={"selector": "majority"})[1:-2] if c["choices"][0]["delta"].get("content")
        ]
        assert text_of([piece]) == "one two three"


def test_usage_is_in_the_last_chunk_unless_it_has_one_of_its_own_or_is_not_wanted(server: Running) -> None:
    assert "usage" in server.stream()[-2]
    assert not [c for c in server.stream(stream_options={"include_usage": False})[:-1] if "usage" in c]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_ends_the_answer_alone(streamed: bool) -> None:
    script = scripted(97, STEP, 98, CLOSE, *b"one. two. three", END)
    with serving(Paced(pace=0.002, script=script)) as running:
        if streamed:
            chunks = running.stream(stop=[". t", "zzz"])
            content, thinking, finish = text_of(chunks), text_of(chunks, "reasoning"), chunks[-2]["choices"][0]
        else:
            finish = running.chat(stop=[". t", "zzz"]).json()["choices"][0]
            content, thinking = finish["message"]["content"], finish["message"]["reasoning"]
        assert content == "one"
        assert "a.\n\nb" in thinking
        assert finish["finish_reason"] == "stop"
        inside = running.chat(stop=".\n\n").json()["choices"][0]["message"]
        assert (inside["content"], inside["reasoning"]) == ("one. two. three", "a.\n\nb")


def test_votes_are_counted_on_answers_as_they_are_given() -> None:
    script = scripted(97, CLOSE, *b"It is 4.\n\nQ: 2+3? A: 5", END)
    with serving(Paced(script=script)) as running:
        for extract, vote in (({}, "4"), ({"extract": "text"}, "It is 4")):
            body = running.chat(stop="\n\nQ:", search={"selector": "majority", **extract}).json()
            assert body["choices"][0]["message"]["content"] == "It is 4."
            assert {candidate["vote"] for candidate in body["search"]["candidates"]} == {vote}


def test_max_tokens_is_the_answers() -> None:
    script = scripted(*b"a long thought", CLOSE, *b"one two three", END)
    with serving(Paced(script=script)) as running:
        for name in ("max_tokens", "max_completion_tokens"):
            choice = running.chat(**{name: 5}).json()["choices"][0]
            assert choice["message"]["content"] == "one t"
            assert choice["message"]["reasoning"] == "a long thought"
            assert choice["finish_reason"] == "length"


def test_max_tokens_is_all_of_a_model_that_does_not_think(plain: Running) -> None:
    body = plain.chat(max_tokens=5, reasoning_effort="low").json()
    assert body["choices"][0]["message"]["content"] == "abc d"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 10
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5
    whole = plain.chat(reasoning_effort="low").json()["choices"][0]
    assert whole["message"]["content"] == "abc def. XY z"
    assert whole["finish_reason"] == "stop"
    assert "reasoning" not in whole["message"]


def test_n_gives_the_best_different_candidates(server: Running) -> None:
    for streamed in (False, True):
        if streamed:
            chunks = server.stream(n=3, seed=2)
            texts = ["", "", ""]
            for chunk in chunks[:-1]:
                for choice in chunk["choices"]:
                    texts[choice["index"]] += choice["delta"].get("content") or ""
            search = chunks[-2]["search"]
        else:
            body = server.chat(n=3, seed=2).json()
            texts = [choice["message"]["content"] for choice in body["choices"]]
            search = body["search"]
        assert len(set(texts)) == 3
        scores = {c["answer"]: c["score"] for c in search["candidates"]}
        ranked = [scores[text] for text in texts if text in scores]
        assert ranked == sorted(ranked, reverse=True)
        assert search["warnings"] == []
    assert len(server.chat(n=4, reasoning_effort="none", seed=1).json()["search"]["candidates"]) == 4


def test_fewer_different_ones_than_asked_for_are_a_warning(plain: Running) -> None:
    body = plain.chat(n=3).json()
    assert len(body["choices"]) == 1
    assert "n=3 answers" in body["search"]["warnings"][0]


def test_temperature_zero_of_several_samples_is_a_warning_and_of_one_is_greedy(server: Running) -> None:
    (warning,) = server.chat(temperature=0).json()["search"]["warnings"]
    assert "temperature 0" in warning
    assert last_request(server).sampling.temperature > 0
    assert server.chat(temperature=0, reasoning_effort="none").json()["search"]["warnings"] == []
    assert last_request(server).sampling.temperature == 0


def test_sampling_reaches_the_engine(server: Running) -> None:
    server.chat(temperature=1.5, top_p=0.5, top_k=7, min_p=0.1, repetition_penalty=1.1)
    sampling = last_request(server).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.5, 0.5, 7)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.1)


def test_parts_roles_and_a_history_as_clients_send_it_back(server: Running) -> None:
    earlier = server.chat().json()["choices"][0]["message"]
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]},
        {**earlier, "tool_calls": None, "function_call": None, "audio": None},
        {"role": "user", "content": "And why?", "name": "bo"},
    ]
    reply = server.http.post("/v1/chat/completions", json={"messages": turns})
    assert reply.status_code == 200, reply.text
    prompt = last_request(server).prefix
    text = bytes(i for i in prompt if i < 256).decode()
    assert text.startswith(f"Be brief.\nWhy?\n{earlier['content']}"[:15])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "5"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "5"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "b": 1}]}]}, "messages[0].content"),
        ({"metadata": {"a": [[[1]]]}}, "metadata.a"),
        ({"store": True}, "store"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
        ({"best_of": 3}, "best_of"),
        ({"search": {"stragety": "beam"}}, "search.stragety"),
        ({"search": {"strategy": "beam", "effort": "low"}}, "search"),
        ({"search": {"strategy": "os.system"}}, "search.strategy"),
        ({"search": {"strategy": "os:system"}}, "search.strategy"),
        ({"search": {"strategy": "__import__('os').getcwd()"}}, "search.strategy"),
        ({"search": {"strategy": "MCTS(childs=2)"}}, "search.strategy"),
        ({"search": {"strategy": "BestOfN(n=1000000000)"}}, "search.strategy"),
        ({"search": {"strategy": "Repeat(BestOfN(n=5000))"}}, "search.strategy"),
        ({"search": {"selector": "tests.searches:Wild"}}, "search.selector"),
        ({"search": {"budget": -5}}, "search.budget"),
        ({"search": {"budget": True}}, "search.budget"),
        ({"search": {"early_stop": 2}}, "search.early_stop"),
        ({"search": 5}, "search"),
        ({"n": 0}, "n"),
        ({"n": 1.0}, "n"),
        ({"seed": "7"}, "seed"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["a"] * 50}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"messages": [{"role": "user", "content": "x" * 200_000}]}, "messages"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(
    server: Running, fields: dict[str, Any], param: str | None
) -> None:
    reply = server.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Why?"}], **fields})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logprobs": False},
        {"logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "modalities": ["text"], "n": 1},
        {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "stop": None, "seed": None},
    ],
)
def test_what_says_what_is_so_anyway_is_accepted(server: Running, fields: dict[str, Any]) -> None:
    assert server.chat(**fields).status_code == 200


@pytest.mark.parametrize("name", ["gpt-4", "fake:nothing", "fake:high:high", "/etc/passwd", "../fake", ""])
def test_an_unknown_model_is_not_found(server: Running, name: str) -> None:
    reply = server.chat(model=name)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"messages": NaN}', "application/json", 400),
        (b'{"seed": 1' + b"0" * 5000 + b"}", "application/json", 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "application/json", 400),
        (b'{"\\ud800": 1, "messages": [{"role": "user", "content": "a"}]}', "application/json", 400),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", "application/json", 400),
        (b'{"a": "\\ud800"}', "application/json", 400),
        ('{"messages": []}'.encode("utf-16"), "application/json", 400),
        (b'{"messages": [{"role": "user", "content": "Why?"}]}', "text/plain", 400),
        (b'{"messages": "' + b"x" * 10_000_000 + b'"}', "application/json", 413),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_body_that_is_none_is_refused(server: Running, content: bytes, kind: str, status: int, path: str) -> None:
    reply = server.http.post(path, content=content, headers={"content-type": kind})
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_what_is_said_twice_is_refused_and_not_chosen_from(server: Running, path: str) -> None:
    for content in (b'{"seed": 1, "input": "a", "seed": 2}', b'{"search": {"budget": 5, "seed": 3, "seed": 3}}'):
        reply = server.http.post(path, content=content, headers={"content-type": "application/json"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "seed")


def test_a_body_is_read_without_a_kind_and_behind_a_mark_of_utf_8_but_not_unpacked(server: Running) -> None:
    content = b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "Why?"}]}'
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
        reply = server.http.post("/v1/chat/completions", content=content, headers={"content-type": kind})
        assert reply.status_code == 200, reply.text
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    reply = server.http.post("/v1/chat/completions", content=gzip.compress(content), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "invalid_encoding")


def test_names_are_not_shown_to_the_model_and_the_reply_says_so(server: Running) -> None:
    messages = [{"role": "user", "content": "Why?", "name": "bo"}]
    (warning,) = server.http.post("/v1/chat/completions", json={"messages": messages}).json()["search"]["warnings"]
    assert "names" in warning


def test_a_repeated_search_has_a_budget_as_any_that_has_no_end() -> None:
    with serving(served={"budget": None}) as running:
        search = running.chat(search={"effort": "low", "repeat": True, "seconds": 0.2}).json()["search"]
        assert search["budget"] == 32_768


def test_all_given_answers_count_as_shown() -> None:
    with serving(Paced()) as running:
        body = running.chat(n=3, seed=2, reasoning_effort="low").json()
        shown = sum(len(choice["message"]["content"]) for choice in body["choices"])
        hidden = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert body["usage"]["completion_tokens"] - hidden >= shown


def test_a_long_body_without_a_length_is_refused_as_it_comes(server: Running) -> None:
    reply = server.http.post(
        "/v1/chat/completions", content=(b" " * 65536 for _ in range(200)), headers={"content-type": "application/json"}
    )
    assert reply.status_code == 413
    assert reply.json()["error"]["message"]


def test_models_lists_every_name_and_paths_that_are_none_are_errors_of_the_same_form(server: Running) -> None:
    names = [model["id"] for model in server.http.get("/v1/models").json()["data"]]
    assert {"fake", "fake:none", "fake:high", "fake:best_first", "fake:mcts"} <= set(names)
    assert server.http.get("/v1/models/fake:high").json()["id"] == "fake:high"
    for path, status in (("/v1/models/x", 404), ("/v1/nothing", 404), ("/v1/searches/srch_none", 404)):
        reply = server.http.get(path)
        assert (reply.status_code, set(reply.json()["error"])) == (status, {"message", "type", "param", "code"})
    wrong = server.http.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert server.http.get("/v1/models/", follow_redirects=False).status_code == 404
    assert server.http.post("/v1/chat/completions/", json={}).status_code == 404
    for path in ("/", "/health", "/ready"):
        assert server.http.head(path).status_code == 200


def test_what_needs_scores_is_not_offered_without(plain: Running) -> None:
    names = [model["id"] for model in plain.http.get("/v1/models").json()["data"]]
    assert "fake:mcts" not in names
    assert plain.chat(model="fake:mcts").status_code == 404
    assert plain.chat(search={"strategy": "mcts"}).status_code == 400
