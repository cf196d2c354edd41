"""A scorer by the folder of its checkpoint: what it is, and the same from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.scorers.reward_checkpoints import (
    LLAMA3,
    train_tokenizer,
    trajectory,
    write_language_model,
    write_qwen,
    write_sequence_classifier,
    write_token_classifier,
)
from tts_search import InvalidInputError, ModelNotFoundError, Searcher
from tts_search.cli import app
from tts_search.scorers.process import ProcessRewardModel
from tts_search.scorers.published import is_checkpoint, load_scorer, read_scorer
from tts_search.testing import FakeGenerator

PUZZLE = "Using the numbers 7, 5, 15 and 11, make 24."


def write_judge(folder: Path) -> Path:
    marks = ["<|head|>", "<|tail|>", "<|eot|>"]
    words = [" Yes", " No", "Yes", "No"]
    tokenizer = train_tokenizer(bos="<|begin|>", special=marks, template=LLAMA3, words=words)
    return write_language_model(folder, "llama", tokenizer)


def test_every_kind_of_checkpoint_is_loaded_as_what_it_is(tmp_path: Path) -> None:
    folders = {
        "TokenClassifierPRM": write_token_classifier(tmp_path / "a", separator="\n"),
        "UniversalPRM": write_qwen(
            tmp_path / "Universal-PRM-7B", labels=1, architecture="Qwen2ForRewardModel", head="score"
        ),
        "OutcomeRewardModel": write_sequence_classifier(tmp_path / "c"),
        "ThinkPRM": write_judge(tmp_path / "ThinkPRM-1.5B"),
        "GenPRM": write_judge(tmp_path / "GenPRM-7B"),
    }
    for kind, folder in folders.items():
        scorer = load_scorer(folder)
        assert type(getattr(scorer, "family", scorer)).__name__ == kind


def test_what_is_meant_as_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [is_checkpoint(name) for name in ("prm", "./prm", "org/prm", "sprm", "my-prm")] == [True] * 3 + [False] * 2
    assert not any(map(is_checkpoint, ("/a/b.py:Judge", "./b.py:Judge", "../b.py", "b.py:made.Judge")))
    with pytest.raises(ModelNotFoundError, match="it has no config"):
        Searcher(generator=FakeGenerator(), scorer="prm")
    with pytest.raises(InvalidInputError, match="unknown scorer 'my-prm'"):
        Searcher(generator=FakeGenerator(), scorer="my-prm")


def test_settings_can_be_written_with_a_name(tmp_path: Path) -> None:
    folder = write_token_classifier(tmp_path / "mine", separator=None)
    said = read_scorer(rf"{folder}(separator='\n\n', dtype='float32', device='cpu')")
    assert isinstance(said, ProcessRewardModel)
    expected = ProcessRewardModel.from_pretrained(folder, separator="\n\n", dtype="float32", device="cpu")
    assert said.warnings == ()
    assert said.score([trajectory()]) == expected.score([trajectory()])
    (tmp_path / "mine (2)").symlink_to(folder)
    assert isinstance(read_scorer(str(tmp_path / "mine (2)")), ProcessRewardModel), "a folder may be called so"
    with pytest.raises(InvalidInputError, match="has no 'speed': choose from name_or_path, family, separator"):
        read_scorer(f"{folder}(speed=3)")
    with pytest.raises(InvalidInputError, match="unknown family 'x'"):
        read_scorer(f"{folder}(family='x')")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_scorer(f"{folder}(separator=__import__('os').getcwd())")


def test_from_the_command_line(tmp_path: Path) -> None:
    folder = write_token_classifier(tmp_path / "mine", separator=None)
    done = CliRunner().invoke(app, ["solve", PUZZLE, "--scorer", str(folder), "--n", "2", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert all(0 < candidate["score"] < 1 for candidate in found["candidates"])
    assert found["usage"]["scored_tokens"] > 0
    assert "separator" in found["warnings"][0]
    said = CliRunner().invoke(app, ["solve", PUZZLE, "--scorer", rf"{folder}(separator=':\n')", "--n", "2", "--json"])
    assert said.exit_code == 0, said.output
    assert not [warning for warning in json.loads(said.stdout)["warnings"] if "separator" in warning]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["solve", PUZZLE, "--scorer", str(tmp_path / "not" / "here")])
    assert done.exit_code == 2
    assert "is not there: give the folder of a reward model" in " ".join(done.output.split())
