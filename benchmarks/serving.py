"""What does a search cost over HTTP, and what becomes of requests when clients, engines and servers go away?

    python benchmarks/serving.py throughput [--pairs 5] [--questions 64]
    python benchmarks/serving.py streams [--clients 200]
    python benchmarks/serving.py soak [--requests 2000]
    python benchmarks/serving.py leave [--clients 50]
    python benchmarks/serving.py kill [--clients 24]

The server is a process of its own, `tts-search serve` on the embedded model, but for `leave`, which counts tokens at
the engine and so shares its process.

throughput: tokens a second over HTTP against `search_many` with the same questions, options, seeds and concurrency, in
    interleaved pairs; both must sample the same tokens.
streams: that many streams at once: none lost, time to the first sampled token and to the end, the server's memory.
soak: requests with faults thrown in by chance: clients leave at once, later or while they read, bodies are broken,
    fields are wrong, requests are repeated. Every one must be accounted for by the client and by the server's metrics.
leave: clients leave in the middle; how long tokens are sampled for them yet.
kill: the server is killed under load and started again; what clients with a retry of their own see.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil

from tts_search import BestOfN, Searcher
from tts_search.embedded.puzzles import held_out

CHAT = "/v1/chat/completions"


@dataclass
class Server:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    @property
    def memory(self) -> float:
        """Its resident memory, in MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


@contextmanager
def server(*options: str, port: int = 0) -> Iterator[Server]:
    """`tts-search serve` on the embedded model, until the block ends."""
    command = [sys.executable, "-m", "tts_search", "serve", "--port", str(port), "--no-access-log", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = None
        for line in process.stderr:
            if found := re.search(r"http://[\d.]+:\d+", line):
                url = found[0]
                break
        if url is None:
            raise SystemExit("the server did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        asyncio.run(ready(url))
        yield Server(url, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def ready(url: str) -> None:
    """Until the server says so."""
    async with aiohttp.ClientSession(url) as http:
        while True:
            try:
                async with http.get("/ready") as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


def client(url: str) -> aiohttp.ClientSession:
    """Connections without a limit of their own."""
    return aiohttp.ClientSession(
        url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None, sock_connect=30)
    )


def body(question: str, n: int, seed: int, **more: Any) -> dict[str, Any]:
    """One request."""
    return {
        "messages": [{"role": "user", "content": question}],
        "search": {"strategy": f"BestOfN(n={n})"},
        "seed": seed,
        **more,
    }


@dataclass
class Heard:
    """What a stream told, and when, in seconds from its start."""

    first: float | None = None  # the first line about sampled tokens
    end: float = 0.0
    tokens: int = 0
    outcome: str = "lost"


async def stream(http: aiohttp.ClientSession, request: dict[str, Any]) -> Heard:
    """Read one stream to its end."""
    begun, heard = time.perf_counter(), Heard()
    async with http.post(CHAT, json={**request, "stream": True}) as reply:
        if reply.status != 200:
            heard.outcome = str(reply.status)
        async for line in reply.content:
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]\n":
                heard.end = time.perf_counter() - begun
                break
            chunk = json.loads(line[6:])
            if "error" in chunk:
                heard.outcome = chunk["error"]["code"]
            delta = chunk["choices"][0]["delta"] if chunk.get("choices") else {}
            if heard.first is None and (delta.get("reasoning") or delta.get("content")):
                heard.first = time.perf_counter() - begun
            if "usage" in chunk:
                heard.tokens = chunk["usage"]["completion_tokens"]
                heard.outcome = "answered"
    return heard


def throughput(args: argparse.Namespace) -> None:
    """Interleaved pairs of the same work."""
    questions = [puzzle.question for puzzle in held_out(args.questions, seed=0)]
    ratios: list[float] = []

    async def over_http(url: str, seed: int) -> tuple[int, float]:
        free = asyncio.Semaphore(args.concurrency)
        async with client(url) as http:

            async def ask(question: str) -> int:
                async with free, http.post(CHAT, json=body(question, args.n, seed)) as reply:
                    return (await reply.json())["usage"]["completion_tokens"]

            begun = time.perf_counter()
            tokens = sum(await asyncio.gather(*map(ask, questions)))
            return tokens, tokens / (time.perf_counter() - begun)

    def searched(here: Searcher, seed: int) -> tuple[int, float]:
        begun = time.perf_counter()
        results = list(here.search_many(questions, strategy=BestOfN(n=args.n), seed=seed))
        tokens = sum(result.usage.sampled_tokens for result in results)
        return tokens, tokens / (time.perf_counter() - begun)

    with server("--concurrency", str(args.concurrency)) as there, Searcher(concurrency=args.concurrency) as here:
        for pair in range(args.pairs + 1):
            if pair % 2:  # whoever comes first may have it worse
                sampled, alone = searched(here, pair)
                tokens, served = asyncio.run(over_http(there.url, pair))
            else:
                tokens, served = asyncio.run(over_http(there.url, pair))
                sampled, alone = searched(here, pair)
            same = "the same tokens" if tokens == sampled else f"{tokens} tokens against {sampled}"
            if pair:  # the first warms both up
                ratios.append(served / alone)
                print(f"pair {pair}: search_many {alone:,.0f} tokens/s, HTTP {served:,.0f}, {ratios[-1]:.3f} ({same})")
    print(
        f"median {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}) of search_many's "
        f"tokens a second; embedded model, BestOfN(n={args.n}), {args.questions} questions, "
        f"concurrency {args.concurrency}"
    )


def streams(args: argparse.Namespace) -> None:
    """Many streams at once, some rounds of them."""
    questions = [puzzle.question for puzzle in held_out(args.clients, seed=0)]

    async def all_at_once(url: str, seed: int) -> list[Heard]:
        async with client(url) as http:
            return await asyncio.gather(*(stream(http, body(q, args.n, seed)) for q in questions))

    with server("--concurrency", str(args.clients)) as there:
        for number in range(args.rounds):
            heard = asyncio.run(all_at_once(there.url, number))
            firsts, ends = [h.first or 0.0 for h in heard], [h.end for h in heard]
            print(
                f"round {number}: {dict(Counter(h.outcome for h in heard))}; to the first tokens p50 "
                f"{_p(firsts, 50):.2f} s, p95 {_p(firsts, 95):.2f} s; to the end p50 {_p(ends, 50):.2f} s, "
                f"p95 {_p(ends, 95):.2f} s; {sum(h.tokens for h in heard) / max(ends):,.0f} tokens/s; "
                f"server {there.memory:,.0f} MiB"
            )


def _p(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


async def soaked(url: str, args: argparse.Namespace) -> tuple[Counter[str], Counter[str]]:
    """What each client did, and what it got."""
    chance = random.Random(args.seed)
    questions = [puzzle.question for puzzle in held_out(64, seed=1)]
    did, got = Counter[str](), Counter[str]()
    free = asyncio.Semaphore(args.concurrency)
    whole = ["streamed", "whole", "repeated"]
    faults = ["leaves at once", "leaves later", "leaves a stream", "broken", "wrong"]

    async def ask(kind: str, number: int, wait: float) -> None:
        request = body(chance.choice(questions), chance.choice([1, 2, 4, 8]), number)
        async with free, client(url) as http:
            did[kind] += 1
            try:
                if kind == "streamed":
                    got[f"{kind}: {(await stream(http, request)).outcome}"] += 1
                    return
                if kind == "broken":
                    posted = http.post(CHAT, data=b'{"messages": [', headers={"content-type": "application/json"})
                elif kind == "wrong":
                    posted = http.post(CHAT, json={**request, "temperature": "hot"})
                elif kind == "repeated":
                    again = {"x-stainless-retry-count": "1"}
                    twice = await asyncio.gather(*(_status(http, request, headers) for headers in ({}, again)))
                    got[f"{kind}: {' and '.join(twice)}"] += 1
                    return
                else:
                    posted = http.post(CHAT, json={**request, "stream": kind == "leaves a stream"})
                seconds = {"leaves at once": 0.001, "leaves later": wait}.get(kind)
                async with asyncio.timeout(seconds), posted as reply:
                    if kind == "leaves a stream":
                        await reply.content.readany()
                        got[f"{kind}: left"] += 1
                        return
                    await reply.read()
                    got[f"{kind}: {reply.status}"] += 1
            except TimeoutError:
                got[f"{kind}: left"] += 1
            except aiohttp.ClientError as error:
                got[f"{kind}: {type(error).__name__}"] += 1

    kinds = [chance.choice(whole if chance.random() < 0.6 else faults) for _ in range(args.requests)]
    await asyncio.gather(*(ask(kind, i, chance.random()) for i, kind in enumerate(kinds)))
    return did, got


async def _status(http: aiohttp.ClientSession, request: dict[str, Any], headers: dict[str, str]) -> str:
    async with http.post(CHAT, json=request, headers=headers) as reply:
        await reply.read()
        return str(reply.status)


async def metrics(url: str) -> dict[str, float]:
    """All samples of the server's page."""
    async with client(url) as http, http.get("/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


@contextmanager
def memory_of(there: Server, every: float = 5.0) -> Iterator[list[float]]:
    """The server's memory in the course of the block, in MiB."""
    seen, over = [there.memory], threading.Event()

    def look() -> None:
        while not over.wait(every):
            seen.append(there.memory)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        seen.append(there.memory)


def soak(args: argparse.Namespace) -> None:
    """Faults by chance; the books must balance."""
    with server("--queue", str(args.requests)) as there:
        begun = time.perf_counter()
        with memory_of(there) as memory:
            did, got = asyncio.run(soaked(there.url, args))
            while (now := asyncio.run(metrics(there.url)))["tts_search_in_flight"] or now["tts_search_queue"]:
                time.sleep(0.1)
        seconds = time.perf_counter() - begun
    parts = [memory[len(memory) * tenth // 10] for tenth in range(10)]
    print(f"{args.requests} requests in {seconds:.0f} s, seed {args.seed}")
    print(f"server, MiB, by tenths of the time: {', '.join(f'{part:.0f}' for part in [*parts, memory[-1]])}")
    for kind, count in sorted(got.items()):
        print(f"  {count:5} {kind}")
    print(f"accounted for: {sum(got.values())} of {sum(did.values())} by clients")
    balance(got, now)


def balance(got: Counter[str], now: dict[str, float]) -> None:
    """The clients' books against the server's.

    Raises:
        SystemExit: somebody is in one of them alone.
    """

    def told(name: str, **labels: str) -> int:
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return round(sum(v for n, v in now.items() if n.split("{")[0] == name and all(w in n for w in wanted)))

    searches = "tts_search_searches_total"
    joined, cancelled = told("tts_search_retries_joined_total"), told(searches, stop_reason="cancelled")
    completed, failed = told(searches, stop_reason="completed"), told(searches, stop_reason="error")
    answers = sum(n * (what.count("200") + what.count("answered")) for what, n in got.items())
    refused = sum(n * what.count("400") for what, n in got.items())
    left = sum(n for what, n in got.items() if what.endswith(": left"))
    noticed = told("tts_search_clients_left_total")
    late = completed + joined - answers  # answers that nobody waited for any more
    print(f"answers: {answers} at clients; {completed} searches at the server, {joined} joined one, {late} came late")
    print(f"refused: {refused} at clients; {told('tts_search_requests_total', status='400')} at the server")
    print(f"left: {left} clients; {noticed} noticed, {cancelled} searches cancelled; {failed} failed")
    print(f"{left - noticed - late} left before their request had come")
    print(f"in flight {now['tts_search_in_flight']:.0f}, queue {now['tts_search_queue']:.0f}")
    balanced = refused == told("tts_search_requests_total", status="400") and 0 <= late <= left - noticed
    if failed or not balanced or cancelled > noticed:
        raise SystemExit("the books do not balance")


@dataclass
class Counting:
    """When the engine sampled how many tokens: read off its decoder, not off what it tells."""

    steps: list[tuple[float, int]] = field(default_factory=list)

    def watch(self, decoder: Any) -> None:
        """Note every step from here on."""
        step = decoder.step

        def noted() -> None:
            step()
            self.steps.append((time.perf_counter(), len(decoder._rows)))

        decoder.step = noted


def leave(args: argparse.Namespace) -> None:
    """Clients leave in the middle of endless searches."""
    from tts_search.serving.app import create_app, served_by
    from tts_search.serving.limits import Limits
    from tts_search.serving.server_process import DrainingServer, bind, config_of

    engine = Counting()
    question = held_out(1, seed=0)[0].question
    left: list[float] = []
    endless = {"search": {"strategy": "Repeat(BestOfN(n=4))", "budget": 1_000_000}}

    async def run(url: str) -> None:
        async with client(url) as http:

            async def ask(number: int) -> None:
                request = {**body(question, 4, number), **endless, "stream": number % 2 == 0}
                async with http.post(CHAT, json=request):
                    await asyncio.sleep(3600)

            await ready(url)
            tasks = [asyncio.ensure_future(ask(number)) for number in range(args.clients)]
            await asyncio.sleep(args.seconds)
            left.append(time.perf_counter())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await asyncio.sleep(3)

    with bind("127.0.0.1", 0) as listener, Searcher() as searcher:
        engine.watch(searcher.generator._worker._decoder)  # pyright: ignore[reportAttributeAccessIssue]
        served = served_by(searcher, "embedded", limits=Limits())
        app = create_app(searcher, served, open_another=Searcher)
        uvicorn = DrainingServer(config_of(app), app.state.service)
        thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [listener]})
        thread.start()
        asyncio.run(run(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        uvicorn.should_exit = True
        thread.join()
    rate = sum(rows for when, rows in engine.steps if left[0] - 1 < when < left[0])
    after = [(when - left[0], rows) for when, rows in engine.steps if when > left[0] and rows]
    last = max([when for when, _ in after], default=0.0)
    print(
        f"{args.clients} clients left: {rate} tokens in the second before, {sum(rows for _, rows in after)} after, the "
        f"last of them {last:.2f} s after they left"
    )


def kill(args: argparse.Namespace) -> None:
    """What clients see of a server that dies and comes back."""
    questions = [puzzle.question for puzzle in held_out(args.clients, seed=0)]
    seen = Counter[str]()

    async def ask(url: str, question: str, number: int) -> None:
        for attempt in range(20):
            try:
                async with client(url) as http:
                    heard = await stream(http, body(question, 32, number))
            except aiohttp.ClientError as error:
                seen[f"attempt {min(attempt, 1)}: {type(error).__name__}"] += 1
            else:
                seen[f"attempt {min(attempt, 1)}: {heard.outcome}"] += 1
                if heard.outcome == "answered":
                    return
            await asyncio.sleep(1)
        seen["gave up"] += 1

    async def all_of_them(url: str) -> None:
        await asyncio.gather(*(ask(url, question, number) for number, question in enumerate(questions)))

    with server() as there:
        clients = threading.Thread(target=lambda: asyncio.run(all_of_them(there.url)))
        clients.start()
        time.sleep(args.seconds)
        there.process.kill()
        time.sleep(1)
        with server(port=int(there.url.rpartition(":")[2])):
            clients.join()
    for what, count in sorted(seen.items()):
        print(f"  {count:4} {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for run in (throughput, streams, soak, leave, kill):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--n", type=int, default=8, help="samples a question")
        command.add_argument("--concurrency", type=int, default=64)
        command.add_argument("--pairs", type=int, default=5)
        command.add_argument("--questions", type=int, default=64)
        command.add_argument("--clients", type=int, default={"streams": 200, "leave": 50}.get(run.__name__, 24))
        command.add_argument("--rounds", type=int, default=3)
        command.add_argument("--requests", type=int, default=2000)
        command.add_argument("--seconds", type=float, default=5.0, help="of work before something goes away")
        command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
