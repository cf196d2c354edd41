"""In which type weights run: in fp32 on a CPU that only emulates theirs, where memory allows, and that is said once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.scorers.reward_checkpoints import write_sequence_classifier
from tts_search.generators import dtype as dtypes
from tts_search.generators.dtype import Checkpoint, cpu_dtype, decide, read_checkpoint
from tts_search.generators.memory import available_memory
from tts_search.generators.transformers.generator import TransformersGenerator
from tts_search.generators.transformers.placement import placement
from tts_search.scorers.reward_heads import load_sequence_classifier

GIB = 2**30
OLD = frozenset({"sse2", "avx2", "avx512f"})
NEW = OLD | {"avx512_bf16", "avx512_fp16"}


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU without half types, which nobody was told of yet."""
    monkeypatch.setattr(dtypes, "cpu_flags", lambda: OLD)
    dtypes._say.cache_clear()
    yield
    dtypes._say.cache_clear()


def bf16_copy(folder: Path, to: Path, kind: Any = AutoModelForCausalLM) -> Path:
    """The same checkpoint, with weights in bf16."""
    kind.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(to)
    for file in folder.glob("*token*"):
        (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_a_half_type_that_is_only_emulated_gives_way_where_memory_allows(half: str) -> None:
    model = Checkpoint(half, GIB)  # 4 GiB in fp32
    dtype, message = decide(model, OLD, 8 * GIB)
    assert dtype == "float32"
    assert message is not None
    assert all(words in message for words in (half, "4.0 GiB", f'dtype="{half}"'))
    dtype, message = decide(model, OLD, 8 * GIB - 1)
    assert dtype == "auto"
    assert message is not None
    assert all(words in message for words in (half, "4.0 GiB of the 8.0 GiB", 'dtype="float32"'))
    assert decide(model, NEW, 8 * GIB) == ("auto", None)


@pytest.mark.parametrize(
    ("half", "flag"),
    [
        ("bfloat16", "avx512_bf16"),
        ("bfloat16", "amx_bf16"),
        ("bfloat16", "bf16"),
        ("bfloat16", "FEAT_BF16"),
        ("float16", "avx512_fp16"),
        ("float16", "amx_fp16"),
        ("float16", "asimdhp"),
    ],
)
def test_a_cpu_that_computes_a_type_keeps_it(half: str, flag: str) -> None:
    assert decide(Checkpoint(half, GIB), OLD | {flag}, 100 * GIB) == ("auto", None)
    other = "float16" if half == "bfloat16" else "bfloat16"
    assert decide(Checkpoint(other, GIB), OLD | {flag}, 100 * GIB)[0] == "float32"


def test_an_engine_that_narrows_fp32_is_told_not_to() -> None:
    model = Checkpoint("float32", GIB)
    assert decide(model, OLD, 100 * GIB) == ("auto", None)
    assert decide(model, OLD, 0, engine_default="bfloat16") == ("float32", None)
    assert decide(model, NEW, 100 * GIB, engine_default="bfloat16") == ("auto", None)


@given(
    st.sampled_from([None, "float32", "bfloat16", "float16"]),
    st.integers(0, 10**12),
    st.sets(st.sampled_from(sorted(NEW))),
    st.integers(0, 10**13),
    st.sampled_from([None, "bfloat16"]),
)
def test_fp32_is_chosen_only_where_it_fits_and_silence_means_that_nothing_changes(
    dtype: str | None, parameters: int, flags: set[str], available: int, engine_default: str | None
) -> None:
    chosen, message = decide(Checkpoint(dtype, parameters), frozenset(flags), available, engine_default=engine_default)
    if chosen == "float32" and dtype != "float32":
        assert 4 * parameters <= available / 2
        assert message is not None
    if message is None:
        assert chosen == "auto" or dtype == "float32"


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("named", ["dtype", "torch_dtype", None])
def test_what_a_folder_holds(tmp_path: Path, stored: torch.dtype, named: str | None) -> None:
    name = str(stored).removeprefix("torch.")
    (tmp_path / "config.json").write_text(json.dumps({named: name} if named else {}))
    for i in range(2):
        save_file({f"{i}": torch.zeros(1000, 100, dtype=stored)}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    (tmp_path / "consolidated.safetensors").write_bytes(b"0" * 10**6)  # the same weights in another layout
    dtype, parameters = read_checkpoint(tmp_path)
    assert dtype == name
    assert parameters == pytest.approx(200_000, rel=0.01)


def test_weights_that_are_loaded_narrower_than_they_lie_there_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"dtype": "bfloat16"}}))
    save_file({"a": torch.zeros(1000, 100)}, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path) == ("bfloat16", pytest.approx(100_000, rel=0.01))


def test_quantized_and_unknown_types_are_left_alone(tmp_path: Path) -> None:
    for config in ({"dtype": "bfloat16", "quantization_config": {"bits": 4}}, {"dtype": "float8_e4m3fn"}, {}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert decide(read_checkpoint(tmp_path), OLD, 100 * GIB, engine_default="bfloat16") == ("auto", None)


@pytest.mark.usefixtures("old_cpu")
def test_a_model_runs_in_fp32_and_that_is_said_once(
    checkpoints: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = bf16_copy(checkpoints("qwen2", readout=None), tmp_path / "small")
    for _ in range(2):
        assert placement(folder, "cpu") == ("cpu", "float32")
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].getMessage().startswith("small: this CPU computes bfloat16 only by emulation")
    generator = TransformersGenerator(folder, device="cpu")
    decoder = generator._worker._decoder
    assert decoder is not None
    assert decoder._model.dtype == torch.float32
    generator._worker.stop()


@pytest.mark.usefixtures("old_cpu")
def test_a_scorer_runs_in_fp32_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_sequence_classifier(tmp_path / "wide")
    folder = bf16_copy(folder, tmp_path / "judge", AutoModelForSequenceClassification)
    backbone, head = load_sequence_classifier(folder, device="cpu", dtype="auto")
    assert backbone.dtype == head.weight.dtype == torch.float32
    assert [record.getMessage()[:6] for record in caplog.records] == ["judge:"]
    backbone, _ = load_sequence_classifier(folder, device="cpu", dtype="bfloat16")
    assert backbone.dtype == torch.bfloat16


@pytest.mark.usefixtures("old_cpu")
def test_what_was_asked_for_and_other_devices_are_left_in_silence(
    checkpoints: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = bf16_copy(checkpoints("qwen2", readout=None), tmp_path / "small")
    assert cpu_dtype(folder, "bfloat16") == "bfloat16"
    assert placement(folder, "cuda:0") == ("cuda:0", "auto")
    assert placement(folder, "cuda:0", "float16") == ("cuda:0", "float16")
    assert not caplog.records


def test_a_container_has_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    assert available_memory(tmp_path) <= 2 * free
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 50\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 1000
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_memory(tmp_path) == 350
    (tmp_path / "memory.max").write_text("600\n")
    assert available_memory(tmp_path) == 0
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("1500\n")
    (tmp_path / "memory" / "memory.stat").write_text("total_inactive_file 100\n")
    assert available_memory(tmp_path) == 600
