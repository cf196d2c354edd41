r"""A server without a model that all peers can ask: a fixed pace, solutions in steps, chats and completions.

    python benchmarks/peers/engine.py --model FOLDER [--rate 50] [--slots 64]

Every sequence gets `rate` tokens a second, `slots` of them at once; the others wait. A solution is six steps of 8 to 40
tokens, each ended by `.\n\n`, an answer and the end of text; a prefix is gone on with behind the steps that it has.
`/v1/completions` for prompts of token ids, streamed, and `/v1/chat/completions`, which goes on with a last message of
the assistant's. `GET /stats` tells what was sampled, and begins anew with `?reset=1`. The port is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer

STEPS, SHORTEST, LONGEST, ANSWER = 6, 8, 40, 6
FIRST_SECONDS = 0.02
CONTEXT_TOKENS = 65_536


class Engine:
    """What the model that is not there says, and how fast."""

    def __init__(self, folder: Path, rate: float, slots: int) -> None:
        self.folder, self.rate = folder, rate
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.words = [self.ids(word)[-1] for word in (" the", " number", " step", " use", " each", " left")]
        (self.step,) = self.ids(".\n\n")
        (self.end,) = self.ids("<|im_end|>")
        self.slots = asyncio.Semaphore(slots)
        self.reset()

    def reset(self) -> None:
        """Begin anew: the same chance, and nothing counted."""
        self.chance = random.Random(0)
        self.tokens = self.requests = 0

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def solution(self, done: int) -> Iterator[int]:
        """What comes behind so many steps."""
        for _ in range(done, STEPS):
            yield from self.chance.choices(self.words, k=self.chance.randint(SHORTEST, LONGEST) - 1)
            yield self.step
        yield from self.chance.choices(self.words, k=ANSWER)
        yield self.end

    def sequence(self, done: int, most: int, stop_ids: frozenset[int], *, stops: bool) -> tuple[list[int], str]:
        """The tokens of one completion, and why it ends. `stops`: at the first end of a step, which is not shown."""
        ids: list[int] = []
        for token in self.solution(done):
            ids.append(token)
            if token == self.end or token in stop_ids or (stops and token == self.step):
                return ids, "stop"
            if len(ids) == most:
                break
        return ids, "length"


async def completions(request: web.Request) -> web.StreamResponse:
    """A streamed completion of token ids, as vLLM writes it."""
    engine, body = request.app[ENGINE], await request.json()
    prompt: Sequence[int] = body["prompt"]
    stops = frozenset(body.get("stop_token_ids", ()))
    every = body.get("stream_interval", 1)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async with engine.slots:
        ids, finish = engine.sequence(prompt.count(engine.step), body["max_tokens"], stops, stops=False)
        await asyncio.sleep(FIRST_SECONDS)
        for start in range(0, len(ids), every):
            part = ids[start : start + every]
            await asyncio.sleep(len(part) / engine.rate)
            last = start + every >= len(ids)
            shown = {"tokens": [f"token_id:{i}" for i in part], "token_logprobs": [-0.5] * len(part)}
            choice = {"index": 0, "text": engine.tokenizer.decode(part), "token_ids": part, "logprobs": shown}
            await response.write(event({"choices": [choice | {"finish_reason": finish if last else None}]}))
    count(engine, ids)
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}
    await response.write(event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
    return response


async def chats(request: web.Request) -> web.Response:
    """A whole answer, which goes on with what the assistant has said."""
    engine, body = request.app[ENGINE], await request.json()
    last = body["messages"][-1]
    said = last["content"] if last["role"] == "assistant" else ""
    most = body.get("max_completion_tokens") or body.get("max_tokens") or CONTEXT_TOKENS
    async with engine.slots:
        ids, finish = engine.sequence(said.count(".\n\n"), most, frozenset(), stops=bool(body.get("stop")))
        await asyncio.sleep(FIRST_SECONDS + len(ids) / engine.rate)
    count(engine, ids)
    stopped = finish == "stop" and ids[-1] == engine.step
    text = engine.tokenizer.decode(ids[:-1] if stopped and not body.get("include_stop_str_in_output") else ids)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 1, "completion_tokens": len(ids), "total_tokens": 1 + len(ids)}
    return web.json_response(
        {"id": "x", "object": "chat.completion", "model": "stub", "choices": [choice], "usage": usage}
    )


def count(engine: Engine, ids: Sequence[int]) -> None:
    """Note what was sampled."""
    engine.requests += 1
    engine.tokens += len(ids)


def event(data: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps({"id": "x", "object": "text_completion", "model": "stub"} | data).encode() + b"\n\n"


async def models(request: web.Request) -> web.Response:
    """The one model."""
    card = {"id": "stub", "root": str(request.app[ENGINE].folder), "max_model_len": CONTEXT_TOKENS}
    return web.json_response({"data": [card]})


async def stats(request: web.Request) -> web.Response:
    """What was sampled since it began anew."""
    engine = request.app[ENGINE]
    told = {"tokens": engine.tokens, "requests": engine.requests}
    if request.query.get("reset"):
        engine.reset()
    return web.json_response(told)


ENGINE = web.AppKey("engine", Engine)


async def serve(folder: Path, rate: float, slots: int) -> None:
    """Serve until the process ends."""
    app = web.Application(client_max_size=2**26)
    app[ENGINE] = Engine(folder, rate, slots)
    app.router.add_post("/v1/completions", completions)
    app.router.add_post("/v1/chat/completions", chats)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/stats", stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--slots", type=int, default=64)
    told = parser.parse_args()
    asyncio.run(serve(told.model, told.rate, told.slots))
