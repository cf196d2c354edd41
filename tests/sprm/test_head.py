"""The SPRM head: parameter counts, saving, loading, and what is refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.checkpoints import write_head
from tts_search.errors import HeadMismatchError, InvalidInputError, ModelNotFoundError
from tts_search.segmentation import RELEASED_STEP_RULE, Contains, Exact, TokenIds
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import CONFIG_FILE, FOLDER, RELEASED_FILE, WEIGHTS_FILE, head_folder
from tts_search.sprm.module import SPRM


@pytest.mark.parametrize(("hidden", "count"), [(1536, 4_724_737), (3584, 25_704_449), (5120, 52_449_281)])
def test_parameter_counts_are_the_papers(hidden: int, count: int) -> None:
    with torch.device("meta"):
        head = SPRM(SPRMConfig(hidden_size=hidden))
    assert sum(p.numel() for p in head.parameters()) == count


@given(st.integers(1, 40), st.lists(st.integers(1, 4), max_size=3))
def test_shapes(hidden: int, shape: list[int]) -> None:
    logits = SPRM(SPRMConfig(hidden_size=hidden))(torch.zeros(*shape, hidden, dtype=torch.bfloat16))
    assert logits.shape == tuple(shape)
    assert logits.dtype is torch.float32


@pytest.mark.parametrize("rule", [Contains("\n\n"), Exact(".\n\n"), TokenIds(frozenset({3, 5}))])
@pytest.mark.parametrize("readout", ["previous", "step"])
def test_save_and_load(tmp_path: Path, readout: Any, rule: Any) -> None:
    head = SPRM(SPRMConfig(hidden_size=8, readout=readout, step_rule=rule, aggregation="min")).eval()
    head.save_pretrained(tmp_path / FOLDER)
    assert head_folder(tmp_path) == head_folder(tmp_path / FOLDER) == tmp_path / FOLDER
    for place in (tmp_path, tmp_path / FOLDER):
        again = SPRM.from_pretrained(place, hidden_size=8)
        assert again.config == head.config
        assert not again.training
        hidden = torch.randn(5, 8)
        assert torch.equal(again(hidden), head(hidden))


def released(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    weights: dict[str, Any] = SPRM(SPRMConfig(hidden_size=8)).layers.state_dict()
    assert set(weights) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    for name, value in changes.items():
        weights[name.replace("_", ".")] = value
    torch.save({k: v for k, v in weights.items() if v is not None}, folder / RELEASED_FILE)
    return folder


def test_released_heads(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_type": "qwen2", "hidden_size": 8}))  # the backbone's
    head = SPRM.from_pretrained(released(tmp_path), hidden_size=8)
    assert head.config.readout == "previous"
    assert head.config.step_rule == RELEASED_STEP_RULE
    torch.manual_seed(0)
    expected = SPRM(SPRMConfig(hidden_size=8)).eval()
    hidden = torch.randn(3, 8)
    assert torch.equal(head(hidden), expected(hidden))


def test_released_heads_in_bfloat16(tmp_path: Path) -> None:
    weights = {k: v.bfloat16() for k, v in SPRM(SPRMConfig(hidden_size=8)).layers.state_dict().items()}
    torch.save(weights, tmp_path / RELEASED_FILE)
    assert SPRM.from_pretrained(tmp_path)(torch.zeros(2, 8)).dtype is torch.float32


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was-executed"),))


def test_a_released_file_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / RELEASED_FILE).write_bytes(pickle.dumps({"0.weight": Hostile()}))
    with pytest.raises(HeadMismatchError, match="not a released SPRM head"):
        SPRM.from_pretrained(tmp_path)
    torch.save({"0.weight": Hostile()}, tmp_path / RELEASED_FILE)
    with pytest.raises(HeadMismatchError, match="not a released SPRM head"):
        SPRM.from_pretrained(tmp_path)
    assert not (tmp_path / "was-executed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"3_bias": None}, "3.bias"),
        ({"0_weight": None}, "not a released SPRM head"),
        ({"4_weight": torch.zeros(2)}, "4.weight"),
        ({"0_weight": torch.zeros(16)}, "not a released SPRM head"),
        ({"0_weight": torch.zeros(15, 8)}, "0.weight"),
        ({"0_weight": "text"}, "not a released SPRM head"),
        ({"3_bias": "text"}, "not a released SPRM head"),
        ({"0_bias": torch.full((16,), float("nan"))}, r"NaN or infinite values in 0\.bias"),
    ],
)
def test_broken_released_heads_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadMismatchError, match=message):
        SPRM.from_pretrained(released(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04N."])
def test_files_that_are_no_heads(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RELEASED_FILE).write_bytes(content)
    with pytest.raises(HeadMismatchError):
        SPRM.from_pretrained(tmp_path)
    place = write_head(tmp_path / "own")
    (place / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(HeadMismatchError, match="safetensors"):
        SPRM.from_pretrained(place)


def test_a_head_for_another_backbone_is_refused(tmp_path: Path) -> None:
    for place in (released(tmp_path), write_head(tmp_path / "own", hidden_size=8)):
        with pytest.raises(HeadMismatchError, match=r"size 8.*size 16"):
            SPRM.from_pretrained(place, hidden_size=16)


def test_config_and_weights_must_agree(tmp_path: Path) -> None:
    place = write_head(tmp_path, hidden_size=8)
    config = json.loads((place / CONFIG_FILE).read_text())
    (place / CONFIG_FILE).write_text(json.dumps(config | {"hidden_size": 16}))
    with pytest.raises(HeadMismatchError, match="does not hold an SPRM head"):
        SPRM.from_pretrained(place)
    for wrong in (
        {"readout": "next"},
        {"layer": -3},
        {"hidden_size": 0},
        {"hidden_size": "8"},
        {"step_rule": 7},
        {"x": 1},
    ):
        (place / CONFIG_FILE).write_text(json.dumps(config | wrong))
        with pytest.raises(HeadMismatchError, match="not the config of an SPRM head"):
            SPRM.from_pretrained(place)


def test_no_head_there(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_type": "qwen2"}))
    (tmp_path / WEIGHTS_FILE).write_bytes(b"the backbone's")
    assert head_folder(tmp_path) is None
    with pytest.raises(ModelNotFoundError, match=RELEASED_FILE):
        SPRM.from_pretrained(tmp_path)


def test_bad_configs() -> None:
    for wrong in ({"hidden_size": 0}, {"hidden_size": 8, "layer": -1}, {"hidden_size": 8, "readout": "next"}):
        with pytest.raises(InvalidInputError):
            SPRMConfig(**wrong)  # type: ignore[arg-type]


def test_a_callable_rule_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="token ids"):
        SPRM(SPRMConfig(hidden_size=4, step_rule=str.isspace)).save_pretrained(tmp_path)
