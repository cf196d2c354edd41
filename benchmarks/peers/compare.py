"""Ours beside its_hub and treequest on one engine: processor time and wall time, as many tokens for each.

    python benchmarks/peers/compare.py --venv FOLDER [--pairs 5] [--questions 8] [--only mcts]

FOLDER is a virtual environment for the peers; it is made, and they are installed there, if it does not exist. Every run
is a process of its own, and ours and a peer's take turns, so that a noisy machine bears on both. Where they sample
different numbers of tokens, times are for a thousand tokens: the last columns are ratios of those, the median over
pairs. `search` is what searching costs, `process` includes starting Python and importing what is needed.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = ("its_hub[lm]==1.2.0", "treequest==0.3.3")
MATCHES = (("beam", "particles"), ("dvts", "particles"), ("mcts", "mcts"), ("best_of_16", "best_of_16"))


def python_of(venv: Path) -> Path:
    """The peers' Python; makes their environment where there is none."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS], check=True)
    return python


def run(python: str, script: str, what: str, url: str, questions: int) -> dict[str, Any]:
    """One run, with what the engine sampled for it."""
    urllib.request.urlopen(f"{url}/stats?reset=1").read()
    command = [python, str(HERE / script), what, url, str(questions)]
    path = {"PYTHONPATH": str(ROOT)} if script == "ours.py" else {}
    told = subprocess.run(command, env=os.environ | path, check=True, stdout=subprocess.PIPE, text=True).stdout
    with urllib.request.urlopen(f"{url}/stats") as answer:
        return json.loads(told.splitlines()[-1]) | json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--only", choices=[mine for mine, _ in MATCHES])
    told = parser.parse_args()
    theirs = str(python_of(told.venv))
    model = str(ROOT / "tts_search" / "embedded" / "model")
    compileall.compile_dir(ROOT / "tts_search", quiet=1)  # as pip does for what it installs
    engine = subprocess.Popen(
        [sys.executable, str(HERE / "engine.py"), "--model", model], stdout=subprocess.PIPE, text=True
    )
    try:
        assert engine.stdout is not None
        url = f"http://127.0.0.1:{int(engine.stdout.readline())}"
        print("| ours | theirs | tokens | search CPU, s | process CPU, s | wall, s | search | process | wall |")
        print("|---|---|---|---|---|---|---|---|---|")
        for mine, other in [match for match in MATCHES if told.only in (None, match[0])]:
            pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
            for _ in range(told.pairs):
                first = run(sys.executable, "ours.py", mine, url, told.questions)
                pairs.append((first, run(theirs, "theirs.py", other, url, told.questions)))
            print(line(mine, other, pairs), flush=True)
    finally:
        engine.terminate()
        engine.wait()


def line(mine: str, other: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Medians of each side, and the median ratio of what a token costs."""
    cells = [mine, other]
    for name, digits in (("tokens", 0), ("cpu", 2), ("process_cpu", 2), ("seconds", 2)):
        sides = [statistics.median(pair[side][name] for pair in pairs) for side in (0, 1)]
        cells.append(" / ".join(f"{median:.{digits}f}" for median in sides))
    for name in ("cpu", "process_cpu", "seconds"):
        ratios = [a[name] / a["tokens"] / (b[name] / b["tokens"]) for a, b in pairs]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
