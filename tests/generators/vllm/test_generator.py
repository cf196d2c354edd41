"""What the vLLM generator refuses, before an engine starts or from what the engine returns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")

from tests.checkpoints import write_head
from tests.generators.conftest import in_process, run_in_process
from tests.generators.reference import differences
from tts_search.core.protocols import Completion, Generator, Request, Sampling
from tts_search.errors import (
    GeneratorError,
    HeadMismatchError,
    InvalidInputError,
    MissingDependencyError,
    ModelNotFoundError,
)
from tts_search.generators.engine_requests import Run
from tts_search.generators.vllm import VLLMGenerator
from tts_search.sprm.loading import FOLDER, RELEASED_FILE
from tts_search.sprm.module import SPRM
from tts_search.testing.conformance import GeneratorConformance

Checkpoints = Callable[..., Path]


@pytest.fixture
def model(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A copy of a model folder that a test may change."""
    return Path(shutil.copytree(checkpoints("qwen2"), tmp_path / "model"))


def test_it_is_a_generator_and_starts_nothing_by_itself(checkpoints: Checkpoints) -> None:
    generator = VLLMGenerator(checkpoints("qwen2"))
    assert isinstance(generator, Generator)
    assert generator.context_tokens == 512
    assert generator.sampling == Sampling(temperature=0.8, top_p=0.9, top_k=50)
    assert generator.head_config is not None
    assert generator.head_config.readout == "previous"
    assert VLLMGenerator(checkpoints("qwen2"), max_model_len=100).context_tokens == 100
    assert VLLMGenerator(checkpoints("qwen2"), engine_args={"max_model_len": 90}).context_tokens == 90
    assert VLLMGenerator(checkpoints("qwen2", readout=None)).head_config is None


def test_a_missing_vllm_names_the_extra(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_search.generators.vllm.generator.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"tts-search\[vllm\]"):
        VLLMGenerator(checkpoints("qwen2"))


def test_missing_folders(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        VLLMGenerator(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match="no SPRM head"):
        VLLMGenerator(model, head=tmp_path)


def test_a_head_for_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    other = write_head(tmp_path / "other", hidden_size=96)
    with pytest.raises(HeadMismatchError, match=r"96.*64"):
        VLLMGenerator(model, head=other)


def test_a_head_needs_an_architecture_that_can_carry_it(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["MistralForCausalLM"]}))
    with pytest.raises(InvalidInputError, match=r"MistralForCausalLM.*Qwen2ForCausalLM"):
        VLLMGenerator(model)
    VLLMGenerator(model, head=None)


@pytest.mark.parametrize(
    ("engine_args", "message"),
    [
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "remove speculative_config"),
        ({"pipeline_parallel_size": 2}, "tensor_parallel_size"),
        ({"enable_lora": True}, "merge the adapter"),
    ],
)
def test_what_a_head_does_not_go_with_is_refused(model: Path, engine_args: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        VLLMGenerator(model, engine_args=engine_args)
    VLLMGenerator(model, head=None, engine_args=engine_args)


def test_a_released_checkpoint_of_one_weight_file(model: Path) -> None:
    """`model.safetensors` is the policy's, and the head lies beside it."""
    torch.save(SPRM.from_pretrained(model).layers.state_dict(), model / RELEASED_FILE)
    shutil.rmtree(model / FOLDER)
    generator = VLLMGenerator(model, dtype="float32", max_model_len=64, kv_cache_gib=0.02, enforce_eager=True)

    async def work(generator: VLLMGenerator) -> Sequence[Completion]:
        return await generator.generate(Request(prefix=(5, 6), seeds=(0, 1), max_tokens=8, stop_ids=frozenset()))

    scores, logprobs = differences(model, "float32", (5, 6), run_in_process(generator, work))
    assert scores < 2e-4
    assert logprobs < 2e-4


def test_a_head_that_returns_nan_is_an_error(model: Path) -> None:
    head = SPRM.from_pretrained(model)
    with torch.no_grad():  # finite weights, so that loading accepts them, and infinities of both signs behind them
        weights = head.layers.state_dict()
        weights["0.bias"].fill_(3e38)
        weights["3.weight"].fill_(3e38)
        weights["3.weight"][:, ::2] *= -1
    head.save_pretrained(model / "sprm")
    generator = VLLMGenerator(model, dtype="float32", max_model_len=64, kv_cache_gib=0.02, enforce_eager=True)

    async def work(generator: VLLMGenerator) -> Sequence[Completion]:
        return await generator.generate(Request(prefix=(5, 6), seeds=(0, 1), max_tokens=4, stop_ids=frozenset({0})))

    with pytest.raises(GeneratorError, match="SPRM head's output is nan at generated token 0"):
        run_in_process(generator, work)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quantization": "no such thing"}, "quantization"),
        ({"max_num_seqz": 3}, "got an unexpected keyword argument 'max_num_seqz'"),
    ],
)
def test_engine_arguments_that_vllm_refuses_are_named(model: Path, given: dict[str, object], said: str) -> None:
    generator = VLLMGenerator(model, engine_args=given)

    async def work(generator: VLLMGenerator) -> None:
        await generator.start()

    with pytest.raises(InvalidInputError, match="vLLM refuses its engine arguments: ") as refused:
        run_in_process(generator, work)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "input_value" not in str(refused.value)


class TestConformance(GeneratorConformance):
    """With the readout "previous"; `test_parity.py` has the other."""

    _model: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _engine_in_process(cls, checkpoints: Checkpoints) -> Iterator[None]:
        cls._model = checkpoints("qwen2")
        with in_process():
            yield

    def make_generator(self) -> Generator:
        return VLLMGenerator(self._model, dtype="float32", max_model_len=512, kv_cache_gib=0.05, enforce_eager=True)


@pytest.mark.parametrize("engine_args", [None, {"data_parallel_size": 3}])
def test_a_tree_stays_on_one_data_parallel_rank(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, engine_args: dict[str, Any] | None
) -> None:
    ranks: dict[int, set[int | None]] = {}

    async def run(
        _engine: Any, _id: str, prefix: Sequence[int], _params: Any, _report: Any, _delta: Any, rank: int | None
    ) -> Run:
        ranks.setdefault(prefix[0], set()).add(rank)
        return Run(tokens=[5], logprobs=[-1.0], rows=[0.0], sampled_tokens=1, cached_tokens=0)

    async def work(generator: Any) -> None:
        for tree in range(7):
            for length in (1, 2, 3):
                request = Request(
                    prefix=(tree + 10,) * length, seeds=(1, 2), max_tokens=1, stop_ids=frozenset(), tree=tree
                )
                await generator.generate(request)

    monkeypatch.setattr("tts_search.generators.vllm.engine.run", run)
    monkeypatch.setattr("tts_search.generators.vllm.engine.start", lambda *_: SimpleNamespace(shutdown=lambda: None))
    run_in_process(VLLMGenerator(checkpoints("qwen2"), engine_args=engine_args), work)
    assert len(ranks) == 7
    assert {len(seen) for seen in ranks.values()} == {1}
    assert set[int | None]().union(*ranks.values()) == ({0, 1, 2} if engine_args else {None})
