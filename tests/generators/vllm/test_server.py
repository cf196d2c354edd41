"""The command that starts a scoring server; `openai/test_vllm_server.py` runs it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from vllm.platforms import current_platform

from tts_search.errors import InvalidInputError, ModelNotFoundError
from tts_search.generators import dtype as dtypes
from tts_search.generators.vllm.plugin import widened
from tts_search.generators.vllm.server import main, serve_arguments


def test_a_head_goes_into_the_engine(checkpoints: Callable[..., Path]) -> None:
    folder, *words = serve_arguments(checkpoints("qwen3"), max_model_len=128, enforce_eager=True)
    vocab_size = json.loads((checkpoints("qwen3") / "config.json").read_text())["vocab_size"]
    assert folder == str(checkpoints("qwen3"))
    assert words[0] == "--enable-prompt-tokens-details"
    given = dict(zip(words[1::2], words[2::2], strict=False))
    overrides = {"architectures": ["SPRMQwen3ForCausalLM"], "vocab_size": widened(vocab_size)}
    assert json.loads(given["--hf-overrides"]) == overrides
    settings = json.loads(given["--additional-config"])["sprm"]
    assert settings == {"head": str((checkpoints("qwen3") / "sprm").resolve()), "vocab_size": vocab_size}
    assert given["--max-model-len"] == "128"
    assert words[-1] == "--enforce-eager"


def test_without_a_head_nothing_is_overridden(checkpoints: Callable[..., Path]) -> None:
    for words in (
        serve_arguments(checkpoints("llama"), head=None),
        serve_arguments(checkpoints("llama", readout=None)),
    ):
        assert "--hf-overrides" not in words


def test_what_cannot_be_served_is_refused(checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        serve_arguments(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="tensor_parallel_size"):
        serve_arguments(checkpoints("llama"), pipeline_parallel_size=2)


def test_the_command_can_be_shown(checkpoints: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    main([str(checkpoints("llama")), "--print", "--enforce-eager", "--port", "8765", "--max-num-seqs", "4"])
    words = shlex.split(capsys.readouterr().out)
    assert str(checkpoints("llama")) in words
    assert words[-4:] == ["--port", "8765", "--max-num-seqs", "4"]
    assert words[words.index("--max-model-len") + 1] == "512"
    assert "SPRMLlamaForCausalLM" in words[words.index("--hf-overrides") + 1]


@pytest.mark.parametrize(
    ("flags", "asked", "served"),
    [(set(), [], "float32"), ({"avx512_bf16"}, [], "auto"), (set(), ["--dtype", "bfloat16"], "bfloat16")],
    ids=["old cpu", "new cpu", "asked for"],
)
def test_weights_are_served_in_a_type_that_the_cpu_computes(
    checkpoints: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: set[str],
    asked: list[str],
    served: str,
) -> None:
    if not current_platform.is_cpu():
        pytest.skip("vLLM's build for a GPU")
    monkeypatch.setattr(dtypes, "cpu_flags", lambda: frozenset(flags))
    main([str(checkpoints("llama")), "--print", *asked])  # an fp32 checkpoint, of which vLLM would make bf16
    words = shlex.split(capsys.readouterr().out)
    assert words[words.index("--dtype") + 1] == served
    assert "--model" not in words[words.index(str(checkpoints("llama"))) + 1 :]
