"""What `reproduce` trains, small and once each: reward models and joint runs; the verdicts of their items."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from tts_search import Searcher
from tts_search.cli import app
from tts_search.embedded import MODEL_FOLDER
from tts_search.errors import InvalidInputError
from tts_search.evaluation.datasets import load_dataset
from tts_search.evaluation.runs import weights
from tts_search.paper import joint, reward_models
from tts_search.paper import training_items as paper_training
from tts_search.paper.joint import Arm, JointSchedule, joint_arms, train_arm
from tts_search.paper.reward_models import PRM, RewardModel, RewardSchedule, RewardScores, reward_scores, table_2
from tts_search.paper.sample_pool import Pool
from tts_search.paper.study import Finding, Study
from tts_search.paper.training_items import Joint, Known, figure_3, figure_4, figure_7, known_pairs, table_3
from tts_search.store import RunLog
from tts_search.training.trajectories import GradedTrajectory

SHORT = JointSchedule(steps=2, warmup=1, completions=8, look_every=1)
LITTLE = RewardSchedule(puzzles=12, samples=4, epochs=1, batch=16)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    torch.set_num_threads(1)
    with Searcher(max_tokens=80) as searcher, RunLog(tmp_path / "runs.jsonl") as log:
        yield Study(
            searcher=searcher, dataset=load_dataset("puzzles", limit=6), log=log, parameters=1, samples=8,
            keep_tokens=True,
        )  # fmt: skip


def test_a_reward_model_reads_its_places(study: Study) -> None:
    policy = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    torch.manual_seed(0)
    model = RewardModel(policy).eval()
    long, short = sorted(
        (t for t in study.pool.trajectories[0] if t is not None), key=lambda t: -len(t.prompt_ids + t.response_ids)
    )[:: len(study.pool.trajectories[0]) - 1]
    (_, by_step), (_, by_end) = (model([long, short], outcome=outcome) for outcome in (False, True))
    assert (len(by_step), len(by_end)) == (len(short.step_ends), 1)
    for end, logit in [*zip(short.step_ends, by_step, strict=True), (len(short.response_ids), by_end[0])]:
        ids = torch.tensor([short.prompt_ids + short.response_ids[:end]])
        alone = model.head(model.backbone(input_ids=ids).last_hidden_state[0, -1])
        torch.testing.assert_close(alone[0], logit, atol=1e-4, rtol=1e-4)


def test_reward_models_learn_once(study: Study) -> None:
    found = reward_scores(study, LITTLE)
    assert {scores.shape for scores in found.scores.values()} == {(6, 8)}
    assert found.scores["PRM, minimum"].max() <= found.scores["PRM, last step"].max()
    assert found.tokens == pytest.approx(
        np.mean([len(t.prompt_ids + t.response_ids) for row in study.pool.trajectories for t in row if t]), abs=0.1
    )
    assert study.log.path is not None
    log = study.log.path.read_bytes()
    again = reward_scores(study, LITTLE)
    assert study.log.path.read_bytes() == log
    assert all((again.scores[name] == scores).all() for name, scores in found.scores.items())
    table = table_2(study, LITTLE)
    assert [row[0] for row in table.rows[:3]] == ["SPRM", reward_models.OWN, reward_models.ORM]
    assert table.rows[0][1] == table.rows[1][1] == "33,281"
    study.keep_tokens = False
    with pytest.raises(InvalidInputError, match="keeps the tokens"):
        reward_scores(study, LITTLE)


def test_joint_runs_differ_by_their_loss_alone_and_are_trained_once(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = [known.trajectory for pair in known_pairs(study) for known in pair]
    assert fixed
    arms = joint_arms(study, fixed, SHORT)
    spr, bce = arms["spr"], arms["bce"]
    assert list(spr.looks) == [0, 1, 2]
    assert spr.curve("reward")[0] == [1, 2]
    assert spr.looks[1] == bce.looks[1] != bce.looks[0]
    assert spr.history[0] == bce.history[0], "the warm-up is the same"
    assert spr.looks[2] != bce.looks[2]
    assert [len(scores) for scores in spr.looks[0]] == [len(t.step_ends) for t in fixed]
    with Searcher(spr.folder, generator="transformers") as searcher:
        result = searcher.search(study.dataset.problems[0].question, effort="low")
    assert result.score is not None, "the folder holds policy and head"
    assert study.log.path is not None
    assert not list(study.log.path.parent.glob(".joint-*")), "nothing is left lying about"

    kept = weights(str(bce.folder))
    shutil.rmtree(bce.folder)
    trained: list[str] = []

    def counted(model: Path, loss: str, *rest: Any, **options: Any) -> Arm:
        trained.append(loss)
        return train_arm(model, loss, *rest, **options)

    monkeypatch.setattr(joint, "train_arm", counted)
    again = joint_arms(study, fixed, SHORT)
    assert trained == ["bce"], "only what is missing"
    assert again == arms, "and it comes out the same"
    assert weights(str(bce.folder)) == kept, "so that what was searched with it counts"


def test_ctrl_c_ends_a_run_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_arm(
            MODEL_FOLDER, "bce", SHORT, tmp_path / "arm", on_step=lambda: signal.raise_signal(signal.SIGINT)
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_what_training_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="log with a path"):
        joint_arms(Study(searcher=None, dataset=load_dataset("puzzles", limit=1), log=RunLog(None), parameters=1), [])  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="multiple of 8"):
        JointSchedule(completions=12)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "trl" else found(name))
    result = CliRunner().invoke(app, ["reproduce", "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert "pip install 'tts-search[train]'" in result.stderr
    assert "--no-heads" in result.stderr
    assert not (tmp_path / "out").exists(), "nothing was begun"


# Verdicts, on numbers that are made up.


def made_up(scores: np.ndarray, correct: np.ndarray) -> Pool:
    return Pool(correct=correct, scores=scores, logprobs=-scores, votes=[list("abcdefgh")] * len(correct), tokens=1.0)


def runs(*, spr_knows: float, bce_knows: float, aha: bool) -> Study:
    """A study after its joint runs: each head's score of a right sample is above a wrong one's by what it knows."""
    rng = np.random.default_rng(0)
    correct = (rng.random((80, 8)) < 0.3).astype(float)
    noise = rng.random((80, 8))
    pools = {
        loss: made_up(correct * knows + noise, correct) for loss, knows in (("spr", spr_knows), ("bce", bce_knows))
    }
    gaps = [0.1 + 0.001 * (i % 3) + (0.5 if aha and i > 30 else 0.0) for i in range(60)]
    history = [
        {"step": float(i + 1), "reward": 0.3, "sprm/score_right": 0.4 + gap, "sprm/score_wrong": 0.4, "sprm/gap": gap}
        for i, gap in enumerate(gaps)
    ]
    trajectory = GradedTrajectory(question="q", prompt_ids=(1,), response_ids=(2,), step_ends=(1,), right=True)
    pair = tuple(Known(trajectory=trajectory, steps=["a", "b"], first_error=error) for error in (-1, 1))
    before, after = [[0.5, 0.5], [0.5, 0.4]], [[0.9, 0.9], [0.6, 0.1]]
    looks = {0: before * 4, 30: before * 4, 35: after * 4, 60: (after if aha else before) * 4}
    study = Study(searcher=None, dataset=None, log=None, parameters=1)  # type: ignore[arg-type]
    study.__dict__["pool"] = pools["bce"]
    arms = {loss: Arm(history=history, looks=looks, folder=Path("nowhere")) for loss in pools}
    study.kept["joint"] = Joint(arms=arms, pools=pools, pairs=[pair] * 4, warmup=20)  # type: ignore[arg-type]
    return study


def test_the_verdicts_follow_the_numbers() -> None:
    as_the_paper, otherwise = (
        runs(spr_knows=0.9, bce_knows=0.2, aha=True),
        runs(spr_knows=0.2, bce_knows=0.9, aha=False),
    )
    for item in (table_3, figure_3, figure_4, figure_7):
        assert item(as_the_paper).same, item
        assert not item(otherwise).same, item
    part = figure_4(as_the_paper)
    assert part.rows[0][1] == "32"
    assert "behind the warm-up" in part.sentence
    seen = figure_7(as_the_paper)
    assert "score at training step 30" in seen.header, "the last look before the aha step"
    assert seen.rows[1][3:5] == ("0.50", "0.90")
    assert seen.rows[3][5] == "first wrong step"
    assert seen.rows[4][3:] == ("0.100 [0.100, 0.100]", "0.800 [0.800, 0.800]", "")
    drawn = [finding.figures[0][0] for finding in (part, seen, figure_3(as_the_paper))]
    assert [figure.axes[0].get_xscale() for figure in drawn] == ["linear"] * 3


@pytest.mark.parametrize(("ours", "theirs", "same"), [(0.9, 0.9, True), (0.4, 0.9, False), (0.9, 0.0, True)])
def test_the_verdict_on_reward_models(ours: float, theirs: float, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    correct = (rng.random((120, 8)) < 0.3).astype(float)
    study = runs(spr_knows=0, bce_knows=0, aha=False)
    study.samples = 8
    study.searcher = cast(Any, SimpleNamespace(generator=SimpleNamespace(head_config=None)))
    study.__dict__["pool"] = made_up(correct * ours + rng.random((120, 8)) * 0.8, correct)
    names = (reward_models.OWN, reward_models.ORM, *PRM)
    scores = dict.fromkeys(names, correct * theirs + rng.random((120, 8)) * 0.8)
    judged = RewardScores(scores=scores, parameters=dict.fromkeys(names, 5), tokens=70.0)
    monkeypatch.setattr(reward_models, "reward_scores", lambda *_: judged)
    table: Finding = table_2(study)
    assert table.same == same
    assert [row[2] for row in table.rows[:3]] == ["0", "0", "70"]


def test_every_table_and_figure_is_an_item() -> None:
    names = [item.__name__ for item in paper_training.ITEMS]
    assert names == [*(f"table_{i}" for i in range(1, 5)), *(f"figure_{i}" for i in range(2, 8))]
