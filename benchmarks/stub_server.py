"""An OpenAI-compatible server without a model: continuous batching at a fixed pace, for timing what asks it.

    python benchmarks/stub_server.py --model FOLDER [--rate 50] [--slots 64] [--length 150] [--thinks]

Every sequence gets `rate` tokens a second, `slots` of them at once; the others wait. A sequence begins a token's time
after it is asked for, and later by what of its prompt is not in the prefix cache, which is never full. So with a higher
rate everything goes faster alike.

A response is words in steps of 25 tokens, then the answer. Its first two words say how long it is, by chance between a
half and one and a half of `length`, and what it answers: so it comes to the same end however often it is broken off and
asked to go on. With `thinks` it closes the thinking part, which the chat template has opened, in front of the answer.

`/v1/models`, `/v1/completions` for prompts of token ids, streamed, and `/v1/chat/completions`, streamed where `n` is 1.
`GET /stats` tells what was done, and begins anew with `?reset=1`. FOLDER has the tokenizer; the port is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer

WORDS = (" the", " number", " step", " use", " each", " left", " get", " from", " with", " can")
STEP_TOKENS = 25
BLOCK = 16  # tokens that the prefix cache knows together
TICK_SECONDS = 0.02  # chunks come no oftener
CONTEXT_TOKENS = 65_536

Emit = Callable[[list[int], str | None], Awaitable[None]]  # some tokens, and why they are the last
Choice = Callable[[list[int], str | None], dict[str, Any]]


class Writer:
    """What the model that is not there would say."""

    def __init__(self, folder: Path, length: int, *, thinks: bool) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.length = length
        opening = "<|im_start|>assistant\n" + ("<think>\n" if thinks else "")
        self.opening = self.ids(opening)
        self.words = [self.ids(word)[-1] for word in WORDS]
        (self.step,) = self.ids(".\n\n")
        (self.end,) = self.ids("<|im_end|>")
        self.close = self.ids("</think>") if thinks else []

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """A conversation as the model would read it."""
        said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return [*self.ids(said), *self.opening]

    def response(self, prompt: Sequence[int]) -> list[int]:
        """The part of a prompt that is the response so far."""
        start = len(prompt) - 1 - list(reversed(prompt)).index(self.opening[0])
        return list(prompt[start + len(self.opening) :])

    def go_on(self, response: list[int], seed: int) -> Iterator[int]:
        """Tokens behind `response`, without end: behind the end of text come others that nobody should ask for."""
        chance = random.Random(seed)
        first = [self.words.index(token) if token in self.words else 0 for token in response[:2]]
        first += [chance.randrange(len(WORDS)) for _ in range(2 - len(first))]
        drawn = first[0] * len(WORDS) + first[1]
        last = max(2, round(self.length * (0.5 + drawn / (len(WORDS) ** 2 - 1))))
        ending = [*self.close, *self.ids(f"\\boxed{{{drawn % 3}}}"), self.end]
        if self.close and self.close[0] in response:  # closed, wherever that was
            last = response.index(self.close[0])
        for place in count(len(response)):
            if place >= last:
                yield ending[min(place - last, len(ending) - 1)]
            elif place < 2:
                yield self.words[first[place]]
            else:
                yield self.step if (place + 1) % STEP_TOKENS == 0 else chance.choice(self.words)


class PrefixCache:
    """Which whole blocks, each with all before it, have been here."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def hit(self, ids: Sequence[int]) -> int:
        """How many of the first tokens are known."""
        known = 0
        for key in self._keys(ids):
            if key not in self._known:
                break
            known += BLOCK
        return known

    def add(self, ids: Sequence[int]) -> None:
        """Keep them."""
        self._known.update(self._keys(ids))

    def _keys(self, ids: Sequence[int]) -> Iterator[int]:
        key = 0
        for end in range(BLOCK, len(ids) + 1, BLOCK):
            key = hash((key, *ids[end - BLOCK : end]))
            yield key


@dataclass
class Stats:
    """What was done since the last reset."""

    requests: int = 0
    tokens: int = 0  # sampled, whether or not their stream was read to its end
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cancelled: int = 0
    running: int = 0
    most_running: int = 0


class Server:
    """The engine and its web face."""

    def __init__(self, writer: Writer, folder: Path, rate: float, slots: int) -> None:
        self.writer = writer
        self.folder = folder
        self.rate = rate
        self.slots = asyncio.Semaphore(slots)
        self.cache = PrefixCache()
        self.done = Stats()
        self.chance = random.Random(0)  # for whoever names no seed

    async def models(self, _: web.Request) -> web.Response:
        card = {"id": "stub", "object": "model", "root": str(self.folder), "max_model_len": CONTEXT_TOKENS}
        return web.json_response({"object": "list", "data": [card]})

    async def stats(self, request: web.Request) -> web.Response:
        told = web.json_response(asdict(self.done))
        if request.query.get("reset"):
            self.done = Stats(running=self.done.running, most_running=self.done.running)
        return told

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """One completion, streamed."""
        body = await request.json()
        prompt = body["prompt"]
        if not isinstance(prompt, list) or not body.get("stream"):
            return web.json_response({"message": "only streams for prompts of token ids"}, status=400)
        self.done.requests += 1
        return await self._stream(request, "text_completion", prompt, body, body.get("seed") or 0, self._choice)

    async def chats(self, request: web.Request) -> web.StreamResponse:
        """Answers to a conversation."""
        body = await request.json()
        self.done.requests += 1
        prompt = self.writer.prompt(body["messages"])
        seed = body.get("seed")
        first = self.chance.randrange(1 << 31) if seed is None else seed
        if not body.get("stream"):
            return await self._whole(prompt, body, [first + place for place in range(body.get("n") or 1)])
        logprobs = bool(body.get("logprobs"))

        def choice(part: list[int], reason: str | None) -> dict[str, Any]:
            said = self._said(part, reason, logprobs=logprobs)
            return said | {"delta": said.pop("message")}

        return await self._stream(request, "chat.completion.chunk", prompt, body, first, choice)

    async def _stream(
        self, request: web.Request, kind: str, prompt: list[int], body: dict[str, Any], seed: int, choice: Choice
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)

        async def send(choices: list[Any], usage: dict[str, Any] | None = None) -> None:
            await answer.write(b"data: " + json.dumps(_event(kind, choices, usage)).encode() + b"\n\n")

        usage = await self._sequence(prompt, body, seed, lambda part, reason: send([choice(part, reason)]))
        await send([], usage)
        await answer.write(b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer

    async def _whole(self, prompt: list[int], body: dict[str, Any], seeds: Sequence[int]) -> web.Response:
        async def one(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
            tokens: list[int] = []
            reasons: list[str | None] = []

            async def keep(part: list[int], reason: str | None) -> None:
                tokens.extend(part)
                reasons.append(reason)

            usage = await self._sequence(prompt, body, seed, keep)
            return self._said(tokens, reasons[-1], logprobs=bool(body.get("logprobs"))), usage

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(seed)) for seed in seeds]
        choices = [task.result()[0] | {"index": place} for place, task in enumerate(tasks)]
        sampled = sum(task.result()[1]["completion_tokens"] for task in tasks)
        usage = _usage(len(prompt), sampled, tasks[0].result()[1]["prompt_tokens_details"]["cached_tokens"])
        return web.json_response(_event("chat.completion", choices, usage))

    async def _sequence(self, prompt: list[int], body: dict[str, Any], seed: int, emit: Emit) -> dict[str, Any]:
        """Wait for a place, sample there, and return the account."""
        self.done.prompt_tokens += len(prompt)
        try:
            async with self.slots:
                self.done.running += 1
                self.done.most_running = max(self.done.most_running, self.done.running)
                try:
                    return await self._run(prompt, body, seed, emit)
                finally:
                    self.done.running -= 1
        except (asyncio.CancelledError, ConnectionError):
            self.done.cancelled += 1
            raise

    async def _run(self, prompt: list[int], body: dict[str, Any], seed: int, emit: Emit) -> dict[str, Any]:
        cached = self.cache.hit(prompt)
        self.done.cached_tokens += cached
        stops = {*body.get("stop_token_ids", ()), self.writer.end}
        most = body.get("max_tokens") or body.get("max_completion_tokens") or CONTEXT_TOKENS
        tokens: list[int] = []
        for token in self.writer.go_on(self.writer.response(prompt), seed):
            tokens.append(token)
            if token in stops or len(tokens) == most:
                break
        begun = time.monotonic() + (1 + (len(prompt) - cached) / 80) / self.rate
        chunk = max(body.get("stream_interval", 1), round(self.rate * TICK_SECONDS))
        for start in range(0, len(tokens), chunk):
            part = tokens[start : start + chunk]
            ready = begun + (start + len(part)) / self.rate
            await asyncio.sleep(max(0.0, ready - time.monotonic()))
            self.done.tokens += len(part)
            reason = None
            if start + len(part) == len(tokens):
                reason = "stop" if tokens[-1] in stops else "length"
            await emit(part, reason)
        self.cache.add([*prompt, *tokens])
        return _usage(len(prompt), len(tokens), cached)

    def _choice(self, tokens: list[int], reason: str | None) -> dict[str, Any]:
        names = [f"token_id:{token}" for token in tokens]
        return {
            "index": 0,
            "text": self.writer.tokenizer.decode(tokens),
            "token_ids": tokens,
            "logprobs": {"tokens": names, "token_logprobs": [-0.5] * len(tokens)},
            "finish_reason": reason,
        }

    def _said(self, tokens: list[int], reason: str | None, *, logprobs: bool) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.writer.tokenizer.decode(tokens)}
        shown = {"content": [{"token": "", "logprob": -0.5, "top_logprobs": []}] * len(tokens)} if logprobs else None
        return {"index": 0, "message": message, "logprobs": shown, "finish_reason": reason}


def _event(kind: str, choices: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {"id": "stub", "object": kind, "created": 0, "model": "stub", "choices": choices, "usage": usage}


def _usage(prompt: int, sampled: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": sampled,
        "total_tokens": prompt + sampled,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


async def serve(server: Server, port: int) -> None:
    """Until it is stopped."""
    app = web.Application(client_max_size=1 << 26)
    app.add_routes(
        [
            web.get("/v1/models", server.models),
            web.get("/stats", server.stats),
            web.post("/v1/completions", server.completions),
            web.post("/v1/chat/completions", server.chats),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, required=True, help="folder with the tokenizer")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second, of each sequence")
    parser.add_argument("--slots", type=int, default=64, help="sequences at once")
    parser.add_argument("--length", type=int, default=150, help="tokens of a response, in the mean")
    parser.add_argument("--thinks", action="store_true", help="the chat template opens a thinking part")
    options = parser.parse_args()
    writer = Writer(options.model, options.length, thinks=options.thinks)
    await serve(Server(writer, options.model, options.rate, options.slots), options.port)


if __name__ == "__main__":
    asyncio.run(main())
