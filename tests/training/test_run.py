"""`tts-search train`: from a file and flags to a folder that a search opens; going on; what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.training.joint import WIDTH, write_policy
from tts_search.api import Searcher
from tts_search.cli import app
from tts_search.errors import InvalidInputError
from tts_search.sprm.module import SPRM
from tts_search.training.run import last_checkpoint, read_config

GRADER = "tests.training.test_run:any_answer"


def any_answer(answer: str, reference: str) -> bool:
    return len(answer) % 2 == int(reference) % 2


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def file(policy: Path, tmp_path: Path) -> Path:
    data = tmp_path / "q.jsonl"
    data.write_text("".join(json.dumps({"question": f"Using {i}, make 3.", "answer": i}) + "\n" for i in range(8)))
    file = tmp_path / "run.toml"
    file.write_text(
        f'model = "{policy}"\ndata = "{data}"\nout = "{tmp_path / "out"}"\ngrader = "{GRADER}"\n'
        "[training]\nper_device_train_batch_size = 4\nnum_generations = 4\nmax_completion_length = 20\n"
        "max_steps = 2\nuse_cpu = true\ngradient_checkpointing = false\nsave_steps = 1\n"
        "[rewards]\nwell_formed = 0.1\nlength = 0.5\nsoft_tokens = 5\n"
    )
    return file


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["train", *args])


def test_from_a_file_to_a_model_that_searches(file: Path, tmp_path: Path) -> None:
    made = run(str(file))
    assert made.exit_code == 0, made.output
    out = tmp_path / "out"
    assert made.stdout.strip() == str(out / "final")
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "sprm/loss" in row] == [1, 2]
    assert {"rewards/correctness/mean", "rewards/well_formed/mean"} <= log[0].keys()
    assert (out / "curves.png").is_file()
    weights = (out / "final" / "model.safetensors").read_bytes()
    shutil.rmtree(out / "final")  # as if the run had been killed behind its last checkpoint
    again = run(str(file))
    assert again.exit_code == 0, again.stderr
    assert (out / "final" / "model.safetensors").read_bytes() == weights, "not a step more was trained"
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "sprm/loss" in row] == [1, 2]
    with Searcher(out / "final", generator="transformers", max_tokens=12, answer_tokens=4) as searcher:
        assert searcher.search("Using 1, make 3.", effort="low").score is not None

    again = run(str(file), "--set", "max_steps=3", "--set", "head_loss=bce")
    assert again.exit_code == 0, again.output
    assert "going on from" in again.stderr
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "sprm/loss" in row] == [1, 2, 3]


def test_an_adapter_is_merged_at_the_end(file: Path, tmp_path: Path) -> None:
    file.write_text(file.read_text() + "[lora]\nr = 2\n")
    made = run(str(file), "--out", str(tmp_path / "lora"), "-s", "max_steps=1")
    assert made.exit_code == 0, made.output
    final = tmp_path / "lora" / "final"
    assert not (final / "adapter_config.json").exists()
    SPRM.from_pretrained(final, hidden_size=WIDTH)
    with Searcher(final, generator="transformers", max_tokens=8, answer_tokens=4) as searcher:
        assert searcher.search("Using 1, make 3.", effort="low").score is not None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "learning_rate"], "write NAME=VALUE"),
        (["--set", "speed=3"], "training: .*speed"),
        (["--set", "head_loss=mse"], "head_loss must be one of"),
        (["--preset", "r1"], "unknown preset 'r1'"),
        (["--model", "/nowhere/at/all"], "no model folder"),
        (["--data", "/nowhere.jsonl"], "is not there"),
        (["--grader", "regex"], "unknown grader"),
    ],
)
def test_what_is_refused(file: Path, args: list[str], message: str) -> None:
    refused = run(str(file), *args)
    assert refused.exit_code == 2
    assert re.search(message, refused.stderr), refused.stderr


@pytest.mark.parametrize("name", ["checkpoint-7", "final", "log.jsonl", "curves.png"])
def test_another_runs_folder_is_left_alone(file: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    place = out / name
    place.parent.mkdir()
    if place.suffix:
        place.write_text('{"step": 1}\n')
    else:
        place.mkdir()
        (place / "config.json").write_text('{"model_type": "qwen2"}')
    before = {path: path.is_file() and path.read_bytes() for path in out.rglob("*")}
    refused = run(str(file))
    assert refused.exit_code == 2, refused.output
    assert f"{place} is there already" in refused.stderr
    assert {path: path.is_file() and path.read_bytes() for path in out.rglob("*")} == before


def test_a_model_is_not_trained_over_itself(file: Path, policy: Path, tmp_path: Path) -> None:
    for name in ("final", "checkpoint-3"):
        shutil.copytree(policy, tmp_path / "out" / name)
        refused = run(str(file), "--model", str(tmp_path / "out" / name))
        assert refused.exit_code == 2
        assert "lies where this run saves its own" in refused.stderr


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    for text, message in (("a =", "TOML"), ("speed = 1", "model|speed"), ('model = "m"', "data")):
        file.write_text(text)
        with pytest.raises(InvalidInputError, match=message):
            read_config(file)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_config(tmp_path / "absent.toml")
    found: Any = read_config(None, model="m", data="d", out="o", training={"beta": 1})
    assert found.training == {"beta": 1}


def test_the_last_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for step, state in ((2, "{}"), (10, '{"global_step": 10}'), (12, None), (14, '{"glob')):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:  # a process that was killed while it wrote one had not come to it
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
