"""What the client of an endpoint costs by itself: processor time a request, with many streams open at once.

    python benchmarks/client_cost.py [--requests 600] [--tokens 24] [--at-once 64] [--pairs 5] [--quiet]
        [--against FOLDER]

A server in another process samples at the pace of an engine. It sends one token a chunk, as to somebody who watches;
with `--quiet` nobody does, and it sends as many as the client asks for (`stream_interval`), as vLLM does. The client is
a process too; what it spends between its first request and its last answer is divided by the requests. `--against`
names a checkout of another version (`git worktree add FOLDER COMMIT`): the two alternate, so that a noisy machine bears
on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[1] / "tts_search" / "embedded" / "model"
PROMPT = tuple(range(10, 110))
TOKEN, TEXT = 7, "("
PACE_SECONDS = 0.02  # from token to token: 64 streams are 3,200 tokens a second


def chunk(tokens: int, finish: str | None) -> bytes:
    """Tokens as vLLM sends them."""
    spelled = f"token_id:{TOKEN}"
    logprobs = {"tokens": [spelled] * tokens, "token_logprobs": [-0.5] * tokens, "text_offset": [0] * tokens}
    logprobs |= {"top_logprobs": [{spelled: -0.5}] * tokens}
    choice = {"index": 0, "text": TEXT * tokens, "token_ids": [TOKEN] * tokens, "logprobs": logprobs}
    choice |= {"finish_reason": finish}
    return event({"choices": [choice | {"stop_reason": None, "prompt_token_ids": None}], "usage": None})


def event(data: dict[str, Any]) -> bytes:
    head = {"id": "cmpl-0123456789", "object": "text_completion", "created": 1_700_000_000, "model": "stub"}
    return b"data: " + json.dumps(head | data).encode() + b"\n\n"


async def serve() -> None:
    """Answer completions until the process is ended; the port is printed."""
    from aiohttp import web

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "stub", "max_model_len": 4096}]})

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        tokens, every = body["max_tokens"], body.get("stream_interval", 1)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        began = time.monotonic()
        for sent in range(0, tokens, every):
            more = min(every, tokens - sent)
            await asyncio.sleep(began + (sent + more) * PACE_SECONDS - time.monotonic())
            await response.write(chunk(more, "length" if sent + more == tokens else None))
        usage = {"prompt_tokens": len(PROMPT), "completion_tokens": tokens, "total_tokens": len(PROMPT) + tokens}
        await response.write(event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.add_routes([web.get("/v1/models", models), web.post("/v1/completions", completions)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def ask(url: str, requests: int, tokens: int, at_once: int, quiet: bool) -> dict[str, float]:
    """Milliseconds of processor time a request, and seconds on the clock, of the version that is imported."""
    from tts_search import Request, Sampling
    from tts_search.generators.openai import OpenAIGenerator

    generator = OpenAIGenerator(url, model="stub", tokenizer=TOKENIZER, head=None, max_concurrency=at_once)

    def watch(_: int) -> None:
        pass

    def request(seed: int) -> Request:
        return Request(
            prefix=PROMPT, seeds=(seed,), max_tokens=tokens, stop_ids=frozenset({0}), sampling=Sampling(),
            tree=seed % 16, on_tokens=None if quiet else watch,
        )  # fmt: skip

    await generator.generate(request(0))
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    found = await asyncio.gather(*(generator.generate(request(seed)) for seed in range(requests)))
    after, ended = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    await generator.aclose()
    if not all(len(one.token_ids) == tokens for completions in found for one in completions):
        raise RuntimeError(f"not all completions have {tokens} tokens")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": 1e3 * spent / requests, "wall": ended - began}


def measure(package: Path, url: str, options: argparse.Namespace) -> dict[str, float]:
    """One client process that imports the package under a folder."""
    command = [sys.executable, __file__, "--client", url, "--requests", str(options.requests)]
    command += ["--tokens", str(options.tokens), "--at-once", str(options.at_once)]
    command += ["--quiet"] * options.quiet
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(package)}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quiet", action="store_true", help="nobody watches the tokens come")
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        asyncio.run(serve())
    elif options.client:
        spent = ask(options.client, options.requests, options.tokens, options.at_once, options.quiet)
        print(json.dumps(asyncio.run(spent)))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    packages = {"this version": Path(__file__).parents[1]}
    if options.against:
        packages[str(options.against)] = options.against.resolve()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in packages}
    server = subprocess.Popen([sys.executable, __file__, "--server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        for _ in range(options.pairs):
            for name, package in packages.items():
                results[name].append(measure(package, url, options))
    finally:
        server.terminate()
        server.wait()
    size = (
        f"{options.requests} streams of {options.tokens} tokens, {options.at_once} at once"
        + ", nobody watching" * options.quiet
    )
    print(f"{size}; {options.pairs} runs each")
    print("processor time a request, milliseconds; seconds on the clock: median (least to most)")
    for name, runs in results.items():
        columns = ([run[what] for run in runs] for what in ("cpu", "wall"))
        cells = (f"{statistics.median(c):7.2f} ({min(c):.2f} to {max(c):.2f})" for c in columns)
        print(f"  {name:24}" + "  ".join(cells))
    if options.against:
        ours, theirs = results.values()
        ratios = [b["cpu"] / a["cpu"] for a, b in zip(ours, theirs, strict=True)]
        print(f"  their processor time to ours, by pairs: {statistics.median(ratios):.2f} ", end="")
        print(f"({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
