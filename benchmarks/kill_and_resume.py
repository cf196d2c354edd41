"""Kills runs with SIGKILL at random moments, goes on with them, and compares with a run that nobody killed.

    python benchmarks/kill_and_resume.py --what compare --engine embedded --times 50 --seed 0

Nothing is lost: what the log held when the process was killed, it holds at the end. Nothing is done twice: no key is in
a log twice, and the log ends with as many completions as that of the run that nobody killed. The results are equal;
numbers that an engine rounds by what else is in its batch, to three digits. `fit-head` and `train` have whole files,
and a last checkpoint to go on from. Each run is a fork of this process, which has loaded all libraries already.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tts_search.embedded import MODEL_FOLDER
from tts_search.embedded.puzzles import draw
from tts_search.testing import FakeGenerator

QUESTIONS, TAUGHT = 3, 30  # searched and killed, by default; sampled for a head to learn from
ROOT = Path(__file__).resolve().parent.parent


class Fake(FakeGenerator):
    """The fake engine, slow enough to be killed at work."""

    def __init__(self) -> None:
        super().__init__(delay_seconds=0.3)


def questions(count: int | None = None) -> list[str]:
    chance = random.Random(0)
    return [draw(chance).question for _ in range(count or QUESTIONS)]


def engine_options(engine: str, model: str | None) -> list[str]:
    if engine == "fake":
        return ["--generator", "benchmarks.kill_and_resume:Fake"]
    return ["--generator", "vllm" if engine == "vllm" else "transformers", *(["--model", model] if model else [])]


def command(*argv: object) -> None:
    from tts_search.cli import main

    sys.argv = ["tts-search", *map(str, argv)]
    main()


def question_file(folder: Path, count: int | None = None) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": q}) + "\n" for q in questions(count)))
    return path


# What is killed: a run in a folder.


def compare(folder: Path, engine: list[str]) -> None:
    data = ("--dataset", "puzzles", "--limit", QUESTIONS, "--strategies", "single,BestOfN(n=4)")
    command("compare", *data, "--max-tokens", 120, "--out", folder / "out", *engine, "-q")


def sample(folder: Path, engine: list[str]) -> None:
    grader = ("--grader", "puzzle", "-n", 4, "--max-tokens", 120)
    count = TAUGHT if folder.name == "taught" else None
    command("sample", question_file(folder, count), "--out", folder / "samples.jsonl", *grader, *engine)


def solve(folder: Path, engine: list[str]) -> None:
    files = ("--file", question_file(folder), "--out", folder / "answers.jsonl")
    command("solve", *files, "-n", 4, "--selector", "majority", "--max-tokens", 120, *engine, "-q")


def search_many(folder: Path, engine: list[str]) -> None:
    from tts_search import BestOfN, Searcher
    from tts_search.whole_files import write_atomically

    generator: Any = Fake() if "benchmarks.kill_and_resume:Fake" in engine else engine[1]
    model = engine[engine.index("--model") + 1] if "--model" in engine else "embedded"
    with Searcher(model, generator=generator, max_tokens=120) as searcher:
        found = searcher.search_many(
            questions(), strategy=BestOfN(n=4), selector="majority", log=folder / "searches.log"
        )
        results = [result.to_dict() for result in sorted(found, key=lambda result: result.index)]
    write_atomically(folder / "results.json", json.dumps(results))


def fit_head(folder: Path, engine: list[str]) -> None:
    del engine
    samples = folder.parent / "taught" / "samples.jsonl"
    places = ("--out", folder / "head", "--cache", folder / "cache")
    command("fit-head", samples, *places, "--epochs", 3, "--batch-tokens", 256)


def train(folder: Path, engine: list[str]) -> None:
    del engine
    (folder / "run.toml").write_text(
        f'model = "{MODEL_FOLDER}"\ndata = "{question_file(folder)}"\nout = "{folder / "out"}"\ngrader = "puzzle"\n'
        "[training]\nper_device_train_batch_size = 4\nnum_generations = 4\nmax_completion_length = 32\nmax_steps = 4\n"
        "save_steps = 1\nuse_cpu = true\n"
    )
    command("train", folder / "run.toml")


def reproduce(folder: Path, engine: list[str]) -> None:
    size = ("--questions", QUESTIONS, "--samples", 8, "--budgets", "100,200", "--no-heads", "--max-tokens", 120)
    command("reproduce", *size, "--parameters", 1000000, "--out", folder / "out", *engine, "-q")


# What comes out of it.


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome_of(what: str, folder: Path) -> Any:
    """All that must be equal: no seconds, and nothing of how an engine's cache was filled."""
    if what == "compare":
        runs = lines(folder / "out" / "runs.jsonl")[1:]
        return sorted((json.dumps(run.pop("key"), sort_keys=True), bare(run)) for run in runs)
    if what == "sample":
        return sorted(json.dumps(bare(line), sort_keys=True) for line in lines(folder / "samples.jsonl"))
    if what == "solve":
        return [bare(line) for line in lines(folder / "answers.jsonl")]
    if what == "search_many":
        return [bare(result) for result in json.loads((folder / "results.json").read_text())]
    if what == "fit-head":
        from safetensors.numpy import load_file

        weights = load_file(folder / "head" / "model.safetensors")
        return {name: bare(float(abs(value).sum())) for name, value in weights.items()}
    if what == "train":
        from tts_search.training.run import last_checkpoint

        last = last_checkpoint(folder / "out")
        assert last is not None, "a checkpoint to go on from is there"
        return [Path(last).name, sorted(str(p.relative_to(folder)) for p in (folder / "out" / "final").rglob("*"))]
    return (folder / "out" / "report.md").read_text()


def bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: bare(v) for name, v in value.items() if name not in ("seconds", "cached_tokens")}
    if isinstance(value, list):
        return [bare(v) for v in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def held(folder: Path) -> Counter[tuple[bytes, bytes]]:
    """The keys of every log of searches in a folder."""
    from tts_search.log import SearchLog

    found = Counter[tuple[bytes, bytes]]()
    for path in folder.rglob("*.log"):
        with SearchLog(path, write=False) as log:
            found.update((record.kind, record.key) for record in log)
    return found


def check_whole(folder: Path) -> None:
    """Every file that a kill left behind under its own name is whole."""
    from safetensors import safe_open

    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "checkpoint-", "tmp-")) for part in parts):  # at work
            continue
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                list(file.keys())
        elif path.suffix == ".json" and path.stat().st_size:
            json.loads(path.read_text())


LOADED = ("tts_search.cli.merge", "tts_search.evaluation.report", "tts_search.generators.transformers.decoding")
MORE_LOADED = {
    "fit-head": ("tts_search.training.fit",),
    "train": ("tts_search.training.run", "tts_search.training.trainer"),
    "reproduce": ("tts_search.paper.items",),
}
KINDS: dict[str, Callable[[Path, list[str]], None]] = {
    "compare": compare, "sample": sample, "solve": solve, "search_many": search_many, "fit-head": fit_head,
    "train": train, "reproduce": reproduce,
}  # fmt: skip


def load(what: str) -> None:
    """All that forks need, once; no tensor is computed with, so that no threads are begun."""
    for module in LOADED + MORE_LOADED.get(what, ()):
        import_module(module)
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)


def start(what: str, folder: Path, engine: list[str]) -> int:
    """A fork that runs it; its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        told = os.open(folder / "told.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(told, 1)
        os.dup2(told, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        KINDS[what](folder, engine)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(what: str, folder: Path, engine: list[str]) -> float:
    """Run it to its end; the seconds of its work."""
    pid = start(what, folder, engine)
    while not begun(what, folder, engine) and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.005)
    began = time.monotonic()
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"{what} failed in {folder}:\n{(folder / 'told.txt').read_text()[-3000:]}")
    return time.monotonic() - began


def begun(what: str, folder: Path, engine: list[str]) -> bool:
    """Whether a run has come to its work: a log or a result is there; of `fit-head` all is work.

    vLLM takes a minute to start, in which nothing can be lost: there it begins with the first completion.
    """
    if "vllm" in engine:
        from tts_search.log.recording import COMPLETION

        return any(kind == COMPLETION for kind, _ in held(folder))
    return what == "fit-head" or any(
        path.suffix not in (".txt", ".toml") and path.name != "questions.jsonl" for path in folder.rglob("*.*")
    )


def kill_once(what: str, folder: Path, engine: list[str], after: float) -> bool:
    """Start it and kill it so many seconds after it has begun its work; whether it was still at it."""
    pid = start(what, folder, engine)
    while not begun(what, folder, engine) and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.005)
    time.sleep(after)
    done, _ = os.waitpid(pid, os.WNOHANG)
    if done:
        return False
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def main() -> None:
    global QUESTIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=KINDS, required=True)
    parser.add_argument("--engine", choices=("fake", "embedded", "vllm"), default="embedded")
    parser.add_argument("--model", help="a model folder, for vllm")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="more for an engine that is done at once")
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    QUESTIONS = asked.questions
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    chance, engine = random.Random(asked.seed), engine_options(asked.engine, asked.model)
    load(asked.what)
    scratch = Path(tempfile.mkdtemp(prefix="kill-"))
    try:
        if asked.what == "fit-head":
            finish("sample", scratch / "taught", engine_options("embedded", None))
        finish(asked.what, scratch / "first", engine)  # what is slow for the first time only
        seconds = finish(asked.what, scratch / "whole", engine)
        expected, completions = outcome_of(asked.what, scratch / "whole"), held(scratch / "whole")
        kills = early = 0
        while kills < asked.times:
            folder = scratch / f"run-{kills}-{early}"
            if not kill_once(asked.what, folder, engine, chance.uniform(0, seconds)):
                early += 1  # it was done before: not killed
                continue
            kills += 1
            left = held(folder)
            check_whole(folder)
            finish(asked.what, folder, engine)
            ended = held(folder)
            assert not left - ended, f"{folder}: lost {len(left - ended)} records"
            assert all(count == 1 for count in ended.values()), f"{folder}: something is there twice"
            if asked.what != "reproduce":  # equal paths tie in its tree search, and rounding takes one of them
                assert ended.keys() == completions.keys(), f"{folder}: {len(ended)} records, not {len(completions)}"
            found = outcome_of(asked.what, folder)
            assert found == expected, f"{folder}: other results:\n{found}\n{expected}"
            print(f"{kills}: killed with {sum(left.values())} of {len(completions)} records", flush=True)
            shutil.rmtree(folder)
        print(
            f"{asked.what}, {asked.engine}: {kills} kills (seed {asked.seed}) within {seconds:.1f} s, "
            f"{early} runs ended before theirs; nothing lost, nothing twice, equal results"
        )
    except BaseException:
        print(f"left in {scratch}")
        raise
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
