"""A comparison counts right, resumes without losing or repeating anything, and shows what it counted."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tts_search import MCTS, BestOfN, Searcher
from tts_search.embedded import MODEL_FOLDER
from tts_search.errors import InvalidInputError
from tts_search.evaluation import tables
from tts_search.evaluation.choices import ORACLE, RANDOM, choices
from tts_search.evaluation.comparison import Cell, Comparison, compare
from tts_search.evaluation.datasets import Dataset, Problem, load_dataset
from tts_search.evaluation.report import comparison_figures, comparison_page
from tts_search.evaluation.runs import Evaluation, RunProgress, Setting, name_of, weights
from tts_search.metrics import bootstrap, paired_difference
from tts_search.options import resolve_strategy
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.store import RunLog
from tts_search.strategies.repeat import Repeat
from tts_search.testing import FakeGenerator

QUESTIONS = Dataset(
    name="fakes",
    problems=tuple(Problem(id=f"q{i}", question=f"What is {i}?", reference="abcdefgh"[i % 8]) for i in range(12)),
    grader="exact",
)
STRATEGIES = ("single", BestOfN(n=3))


def holds(answer: str, reference: str) -> bool:
    """Right about half of the time on what the fake writes."""
    return reference in answer[:6]


@pytest.fixture
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture
def searcher(generator: FakeGenerator) -> Iterator[Searcher]:
    with make_searcher(generator) as searcher:
        yield searcher


def make_searcher(generator: FakeGenerator) -> Searcher:
    return Searcher(generator=generator, scorer=EngineSPRM(), max_tokens=200, answer_tokens=30, concurrency=3)


def run(searcher: Searcher, log: Path | None = None, **options: Any) -> Comparison:
    given: dict[str, Any] = {"strategies": STRATEGIES, "budgets": (None, 120), "repeats": 2, "grader": holds, **options}
    return compare(QUESTIONS, searcher, log=log, **given)


def counted(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table without the seconds, which no two runs share."""
    return [row[:5] + row[6:] for row in tables.rows(comparison)]


def test_the_numbers_are_those_of_the_searches(searcher: Searcher) -> None:
    comparison = run(searcher)
    first, _, other, _ = comparison.cells
    results = [
        [searcher.search(p.question, strategy=BestOfN(n=3), seed=seed) for p in QUESTIONS.problems] for seed in (0, 1)
    ]
    right = [
        sum(holds(repeat[i].answer, p.reference) for repeat in results) / 2 for i, p in enumerate(QUESTIONS.problems)
    ]
    assert 0 < sum(right) < len(right)
    assert other.correct.tolist() == right
    assert other.accuracy == bootstrap(right)
    assert other.tokens.mean == pytest.approx(
        sum(r.usage.sampled_tokens for repeat in results for r in repeat) / (2 * len(QUESTIONS))
    )
    assert comparison.difference(other) == paired_difference(right, first.correct)
    assert comparison.difference(first) is None
    assert all(record["usage"]["sampled_tokens"] <= 120 for row in comparison.cells[1].records for record in row)
    assert [cell.errors for cell in comparison.cells] == [0, 0, 0, 0]


def test_every_cell_is_compared_with_the_first_strategy_under_its_budget(searcher: Searcher) -> None:
    comparison = run(searcher, strategies=("single", BestOfN(n=2), BestOfN(n=3)), seed=5)
    none, capped, *others = comparison.cells
    assert [comparison.baseline(cell) for cell in comparison.cells] == [none, capped] * 3
    assert [comparison.difference(cell) is None for cell in comparison.cells] == [True, True, *[False] * 4]
    for cell, baseline in zip(others, [none, capped] * 2, strict=True):
        assert comparison.difference(cell) == paired_difference(cell.correct, baseline.correct)
    assert (comparison.seed, comparison.repeats, comparison.last_seed) == (5, 2, 6)


def test_what_a_cell_counts() -> None:
    def record(answer: str, error: str | None = None, *, sent: int = 0, cached: int = 0) -> dict[str, Any]:
        usage = {"prompt_tokens": sent, "cached_tokens": cached, "sampled_tokens": 0, "seconds": 0.0}
        return {"answer": answer, "error": error, "usage": usage, "correct": False, "candidates": []}

    def cell(*records: dict[str, Any]) -> Cell:
        return Cell(setting=Setting(label="mine", strategy=BestOfN(n=1)), records=[records])

    counted = cell(record("a", sent=30, cached=5), record(" \n"), record("", "gone"), record("", sent=10, cached=5))
    assert (counted.unanswered, counted.errors) == (2, 1)
    assert counted.cached_share == 0.25
    assert cell(record("a")).cached_share is None


def test_labels_are_what_people_call_the_strategies(searcher: Searcher) -> None:
    comparison = run(searcher, budgets=(None,), repeats=1, labels=["one", "three"])
    assert [cell.setting.label for cell in comparison.cells] == ["one", "three"]
    for labels in (["one"], ["one", "two", "three"]):
        with pytest.raises(InvalidInputError, match=f"2 strategies need as many labels, got {len(labels)}"):
            run(searcher, labels=labels)


def test_a_second_run_asks_nothing(searcher: Searcher, generator: FakeGenerator, tmp_path: Path) -> None:
    seen: list[RunProgress] = []
    first = run(searcher, tmp_path / "log.jsonl", on_progress=seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].resumed) == (96, 96, 0)
    assert seen[-1].seconds_left == 0
    asked = len(generator.requests)
    again = run(searcher, tmp_path / "log.jsonl", on_progress=seen.append)
    assert len(generator.requests) == asked
    assert (seen[-1].done, seen[-1].resumed, seen[-1].seconds_left) == (96, 96, None)
    assert tables.rows(again) == tables.rows(first), "seconds and all"
    more = run(searcher, tmp_path / "log.jsonl", repeats=3)
    assert more.cells[0].records[:2] == first.cells[0].records
    changed = Searcher(generator=generator, scorer=EngineSPRM(), max_tokens=100, answer_tokens=30)
    with changed:
        run(changed, tmp_path / "log.jsonl", on_progress=seen.append)
    assert seen[-1].resumed == 0, "another searcher's searches are others"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[tuple[str, ...]]]:
    log = tmp_path_factory.mktemp("whole") / "log.jsonl"
    with make_searcher(FakeGenerator()) as searcher:
        table = counted(run(searcher, log))
    return log.read_bytes(), table


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_cut_off_anywhere_the_table_is_the_same(
    share: float, whole: tuple[bytes, list[tuple[str, ...]]], tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(whole[0][: round(share * len(whole[0]))])
    with make_searcher(FakeGenerator()) as searcher:
        assert counted(run(searcher, log)) == whole[1]
    keys = [json.dumps(json.loads(line)["key"]) for line in log.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == 96


def test_killed_in_the_middle_it_goes_on(tmp_path: Path, whole: tuple[bytes, list[tuple[str, ...]]]) -> None:
    log = tmp_path / "log.jsonl"
    slow = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("its_test", {__file__!r})
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
from pathlib import Path
with module.make_searcher(module.FakeGenerator(delay_seconds=0.3)) as searcher:
    module.run(searcher, Path({str(log)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", slow], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < 10:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    left = log.read_bytes().count(b"\n") - 1
    assert 9 <= left < 96, "killed in the middle"
    seen: list[RunProgress] = []
    with make_searcher(FakeGenerator()) as searcher:
        comparison = run(searcher, log, on_progress=seen.append)
    assert counted(comparison) == whole[1]
    assert seen[-1].resumed == left
    assert len(log.read_text().splitlines()) == 97


def test_a_failed_search_counts_as_wrong_and_is_tried_again(tmp_path: Path) -> None:
    class Moody(FakeGenerator):
        async def generate(self, request: Any) -> Any:
            if down and "".join(map(chr, request.prefix[:-1])).startswith("What is 3?"):
                raise RuntimeError("gone")
            return await super().generate(request)

    down = True
    with make_searcher(Moody()) as searcher:
        broken = run(searcher, tmp_path / "log.jsonl", budgets=(None,), repeats=1)
        assert [cell.errors for cell in broken.cells] == [1, 1]
        assert broken.cells[0].correct[3] == 0
        assert "gone" in broken.cells[0].records[0][3]["error"]
        down = False
        mended = run(searcher, tmp_path / "log.jsonl", budgets=(None,), repeats=1)
    assert [cell.errors for cell in mended.cells] == [0, 0]


def test_a_grader_that_refuses_a_reference_ends_it_at_once(searcher: Searcher) -> None:
    empty = replace(QUESTIONS.problems[0], reference="Z9")
    dataset = replace(QUESTIONS, problems=(*QUESTIONS.problems[1:], empty), grader="choice")
    with pytest.raises(InvalidInputError, match="question 'q0': the reference of a multiple-choice question"):
        compare(dataset, searcher, strategies=["single"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategies": []}, "nothing to compare"),
        ({"strategies": ["single", BestOfN(n=1)]}, "is there twice"),
        ({"repeats": 0}, "repeats"),
        ({"strategies": ["nope"]}, "unknown strategy"),
        ({"budgets": [0]}, "budget"),
        ({"grader": "nope"}, "unknown grader"),
    ],
)
def test_what_cannot_be_compared(searcher: Searcher, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        run(searcher, **options)


def test_a_model_that_was_trained_on_is_another(tmp_path: Path) -> None:
    file = tmp_path / "sprm" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(bytes(100))
    before = weights(str(tmp_path))
    assert weights(str(tmp_path)) == before
    file.write_bytes(bytes(99) + b"1")
    assert weights(str(tmp_path)) != before
    assert weights("embedded") is not None
    assert weights("org/model-that-is-elsewhere") is None


def test_a_model_is_known_by_its_weights_wherever_it_lies(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_FOLDER, tmp_path / "elsewhere" / "mine")
    with Searcher(folder, generator="transformers") as searcher, RunLog(None) as log:
        engine = Evaluation(dataset=load_dataset("puzzles", limit=1), searcher=searcher, log=log).engine
    assert (engine["model"], engine["weights"]) == ("mine", weights("embedded"))


def test_settings_are_named_alike_in_every_process() -> None:
    assert resolve_strategy("mcts", repeat=True) == MCTS()
    assert isinstance(resolve_strategy("beam", repeat=True), Repeat)
    assert name_of(holds) == "holds"
    assert name_of(BestOfN(n=2)) == repr(BestOfN(n=2))


def test_tables_say_the_same(searcher: Searcher) -> None:
    comparison = run(searcher)
    lines = tables.markdown(comparison).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| single | none | ")
    assert "| baseline |" in lines[2]
    parsed = list(csv.DictReader(io.StringIO(tables.to_csv(comparison))))
    assert [float(row["accuracy"]) for row in parsed] == [cell.accuracy.mean for cell in comparison.cells]
    assert [row["budget"] for row in parsed] == ["", "120", "", "120"]
    assert parsed[0]["difference"] == ""
    assert float(parsed[2]["difference_low"]) <= float(parsed[2]["difference"])
    assert tables.rich_table(comparison).row_count == 4


def test_tables_of_choices_say_the_same(searcher: Searcher) -> None:
    comparison = run(searcher, selector="majority", repeats=1, repeat=False)
    lines = tables.choices_markdown(comparison).splitlines()
    parsed = list(csv.DictReader(io.StringIO(tables.choices_to_csv(comparison))))
    wanted = [(cell, choice) for cell in comparison.cells for choice in cell.choices]
    assert len(lines) - 2 == len(parsed) == len(wanted) == 2 * 6
    assert [float(row["accuracy"]) for row in parsed] == [choice.accuracy.mean for _, choice in wanted]
    assert [row["budget"] for row in parsed[::6]] == ["", "120"]
    assert parsed[0]["gain"] == ""
    assert "The same paths, chosen otherwise" in comparison_page(comparison)


@pytest.mark.parametrize("selector", ["majority", "weighted", "logprob"])
def test_choices_are_what_each_selector_would_have_made(searcher: Searcher, selector: str) -> None:
    found = run(searcher, strategies=(BestOfN(n=4),), budgets=(None,), selector="majority").cells[0]
    others = {choice.name: choice for choice in found.choices}
    assert list(others) == [RANDOM, "best", "majority", "weighted", "logprob", ORACLE]
    assert others["majority"].accuracy == found.accuracy
    searched = run(searcher, strategies=(BestOfN(n=4),), budgets=(None,), selector=selector).cells[0]
    assert others[selector].accuracy == searched.accuracy
    paths = [record["candidates"] for repeat in found.records for record in repeat]
    assert others[ORACLE].accuracy.mean == pytest.approx(np.mean([any(p["correct"] for p in row) for row in paths]))
    assert others[RANDOM].accuracy.mean == pytest.approx(
        np.mean([np.mean([p["correct"] for p in row]) for row in paths])
    )
    assert all(choice.paths == np.mean([len(row) for row in paths]) for choice in others.values())
    gain = others[selector].gain
    assert others[RANDOM].gain is None
    assert gain is not None
    assert gain.mean == pytest.approx(others[selector].accuracy.mean - others[RANDOM].accuracy.mean)


def test_no_choices_where_there_is_one_path_or_some_were_never_answered(searcher: Searcher) -> None:
    comparison = run(searcher, budgets=(None,))
    assert [cell.choices for cell in comparison.cells] == [(), ()]
    assert tables.choice_rows(comparison) == []
    assert "chosen otherwise" not in comparison_page(comparison)


def test_choices_without_scores_and_without_paths() -> None:
    def path(right: bool, logprob: float, vote: str) -> dict[str, Any]:
        return {"score": None, "mean_logprob": logprob, "vote": vote, "correct": right}

    candidates = [path(False, -0.5, "a"), path(True, -1.0, "b"), path(True, -2.0, "b")]
    records = [[{"candidates": candidates}, {"candidates": []}]]
    wanted = {RANDOM: 1 / 3, "majority": 0.5, "logprob": 0.0, ORACLE: 0.5}
    assert {choice.name: choice.accuracy.mean for choice in choices(records)} == pytest.approx(wanted)


def test_the_report_holds_hostile_texts_as_text(searcher: Searcher) -> None:
    attack = "</td><script>alert(1)</script> $x$ & more"
    problems = tuple(replace(p, question=f"{p.question} {attack}") for p in QUESTIONS.problems)
    comparison = compare(
        replace(QUESTIONS, name=attack, problems=problems), searcher, strategies=STRATEGIES, grader=holds
    )
    page = comparison_page(comparison, command=f"tts-search compare {attack}")
    assert "<script" not in page
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_plots_show_every_cell(searcher: Searcher) -> None:
    comparison = run(searcher)
    for figure, quantity in zip(comparison_figures(comparison), ("tokens", "seconds"), strict=True):
        (axes,) = figure.axes
        drawn = sorted(tuple(point) for line in axes.containers for point in line[0].get_xydata())
        # The axis is logarithmic: what took no time stands at a millisecond.
        wanted = sorted((max(getattr(cell, quantity).mean, 1e-3), cell.accuracy.mean) for cell in comparison.cells)
        assert list(drawn) == [pytest.approx(point) for point in wanted]
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["single", "BestOfN(n=3)"]
