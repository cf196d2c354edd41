"""The OpenAI-compatible generator against a server that misbehaves; `test_vllm_server.py` has a real one."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

pytest.importorskip("aiohttp")

from tests.checkpoints import write_head, write_tokenizer
from tests.generators.openai.asking import ask, request
from tests.generators.openai.misbehaving_server import KEY, LOGPROB, MODEL, ByHeart
from tts_search.api import Searcher
from tts_search.cli import app
from tts_search.core.protocols import Request, Sampling
from tts_search.errors import GeneratorError, InvalidInputError, ModelNotFoundError, TTSError
from tts_search.generators.openai import OpenAIGenerator
from tts_search.generators.openai.listener import Listener
from tts_search.generators.tokenizer import PretrainedTokenizer

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PretrainedTokenizer:
    return PretrainedTokenizer(folder)


def test_a_completion_is_what_the_server_sampled(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    for one in ask(server, request(server, seeds=2)):
        assert one.token_ids == server.words
        assert one.logprobs == (LOGPROB,) * len(server.words)
        assert one.scores is None
        assert one.sampled_tokens == len(server.words)
        assert one.cached_tokens == len(server.prompt) // 2
    body = server.bodies[0]
    assert body["prompt"] == list(server.prompt)
    assert set(body["stop_token_ids"]) == server.tokenizer.eos_ids
    assert {body["seed"] for body in server.bodies} == {0, 1}


def test_how_tokens_are_drawn_is_said(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    ask(server, request(server, sampling=Sampling(temperature=0.3, top_p=0.8, top_k=7)))
    ask(server, request(server, sampling=Sampling(temperature=0.0, top_k=0)))
    said = [(body["temperature"], body["top_p"], body["top_k"], body["repetition_penalty"]) for body in server.bodies]
    assert said == [(0.3, 0.8, 7, 1.0), (0.0, 0.95, -1, 1.0)]


@pytest.mark.parametrize("dialect", ["ids", "shy", "hosted"])
@pytest.mark.parametrize("max_tokens", [1, 5, 200])
def test_limits_and_ends_hold_in_every_dialect(serve: Callable[..., ByHeart], dialect: str, max_tokens: int) -> None:
    server = serve(dialect)
    counts: list[int] = []
    (one,) = ask(server, request(server, max_tokens=max_tokens, on_tokens=counts.append), tokenizer=server.folder)
    assert one.token_ids == server.words[:max_tokens]
    assert one.sampled_tokens == len(one.token_ids) == sum(counts)
    assert one.logprobs == (LOGPROB,) * len(one.token_ids)


@pytest.mark.parametrize("dialect", ["shy", "hosted"])
def test_a_server_that_knows_no_stop_ids_is_stopped_from_here(serve: Callable[..., ByHeart], dialect: str) -> None:
    server = serve(dialect)
    (step,) = server.tokenizer.encode(".\n\n")
    server.faults.append("slow") if dialect == "shy" else server.faults.extend(["400", "slow"])
    (one,) = ask(server, request(server, stops=(step,)), tokenizer=server.folder)
    assert one.token_ids == server.words[: server.words.index(step) + 1]
    assert len(one.token_ids) <= one.sampled_tokens < len(server.words)
    assert server.left.wait(5), "leaving a stream closes the connection"


def test_texts_are_exchanged_where_ids_are_refused(
    serve: Callable[..., ByHeart], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("hosted")
    (one,) = ask(server, tokenizer=server.folder)
    assert one.token_ids == server.words
    assert [type(body["prompt"]) for body in server.bodies] == [list, str]
    assert server.bodies[1]["prompt"] == server.write(server.prompt)  # with the end-of-text tokens between turns
    assert "takes no token ids" in caplog.text
    server.bodies.clear()
    ask(server, tokenizer=server.folder, tokens="text")
    assert [type(body["prompt"]) for body in server.bodies] == [str]
    with pytest.raises(InvalidInputError, match="400: prompt must be a string"):
        ask(server, tokenizer=server.folder, tokens="ids")


def test_ids_that_are_not_shown_are_missed_where_they_are_needed(serve: Callable[..., ByHeart]) -> None:
    with pytest.raises(GeneratorError, match="return_token_ids"):
        ask(serve("shy"), tokens="ids")


@pytest.mark.parametrize("dialect", ["ids", "shy"])
@pytest.mark.parametrize("fault", ["cut", "silence", "error event", "named error", "error object"])
def test_a_cut_stream_goes_on_behind_what_came(serve: Callable[..., ByHeart], dialect: str, fault: str) -> None:
    server = serve(dialect)
    server.faults.extend([fault, fault])
    counts: list[int] = []
    (one,) = ask(server, request(server, on_tokens=counts.append), timeout_seconds=0.3)
    assert one.token_ids == server.words
    assert one.sampled_tokens == sum(counts) == len(server.words)
    assert [server.said(body["prompt"]) for body in server.bodies] == [0, 3, 6]
    limits = [body["max_tokens"] for body in server.bodies]
    assert limits == [200, 197, 194], "no token is paid for twice"
    assert len({body["seed"] for body in server.bodies}) == 3


@pytest.mark.parametrize("max_tokens", [200, 20, 13, 12, 8])
@pytest.mark.parametrize("account", ["", "no usage"])
def test_a_cut_text_counts_by_its_tokens_not_by_its_chunks(
    serve: Callable[..., ByHeart], max_tokens: int, account: str
) -> None:
    """Nothing else tells how much has come where there are neither ids nor log-probabilities."""
    server = serve("hosted")
    server.together = 4
    server.faults.extend(["cut", "cut", account])
    counts: list[int] = []
    asked = request(server, max_tokens=max_tokens, on_tokens=counts.append)
    (one,) = ask(server, asked, tokenizer=server.folder, tokens="text", logprobs=False)
    assert one.token_ids == server.words[:max_tokens]
    assert one.sampled_tokens == len(one.token_ids) == sum(counts)
    said = [server.said(body["prompt"]) for body in server.bodies]
    assert said == [0, 12, 24][: len(said)]
    assert [body["max_tokens"] for body in server.bodies] == [max_tokens - came for came in said]
    assert len(said) == {200: 3, 20: 2, 13: 2}.get(max_tokens, 1)


def test_a_stream_cut_behind_its_last_token_is_complete(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.append("cut")
    (one,) = ask(server, request(server, max_tokens=3))
    assert one.token_ids == server.words[:3]
    assert len(server.bodies) == 1


@pytest.mark.parametrize("max_tokens", [5, 200])
def test_a_stream_that_never_closes_is_complete_by_its_finish(serve: Callable[..., ByHeart], max_tokens: int) -> None:
    server = serve()
    server.faults.append("silent end")
    (one,) = ask(server, request(server, max_tokens=max_tokens), timeout_seconds=0.3)
    assert one.token_ids == server.words[:max_tokens]
    assert one.sampled_tokens == len(one.token_ids)
    assert len(server.bodies) == 1


def test_a_server_that_cuts_every_stream_is_given_up(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.extend(["cut"] * 3)
    with pytest.raises(GeneratorError, match="gone on with 2 times, now given up"):
        ask(server, max_retries=2)


@pytest.mark.parametrize("fault", ["error event", "named error", "error object"])
def test_an_error_in_a_stream_is_told(serve: Callable[..., ByHeart], fault: str) -> None:
    server = serve()
    server.faults.extend([fault] * 2)
    with pytest.raises(GeneratorError, match="broke a stream off: engine died; gone on with 1 times"):
        ask(server, max_retries=1)


@pytest.mark.parametrize(("fault", "words"), [("no model", "404: no such model"), ("no money", "402: no money left")])
def test_an_error_in_a_stream_may_be_for_good(serve: Callable[..., ByHeart], fault: str, words: str) -> None:
    server = serve()
    server.faults.append(fault)
    with pytest.raises(GeneratorError, match=f"/completions broke off with an error of code {words}"):
        ask(server)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", ["408", "429", "500", "503"])
def test_what_may_pass_is_tried_again(serve: Callable[..., ByHeart], status: str) -> None:
    server = serve()
    server.faults.extend([status, status])
    (one,) = ask(server)
    assert one.token_ids == server.words
    assert len(server.bodies) == 3


def test_retry_after_is_honoured(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.append("429 after 0.4")
    began = time.monotonic()
    ask(server)
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        ("400", InvalidInputError, "status 400"),
        ("401", GeneratorError, "OPENAI_API_KEY"),
        ("404", ModelNotFoundError, "model's name"),
        ("429", GeneratorError, "lower max_concurrency"),
        ("500", GeneratorError, "after 1 retries"),
    ],
)
def test_errors_name_endpoint_status_and_remedy_but_no_key(
    serve: Callable[..., ByHeart], status: str, kind: type[TTSError], remedy: str
) -> None:
    server = serve()
    server.faults.extend([status] * 2)
    with pytest.raises(kind, match=remedy) as caught:
        ask(server, max_retries=1, api_key=KEY)
    assert f"{server.url}/completions" in str(caught.value)
    assert status in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("401", GeneratorError, "status 401: set OPENAI_API_KEY"),
        ("400", InvalidInputError, "status 400: see, the"),
        ("404", ModelNotFoundError, r"status 404 \(see, the\)"),
        ("503", GeneratorError, r"status 503 after 1 retries \(see, the\)"),
    ],
)
@pytest.mark.parametrize("way", ["short", "hanging"])
def test_a_status_counts_without_its_words(
    serve: Callable[..., ByHeart],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    status: str,
    kind: type[TTSError],
    words: str,
) -> None:
    monkeypatch.setattr("tts_search.generators.openai.endpoint.WORDS_SECONDS", 1.0)
    server = serve()
    server.faults.extend([f"{way} {status}"] * 2)
    with pytest.raises(kind, match=words):
        ask(server, tokens="ids", max_retries=1)
    assert len(server.bodies) == (2 if status == "503" else 1), "what will not pass is asked once"


def test_silence_is_given_up(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.extend(["hang"] * 2)
    with pytest.raises(GeneratorError, match=r"within 0\.2 seconds, 2 times: raise timeout_seconds"):
        ask(server, max_retries=1, timeout_seconds=0.2)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("garbage", "no JSON"),
        ("strange", r"no chunk of a completion \(choices\[0\]\.text: Expected `str \| null`, got `int`"),
        ("web page", "text/html instead of a stream"),
        ("filtered", "content_filter"),
        ("too few counted", "accounts for"),
        ("no logprobs", "logprobs=False"),
    ],
)
def test_nonsense_is_an_error(serve: Callable[..., ByHeart], fault: str, message: str) -> None:
    server = serve()
    server.faults.append(fault)
    with pytest.raises(GeneratorError, match=message):
        ask(server)


def test_a_server_that_ignores_the_limit_is_refused(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.append("too many")
    with pytest.raises(GeneratorError, match="sampled 6 tokens where at most 5"):
        ask(server, request(server, max_tokens=5))


def test_a_server_with_a_smaller_context_is_refused(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.append("early length")
    with pytest.raises(GeneratorError, match=r"after 2 of 200 tokens.*context_tokens"):
        ask(server)


@pytest.mark.parametrize("dialect", ["ids", "shy", "hosted"])
def test_odd_chunks_are_read_as_others_read_them(serve: Callable[..., ByHeart], dialect: str) -> None:
    """Null for a text, for choices and for ids; probabilities of zero; an account of zero at the end."""
    server = serve(dialect)
    server.faults.append("odd")
    (one,) = ask(server, tokenizer=server.folder, tokens="text" if dialect == "hosted" else "auto")
    assert one.token_ids == server.words
    assert one.sampled_tokens == len(server.words)
    assert one.logprobs == (-9999.0,) * len(server.words)


def test_usage_is_the_servers_own_account(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.extend(["hidden tokens", "no usage"])
    (more,) = ask(server)
    assert more.token_ids == server.words
    assert more.sampled_tokens == len(server.words) + 1
    (without,) = ask(server)
    assert without.sampled_tokens == len(server.words)
    assert without.cached_tokens == 0


@pytest.mark.parametrize("dialect", ["ids", "shy"])
def test_a_completion_cut_off_by_the_limit_needs_no_account(serve: Callable[..., ByHeart], dialect: str) -> None:
    server = serve(dialect)
    server.faults.append("no usage")
    (one,) = ask(server, request(server, max_tokens=6))
    assert one.token_ids == server.words[:6]
    assert one.sampled_tokens == 6


def test_a_server_without_log_probabilities_can_be_used(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.append("no logprobs")
    (one,) = ask(server, logprobs=False)
    assert one.logprobs == (0.0,) * len(server.words)
    assert "logprobs" not in server.bodies[0]


def test_no_more_streams_than_allowed(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.extend(["slow"] * 6)
    ask(server, request(server, seeds=6, max_tokens=8), max_concurrency=2)
    assert server.busiest == 2


def test_cancelling_closes_the_connections(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.append("slow")
    generator = OpenAIGenerator(server.url, model=MODEL)

    async def work() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(generator.generate(request(server, on_tokens=lambda _: begun.set())))
        await asyncio.wait_for(begun.wait(), 120)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.left.wait, 5)
        await generator.aclose()

    asyncio.run(work())


def test_a_request_names_its_tree(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    server.faults.extend(["500", "cut"])
    ask(server, request(server, tree=2**63))
    assert set(server.sessions) == {str(2**63)}, "retries and what goes on behind a cut too"
    assert len(server.sessions) == 3
    ask(server, request(server, tree=8), session_in_body=True)
    assert server.sessions[-1] == server.bodies[-1]["session_id"] == "8"
    assert not any("session_id" in body for body in server.bodies[:-1])


def test_a_server_is_not_asked_what_is_known(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    known = {"tokenizer": server.folder, "context_tokens": 400}
    (one,) = ask(server, **known)
    assert one.token_ids == server.words
    assert server.paths == ["/v1/completions"]
    for name in known:
        ask(server, **{other: value for other, value in known.items() if other != name})
        assert "/v1/models" in server.paths
        server.paths.clear()


class Joined(Sequence[int]):
    """A prefix that is joined when it is read."""

    def __init__(self, *parts: Sequence[int]) -> None:
        self.parts = parts
        self.joined = 0

    def __iter__(self) -> Iterator[int]:
        self.joined += 1
        return itertools.chain(*self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: Any) -> Any:
        return [token for part in self.parts for token in part][index]


@pytest.mark.parametrize("dialect", ["ids", "shy", "hosted"])
@pytest.mark.parametrize("stopped", [False, True])
def test_tokens_are_told_as_they_come(serve: Callable[..., ByHeart], dialect: str, stopped: bool) -> None:
    server = serve(dialect)
    server.faults.extend(["400"] * (dialect == "hosted") + ["cut"])
    told: list[tuple[int, tuple[int, ...]]] = []
    prefix = Joined(server.prompt[:3], server.prompt[3:])
    asked = Request(
        prefix=cast(Any, prefix),
        seeds=(5, 5, 9),
        max_tokens=200,
        stop_ids=server.tokenizer.eos_ids.union(server.tokenizer.encode(".\n\n") if stopped else ()),
        on_delta=lambda sample, ids: told.append((sample, tuple(ids))),
    )
    for sample, one in enumerate(ask(server, asked, tokenizer=server.folder)):
        parts = [ids for index, ids in told if index == sample]
        assert tuple(token for ids in parts for token in ids) == one.token_ids
        if dialect == "ids":
            assert all(len(ids) == 1 for ids in parts), "each as it comes"
    assert not any("stream_interval" in body for body in server.bodies)
    assert prefix.joined == 1, "for all seeds, and behind a cut too"


def test_what_comes_behind_a_stop_is_not_told() -> None:
    told: list[tuple[int, tuple[int, ...]]] = []
    listener = Listener(lambda sample, ids: told.append((sample, ids)), 3, frozenset({9}))
    for ids in ([1], [1], [1, 2, 9, 4], [1, 2, 9, 4, 5, 9], [1, 2, 9]):
        listener.hear(ids)
    assert told == [(3, (1,)), (3, (2, 9))]


def test_a_generator_that_is_dropped_leaves_nothing_unclosed(
    serve: Callable[..., ByHeart], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    generator = OpenAIGenerator(server.url, model=MODEL)
    asyncio.run(generator.generate(request(server)))
    asyncio.run(generator.generate(request(server)))
    del generator
    gc.collect()
    assert "nclosed" not in caplog.text


def test_a_generator_goes_with_an_event_loop_that_lives(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    generator = OpenAIGenerator(server.url, model=MODEL)
    first = asyncio.run(generator.generate(request(server)))
    assert asyncio.run(generator.generate(request(server))) == first  # the first loop is closed

    async def two_at_once() -> None:
        await generator.generate(request(server))
        with pytest.raises(GeneratorError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, generator.generate(request(server)))

    asyncio.run(two_at_once())


def test_what_the_server_says_about_its_model(serve: Callable[..., ByHeart], tmp_path: Path) -> None:
    server = serve()
    generator = OpenAIGenerator(server.url)
    assert generator.name == MODEL
    assert generator.context_tokens == 400
    assert OpenAIGenerator(server.url, context_tokens=77).context_tokens == 77
    assert generator.head_config is None
    several = serve("hosted")
    with pytest.raises(ModelNotFoundError, match=r"serves 2 models \(by-heart, other\)"):
        OpenAIGenerator(several.url)
    assert OpenAIGenerator(several.url, tokenizer=several.folder).name == MODEL
    with pytest.raises(ModelNotFoundError, match="pass tokenizer="):
        OpenAIGenerator(several.url, model="other/elsewhere/nowhere")


def test_another_models_tokenizer_is_noticed(serve: Callable[..., ByHeart], tmp_path: Path) -> None:
    server = serve()
    other = write_tokenizer(tmp_path, "digits")
    with pytest.raises(InvalidInputError, match="pass tokenizer="):
        ask(server, tokenizer=other)


def test_a_head_asks_for_a_server_that_scores(serve: Callable[..., ByHeart], folder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    config = {"architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "vocab_size": 512}
    (model / "config.json").write_text(json.dumps(config))
    write_head(model / "sprm")
    server = serve()
    generator = OpenAIGenerator(server.url, tokenizer=model)
    assert generator.head_config is not None
    with pytest.raises(InvalidInputError, match=r"status 400.*out-of-vocab.*vllm.server"):
        ask(server, tokenizer=model)
    assert server.bodies[0]["logprob_token_ids"] == [512, 513]
    (one,) = ask(server, tokenizer=model, head=None)
    assert one.scores is None
    with pytest.raises(InvalidInputError, match="token-exact"):
        OpenAIGenerator(server.url, tokenizer=model, head=model / "sprm", tokens="text")


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://here/v1", "http://"])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(InvalidInputError, match="base_url must be like"):
        OpenAIGenerator(url)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(GeneratorError, match=r"http://127\.0\.0\.1:9/v1/models cannot be reached"):
        OpenAIGenerator("http://user:password@127.0.0.1:9/v1", max_retries=0)


def test_a_url_is_a_generator(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    with Searcher(generator=server.url, max_tokens=100) as searcher:
        result = searcher.search("Make 87.", strategy="single", budget=150)
        assert result.model == MODEL
        assert result.usage.sampled_tokens <= 150


def test_the_command_line_takes_a_url(serve: Callable[..., ByHeart]) -> None:
    server = serve()
    words = ["solve", "Make 87.", "--generator", server.url, "-n", "1", "--max-tokens", "100", "--json"]
    solved = CliRunner().invoke(app, words)
    assert solved.exit_code == 0, solved.output
    assert json.loads(solved.stdout)["answer"].endswith("It is 87.")
    refused = CliRunner().invoke(app, ["solve", "Make 87.", "--generator", "http://127.0.0.1:9/v1"])
    assert refused.exit_code == 2, "as where a model is not there"
    assert "cannot be reached" in refused.output


def test_a_server_of_several_models_from_the_command_line(serve: Callable[..., ByHeart]) -> None:
    server = serve("hosted")
    words = ["solve", "Make 87.", "--model", server.url, "-n", "1", "--max-tokens", "100", "--json"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    typed = "--engine-arg model=by-heart"
    assert typed in refused.output
    said = [*words, *typed.split(), "--tokenizer", str(server.folder)]
    assert json.loads(CliRunner().invoke(app, said).stdout)["model"] == "by-heart"
    chat = CliRunner().invoke(app, [*words[:3], f"{server.url}/chat/completions", *words[4:]])
    assert typed in chat.output
