"""What a budget costs in time and in finished paths: Best-of-16 on a stub of a server (`stub_server.py`).

    python benchmarks/stub.py [--against OTHER_CHECKOUT] [--rounds 5] [--seeds 20] [--thinks]

First the clock: 50 tokens a second for each of 64 sequences, responses of 150 tokens; without a budget, and with one of
20,000, which is ten times what is needed. Then budgets that bind: 2,400 for responses of 150 tokens, 20,000 for
responses of 8,000, at a faster pace; what counts is how many paths come to their end.

Each checkout searches in a process of its own; the two budgets, and this checkout and the other, take turns. With
`--thinks` the responses have a thinking part, and what is counted are thoughts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tts_search
from tts_search import BestOfN, Searcher

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json")
Found = dict[str, Any]
Sides = dict[str, Path]
Place = tuple[str, int | None]  # a side and a budget


def search(searcher: Searcher, url: str, budget: int | None, seed: int) -> Found:
    """Seconds, tokens, requests, paths that came to their end."""
    told(url)
    started = time.perf_counter()
    result = searcher.search("How many?", strategy=BestOfN(n=16), budget=budget, seed=seed)
    seconds = time.perf_counter() - started
    tree, server = result.tree, told(url)
    assert tree is not None
    return {
        "seconds": seconds,
        "tokens": server["tokens"],
        "requests": server["requests"],
        "finished": sum(tree.nodes[candidate.node].ended for candidate in result.candidates),
    }


def work(url: str) -> None:
    """The searches that standard input asks for, a line each; the first line written says which package does them."""
    with Searcher(generator=f"{url}/v1") as searcher:
        searcher.search("Why?", strategy=BestOfN(n=1), budget=8)  # the connection, the caches
        print(json.dumps(str(Path(tts_search.__file__).resolve().parent.parent)), flush=True)
        for line in sys.stdin:
            print(json.dumps(search(searcher, url, *json.loads(line))), flush=True)


class Worker:
    """A process that searches with the `tts_search` of a checkout."""

    def __init__(self, checkout: Path, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--work", url],
            env=os.environ | {"PYTHONPATH": str(checkout)},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        imported = Path(self._read())
        if imported != checkout:
            sys.exit(f"{checkout} was to be measured, and {imported} was imported")

    def search(self, budget: int | None, seed: int) -> Found:
        """One search there."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps((budget, seed)) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """No more searches."""
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a search failed: see above")
        return json.loads(line)


def told(url: str) -> Found:
    """What the server has done since it was last asked."""
    with urllib.request.urlopen(f"{url}/stats?reset=1") as answer:
        return json.load(answer)


@contextmanager
def serving(*, rate: float, length: int, thinks: bool) -> Iterator[str]:
    """A stub with the embedded model's tokenizer, without its head; its address."""
    with tempfile.TemporaryDirectory() as folder:
        for name in TOKENIZER:
            shutil.copy(ROOT / "tts_search/embedded/model" / name, folder)
        template = (
            "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + "
            "'<|im_end|>\n' -}}{%- endfor -%}{{- '<|im_start|>assistant\n" + ("<think>\n" if thinks else "") + "' -}}"
        )
        Path(folder, "chat_template.jinja").write_text(template)
        command = [sys.executable, str(HERE.with_name("stub_server.py")), "--model", folder]
        command += ["--rate", str(rate), "--length", str(length), *["--thinks"] * thinks]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield f"http://127.0.0.1:{int(server.stdout.readline())}"
            finally:
                server.terminate()


def compare(sides: Sides, url: str, budgets: Sequence[int | None], seeds: int) -> dict[Place, list[Found]]:
    """Every search of every side under every budget, in turn: printed, and returned."""
    workers = {side: Worker(checkout, url) for side, checkout in sides.items()}
    found: dict[Place, list[Found]] = {(side, budget): [] for side in sides for budget in budgets}
    for seed in range(seeds):
        for side, budget in list(found)[:: -1 if seed % 2 else 1]:
            found[side, budget].append(workers[side].search(budget, seed))
    for worker in workers.values():
        worker.close()
    for (side, budget), searches in found.items():
        seconds, tokens, requests, finished = (
            [search[name] for search in searches] for name in ("seconds", "tokens", "requests", "finished")
        )
        print(
            f"  {side:6}{budget or 'no':>7} budget{statistics.median(seconds):7.2f} s [{min(seconds):.2f} .. "
            f"{max(seconds):.2f}]{statistics.mean(tokens):8,.0f} tokens{statistics.mean(requests):6.1f} requests"
            f"{statistics.mean(finished):7.2f} paths finished [{min(finished)} .. {max(finished)}]",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--against", type=Path, metavar="OTHER_CHECKOUT", help="measured in turn with this one")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of searches by the clock")
    parser.add_argument("--seeds", type=int, default=20, help="searches under budgets that bind")
    parser.add_argument("--thinks", action="store_true", help="a model with a thinking part")
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    sides = {"here": ROOT} | ({"there": options.against.resolve()} if options.against else {})
    print("Responses of 150 tokens, 50 tokens a second")
    with serving(rate=50, length=150, thinks=options.thinks) as url:
        found = compare(sides, url, (None, 20_000), options.rounds)
    for side in sides:
        pairs = zip(found[side, 20_000], found[side, None], strict=True)
        ratios = [budget["seconds"] / none["seconds"] for budget, none in pairs]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f} .. {max(ratios):.2f}]"
        print(f"  {side:6}with the budget {spread} times as long")
    for length, budget, rate in ((150, 2_400, 500), (8_000, 20_000, 2_000)):
        print(f"Responses of {length:,} tokens, {rate:,} tokens a second")
        with serving(rate=rate, length=length, thinks=options.thinks) as url:
            compare(sides, url, (budget,), options.seeds)


if __name__ == "__main__":
    main()
