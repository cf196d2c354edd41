"""Where a head may lie: every layout of a folder, as the head's loader and both local engines read it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.checkpoints import write_checkpoint, write_head, write_released_head
from tts_search.cli import app
from tts_search.core.protocols import Request
from tts_search.errors import HeadMismatchError, InvalidInputError, ModelNotFoundError
from tts_search.generators.transformers import TransformersGenerator
from tts_search.generators.vllm.head import read_config, score_in_engine
from tts_search.segmentation import DEFAULT_STEP_RULE, RELEASED_STEP_RULE
from tts_search.sprm.loading import CONFIG_FILE, FOLDER, RELEASED_FILE, WEIGHTS_FILE, head_folder
from tts_search.sprm.module import SPRM

OURS, RELEASED = 1, 2
"""Seeds, by which the two heads are told apart."""

Layout = Callable[[Path], Any]
LAYOUTS: dict[str, tuple[Layout, int | None]] = {
    "no head": (lambda _: None, None),
    "released, in the folder": (lambda f: write_released_head(f, seed=RELEASED), RELEASED),
    "released, in sprm/": (lambda f: write_released_head(f / FOLDER, seed=RELEASED), RELEASED),
    "ours": (lambda f: write_head(f / FOLDER, seed=OURS), OURS),
    "both": (lambda f: (write_head(f / FOLDER, seed=OURS), write_released_head(f, seed=RELEASED)), OURS),
    "both in sprm/": (
        lambda f: (write_head(f / FOLDER, seed=OURS), write_released_head(f / FOLDER, seed=RELEASED)),
        OURS,
    ),
}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same policy in one weight file and in several."""
    root = tmp_path_factory.mktemp("policies")
    made = {
        "one file": write_checkpoint(root / "one", readout=None),
        "shards": write_checkpoint(root / "shards", readout=None, shard_size="100KB"),
    }
    assert (made["one file"] / WEIGHTS_FILE).is_file()
    assert not (made["shards"] / WEIGHTS_FILE).exists()
    assert len(list(made["shards"].glob("*.safetensors"))) > 1
    return made


@pytest.fixture(params=["one file", "shards"])
def model(request: pytest.FixtureRequest, policies: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(policies[request.param], tmp_path / "model")


def expected(tmp_path: Path, seed: int) -> dict[str, Any]:
    return SPRM.from_pretrained(write_head(tmp_path / "expected", seed=seed)).layers.state_dict()


def same(head: SPRM, weights: dict[str, Any]) -> bool:
    return all((value == weights[name]).all() for name, value in head.layers.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_model_folder(model: Path, tmp_path: Path, layout: str) -> None:
    lay, seed = LAYOUTS[layout]
    lay(model)
    in_engine, engine_args = score_in_engine(model, "auto", read_config(model), {})
    generator = TransformersGenerator(model, threads=1)
    if seed is None:
        assert head_folder(model) is None
        assert generator.head_config is None
        assert (in_engine, engine_args) == (None, {})
        return
    rule = RELEASED_STEP_RULE if seed == RELEASED else DEFAULT_STEP_RULE
    for config in (generator.head_config, in_engine):
        assert config is not None
        assert config.step_rule == rule
    weights = expected(tmp_path, seed)
    carried = engine_args["additional_config"]["sprm"]["head"]  # what the engine's model loads
    assert same(SPRM.from_pretrained(model), weights)
    assert same(SPRM.from_pretrained(carried), weights)
    request = Request(prefix=(5, 6, 7), seeds=(0,), max_tokens=3, stop_ids=frozenset())
    (completion,) = asyncio.run(generator.generate(request))
    assert completion.scores is not None
    assert len(completion.scores) == len(completion.token_ids)


@pytest.mark.parametrize("layout", ["ours", "released", "both"])
def test_a_heads_folder_alone(policies: dict[str, Path], tmp_path: Path, layout: str) -> None:
    head = tmp_path / "head"
    if layout != "released":
        write_head(head, seed=OURS)
    if layout != "ours":
        write_released_head(head, seed=RELEASED)
    weights = expected(tmp_path, RELEASED if layout == "released" else OURS)
    assert same(SPRM.from_pretrained(head), weights)
    for policy in policies.values():
        assert TransformersGenerator(policy, head=head, threads=1).head_config is not None
        _, engine_args = score_in_engine(policy, head, read_config(policy), {})
        assert same(SPRM.from_pretrained(engine_args["additional_config"]["sprm"]["head"]), weights)


def test_another_model_in_sprm_is_no_head(policies: dict[str, Path], model: Path, tmp_path: Path) -> None:
    shutil.copytree(policies["one file"], model / FOLDER)
    assert head_folder(model) is None
    write_released_head(model, seed=RELEASED)
    assert same(SPRM.from_pretrained(model), expected(tmp_path, RELEASED))


@pytest.mark.parametrize("config", ["", "{", "7", "[]", '{"hidden_size": 64}', '"readout"'])
def test_a_released_head_needs_no_config(tmp_path: Path, config: str) -> None:
    folder = write_released_head(tmp_path / "head", seed=RELEASED)
    (folder / CONFIG_FILE).write_text(config)
    (folder / WEIGHTS_FILE).write_bytes(b"a policy's")
    assert same(SPRM.from_pretrained(folder), expected(tmp_path, RELEASED))


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("content", [None, "{"])
def test_half_a_head_is_no_silence(model: Path, missing: str, content: str | None) -> None:
    """A copy that broke off: searching without its scores would be silent."""
    place = write_head(model / FOLDER)
    (place / missing).unlink() if content is None else (place / missing).write_text(content)
    with pytest.raises(HeadMismatchError, match=missing):
        TransformersGenerator(model, threads=1)
    with pytest.raises(HeadMismatchError, match=missing):
        score_in_engine(model, "auto", read_config(model), {})
    with pytest.raises(ModelNotFoundError, match="no SPRM head"):
        SPRM.from_pretrained(model.parent)


def test_solve_opens_a_released_checkpoint(model: Path) -> None:
    write_released_head(model, seed=RELEASED)
    options = ["--generator", "transformers", "--max-tokens", "20", "--answer-tokens", "5", "--json", "-n", "2"]
    solved = CliRunner().invoke(app, ["solve", "2 + 2?", "--model", str(model), *options])
    assert solved.exit_code in (0, 3), solved.output  # 3: a random model may answer nothing
    assert json.loads(solved.stdout)["score"] is not None


def test_a_head_is_not_written_over_a_policy(model: Path) -> None:
    before = {path: path.read_bytes() for path in model.iterdir()}
    head = SPRM.from_pretrained(write_head(model.parent / "head"))
    with pytest.raises(InvalidInputError, match="most likely a model's"):
        head.save_pretrained(model)
    (model / CONFIG_FILE).rename(model / "kept.json")
    if (model / WEIGHTS_FILE).exists():
        with pytest.raises(InvalidInputError, match=WEIGHTS_FILE):
            head.save_pretrained(model)
    (model / "kept.json").rename(model / CONFIG_FILE)
    assert {path: path.read_bytes() for path in model.iterdir()} == before
    (model / RELEASED_FILE).touch()
    head.save_pretrained(model / FOLDER)
    head.save_pretrained(model / FOLDER)
