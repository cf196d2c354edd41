"""The whole build at toy size, the quality report's arithmetic, and the model that ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from tools.embedded.build import QUALITY_FILE, build, main
from tools.embedded.graded_samples import Sample, sample
from tools.embedded.puzzle_tokenizer import SPARE_IDS
from tools.embedded.quality import markdown, quality, trajectory_scores
from tools.embedded.recipe import QUICK
from tts_search.embedded import MODEL_FOLDER
from tts_search.embedded.puzzles import held_out
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.module import SPRM


def made_up(correct: bool, *, text: str = "", log_probability: float = 0.0) -> Sample:
    return Sample(text=text, correct=correct, log_probability=log_probability, steps=torch.zeros(2, 4))


def test_the_quick_build_goes_all_the_way_and_repeats_itself(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    assert main(["--quick", "--seed", "3", "--out", str(tmp_path / "a")]) == 0
    again = build(tmp_path / "b", seed=3, recipe=QUICK)
    for file in ("model.safetensors", "tokenizer.json", "sprm/model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    assert again["questions"] == QUICK.questions
    assert json.loads((tmp_path / "b" / QUALITY_FILE).read_text()) == again
    model = Qwen2ForCausalLM.from_pretrained(tmp_path / "a")
    SPRM.from_pretrained(tmp_path / "a", hidden_size=model.config.hidden_size)
    assert "--seed 3" in (tmp_path / "a" / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "no temporary folder is left"


def test_an_interrupted_build_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "kept").write_text("")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.embedded.build.fit_head", interrupt)
    assert main(["--quick", "--out", str(out)]) == 130
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "kept"]


def test_what_is_no_embedded_model_is_put_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "papers"
    out.mkdir()
    (out / "thesis").write_text("mine")
    for _ in range(2):  # the second replaces the first's model, for good
        build(out, seed=3, recipe=QUICK)
    assert (out / QUALITY_FILE).is_file()
    (kept,) = (path for path in tmp_path.iterdir() if path != out)
    assert (kept / "replaced" / "thesis").read_text() == "mine"
    assert str(kept) in capsys.readouterr().out


def test_a_quick_build_never_replaces_the_shipped_model() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--quick"])
    assert caught.value.code == 2


def test_quality_of_a_known_pool() -> None:
    group = [
        made_up(False, text="1 + 1", log_probability=-1),
        made_up(False, text="1 + 1", log_probability=-2),
        made_up(True, text="2 + 1", log_probability=-3),
        made_up(False, text="3 + 1", log_probability=-4),
    ]
    report = quality([group] * 5, [[0.1, 0.2, 0.9, 0.3]] * 5)
    means = {name: [cell[0] for cell in row.values()] for name, row in report["accuracy"].items()}
    assert means == {
        "SPRM": [0.25, 0.5, 1.0],
        "mean log-probability": [0.25, 0.5, 0.0],
        "majority": [0.25, 0.5, 0.0],
        "oracle": [0.25, 0.5, 1.0],
    }
    assert report["auc"] == 1.0
    assert report["auc_within_question"] == [1.0, 1.0, 1.0]
    assert "| SPRM | 0.250 [0.250, 0.250] |" in markdown(report)


def test_a_trajectory_without_steps_scores_zero() -> None:
    head = SPRM(SPRMConfig(hidden_size=4)).eval()
    empty = Sample(text="", correct=False, log_probability=0.0, steps=torch.zeros(0, 4))
    ((none, some),) = trajectory_scores(head, [[empty, made_up(True)]])
    assert none == 0.0
    assert 0 < some < 1


def test_the_shipped_model() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER).eval()
    head = SPRM.from_pretrained(MODEL_FOLDER, hidden_size=model.config.hidden_size)
    assert head.config.readout == "previous"
    assert model.config.vocab_size >= len(tokenizer) + SPARE_IDS
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert sum(file.stat().st_size for file in MODEL_FOLDER.rglob("*") if file.is_file()) < 8_000_000

    groups = sample(model, tokenizer, held_out(25, seed=1), n=8, seed=0)
    samples = [one for group in groups for one in group]
    assert sum("</think>" in one.text for one in samples) > 0.97 * len(samples), "the thinking closes"
    assert sum(len(one.steps) == 4 for one in samples) > 0.95 * len(samples), "three moves and a check"
    accuracy = {name: row["8"][0] for name, row in quality(groups, trajectory_scores(head, groups))["accuracy"].items()}
    single = sum(one.correct for one in samples) / len(samples)
    assert 0.2 < single < 0.7
    assert accuracy["SPRM"] > single + 0.1, "search shows"
