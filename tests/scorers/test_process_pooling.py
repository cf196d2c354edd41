"""Reward models behind HTTP: a server that answers as `vllm serve` does, by a real model, and one that misbehaves."""

import base64
import http.server
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scorers.reward_checkpoints import (
    LLAMA3,
    STEPS,
    train_tokenizer,
    trajectory,
    write_language_model,
    write_qwen,
    write_token_classifier,
)
from tts_search import ScorerError
from tts_search.scorers.process import ProcessRewardModel, pooling


class Server:
    """Answers each request by the next of its functions, the last of them for ever; remembers what was asked."""

    def __init__(self, *answers: Callable[[dict[str, Any]], tuple[int, bytes]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = answers[min(len(server.asked), len(answers) - 1)]
                server.asked.append(body | {"path": self.path})
                server.headers.append(dict(self.headers))
                status, data = answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data) + (status == 299)))  # 299: a stream that is cut
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setattr(pooling, "WAIT_SECONDS", 0.001)
    servers: list[Server] = []

    def start(*answers: Callable[[dict[str, Any]], tuple[int, bytes]]) -> Server:
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("served")
    special = ["<|head|>", "<|tail|>", "<|eot|>"]
    tokenizer = train_tokenizer(bos="<|begin|>", special=special, template=LLAMA3, words=["+", "-"])
    return {
        "qwen": write_qwen(root / "qwen", labels=2, architecture="Qwen2ForProcessRewardModel", head="score"),
        "rlhflow": write_language_model(root / "Llama3.1-8B-PRM-Mistral-Data", "llama", tokenizer),
        "trl": write_token_classifier(root / "trl", separator="\n\n"),
    }


def vllm(local: ProcessRewardModel, *, step: int | None) -> Callable[[dict[str, Any]], tuple[int, bytes]]:
    """Answers as vLLM 0.32: one row of raw outputs a token, or only at `step`, where it pools by STEP."""

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        assert body["task"] == "token_classify"
        assert body["use_activation"] is False
        reader: Any = local._reader
        rows = [tuple(ids) for ids in body["input"]]
        places = [[i for i, token in enumerate(ids) if step in (None, token)] for ids in rows]
        outputs, _ = reader.model.read(rows, places)
        if local.family.head == "language model":  # served with classifier_from_token=["-", "+"]
            outputs = [output.flip(-1) for output in outputs]
        data = [{"index": i, "object": "pooling", "data": o.tolist()} for i, o in enumerate(outputs)]
        tokens = sum(map(len, rows))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
        whole = {"id": "pooling-1", "object": "list", "created": 1, "model": "m", "data": data[::-1], "usage": usage}
        return 200, json.dumps(whole).encode()

    return answer


@pytest.mark.parametrize(("family", "by_step"), [("qwen", True), ("qwen", False), ("rlhflow", False), ("trl", False)])
def test_an_endpoint_gives_what_the_model_gives(
    family: str, by_step: bool, folders: dict[str, Path], serve: Callable[..., Server]
) -> None:
    local = ProcessRewardModel.from_pretrained(folders[family], dtype="float32", device="cpu", prefix_cache_tokens=0)
    step = local.family.tokenizer.convert_tokens_to_ids("<extra_0>") if by_step else None
    server = serve(vllm(local, step=step))
    remote = ProcessRewardModel.from_endpoint(folders[family], server.url, model="prm", key="secret")
    many = [trajectory(), trajectory(STEPS[:1]), trajectory([])]
    expected, found = local.score(many), remote.score(many)
    assert [list(v) for v in found] == [pytest.approx(list(v), abs=1e-5) for v in expected]
    assert found.tokens == sum(len(ids) for ids in server.asked[0]["input"]) > 0
    assert (server.asked[0]["path"], server.asked[0]["model"]) == ("/pooling", "prm")
    assert server.headers[0]["Authorization"] == "Bearer secret"
    again = remote.score([trajectory([*STEPS, "More."])])
    assert list(again[0][:3]) == list(found[0])
    assert len(server.asked) == 2
    assert remote.score(many).tokens == 0
    assert len(server.asked) == 2, "nothing is asked twice"


def test_a_server_of_a_shorter_context_is_believed(folders: dict[str, Path], serve: Callable[..., Server]) -> None:
    local = ProcessRewardModel.from_pretrained(folders["qwen"], dtype="float32", device="cpu", prefix_cache_tokens=0)
    good = vllm(local, step=local.family.tokenizer.convert_tokens_to_ids("<extra_0>"))

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        if max(map(len, body["input"])) > 200:
            said = "This model's maximum context length is 200 tokens. However, you requested 512 tokens."
            return 400, json.dumps({"error": {"message": said}}).encode()
        return good(body)

    server = serve(answer)
    remote = ProcessRewardModel.from_endpoint(folders["qwen"], server.url)
    steps = [f"Take {i}, add {'x y ' * 20}and go on." for i in range(20)]
    expected = local.score([trajectory(steps), trajectory()])
    found = remote.score([trajectory(steps), trajectory()])
    read = len(found[0])
    assert 0 < read < len(expected[0]) < len(steps)
    assert list(found[0]) == pytest.approx(list(expected[0][:read]), abs=1e-5)
    assert list(found[1]) == pytest.approx(list(expected[1]), abs=1e-5)
    assert found.unread is not None
    assert "reads 200 tokens" in found.unread
    assert len(server.asked) == 2, "512 tokens, by the checkpoint's config, and 200"
    remote.score([trajectory([*steps[1:], *steps])])
    assert len(server.asked) == 3, "it is remembered"


def test_a_server_that_refuses_what_fits_is_an_error(folders: dict[str, Path], serve: Callable[..., Server]) -> None:
    server = serve(lambda _: (400, b"maximum context length is 4096 tokens, and your prompt is bad"))
    remote = ProcessRewardModel.from_endpoint(folders["qwen"], server.url)
    with pytest.raises(ScorerError, match="answered 400: maximum context length is 4096"):
        remote.score([trajectory()])
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(folders: dict[str, Path], serve: Callable[..., Server]) -> None:
    local = ProcessRewardModel.from_pretrained(folders["qwen"], dtype="float32", device="cpu")
    good = vllm(local, step=None)
    server = serve(lambda _: (429, b"slow down"), lambda _: (503, b""), lambda _: (200, b"{"), good)
    remote = ProcessRewardModel.from_endpoint(folders["qwen"], server.url + "/v1/")
    assert len(remote.score([trajectory()])[0]) == 3
    assert len(server.asked) == 4
    assert "model" not in server.asked[0]


@pytest.mark.parametrize(
    ("status", "data", "asked", "says"),
    [
        (400, b'{"error": "Unsupported task"}', 1, "answered 400: .*Unsupported task"),
        (404, b"", 1, "answered 404"),
        (500, b"boom", 4, "answered 500: boom"),
        (299, b"{", 4, "gave no answer in 4 attempts"),
        (200, b"not json", 4, "gave no answer in 4 attempts"),
        (200, b'{"data": []}', 1, "did not answer as a reward model"),
        (
            200,
            b'{"data": [{"index": 0, "data": [[1, 2]]}], "usage": {"prompt_tokens": 9}}',
            1,
            "1 rows for .* 3 step tags",
        ),
        (200, b'{"data": [{"index": 0, "data": "AAA="}], "usage": {"prompt_tokens": 9}}', 1, "4 rows for"),
    ],
)
def test_a_server_that_misbehaves(
    status: int, data: bytes, asked: int, says: str, folders: dict[str, Path], serve: Callable[..., Server]
) -> None:
    server = serve(lambda _: (status, data))
    remote = ProcessRewardModel.from_endpoint(folders["qwen"], server.url)
    with pytest.raises(ScorerError, match=says):
        remote.score([trajectory()])
    assert len(server.asked) == asked


def test_a_server_that_is_not_there(folders: dict[str, Path], serve: Callable[..., Server]) -> None:
    server = serve(lambda _: (200, b""))
    server.http.server_close()
    with pytest.raises(ScorerError, match=r"127\.0\.0\.1:\d+/pooling gave no answer in 4 attempts: .*refused"):
        ProcessRewardModel.from_endpoint(folders["qwen"], server.url).score([trajectory()])


def test_credentials_are_sent_and_not_shown(folders: dict[str, Path], serve: Callable[..., Server]) -> None:
    password, basic = "a-pass-word", base64.b64encode(b"me:a-pass-word").decode()
    server = serve(lambda _: (400, f"no: {password}, {basic}".encode()))
    url = server.url.replace("://", f"://me:{password}@")
    remote = ProcessRewardModel.from_endpoint(folders["qwen"], url, key="a-key")
    with pytest.raises(ScorerError, match=rf"{server.url}/pooling answered 400") as caught:
        remote.score([trajectory()])
    shown = "".join(traceback.format_exception(caught.value)) + repr(remote)
    assert password not in shown
    assert basic not in shown
    assert server.headers[0]["Authorization"] == f"Basic {basic}"
