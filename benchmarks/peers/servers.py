"""Our server beside its_hub's and optillm's: the same engine, the same questions, a majority of 8 samples for each.

    python benchmarks/peers/servers.py [--folder .peers] [--rounds 5] [--questions 8] [--rate 50] [--leave 1]

The engine is `benchmarks/stub_server.py`, without a model: 64 sequences at once, responses of 75 to 225 tokens. FOLDER
gets a virtual environment for each peer; it is made, and the peer is installed there, where it does not exist. The
servers run side by side, with their defaults, and take turns. In each round a server is asked three times, all
questions at once:

- streams, read to their end. `first byte` is that of the body, headers do not count; `first content` is of the answer;
  `wall` is until the last answer has ended. `tokens` are those that the engine sampled, `CPU` is the server's;
- bodies that are waited for, and then streams, whose clients all leave after a second (--leave). What the engine
  samples from there until it is idle was for nobody.

Then one question more, which nobody leaves: `stuck` counts the rounds in which it got no answer within 15 s; such a
server is started anew. `memory` is resident: before the first request, and the most behind a round. Medians over
rounds, for the first byte and content of medians over questions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.stub import serving

SAMPLES = 8
COLUMNS = (
    *("server", "first byte", "first content", "wall", "tokens", "CPU", "for nobody, bodies", "for nobody, streams"),
    *("stuck", "memory"),
)
QUIET_SECONDS = 1.0  # so long the engine samples nothing, and nobody will ask it
PATIENCE_SECONDS = 60.0
ALIVE_SECONDS = 15.0  # for one question, where nothing else is asked; it takes five

# optillm needs packages that cannot be installed together for what it does beside being a proxy. These are the ones its
# requirements_proxy_only.txt names, but for the graphical interface, and those that its server does not start without.
OPTILLM = (
    *("numpy", "networkx", "openai", "z3-solver<=4.15.4.0", "aiohttp", "flask", "azure-identity", "scikit-learn"),
    *("litellm", "requests", "beautifulsoup4", "lxml", "presidio_analyzer", "presidio_anonymizer", "nbformat"),
    *("nbconvert", "ipython", "ipykernel", "cerebras_cloud_sdk", "sympy", "pyyaml", "math-verify"),
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the servers: how it is started on a port, and how it is asked for a majority of `SAMPLES`."""

    name: str
    command: Sequence[str]  # with {port} and {engine} in it
    body: Mapping[str, Any]
    configure: Mapping[str, Any] | None = None  # what goes to its /configure


@dataclass
class Round:
    """What one server did in one round: seconds and tokens."""

    first_byte: float
    first_content: float
    wall: float
    tokens: int
    cpu: float
    left: dict[str, tuple[int, float]] = field(default_factory=dict)  # of bodies and streams: tokens, seconds
    memory: float = 0.0
    stuck: bool = False  # it answers nothing any more


def sides(folder: Path) -> list[Side]:
    """All of them; makes the peers' environments."""
    ours = [sys.executable, "-m", "tts_search", "serve", "--port", "{port}", "--no-access-log"]
    effort = {"model": "stub", "reasoning_effort": "medium"}  # Best-of-8, and nothing scores: the majority
    its_hub = environment(folder / "its_hub", ["its_hub[iaas]==1.2.0"])
    optillm = environment(folder / "optillm", ["--no-deps", "optillm==0.4.0"], OPTILLM)
    vote = {
        "endpoint": "{engine}/v1",
        "model": "stub",
        "api_key": "none",
        "alg": "self-consistency",
        "regex_patterns": [r"\\boxed\{(\d+)\}"],
    }
    chat = [*ours, "--generator", "{engine}/v1/chat/completions", "--model", "stub"]
    proxy = [str(optillm / "optillm"), "--port", "{port}", "--base-url", "{engine}/v1"]
    return [
        Side(name="tts-search, completions", command=[*ours, "--model", "{engine}/v1"], body=effort),
        Side(name="tts-search, chat", command=chat, body=effort),
        Side(
            name="its_hub 1.2.0",
            command=[str(its_hub / "its-iaas"), "--port", "{port}"],
            body={"model": "stub", "budget": SAMPLES},
            configure=vote,
        ),
        Side(name="optillm 0.4.0", command=proxy, body={"model": "majority_voting-stub", "k": SAMPLES}),
    ]


def environment(folder: Path, *installs: Sequence[str]) -> Path:
    """The programs of a virtual environment, which is made where it does not exist."""
    programs = folder.resolve() / "bin"
    if not (programs / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for packages in installs:
            subprocess.run([str(programs / "pip"), "install", "-q", *packages], check=True)
    return programs


class Server:
    """A server in a process of its own."""

    def __init__(self, side: Side, engine: str, log: Path) -> None:
        self.side = side
        self.rounds: list[Round] = []
        self._engine, self._log = engine, log
        self.start()
        self.at_rest = self.memory

    def start(self) -> None:
        """Until it answers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        command = [part.replace("{port}", port).replace("{engine}", self._engine) for part in self.side.command]
        with self._log.open("a") as log:
            environment = {**os.environ, "OPENAI_API_KEY": "none"}
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        if not answers(f"{self.url}/v1/models", self._process):
            self.stop()
            raise SystemExit(f"{self.side.name} does not start: see {self._log}")
        if self.side.configure is not None:
            body = json.dumps(self.side.configure).replace("{engine}", self._engine).encode()
            headers = {"content-type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(f"{self.url}/configure", body, headers)).read()

    def stop(self) -> None:
        """End it; one that hangs takes no polite word."""
        self._process.kill()
        self._process.wait()

    @property
    def memory(self) -> float:
        """Resident, in MiB."""
        return sum(process.memory_info().rss for process in self._all()) / 2**20

    @property
    def cpu(self) -> float:
        """Processor seconds so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._all())

    def _all(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until it does, or never will."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url).read()
        except OSError:
            time.sleep(0.2)
        else:
            return True
    return False


async def measure(server: Server, engine: str, questions: int, leave: float) -> Round:
    """One round of one server."""
    bodies = [
        {**server.side.body, "messages": [{"role": "user", "content": f"Question {number}: how many?"}]}
        for number in range(questions)
    ]
    async with connections() as http:
        await told(http, engine)
        cpu, begun = server.cpu, time.perf_counter()
        async with asyncio.timeout(PATIENCE_SECONDS):
            heard = await asyncio.gather(*(stream(http, server, body) for body in bodies))
        wall, spent = time.perf_counter() - begun, server.cpu - cpu
        firsts, contents = ([times[place] for times in heard] for place in (0, 1))
        tokens = (await told(http, engine))["tokens"]
        found = Round(statistics.median(firsts), statistics.median(contents), wall, tokens, spent)
        for kind in ("bodies", "streams"):
            found.left[kind] = await left(server, engine, [b | {"stream": kind == "streams"} for b in bodies], leave)
        found.memory = server.memory
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                await stream(http, server, bodies[0])
        except TimeoutError:
            found.stuck = True
    return found


def connections() -> aiohttp.ClientSession:
    """As many as there are requests, each for one: a server may close one that is idle just as it is used again."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))


async def stream(http: aiohttp.ClientSession, server: Server, body: dict[str, Any]) -> tuple[float, float]:
    """Read one stream to its end: seconds to the first byte of the body, and to the first content."""
    begun = time.perf_counter()
    first = content = None
    rest = b""
    async with http.post(f"{server.url}/v1/chat/completions", json=body | {"stream": True}) as reply:
        if reply.status != 200:
            raise SystemExit(f"{server.side.name}: status {reply.status}, {(await reply.text())[:500]}")
        async for data in reply.content.iter_any():
            first = first or time.perf_counter() - begun
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise SystemExit(f"{server.side.name}: {chunk['error']}")
                if content is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
                    content = time.perf_counter() - begun
    if first is None or content is None:
        raise SystemExit(f"{server.side.name} gave no answer")
    return first, content


async def left(server: Server, engine: str, bodies: Sequence[dict[str, Any]], leave: float) -> tuple[int, float]:
    """Tokens that are sampled after all clients have left in the middle, and for how many seconds they are."""
    async with connections() as http:

        async def ask(body: dict[str, Any]) -> None:
            async with http.post(f"{server.url}/v1/chat/completions", json=body) as reply:
                await reply.read()

        tasks = [asyncio.ensure_future(ask(body)) for body in bodies]
        await asyncio.sleep(leave)
        if ended := sum(task.done() for task in tasks):
            raise SystemExit(f"{ended} requests had ended before their clients left: choose a shorter --leave")
        async with aiohttp.ClientSession() as asking:
            if not (await told(asking, engine))["running"]:
                raise SystemExit(f"{server.side.name} had asked the engine for nothing when its clients left")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            began = last = time.perf_counter()
            tokens = 0
            while time.perf_counter() - last < QUIET_SECONDS:
                await asyncio.sleep(0.05)
                now = await told(asking, engine)
                tokens += now["tokens"]
                if now["tokens"] or now["running"]:
                    last = time.perf_counter()
            return tokens, last - began


async def told(http: aiohttp.ClientSession, engine: str) -> dict[str, int]:
    """What the engine has done since it was last asked."""
    async with http.get(f"{engine}/stats?reset=1") as reply:
        return await reply.json()


def row(server: Server) -> str:
    """A line of the table."""

    def median(name: str) -> float:
        return statistics.median(getattr(found, name) for found in server.rounds)

    def after(kind: str) -> str:
        tokens, seconds = (statistics.median(found.left[kind][place] for found in server.rounds) for place in (0, 1))
        return f"{tokens:,.0f} in {seconds:.1f} s"

    stuck = sum(found.stuck for found in server.rounds)
    cells = [server.side.name]
    cells += [f"{median(name):.2f} s" for name in ("first_byte", "first_content", "wall")]
    cells += [f"{median('tokens'):,.0f}", f"{median('cpu'):.2f} s", after("bodies"), after("streams")]
    cells.append(f"{stuck} of {len(server.rounds)}")
    cells.append(f"{server.at_rest:.0f} / {max(found.memory for found in server.rounds):.0f} MiB")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="for the peers' environments, and for logs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=8, help="at once")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second, of each sequence")
    parser.add_argument("--leave", type=float, default=1.0, help="seconds until clients leave")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        engine = stack.enter_context(serving(rate=args.rate, length=150, thinks=False))
        servers: list[Server] = []
        for side in sides(args.folder):
            servers.append(Server(side, engine, args.folder / f"{side.name.split()[0]}.log"))
            stack.callback(servers[-1].stop)
        for number in range(args.rounds):
            for server in servers[:: -1 if number % 2 else 1]:
                found = asyncio.run(measure(server, engine, args.questions, args.leave))
                server.rounds.append(found)
                print(f"round {number}, {server.side.name}: {found}", file=sys.stderr, flush=True)
                if found.stuck:
                    server.stop()
                    server.start()
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for server in servers:
            print(row(server))


if __name__ == "__main__":
    main()
