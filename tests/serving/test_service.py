"""What holds a server together: clients that leave, retries, queues, keys, an engine that dies, an end that drains."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.servers import Paced, Running, lines, serving
from tts_search.errors import InvalidInputError
from tts_search.serving.keys import Key, Keys
from tts_search.serving.limits import Limits
from tts_search.serving.refusals import RefusedError
from tts_search.serving.search_options import check_settings
from tts_search.serving.server_process import bind, check_public
from tts_search.testing import FakeGenerator

ALICE, BOB = "a" * 20, "b" * 20

QUESTION = {"messages": [{"role": "user", "content": "Why?"}]}


def endless(prefix: tuple[int, ...], seed: int) -> int:
    """A thought without an end."""
    return 97


@contextmanager
def leaving(running: Running, body: dict[str, Any]) -> Iterator[None]:
    """A client that has asked, and hangs up behind the block without having read anything."""
    with closing(HTTPConnection(running.url.removeprefix("http://"))) as connection:
        asked = running.http.build_request("POST", "/v1/chat/completions", json=body)
        connection.request(asked.method, asked.url.path, asked.content, dict(asked.headers))
        yield


def keys(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Keys:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    return Keys.read(path, environment or {})


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("streamed", [False, True])
def test_the_engine_stops_when_a_client_leaves(streamed: bool) -> None:
    engine = Paced(script=endless)
    with serving(engine) as running:
        engine.held.set()
        with leaving(running, {**QUESTION, "stream": streamed}):
            running.wait(lambda: len(running.service.searches.running) == 1)
        running.wait(lambda: not running.service.searches.running)  # which goes on for ever if nobody ends it
        before = len(engine.sampled)
        engine.held.clear()
        time.sleep(0.1)
        assert len(engine.sampled) == before
        assert running.service.admission.running == 0


def test_a_stream_is_alive_at_once_and_while_nothing_comes() -> None:
    engine = Paced(script=endless)
    with serving(engine, limits=Limits(keep_alive_seconds=0.05)) as running:
        engine.held.set()
        body = {**QUESTION, "stream": True}
        with running.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            seen = ""
            for text in reply.iter_text():
                seen += text
                if seen.count(": keep-alive") >= 2:
                    break
        assert seen.startswith("data: ")
        assert json.loads(seen.splitlines()[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"


def test_a_body_that_takes_long_has_blank_lines_in_front_and_is_json() -> None:
    engine = Paced()
    with serving(engine, limits=Limits(keep_alive_seconds=0.05)) as running:
        engine.held.set()
        threading.Timer(0.3, engine.held.clear).start()
        reply = running.chat()
        assert reply.text.startswith("\n\n")
        assert reply.json()["choices"]


def test_an_error_behind_blank_lines_breaks_the_connection_off() -> None:
    engine = Paced()
    with serving(engine, limits=Limits(keep_alive_seconds=0.05, restarts=0)) as running:
        engine.held.set()
        threading.Timer(0.3, engine.broken.set).start()
        seen = b""
        with running.http.stream("POST", "/v1/chat/completions", json=QUESTION) as reply:
            parts = reply.iter_bytes()
            while b"{" not in seen:
                seen += next(parts)
            with pytest.raises(httpx.RemoteProtocolError):
                list(parts)
        assert json.loads(seen)["error"]["code"] == "engine_unavailable"


def test_a_retry_joins_the_search_under_way() -> None:
    engine = Paced(pace=0.01)
    with serving(engine) as running:
        engine.held.set()
        replies: list[Any] = []

        def ask(**headers: str) -> None:
            replies.append(running.chat(headers=headers).json())

        threads = [threading.Thread(target=ask), threading.Thread(target=ask, kwargs={"x-stainless-retry-count": "1"})]
        threads[0].start()
        running.wait(lambda: len(running.service.searches.running) == 1)
        threads[1].start()
        other = threading.Thread(target=ask)  # equal, but nobody says that it repeats one
        other.start()
        running.wait(lambda: len(running.service.searches.running) == 2)
        engine.held.clear()
        for thread in (*threads, other):
            thread.join(120)
        assert len({reply["id"] for reply in replies}) == 2
        assert b"tts_search_retries_joined_total 1.0" in running.http.get("/metrics").content


def test_a_key_of_a_repeated_request_stands_for_its_body_too() -> None:
    engine = Paced()
    with serving(engine) as running:
        engine.held.set()
        replies: list[Any] = []

        def ask(seed: int) -> None:
            replies.append(running.chat(headers={"idempotency-key": "one"}, seed=seed).json())

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 1, 2)]
        for thread in threads:
            thread.start()
        running.wait(lambda: len(running.service.searches.running) == 2)
        running.wait(lambda: b"tts_search_retries_joined_total 1.0" in running.http.get("/metrics").content)
        engine.held.clear()
        for thread in threads:
            thread.join(120)
        assert sorted(reply["search"]["seed"] for reply in replies) == [1, 1, 2]


def test_a_client_that_timed_out_finds_its_search_again() -> None:
    engine = Paced()
    with serving(engine, limits=Limits(linger_seconds=60)) as running:
        engine.held.set()
        with leaving(running, QUESTION):
            running.wait(lambda: len(running.service.searches.running) == 1)
            (search,) = running.service.searches.running
        threading.Timer(0.1, engine.held.clear).start()
        reply = running.chat(headers={"x-stainless-retry-count": "1"})
        assert reply.json()["search"]["id"] == search.id


def test_a_full_queue_sends_away_and_says_for_how_long() -> None:
    engine = Paced()
    with serving(engine, limits=Limits(concurrency=1, waiting=1)) as running:
        engine.held.set()
        threads = [threading.Thread(target=running.chat) for _ in range(2)]
        for thread in threads:
            thread.start()
        running.wait(lambda: running.service.admission.waiting == 1)
        reply = running.chat()
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json()["error"]["code"] == "server_busy"
        engine.held.clear()
        for thread in threads:
            thread.join(120)
        assert running.chat().status_code == 200
        assert (running.service.admission.running, running.service.admission.promised) == (0, 0)


def test_promised_tokens_are_limited_and_a_request_cannot_ask_for_more_than_its_cap() -> None:
    engine = Paced()
    limits = Limits(promised_tokens=1000, request_tokens=900)
    with serving(engine, limits=limits) as running:
        engine.held.set()
        thread = threading.Thread(target=running.chat, kwargs={"search": {"budget": 800}})
        thread.start()
        running.wait(lambda: running.service.admission.promised == 800)
        assert running.chat(search={"budget": 300}).status_code == 429
        too_much = running.chat(search={"budget": 901})
        assert (too_much.status_code, too_much.json()["error"]["param"]) == (400, "search.budget")
        engine.held.clear()
        thread.join(120)
        assert running.chat().json()["search"]["budget"] == 900


def test_turns_go_around_the_keys(tmp_path: Path) -> None:
    engine = Paced()
    known = keys(tmp_path, f'[alice]\nkey = "{ALICE}"\n[bob]\nkey = "{BOB}"\n')
    with serving(engine, keys=known, limits=Limits(concurrency=1)) as running:
        engine.held.set()
        threads = []
        for key in (ALICE, ALICE, ALICE, BOB):
            threads.append(threading.Thread(target=running.chat, kwargs={"headers": bearer(key)}))
            threads[-1].start()
            count = len(threads)
            running.wait(lambda count=count: len(running.service.searches.running) == count)
        searches = list(running.service.searches.running)
        engine.held.clear()
        for thread in threads:
            thread.join(120)
        turns = [search.key.name for search in sorted(searches, key=lambda search: search.begun or 0.0)]
        assert turns == ["alice", "alice", "bob", "alice"]  # the first did not wait


def test_keys_are_asked_for_and_searches_are_for_the_key_that_asked(tmp_path: Path) -> None:
    known = keys(tmp_path, f'[alice]\nkey = "{ALICE}"\n', {"TTS_SEARCH_API_KEY": BOB})
    with serving(keys=known) as running:
        for headers in ({}, bearer("c" * 20), {"authorization": f"Basic {ALICE}"}, bearer("é" * 20)):
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            reply = running.http.post("/v1/chat/completions", json=QUESTION, headers=raw)
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
        for content in (b"{", b"x" * 5000, b'{"messages": 5}'):  # nothing is read for who has no key
            assert running.http.post("/v1/chat/completions", content=content).status_code == 401
        for path in ("/v1/models", "/metrics", "/v1/searches/x"):
            assert running.http.get(path).status_code == 401
        for path in ("/health", "/ready", "/version"):
            assert running.http.get(path).status_code == 200
        name = running.chat(headers=bearer(ALICE)).json()["search"]["id"]
        for below in ("", "/events"):
            place = f"/v1/searches/{name}{below}"
            assert running.http.get(place, headers=bearer(ALICE)).status_code == 200
            assert running.http.get(place, headers=bearer(BOB)).status_code == 404
        assert running.http.delete(f"/v1/searches/{name}", headers=bearer(BOB)).status_code == 404


def test_an_allowance_is_spent_and_bounds_what_runs(tmp_path: Path) -> None:
    text = f'[alice]\nkey = "{ALICE}"\ntokens_per_day = 300\nseconds = 50\nconcurrency = 1\n'
    engine = Paced()
    with serving(engine, keys=keys(tmp_path, text)) as running:
        search = running.chat(headers=bearer(ALICE), search={"effort": "low"}).json()["search"]
        spent = search["usage"]["sampled_tokens"]
        assert search["budget"] == 300
        again = running.chat(headers=bearer(ALICE), search={"effort": "high"}).json()["search"]
        assert again["budget"] == 300 - spent
        assert spent + again["usage"]["sampled_tokens"] <= 300
        engine.held.set()
        (key,) = running.service.keys._keys
        key.spent = 10
        thread = threading.Thread(target=running.chat, kwargs={"headers": bearer(ALICE)})
        thread.start()
        running.wait(lambda: key.running == 1)
        assert running.chat(headers=bearer(ALICE)).json()["error"]["code"] == "rate_limit_exceeded"
        engine.held.clear()
        thread.join(120)
        key.spent = 300
        refused = running.chat(headers=bearer(ALICE))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert int(refused.headers["retry-after"]) >= 1


def test_an_allowance_is_whole_again_the_next_day() -> None:
    now = 86_400.0 * 10 + 86_399
    key = Key("alice", tokens_per_day=100, clock=lambda: now)
    assert key.left == 100
    key.spent = 100
    with pytest.raises(RefusedError) as refused:
        key.check()
    assert refused.value.retry_after == 1.0
    now += 1
    key.check()
    assert key.left == 100


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        'alice = "key"',
        '[alice]\nkey = "short"',
        '[alice]\nkey = "aaaaaaaaaaaaaaaaaaaa"\ntokens_per_day = -1',
        '[alice]\nkey = "aaaaaaaaaaaaaaaaaaaa"\nsecond = 1',
    ],
)
def test_a_file_of_keys_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"keys\.toml"):
        keys(tmp_path, text)


def test_a_public_address_needs_keys() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(InvalidInputError, match=host):
            check_public(host, Keys())
        check_public(host, Keys([Key("a", b"x")]))
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        check_public(host, Keys())


def test_what_cannot_be_listened_on_or_offered_is_refused_at_start() -> None:
    for port in (-1, 65_536):
        with pytest.raises(InvalidInputError, match="--port"):
            bind("127.0.0.1", port)
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(InvalidInputError, match="cannot listen"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InvalidInputError, match="--plugin nowhere"):
        check_settings("low", "high", plugins=["nowhere"])


def test_a_page_elsewhere_cannot_reach_a_server_on_its_readers_machine() -> None:
    with serving() as running:
        named = running.http.get("/v1/models", headers={"host": "evil.example:80"})
        assert (named.status_code, named.json()["error"]["code"]) == (403, "unknown_host")
        assert running.http.get("/v1/models", headers={"host": "localhost:1"}).status_code == 200
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as old:
            old.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert old.recv(100).startswith(b"HTTP/1.1 200")
        reply = running.http.get("/v1/models", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in reply.headers
    with serving(hosts=("box.local",), origins=("https://ui.example",)) as running:
        assert running.http.get("/v1/models", headers={"host": "box.local:8000"}).status_code == 200
        reply = running.http.get("/v1/models", headers={"origin": "https://ui.example"})
        assert reply.headers["access-control-allow-origin"] == "https://ui.example"


def test_a_failed_request_names_its_kind_and_nothing_of_the_server() -> None:
    class Once(Paced):
        async def generate(self, request: Any) -> Any:
            if request.max_tokens > 1:
                raise RuntimeError("no room at /srv/models/secret")
            return await super().generate(request)

    with serving(Once()) as running:
        reply = running.chat()
        assert reply.status_code == 500
        assert "secret" not in reply.text
        assert running.http.get("/health").json() == {"status": "ready"}
        (error,) = [c["error"] for c in running.stream() if "error" in c]
        assert "secret" not in str(error)


def test_a_dead_engine_is_told_of_and_replaced() -> None:
    engine = Paced(pace=0.005, script=endless)
    gate = threading.Event()

    def another() -> Any:
        gate.wait(120)
        return FakeGenerator()

    with serving(engine, another=another) as running:
        replies: list[Any] = []
        threads = [threading.Thread(target=lambda: replies.append(running.chat())) for _ in range(3)]
        threads.append(threading.Thread(target=lambda: replies.append(running.stream())))
        for thread in threads:
            thread.start()
        running.wait(lambda: running.service.admission.running == 4)
        engine.broken.set()
        for thread in threads:
            thread.join(120)
        errors = [reply[-2]["error"] if isinstance(reply, list) else reply.json()["error"] for reply in replies]
        assert {error["code"] for error in errors} == {"engine_unavailable"}
        assert {reply.status_code for reply in replies if not isinstance(reply, list)} == {503}
        assert running.http.get("/health").status_code == 503
        refused = running.chat()
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
        gate.set()
        running.wait(lambda: running.service.supervisor.state == "ready")
        assert running.http.get("/health").status_code == 200
        assert running.chat().status_code == 200
        assert b"tts_search_engine_restarts 1.0" in running.http.get("/metrics").content


def test_an_engine_that_dies_of_boredom_is_noticed() -> None:
    engine = Paced()
    with serving(engine, idle_seconds=0.02) as running:
        engine.broken.set()
        running.wait(lambda: running.service.supervisor.restarted == 1 and running.service.supervisor.state == "ready")
        assert running.chat().status_code == 200


def test_an_engine_that_stays_dead_is_not_opened_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def another() -> Any:
        raise RuntimeError("no memory")

    engine = Paced()
    with serving(engine, another=another, limits=Limits(restarts=1)) as running:
        engine.broken.set()
        assert running.chat().status_code == 503
        running.wait(lambda: running.service.supervisor.state == "dead")
        assert running.http.get("/health").json() == {"status": "dead"}
        assert running.http.get("/ready").status_code == 503
        assert running.chat().status_code == 503


def test_an_engine_elsewhere_is_looked_for_until_it_is_back() -> None:
    tries: list[float] = []

    def another() -> Any:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise RuntimeError("nobody is there")
        return FakeGenerator()

    engine = Paced()
    with serving(engine, another=another, limits=Limits(restarts=None)) as running:
        engine.broken.set()
        assert running.chat().status_code == 503
        running.wait(lambda: running.service.supervisor.state == "ready", seconds=60)
        assert running.chat().status_code == 200


def test_an_end_drains_and_then_tells_who_still_waits() -> None:
    engine = Paced(script=endless)
    with serving(engine, limits=Limits(drain_seconds=0.3)) as running:
        engine.held.set()
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.extend(running.stream()))
        thread.start()
        running.wait(lambda: running.service.admission.running == 1)
        running.server.handle_exit(15, None)
        thread.join(120)
        assert got[-2]["error"]["code"] == "engine_unavailable"
        assert got[-1] == "[DONE]"


def test_a_second_interrupt_tells_who_waits_at_once() -> None:
    engine = Paced(script=endless)
    with serving(engine, limits=Limits(drain_seconds=600)) as running:
        engine.held.set()
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(running.chat()))
        thread.start()
        running.wait(lambda: running.service.admission.running == 1)
        for _ in range(2):
            running.server.handle_exit(signal.SIGINT, None)
        thread.join(120)
        assert (got[0].status_code, got[0].json()["error"]["code"]) == (503, "engine_unavailable")


def test_what_runs_comes_to_its_end_after_a_signal() -> None:
    engine = Paced()
    with serving(engine) as running:
        engine.held.set()
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(running.chat()))
        thread.start()
        running.wait(lambda: running.service.admission.running == 1)
        running.server.handle_exit(15, None)
        engine.held.clear()
        thread.join(120)
        assert got[0].status_code == 200


def test_a_search_can_be_watched_while_it_runs_looked_at_later_and_cancelled() -> None:
    engine = Paced(pace=0.001)
    with serving(engine) as running:
        engine.held.set()
        with running.http.stream("POST", "/v1/chat/completions", json={**QUESTION, "stream": True, "seed": 4}) as reply:
            name = reply.headers["x-search-id"]
            assert running.http.get(f"/v1/searches/{name}").status_code == 409
            watched: list[Any] = []
            thread = threading.Thread(
                target=lambda: watched.extend(lines(running.http.get(f"/v1/searches/{name}/events").text))
            )
            thread.start()
            engine.held.clear()
            reply.read()
        thread.join(120)
        late = lines(running.http.get(f"/v1/searches/{name}/events").text)
        for told in (watched, late):
            kinds = [event["type"] for event in told]
            assert (kinds[0], kinds[-1]) == ("started", "finished")
            nodes = [node["index"] for event in told if event["type"] == "grown" for node in event["nodes"]]
            assert nodes == list(range(1, len(nodes) + 1))
            assert {"grown", "chosen", "answering"} <= set(kinds)
            text = "".join(event["text"] for event in told if event["type"] == "answering")
            assert text == told[-1]["answer"]
        saved = running.http.get(f"/v1/searches/{name}").json()
        assert saved["format"] == "tts-search"
        assert "<!doctype html>" in running.http.get(f"/v1/searches/{name}?form=html").text[:100].lower()
        engine.held.set()
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(running.chat()))
        thread.start()
        running.wait(lambda: running.service.admission.running == 1)
        (search,) = running.service.searches.running
        assert running.http.delete(f"/v1/searches/{search.id}").json()["cancelled"]
        thread.join(120)
        assert (got[0].status_code, got[0].json()["error"]["code"]) == (409, "search_cancelled")


def test_of_what_is_over_the_latest_are_kept() -> None:
    with serving(limits=Limits(kept=2)) as running:
        names = [running.chat().json()["search"]["id"] for _ in range(3)]
        found = [running.http.get(f"/v1/searches/{name}").status_code for name in names]
        assert found == [404, 200, 200]
    with serving(limits=Limits(kept_seconds=0.02)) as running:
        name = running.chat().json()["search"]["id"]
        time.sleep(0.05)
        assert running.http.get(f"/v1/searches/{name}").status_code == 404


def test_metrics_and_the_log_tell_what_matters(caplog: pytest.LogCaptureFixture) -> None:
    with serving(log_prompts=False) as running, caplog.at_level("INFO", "tts_search.serving.middleware"):
        spent = running.chat("a secret question").json()["usage"]["completion_tokens"]
        seen = 'tts_search_requests_total{path="/v1/chat/completions",status="200"} 1.0'
        running.wait(lambda: seen in running.http.get("/metrics").text)  # a request is counted behind its reply
        page = running.http.get("/metrics").text
        assert f'tts_search_sampled_tokens_total{{strategy="BestOfN"}} {float(spent)}' in page
        assert 'tts_search_searches_total{stop_reason="completed",strategy="BestOfN"} 1.0' in page
        for name in ("queue", "in_flight", "first_token_seconds_bucket", "search_seconds_sum", "engine_up"):
            assert f"tts_search_{name}" in page
        running.wait(lambda: "BestOfN" in caplog.text)  # a line comes behind its reply
        line = json.loads(next(record.message for record in caplog.records if "BestOfN" in record.message))
        assert line["sampled_tokens"] == spent
        assert (line["path"], line["status"], line["key"]) == ("/v1/chat/completions", 200, "anybody")
        assert "secret question" not in caplog.text
    with serving(log_prompts=True) as running, caplog.at_level("INFO", "tts_search.serving.middleware"):
        running.chat("a public question")
        running.wait(lambda: "a public question" in caplog.text)
