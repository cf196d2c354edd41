"""The command line as people and scripts meet it: in this process through Typer's runner, and as a real command."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tts_search import __version__
from tts_search.cli import app, terminal
from tts_search.cli import show as report
from tts_search.core.budget import Usage
from tts_search.core.result import Candidate, SearchResult, Step, StopReason
from tts_search.export import from_json
from tts_search.export.files import FORMATS
from tts_search.options import EFFORTS, GENERATORS, STRATEGIES
from tts_search.scorers.aggregate import AGGREGATIONS
from tts_search.selection.selectors import SELECTORS
from tts_search.selection.votes import EXTRACTS

FAKES = '''
import itertools, os, sys, time
from tts_search.errors import GeneratorError, HeadMismatchError, MissingDependencyError, ModelNotFoundError
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.fakes import CLOSE, END, OPEN, STEP
from tts_search.strategies.best_of_n import BestOfN

def spoken(*pieces):
    """Says the same after every prompt: text, or single tokens."""
    tokens = [t for p in pieces for t in (p.encode() if isinstance(p, str) else [p])]
    def script(prefix, seed):
        said = len(prefix) - 1 - max(i for i, t in enumerate(prefix) if t == OPEN)
        return tokens[min(said, len(tokens) - 1)]
    return FakeGenerator(script=script)

def good(): return spoken("Two and two", STEP, "That is four", STEP, CLOSE, "Für dich: 4 ✓", END)
def escaping(): return spoken("\\x1b[31mred", STEP, CLOSE, "\\x1b]0;title\\x07 4", END)
def silent(): return spoken(END)
def wordless(): return spoken("Hm", STEP, CLOSE, END)
def random(): return FakeGenerator()
def missing(): raise ModelNotFoundError("no model folder at 'x': give an existing folder")
def misfit(): raise HeadMismatchError("the head is for 64, the model has 128")
def dependent(): raise MissingDependencyError("needs vLLM: pip install 'tts-search[vllm]'")
def buggy(): raise ZeroDivisionError("oh [no]")
nothing = 3

class Broken(FakeGenerator):
    async def generate(self, request):
        raise GeneratorError("the engine\\n  is gone")

class Noisy(FakeGenerator):
    async def generate(self, request):
        print("python noise")
        os.write(1, b"engine noise")
        os.write(2, b"engine noise")
        return await super().generate(request)

class Sized(FakeGenerator):
    def __init__(self, *, size: int = 3, name: str = "x", head: "str | None" = "auto"):
        super().__init__(name=f"{size} {name} {head}", script=good().script)

class Asked(FakeGenerator):
    def __init__(self):
        super().__init__(script=good().script)
    async def generate(self, request):
        sys.stderr.write(self.tokenizer.decode(request.prefix) + repr(request.sampling))
        return await super().generate(request)

def first(answer): return answer[0]

class Slow(FakeGenerator):
    async def generate(self, request):
        import asyncio
        sys.stderr.write("begun\\n")
        sys.stderr.flush()
        await asyncio.sleep(3600)

    async def aclose(self):
        sys.stderr.write("closed\\n")

class BadScorer:
    def score(self, trajectories):
        raise KeyError("weights")

def strategy(tree):
    yield []
    raise RuntimeError("lost")

two = BestOfN(n=2)
fakes = FakeGenerator
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder holds a module of fakes; what the command changes in this process is put back."""
    (tmp_path / "cli_fakes.py").write_text(FAKES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)
    sys.modules.pop("cli_fakes", None)


def solve(*args: str, generator: str = "good", stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["solve", *args, "--generator", f"cli_fakes:{generator}"], input=stdin)


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "tts_search", *args]


def run(*args: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*args), capture_output=True, timeout=60, check=False, **options)  # type: ignore[call-overload]


def test_an_answer() -> None:
    result = solve("2 + 2?", "--n", "3", "--scorer", "tts_search.testing:FakeScorer")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Für dich: 4 ✓"
    assert "Thinking  2 steps, each scored from 0 to 1" in lines
    assert re.search(r"^ +1 \d\.\d\d [━╸ ]* Two and two\.$", result.stdout, re.MULTILINE)
    assert "Candidates  3 paths, the highest score wins" in lines
    assert re.search(r"^Tokens  fake, BestOfN\(n=3.*\), seed 0$", result.stdout, re.MULTILINE)
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert all(line == line.rstrip() for line in lines)


def test_samples_that_came_to_no_end_are_counted() -> None:
    words = ("2 + 2?", "--n", "8", "--max-tokens", "12", "--scorer", "none")
    kept = len(json.loads(solve(*words, "--json", generator="fakes").stdout)["candidates"])
    assert 0 < kept < 8
    assert f"left out  {8 - kept} of 8 paths, which came to no end" in solve(*words, generator="fakes").stdout
    assert "left out" not in solve("2 + 2?", "--n", "3", "--scorer", "none").stdout


def test_without_a_scorer_the_majority_answers() -> None:
    result = solve("2 + 2?", "--effort", "low")
    assert result.exit_code == 0
    assert "2 steps, not scored" in result.stdout
    assert "2 paths, the answer with the most votes wins" in result.stdout
    assert re.search(r"▸ +2 +\d+  Für dich: 4\n", result.stdout)


def test_json_is_one_object_and_nothing_else() -> None:
    result = solve("Ünïcödé?", "--json", "--seed", "7", "--budget", "500")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    report = json.loads(result.stdout)
    assert report["question"] == "Ünïcödé?"
    assert report["answer"] == "Für dich: 4 ✓"
    assert (report["seed"], report["budget"], report["stop_reason"]) == (7, 500, "completed")
    assert result.stderr == ""


def test_quiet_prints_the_answer_alone() -> None:
    result = solve("2 + 2?", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Für dich: 4 ✓\n", "")


@pytest.mark.parametrize("raw", ["2 + 2?\n", "\ufeff2 + 2?\r\n"])
def test_the_question_from_standard_input(raw: str) -> None:
    result = solve("-", "--json", stdin=raw)
    assert json.loads(result.stdout)["question"] == "2 + 2?"


def test_sampling_options_keep_the_rest_of_the_models_own() -> None:
    result = solve("2 + 2?", "--temperature", "0", "--top-p", "0.5", "--max-tokens", "30", "--answer-tokens", "9", "-q")
    assert (result.exit_code, result.stdout) == (0, "Für dich\n")  # 9 bytes, a token each


@pytest.mark.parametrize(
    "strategy",
    ["best_of_n", "single", "low", "BestOfN(n=3)", "cli_fakes:two", "tts_search:BestOfN", "tts_search:BestOfN(n=2)"],
)
def test_strategies_by_name_and_by_object(strategy: str) -> None:
    assert solve("2 + 2?", "--strategy", strategy, "-q").exit_code == 0


def test_what_a_generator_of_the_users_is_made_with() -> None:
    given = ("--engine-arg", "size=30", "--engine-arg", "name=fp32", "--head", "none", "--json")
    result = solve("2 + 2?", *given, generator="Sized")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["model"] == "30 fp32 None"
    refused = solve("2 + 2?", "--engine-arg", "sise=3", generator="Sized")
    assert refused.exit_code == 2
    assert "--generator cli_fakes:Sized has no 'sise': choose from size, name, head" in refused.stderr


def test_settings_reach_the_search() -> None:
    told = ("--system", "Be brief.", "--extract", "cli_fakes:first", "--aggregation", "min", "--top-k", "5")
    told += ("--min-p", "0.1", "--repetition-penalty", "1.2", "--selector", "majority", "-n", "2")
    result = solve("2 + 2?", *told, "--scorer", "tts_search.testing:FakeScorer", "--json", generator="Asked")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["candidates"][0]["vote"] == "F"
    assert found["score"] == min(step["score"] for step in found["steps"])
    assert "Sampling(temperature=0.6, top_p=0.95, top_k=5, min_p=0.1, repetition_penalty=1.2)" in result.stderr
    assert "Be brief." in result.stderr


def test_what_others_did_not_answer_shows_its_last_thought() -> None:
    result = solve("2 + 2?", "-n", "3", "--scorer", "tts_search.testing:FakeScorer")
    rows = [line.split() for line in result.stdout.split("Candidates")[1].splitlines()[2:4]]
    assert rows[0][-3:] == ["Für", "dich:", "4"]  # the vote, without its mark
    assert rows[1] == [rows[0][1], "2", rows[1][2], "...", "That", "is", "four."]


def test_what_is_saved_is_said(folder: Path) -> None:
    given = ("2 + 2?", "--save", "a.html", "--save", "b.json")
    assert solve(*given).stderr == "a.html is written\nb.json is written\n"
    assert solve(*given, "-q").stderr == ""
    assert sorted(path.suffix for path in folder.iterdir() if path.is_file()) == [".html", ".json", ".py"]


@pytest.mark.parametrize(("form", "library"), [("png", "matplotlib"), ("graphml", "networkx")])
def test_what_cannot_be_drawn_is_refused_before_the_search(
    form: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    refused = solve("2 + 2?", "--save", f"tree.{form}", generator="Broken")
    assert refused.exit_code == 2
    assert f"need {library}: pip install 'tts-search[plot]'" in refused.stderr


def test_warnings_are_said_in_every_form() -> None:
    asked = ("What is the capital of France?", "-e", "low", "--max-tokens", "60")
    said = "the embedded model knows number puzzles alone"
    drawn, alone, data = (CliRunner().invoke(app, ["solve", *asked, *form]) for form in ((), ("-q",), ("--json",)))
    assert drawn.exit_code == alone.exit_code == data.exit_code == 0
    assert said in alone.stderr
    assert "for anything else, name another by --model" in alone.stderr
    assert said in json.loads(data.stdout)["warnings"][0]
    assert said not in drawn.stderr
    asked = ("Using the numbers 7, 5, 15 and 11, make 24.", "-e", "low", "-q")
    assert CliRunner().invoke(app, ["solve", *asked]).stderr == ""


def test_saving_the_tree(folder: Path) -> None:
    search = ("--strategy", "best_first", "--budget", "60", "--scorer", "tts_search.testing:FakeScorer")
    result = solve("2 + 2?", "-q", *search, "--save", "a.html", "--save", "a.json")
    assert result.exit_code == 0, result.stderr
    assert "</html>" in (folder / "a.html").read_text()
    assert from_json((folder / "a.json").read_text()).answer == result.stdout.strip()


@pytest.mark.parametrize("form", FORMATS)
def test_a_persons_file_is_not_written_over(folder: Path, form: str) -> None:
    path = folder / f"notes{form}"
    for theirs in (b"remember to ask Ann\n", b"remember to ask Ann", b"\0\xff"):
        path.write_bytes(theirs)
        result = solve("2 + 2?", "-q", "--save", path.name)
        assert result.exit_code == 2
        assert "is there already and is no search that was saved" in result.stderr
        assert path.read_bytes() == theirs
    path.unlink()
    for _ in range(2):  # a search that was saved may be saved again
        assert solve("2 + 2?", "-q", "--save", path.name).exit_code == 0
        assert len(path.read_bytes()) > 100


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.docx", "no known form"),
        (".", "no known form"),
        ("gone/a.html", "no folder"),
        ("/proc/a.html", "the folder '/proc' cannot be written to"),
        ("d.html", "is a folder"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_search(name: str, said: str, folder: Path) -> None:
    (folder / "d.html").mkdir()
    result = solve("2 + 2?", "--save", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_ending_early() -> None:
    found = solve(
        "2 + 2?", "--seconds", "9", "--early-stop", "1", "--scorer", "tts_search.testing:FakeScorer", "--json"
    )
    assert found.exit_code == 0
    assert json.loads(found.stdout)["stop_reason"] in ("early", "completed")


@pytest.mark.parametrize("selector", SELECTORS)
def test_selectors(selector: str) -> None:
    result = solve("2 + 2?", "--selector", selector, "--scorer", "tts_search.testing:FakeScorer")
    assert result.exit_code == 0
    assert ("logprob" in result.stdout.split("Candidates")[1].splitlines()[1]) == (selector == "logprob")


@pytest.mark.parametrize(
    ("generator", "args", "code", "said"),
    [
        ("Broken", (), 1, "error: the engine is gone"),
        ("buggy", (), 1, "error: ZeroDivisionError: oh [no] (--debug shows more)"),
        ("good", ("--scorer", "cli_fakes:BadScorer"), 1, "error: scorer BadScorer raised KeyError: 'weights'"),
        ("good", ("--strategy", "cli_fakes:strategy"), 1, "raised RuntimeError: lost"),
        ("missing", (), 2, "error: no model folder at 'x': give an existing folder"),
        ("misfit", (), 2, "error: the head is for 64, the model has 128"),
        ("dependent", (), 2, "error: needs vLLM: pip install 'tts-search[vllm]'"),
        ("nothing", (), 2, "error: --generator cli_fakes:nothing is no Generator and makes none: it is 3"),
        ("BadScorer", (), 2, "error: --generator cli_fakes:BadScorer is no Generator: it has no name, tokenizer"),
        ("absent", (), 2, "error: --generator cli_fakes:absent cannot be imported: "),
        ("good", ("--scorer", "no_such_module:X"), 2, "error: --scorer no_such_module:X cannot be imported: "),
        ("good", ("--strategy", "cli_fakes:nothing"), 2, "error: --strategy: cli_fakes:nothing is no strategy"),
        ("good", ("--scorer", "sprm"), 2, "'fake' has no SPRM head"),
        ("good", ("--selector", "best"), 2, "selector 'best' needs step scores"),
        (
            "good",
            ("--strategy", "mcts", "--budget", "60"),
            2,
            "goes where step scores are high, and 'fake' has no SPRM",
        ),
        ("good", ("--selector", "weighted", "--scorer", "none"), 2, "error: --selector weighted needs step scores"),
        ("good", ("--model", "x"), 2, "error: --generator cli_fakes:good brings its own model: leave --model out"),
        ("good", ("--effort", "low", "--n", "3"), 2, "error: give --effort low or --n 3, not both"),
        ("good", ("--effort", "low", "--strategy", "single"), 2, "give --effort low or --strategy single, not both"),
        (
            "good",
            ("--strategy", "single", "--n", "3"),
            2,
            "error: --n 3 belongs to --strategy best_of_n, not to single",
        ),
        ("silent", (), 3, "error: no answer: the model ended its response at once"),
        ("wordless", (), 3, "error: no answer: the model wrote nothing after its thinking"),
        ("random", ("--budget", "1"), 3, "error: no answer: the budget of 1 tokens was spent"),
    ],
)
def test_exit_codes(generator: str, args: tuple[str, ...], code: int, said: str) -> None:
    result = solve("2 + 2?", *args, generator=generator)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == "" or code == 3


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--effort", "heroic", ("'heroic'", *EFFORTS)),
        ("--selector", "worst", ("'worst'", *SELECTORS)),
        ("--generator", "gpt", ("'gpt'", *GENERATORS)),
        ("--scorer", "me", ("'me'", "auto", "sprm", "none")),
        ("--budget", "0", ("'0'", "of at least 1")),
        ("--budget", "-5", ("'-5'", "of at least 1")),
        ("--budget", "many", ("'many'", "whole number of at least 1")),
        ("--n", "0", ("'0'", "of at least 1")),
        ("--max-tokens", "0", ("'0'", "of at least 1")),
        ("--answer-tokens", "0", ("'0'", "of at least 1")),
        ("--temperature", "-1", ("'-1'", "at least 0")),
        ("--temperature", "inf", ("'inf'", "at least 0")),
        ("--temperature", "nan", ("'nan'", "at least 0")),
        ("--top-p", "0", ("'0'", "above 0")),
        ("--top-p", "1.5", ("'1.5'", "at most 1")),
        ("--seconds", "0", ("'0'", "above 0")),
        ("--early-stop", "2", ("'2'", "of 0 to 1")),
        ("--seed", "x", ("'x'", "whole number")),
        ("--top-k", "-1", ("'-1'", "of at least 0")),
        ("--min-p", "1", ("'1'", "below 1")),
        ("--repetition-penalty", "0", ("'0'", "above 0")),
        ("--extract", "best", ("'best'", *EXTRACTS, "package.module:Object")),
        ("--aggregation", "sum", ("'sum'", *AGGREGATIONS, "package.module:Object")),
    ],
)
def test_a_bad_option_names_the_value_and_the_choices(option: str, value: str, said: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["solve", "2 + 2?", option, value])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in (option, *said))
    assert result.stderr.startswith("error: Invalid value for")
    assert "solve --help" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no command given"),
        (("solve",), "no question: give a text"),
        (("solve", "a", "b"), "unexpected extra argument"),
        (("slove", "x"), "Did you mean 'solve'"),
        (("solve", "x", "--efort", "low"), "--effort"),
        (("solve", ""), "the question is empty"),
        (("solve", " \n"), "the question is empty"),
        (("solve", "a\udcff"), "the question is not UTF-8 text"),
        (("solve", "x", "--model", "./nowhere"), "no model folder at './nowhere'"),
        (("solve", "x", "--strategy", "magic"), f"unknown strategy 'magic': choose from {', '.join(STRATEGIES)}"),
        (("solve", "x", "--strategy", "magic"), "package.module:Object, with settings as in MCTS(children=4)"),
        (
            ("solve", "x", "--strategy", "MCTS(childs=4)"),
            "MCTS has no 'childs': choose from children, expansion_tokens",
        ),
        (("solve", "x", "--strategy", "MCTS(children=x)"), "children of MCTS must be a whole number, got 'x'"),
        (
            ("solve", "x", "--strategy", "BestOfN(n=0)"),
            "--strategy: strategy BestOfN(n=0): n of BestOfN must be a whole number of at least 1",
        ),
        (("solve", "x", "--engine-arg", "max_batch"), "'max_batch' is not NAME=VALUE"),
        (("solve", "x", "--engine-arg", "max_bach=3"), "TransformersGenerator has no 'max_bach': choose from"),
        (("solve", "x", "--engine-arg", "max_batch=x"), "max_batch of TransformersGenerator must be a whole number"),
        (("solve", "x", "--engine-arg", "max_batch=0"), "max_batch must be at least 1, got 0"),
        (("solve", "x", "--engine-arg", "threads=1", "--engine-arg", "threads=2"), "threads is given twice"),
        (("solve", "x", "--head", "./nowhere"), "the folder './nowhere' is not there"),
        (("solve", "x", "--tokenizer", "gpt2"), "--tokenizer gpt2 is for a server"),
    ],
)
def test_bad_calls(args: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_standard_input_that_is_no_utf8() -> None:
    result = solve("-", stdin="naïve".encode("latin1"))
    assert result.exit_code == 2
    assert "byte 0xef at position 2" in result.stderr
    assert "iconv" in result.stderr


def test_debug_shows_the_traceback() -> None:
    result = solve("2 + 2?", "--debug", generator="buggy")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("error: ZeroDivisionError: oh [no]\n")


def test_a_model_cannot_drive_the_terminal() -> None:
    result = solve("2 + 2?", generator="escaping")
    assert result.exit_code == 0
    assert result.stdout.startswith("␛]0;title␇ 4\n")
    assert "␛[31mred" in result.stdout
    assert json.loads(solve("2 + 2?", "--json", generator="escaping").stdout)["answer"] == "\x1b]0;title\x07 4"


def test_help_teaches() -> None:
    top, solve_help = (CliRunner().invoke(app, args, env={"COLUMNS": "100"}) for args in (["-h"], ["solve", "--help"]))
    assert top.exit_code == solve_help.exit_code == 0
    assert "solve" in top.stdout
    for word in ("Examples", "Exit codes", "130", "Model", "Search", "Sampling", *EFFORTS, *SELECTORS, *STRATEGIES):
        assert word in solve_help.stdout
    for example in re.findall(r"^ *(?:cat.*\| )?tts-search (solve .*?)(?: > .*)?$", solve_help.stdout, re.MULTILINE):
        assert all(f"--{name}" in solve_help.stdout for name in re.findall(r" --([a-z-]+)", example))


def test_the_help_of_train_shows_a_file_that_it_would_read() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "100"}).stdout
    file = tomllib.loads(shown[shown.index("model = ") :])
    assert {"model", "data", "training", "rewards", "lora"} <= set(file)


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"tts-search {__version__}\n", b"")


def test_importing_it_is_light() -> None:
    code = (
        "import sys, tts_search.cli; print([m for m in ('torch', 'vllm', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_libraries_that_print_do_not_reach_standard_output() -> None:
    done = run("solve", "2 + 2?", "--generator", "cli_fakes:Noisy", "--json")
    assert done.returncode == 0
    json.loads(done.stdout)
    assert b"noise" not in done.stdout
    assert b"engine noise" not in done.stderr
    assert b"engine noise" in run("solve", "2 + 2?", "--generator", "cli_fakes:Noisy", "--debug").stderr


def test_any_output_encoding() -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    asked = ("solve", "2 + 2?", "--generator", "cli_fakes:good", "--scorer", "tts_search.testing:FakeScorer")
    drawn, data = run(*asked, env=ascii_only), run(*asked, "--json", env=ascii_only)
    assert drawn.returncode == data.returncode == 0
    assert drawn.stdout.isascii()
    assert json.loads(data.stdout.decode("utf-8"))["answer"] == "Für dich: 4 ✓"


def test_a_reader_that_leaves_is_no_failure() -> None:
    process = subprocess.Popen(
        command("solve", "2 + 2?", "--generator", "cli_fakes:good"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


def heed_interrupts() -> None:
    """A test run in the background ignores SIGINT, and so would the processes that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, b"interrupted\n"), (signal.SIGTERM, 143, b"terminated\n")]
)
def test_it_stops_well_when_told_to(sent: signal.Signals, code: int, said: bytes) -> None:
    process = subprocess.Popen(
        command("solve", "2 + 2?", "--generator", "cli_fakes:Slow"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"begun\n"
    process.send_signal(sent)
    out, errors = process.communicate()
    assert process.returncode == code
    assert out == b""
    assert errors == b"closed\n" + said


def on_a_terminal(*args: str, columns: int = 60, interrupt: bytes = b"", **env: str) -> tuple[int, str]:
    """The exit code of a command whose output is a terminal, and everything that it wrote there."""
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **env}
    process = subprocess.Popen(
        command(*args), stdin=side, stdout=side, stderr=side, env=environment, preexec_fn=heed_interrupts
    )
    os.close(side)
    written = b""
    while True:
        try:
            written += os.read(main, 1 << 16)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if interrupt and interrupt in written:
            process.send_signal(signal.SIGINT)
            interrupt = b""
    os.close(main)
    return process.wait(60), written.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_terminal_gets_colour_a_frame_and_progress() -> None:
    asked = (
        "solve",
        "2 + 2?",
        "--generator",
        "cli_fakes:good",
        "--scorer",
        "tts_search.testing:FakeScorer",
        "-b",
        "900",
    )
    code, written = on_a_terminal(*asked)
    assert code == 0
    assert "Loading cli_fakes:good" in written
    assert "38;5;" in written
    assert "╭─ Answer ─" in plain(written)
    drawn = plain(written[written.index("Answer") :])
    assert max(map(len, drawn.splitlines())) <= 60
    assert written.rstrip().endswith("tokens/s")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")  # the cursor is back
    code, written = on_a_terminal(*asked, NO_COLOR="1")
    assert "38;5;" not in written
    assert "0." in written
    assert plain(on_a_terminal(*asked, "--quiet")[1]) == "Für dich: 4 ✓\n"


def test_an_interrupted_terminal_is_restored() -> None:
    code, written = on_a_terminal("solve", "2 + 2?", "--generator", "cli_fakes:Slow", interrupt=b"begun")
    assert code == 130
    assert written.endswith("interrupted\n")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")


def made(**changes: object) -> SearchResult:
    given: dict[str, object] = {
        "question": "?",
        "answer": "4",
        "thinking": "One.\n\nTwo.\n\nand",
        "steps": (Step("<think>\nOne.\n\n", 0.0), Step("Two.\n\n", 1.0)),
        "score": 0.5,
        "stop_reason": StopReason.COMPLETED,
        "usage": Usage(
            sampled_tokens=1200, answer_tokens=3, prompt_tokens=100, cached_tokens=87, requests=2, seconds=2
        ),
        "strategy": "BestOfN(n=20)",
        "selector": "majority",
        "model": "m",
        "seed": 0,
    }
    return SearchResult(**{**given, **changes})  # type: ignore[arg-type]


def drawn(result: SearchResult, path: Path) -> str:
    with path.open("w", encoding="utf-8") as file:
        return report.draw(result, terminal.console_for(file))


def test_the_report(tmp_path: Path) -> None:
    candidates = tuple(
        Candidate(node=0, score=i / 20, mean_logprob=-1, answer="4", vote=str(i // 2)) for i in range(20)
    )
    text = drawn(made(candidates=candidates, chosen=3), tmp_path / "out")
    assert "  1 0.00       One.\n  2 1.00 ━━━━━ Two.\n       –       and\n" in text.replace("     \n", "\n")
    rows = text.split("Candidates")[1].splitlines()
    assert rows[2].split() == ["▸", "0.15", "2", "1"]
    assert rows[3].split() == ["0.95", "2", "9"]
    assert "and 4 more; --json has them all" in rows[10]
    assert "sampled   1,200, 3 of them for answers" in text
    assert "prompt    100, 87% of it from the prefix cache" in text
    assert "requests  2 in 2.0 s, 600 tokens/s" in text


def listed(**changes: object) -> list[list[str]]:
    """The rows of the candidates, in words, below the headings."""
    console = terminal.console_for(io.StringIO())
    text = report.draw(made(**changes), console).split("Candidates")[1].split("Tokens")[0]
    return [line.split() for line in text.splitlines()[1:] if line]


def candidate(score: float | None, answer: str | None) -> Candidate:
    return Candidate(node=0, score=score, mean_logprob=-1.0, answer=answer, vote=answer)


def test_equal_candidates_stand_in_one_row() -> None:
    some = (candidate(0.2, "4"), candidate(0.9, "5"), candidate(0.6, "4"), candidate(0.3, "6"), candidate(0.5, "4"))
    assert listed(candidates=some, chosen=2)[1:] == [["▸", "0.60", "3", "4"], ["0.90", "1", "5"], ["0.30", "1", "6"]]
    weighted = listed(candidates=some, chosen=2, selector="weighted")
    assert weighted == [
        ["score", "sum", "votes", "tokens", "answer"],
        ["▸", "0.60", "1.30", "3", "4"],
        ["0.90", "0.90", "1", "5"],
        ["0.30", "0.30", "1", "6"],
    ]
    alone = tuple(candidate(None, "four") for _ in range(8))
    assert listed(candidates=alone, chosen=0, score=None)[1:] == [["▸", "8", "four"]]


def test_not_answered_is_said_only_of_answers_that_are_missed() -> None:
    nobody_asked = (candidate(0.2, None), candidate(0.9, "5"), candidate(0.2, None), candidate(0.1, None))
    rows = listed(candidates=nobody_asked, chosen=1, selector="best")
    assert rows[1:] == [["▸", "0.90", "1", "5"], ["0.20", "2"], ["0.10", "1"]]
    too_dear = (candidate(0.2, None), candidate(0.9, "5"), candidate(0.2, "5"))
    assert ["0.20", "not", "answered"] in listed(candidates=too_dear, chosen=1)
    spent = (candidate(0.9, None), candidate(0.1, None))
    assert ["▸", "0.90", "not", "answered"] in listed(candidates=spent, chosen=0, selector="best")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (StopReason.BUDGET, "(the budget of 900 tokens was spent: this is the best it paid for."),
        (StopReason.LENGTH, "(no path came to an end: the best one was cut off and answered from."),
        (StopReason.EARLY, "(the search ended early:"),
        (StopReason.TIME, "(the time was up:"),
        (StopReason.HALTED, "(the search was halted:"),
        (StopReason.COMPLETED, ""),
    ],
)
def test_why_it_stopped_in_plain_words(reason: StopReason, said: str, tmp_path: Path) -> None:
    second = drawn(made(stop_reason=reason, budget=900), tmp_path / "out").splitlines()[1]
    assert second.startswith(said)
    assert bool(second) == bool(said)
