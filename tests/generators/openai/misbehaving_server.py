"""A server for `/v1/completions` that knows one answer by heart, and misbehaves as it is told."""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from tts_search.generators.tokenizer import PretrainedTokenizer

KEY = "sk-secret-4711"
LOGPROB = -0.25
MODEL = "by-heart"
OPENAI_FIELDS = {
    "model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stream", "stream_options", "logprobs",
}  # fmt: skip


Mind = TypeVar("Mind", bound="ByHeart")


class ByHeart:
    """Continues `prompt` by `words`, whatever is asked, from wherever a request's prompt has got to in them.

    `dialect`: `"ids"` speaks vLLM's; `"shy"` takes token ids and shows none, as llama.cpp; `"hosted"` takes text and
    OpenAI's fields alone; `"deaf"` takes text, and reads over fields that it does not know. `faults` are what goes
    wrong, one for each request, until there are none left.
    """

    def __init__(self, folder: Path, prompt: Sequence[int], words: Sequence[int], dialect: str) -> None:
        self.tokenizer = PretrainedTokenizer(folder)
        self.folder = folder
        self.prompt, self.words = tuple(prompt), tuple(words)
        self.dialect = dialect
        self.faults: deque[str] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.keys: set[str | None] = set()
        self.sessions: list[str | None] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.sent = 0  # chunks of endless streams
        self.left = threading.Event()  # a client closed its connection on us
        self.awake = threading.Event()  # set when those who hang may go
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.url = ""
        self.owner: str | None = None  # who it says it is
        self.kind: str | None = None  # of content, as it spells it
        self.together = 1  # tokens to a chunk of text
        self.blames: str | None = None  # the field that it says a refusal is for
        self.listed: Any = None  # what it answers instead of a list of its models
        self.endless_list = False  # of models
        self.moved: str | None = None  # where its list of models is said to be
        self.repeats = KEY  # what it says back in its errors, as some do

    def said(self, prompt: list[int] | str) -> int:
        """How many of the words a prompt holds already."""
        if isinstance(prompt, list):
            return len(prompt) - len(self.prompt)
        text = prompt.removeprefix(self.write(self.prompt))
        return len(self.tokenizer.encode(text))

    def write(self, ids: Sequence[int]) -> str:
        return b"".join(self.tokenizer.pieces[i] for i in ids).decode("utf-8", "ignore")

    def endless(self, fault: str) -> Iterator[dict[str, Any] | str]:
        """A stream that no token, no limit and no end will come to."""
        token = next(i for i, piece in enumerate(self.tokenizer.pieces) if piece == b"a")
        while True:
            self.sent += 1
            choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": None}
            if fault.startswith("endless tokens"):
                choice["text"] = "a" if fault == "endless tokens" else "a" * 64
                if self.dialect == "ids":
                    choice["token_ids"] = [token] * len(choice["text"])
                    choice["logprobs"] = {"token_logprobs": [LOGPROB] * len(choice["text"])}
                elif self.dialect == "shy":
                    choice["logprobs"] = {"content": [{"logprob": LOGPROB}] * len(choice["text"])}
            yield COMMENT if fault == "endless comments" else {"choices": [choice]}

    def refusal(self, body: dict[str, Any]) -> str | None:
        if self.dialect in ("hosted", "deaf") and not isinstance(body["prompt"], str):
            return "prompt must be a string"
        if self.dialect == "hosted" and body.keys() - OPENAI_FIELDS:
            return f"unknown fields: {sorted(body.keys() - OPENAI_FIELDS)}"
        if body.get("logprob_token_ids"):
            return "logprob_token_ids contain out-of-vocab token ids"
        return None

    def chunks(self, body: dict[str, Any], fault: str | None) -> Iterator[dict[str, Any] | str]:
        """What a stream says, one token at a time; a text is sent as it is."""
        start = self.said(body["prompt"])
        if fault in ENDLESS:
            yield from self.endless(fault)
        most = body["max_tokens"] + (3 if fault == "too many" else 0)
        stops = {*self.tokenizer.eos_ids, *(body.get("stop_token_ids", ()) if self.dialect == "ids" else ())}
        sent = 0
        finish = None
        held = ""
        for token in self.words[start : start + most]:
            sent += 1
            ended = token in stops
            finish = "stop" if ended else "length" if sent == most else None
            # A character comes with the last of its tokens; the token that ends a completion is not written.
            spoken, more = self.write(self.words[: start + sent - 1]), self.write(self.words[: start + sent])
            held += "" if ended else more[len(spoken) :]
            if sent % self.together and not finish:
                continue
            text, held = held, ""
            choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": finish}
            if "logprobs" in body and fault != "no logprobs" and not (ended and self.dialect != "ids"):
                choice["logprobs"] = {"tokens": [f"token_id:{token}"], "token_logprobs": [LOGPROB]}
            if self.dialect == "shy":
                choice["logprobs"] = {"content": [{"token": "?", "logprob": LOGPROB}]}
            elif self.dialect == "ids":
                choice["token_ids"] = [token]
            else:
                choice.get("logprobs", {})["tokens"] = [self.write([token])]
            if fault == "fillings":
                yield from ({"choices": []} for _ in range(150))
            if fault == "odd" and sent % 2:
                yield {"choices": None, "usage": None}
                yield {"choices": [{"index": 0, "text": None, "logprobs": None, "token_ids": None}]}
            if fault == "odd" and not choice["text"]:
                choice["text"] = None
            if fault == "odd" and "logprobs" in choice:
                choice["logprobs"].update(OFF_LOGPROBS[self.dialect])
            yield {"choices": [choice]}
            if fault == "early length" and sent == 2:
                yield {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
                break
            if finish:
                if fault == "silent end":
                    self.awake.wait(30)
                break
        if fault != "no usage":
            count = sent + {"too few counted": -1, "hidden tokens": 1, "odd": -sent}.get(fault or "", 0)
            details = {"cached_tokens": len(self.prompt) // 2}
            yield {"choices": [], "usage": {"completion_tokens": count, "prompt_tokens_details": details}}
        yield "[DONE]"


@contextmanager
def by_heart(folder: Path, prompt: Sequence[int], words: Sequence[int], dialect: str = "ids") -> Iterator[ByHeart]:
    """The server at work, on a port of its own."""
    with at_work(ByHeart(folder, prompt, words, dialect)) as mind:
        yield mind


@contextmanager
def at_work(mind: Mind) -> Iterator[Mind]:
    """Any server that this page knows, on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(mind))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    mind.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield mind
    finally:
        mind.awake.set()
        server.shutdown()
        server.server_close()


def _handler(mind: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            mind.paths.append(self.path)
            mind.keys.add(self.headers["Authorization"])
            if mind.moved not in (None, self.path):
                self.answer(301, {}, {"Location": mind.moved})
                return
            card = {"id": MODEL, "root": str(mind.folder), "max_model_len": 400, "owned_by": mind.owner}
            cards = [card, *[{"id": "other"}] * (mind.dialect == "hosted")]
            listed = {"data": cards} if mind.listed is None else mind.listed
            self.long_list() if mind.endless_list else self.answer(200, listed)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with mind.lock:
                mind.paths.append(self.path)
                mind.keys.add(self.headers["Authorization"])
                mind.headers.append(dict(self.headers))
                mind.sessions.append(self.headers["X-Session-ID"])
                mind.bodies.append(body)
                fault = mind.faults.popleft() if mind.faults else None
                mind.busy += 1
                mind.busiest = max(mind.busiest, mind.busy)
            try:
                self.respond(body, fault)
            except (BrokenPipeError, ConnectionResetError):
                mind.left.set()
            finally:
                with mind.lock:
                    mind.busy -= 1

        def respond(self, body: dict[str, Any], fault: str | None) -> None:
            if fault and fault.startswith("packed"):
                headers = {"Content-Encoding": "gzip", "Content-Type": "text/event-stream"}
                return self.answer(int(fault.removeprefix("packed ")), PACKED, headers)
            if fault and fault.startswith(("short", "hanging")):
                return self.broken_words(*fault.split())
            if fault and " to " in fault:
                status, _, place = fault.partition(" to ")
                return self.answer(int(status), {}, {"Location": place})
            if fault and fault[:3].isdigit():
                status, _, wait = fault.partition(" after ")
                headers = {"Retry-After": wait} if wait else {}
                return self.answer(int(status), {"error": {"message": self.told()}}, headers)
            refusal = mind.refusal(body)
            if refusal:
                return self.answer(400, {"error": {"message": refusal, "param": mind.blames}})
            if fault == "no stream" or body.get("stream") is not True:
                return self.answer(200, mind.all(body, fault), {"Content-Type": mind.kind or "application/json"})
            if fault == "web page":
                return self.answer(200, "<html>welcome</html>", {"Content-Type": "text/html"})
            if fault == "echo status":
                self.wfile.write(f"HTTP/1.1 nonsense {self.told()}\r\n\r\n".encode())
                return None
            if fault == "hang":
                mind.awake.wait(30)
                return None
            self.send_response(200)
            self.send_header("Content-Type", mind.kind or "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            mind.statuses.append(200)
            for sent, chunk in enumerate(mind.chunks(body, fault)):
                if sent == 3 and fault in MIDWAY:
                    return MIDWAY[fault](self)
                if chunk == COMMENT:
                    self.wfile.write(b": still here\n\n")
                    continue
                self.event(chunk if isinstance(chunk, str) else json.dumps(chunk))
                if fault == "slow":
                    mind.awake.wait(0.02)
            return None

        def event(self, data: str) -> None:
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()

        def told(self) -> str:
            """What a server that is too helpful says back."""
            return f"no: {self.headers['Authorization']}, {self.headers['Proxy-Authorization']}, {mind.repeats}"

        def long_line(self) -> None:
            self.wfile.write(b"data: ")
            for _ in range(3200):
                self.wfile.write(b"x" * 2**16)
                mind.sent += 2**16

        def broken_words(self, way: str, status: str) -> None:
            """An error whose body does not come to its end."""
            self.wfile.write(f"HTTP/1.1 {status} No\r\nContent-Length: 1000\r\n\r\n".encode() + b"see, the")
            self.close_connection = True
            if way == "hanging":
                self.hang()

        def long_list(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                self.wfile.write(b'{"data": [')
                for _ in range(3200):
                    self.wfile.write(b'{"id": "%s"}, ' % (b"x" * 2**16))
            except (BrokenPipeError, ConnectionResetError):
                mind.left.set()

        def hang(self) -> None:
            mind.awake.wait(30)

        def answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
            mind.statuses.append(status)
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            data = text.encode() if isinstance(text, str) else text
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


COMMENT = ": a comment"
PACKED = b"".join((_packer := zlib.compressobj(9, wbits=31)).compress(b"data: " + b"x" * 2**20) for _ in range(64))
PACKED += _packer.flush()
"""An event of 64 MiB, as gzip writes it."""
ENDLESS = {"endless tokens", "endless tokens in blocks", "endless chunks", "endless comments"}
OFF_LOGPROBS: dict[str, dict[str, Any]] = {
    "ids": {"token_logprobs": [-math.inf]},
    "shy": {"content": [{"token": "?", "logprob": -math.inf}]},
    "hosted": {"token_logprobs": [-math.inf], "top_logprobs": None},
}
MIDWAY = {
    "cut": lambda handler: None,
    "long line": lambda handler: handler.long_line(),
    "silence": lambda handler: handler.hang(),
    "garbage": lambda handler: handler.event('{"choices": [{"text": '),
    "echo error": lambda handler: handler.event(json.dumps({"error": {"message": handler.told()}})),
    "echo chunk": lambda handler: handler.event(json.dumps({"choices": [{"text": {"x": handler.told()}}]})),
    "echo finish": lambda handler: handler.event(json.dumps({"choices": [{"finish_reason": handler.told()}]})),
    "strange chat": lambda handler: handler.event('{"choices": [{"delta": {"content": 17}}]}'),
    "strange": lambda handler: handler.event('{"choices": [{"text": 17}]}'),
    "error event": lambda handler: handler.event('{"error": {"message": "engine died"}}'),
    "named error": lambda handler: handler.wfile.write(b'event: error\ndata: {"message": "engine died"}\n\n'),
    "error object": lambda handler: handler.event('{"object": "error", "message": "engine died", "code": 400}'),
    "no model": lambda handler: handler.event('{"error": {"message": "no such model", "code": 404}}'),
    "no money": lambda handler: handler.event('{"object": "error", "message": "no money left", "code": 402}'),
    "filtered": lambda handler: handler.event('{"choices": [{"text": "", "finish_reason": "content_filter"}]}'),
}
"""What a server does instead of its fourth event."""
