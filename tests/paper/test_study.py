"""The paper's items on the embedded model, small: measured once, judged by their rules, shown whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tts_search.cli import app
from tts_search.cli.reproduce import count_parameters
from tts_search.embedded import MODEL_FOLDER
from tts_search.embedded.puzzles import Puzzle
from tts_search.errors import InvalidInputError
from tts_search.paper import items as paper
from tts_search.paper.sample_pool import Pool
from tts_search.paper.step_scores import ScoredTrajectory, StepScores, first_error
from tts_search.paper.study import Study

ARGUMENTS = ("reproduce", "--questions", "2", "--samples", "8", "--budgets", "60", "--max-tokens", "80", "--no-heads")


def test_the_command_measures_every_item_once(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    first = CliRunner().invoke(app, [*ARGUMENTS, "--out", out])
    assert first.exit_code == 0, first.stderr
    names = ["Table 1", "Table 2, in part", "Table 4", "Figure 2", "Figure 5", "Figure 6"]
    assert [line.split(":")[0] for line in first.stdout.splitlines()[:6]] == names
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f"<h2>{name}:" in page for name in names)
    assert page.count("data:image/svg+xml") == 3
    assert "<script" not in page
    log = (tmp_path / "out" / "runs.jsonl").read_text()
    assert len(log.splitlines()) == 1 + 2 * (1 + 2 + 1), "pool, no search, one budget, step scores"
    again = CliRunner().invoke(app, [*ARGUMENTS, "--out", out, "--quiet"])
    assert again.exit_code == 0
    assert again.stdout == (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "runs.jsonl").read_text() == log
    for line in log.splitlines()[1:]:
        record = json.loads(line)
        if "budget" in record["key"] and record["key"]["budget"]:
            assert record["usage"]["sampled_tokens"] <= 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--samples", "12"), "power of two"),
        (("--budgets", "none"), "at least one number"),
        (("--model", "nowhere/at/all"), "nowhere"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def made_up(correct: np.ndarray, scores: np.ndarray) -> Study:
    """A study whose pool is there already; nothing else of it is touched."""
    study = Study(searcher=None, dataset=None, log=None, parameters=1_000, samples=correct.shape[1])  # type: ignore[arg-type]
    pool = Pool(correct=correct, scores=scores, logprobs=-scores, votes=[list("abcdefgh")] * len(correct), tokens=10.0)
    study.__dict__["pool"] = pool
    return study


def test_the_verdicts_follow_the_numbers() -> None:
    rng = np.random.default_rng(0)
    correct = (rng.random((120, 8)) < 0.3).astype(float)
    knows = made_up(correct, correct * 0.5 + rng.random((120, 8)) * 0.4)
    guesses = made_up(correct, rng.random((120, 8)))
    for item in (paper.table_1, paper.table_2, paper.figure_2, paper.figure_5):
        assert item(knows).same, item
    assert not paper.table_1(guesses).same
    assert not paper.table_2(guesses).same
    assert not paper.figure_5(guesses).same
    assert paper.table_1(knows).rows[0][2].startswith(f"{100 * correct.mean():.1f} [")
    assert [row[1] for row in paper.table_1(knows).rows] == ["1", "2", "8"]


PUZZLE = Puzzle((4, 6, 9, 13), 87)
RIGHT = ["13 - 4 = 9 left 6, 9, 9.\n\n", "9 * 9 = 81 left 6, 81.\n\n", "81 + 6 = 87.\n\n", "87 = 87? yes.\n\n"]


@pytest.mark.parametrize(
    ("steps", "index"),
    [
        (RIGHT, -1),
        (RIGHT[:2], -1),
        (["13 - 4 = 8 left 6, 8, 9."], 0),  # false arithmetic
        (["13 - 4 = 9 left 6, 9, 8."], 0),  # other numbers left
        (["13 - 5 = 8 left 6, 8, 9."], 0),  # a number that is not there
        (["9 - 6 = 3 left 3, 4, 13."], 0),  # true, but the target is out of reach
        ([*RIGHT[:2], "81 - 6 = 75."], 2),
        ([*RIGHT[:3], "87 = 87? no."], 3),
        ([*RIGHT[:3], "86 = 87? yes."], 3),
        ([RIGHT[0], "Hm."], None),
        ([f"{'9' * 5000} - 5 = 8."], None),
        ([f"{'9' * 5000} = 87? no."], None),
        (["13 - 5 = 8 left ,, ."], None),
    ],
)
def test_the_first_wrong_step_is_known(steps: list[str], index: int | None) -> None:
    assert first_error(PUZZLE, steps) == index


def test_the_drop_is_a_mean_over_questions() -> None:
    wrong = ScoredTrajectory(question="a", steps=("1", "2"), scores=(0.9, 0.1), first_error=1)
    other = replace(wrong, question="b", scores=(0.4, 0.3))
    right = replace(wrong, scores=(0.9, 0.8), first_error=-1)
    found = StepScores([right, wrong, replace(wrong, scores=(0.6, 0.4)), other])
    drop = found.drop()
    assert drop is not None
    assert drop.mean == pytest.approx((0.5 + 0.1) / 2)
    assert found.example(right=True) == right
    assert found.example(right=False) == wrong
    assert found.wrong == 3
    f1 = found.first_error_f1()
    assert f1 is not None
    assert f1.mean == pytest.approx(2 * (2 / 3) / (2 / 3 + 1)), "two of three fall below 0.5 at the first wrong step"
    assert StepScores([right]).drop() is None
    assert StepScores([right]).first_error_f1() is None


def test_parameters_are_counted(tmp_path: Path) -> None:
    assert 500_000 < count_parameters("embedded") < 5_000_000
    (tmp_path / "config.json").write_text((MODEL_FOLDER / "config.json").read_text())
    with pytest.raises(InvalidInputError, match="--parameters"):
        count_parameters(str(tmp_path))
