"""Hidden states at the steps of trajectories: computed once by the frozen policy, kept on disk.

A file of states is named by what went into it (the model's files, the tokens, the places read), so a changed model or
changed data never meets old states, and an interrupted run goes on where it stopped. It knows no labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tts_search.errors import HeadMismatchError, InvalidInputError, ModelNotFoundError
from tts_search.generators.transformers.placement import placement
from tts_search.sprm.config import Readout
from tts_search.training.trajectories import GradedTrajectory
from tts_search.whole_files import replacing

CHUNK = 256
"""Trajectories in one file: what an interruption can cost."""
BATCH_TOKENS = 16_384


def decoder_of(model: Any) -> tuple[nn.Module, nn.Module]:
    """The decoder behind any adapter, and its block whose output is `hidden_states[-2]` (paper, section 3.1).

    Raises:
        HeadMismatchError: the model has no list of at least two decoder blocks.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = base.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) < 2:
        raise HeadMismatchError(
            f"{type(base).__name__} has no list of at least two decoder blocks: an SPRM head reads the second-to-last"
        )
    return decoder, layers[-2]


class Tap:
    """Reads what the second-to-last block puts out, `[rows, tokens, hidden]`, in the first forward pass after `arm()`.

    The first, because gradient checkpointing runs the block again in the backward pass. It is read once the decoder is
    done: outside of what is checkpointed, and inside of the model's forward pass, where sharded weights are whole.
    """

    def __init__(self, model: Any) -> None:
        decoder, block = decoder_of(model)
        self._read: Callable[[Tensor], Tensor] | None = None
        self._hidden: Tensor | None = None
        self._result: Tensor | None = None
        self._hooks = [block.register_forward_hook(self._see), decoder.register_forward_hook(self._finish)]

    def arm(self, read: Callable[[Tensor], Tensor]) -> None:
        """Have `read` called with the hidden states of the next forward pass."""
        self._read, self._hidden, self._result = read, None, None

    def take(self) -> Tensor:
        """What `read` returned, and let go of it."""
        result, self._result = self._result, None
        assert result is not None, "no forward pass since arm()"
        return result

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _see(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self._read is not None and self._hidden is None:
            self._hidden = output[0] if isinstance(output, tuple) else output

    def _finish(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        if self._read is not None and self._hidden is not None:
            read, hidden, self._read, self._hidden = self._read, self._hidden, None, None
            self._result = read(hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How the policy is run; `batch_tokens` counts padding, too.

    `dtype` "auto" keeps the checkpoint's, but runs in fp32 on a CPU that does not compute the checkpoint's itself, if
    memory allows.
    """

    device: str = "auto"
    dtype: str = "auto"
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise InvalidInputError(f"batch_tokens must be at least 1, got {self.batch_tokens}")


def step_states(
    folder: Path,
    trajectories: Sequence[GradedTrajectory],
    *,
    readout: Readout,
    cache: Path,
    reader: Reader = Reader(),
    report: Callable[[str], None] = print,
) -> list[Tensor]:
    """Hidden states `[steps, hidden]` of each trajectory, in the dtype of the model; from `cache` where they are there.

    Raises:
        ModelNotFoundError: the policy cannot be loaded from `folder`.
        InvalidInputError: a trajectory is longer than the model's context.
    """
    cache.mkdir(parents=True, exist_ok=True)
    device, dtype = placement(folder, reader.device, reader.dtype)
    model_print = fingerprint(folder) + f"{dtype}{readout}"
    states, policy = list[Tensor](), None
    for start in range(0, len(trajectories), CHUNK):
        chunk = trajectories[start : start + CHUNK]
        file = cache / f"{_name(model_print, chunk, readout)}.safetensors"
        kept = _load(file, chunk)
        if kept is None:
            policy = policy or _load_policy(folder, device, dtype)
            kept = read_states(policy, chunk, readout=readout, batch_tokens=reader.batch_tokens)
            _save(file, kept)
            report(f"hidden states: {min(start + CHUNK, len(trajectories))}/{len(trajectories)} trajectories")
        states += kept
    if policy is None:
        report(f"hidden states: all {len(trajectories)} trajectories from {cache}")
    return states


@torch.inference_mode()
def read_states(
    policy: Any, trajectories: Sequence[GradedTrajectory], *, readout: Readout, batch_tokens: int = BATCH_TOKENS
) -> list[Tensor]:
    """Hidden states `[steps, hidden]` of each trajectory by a policy in memory, as it stands; nothing is kept.

    Raises:
        InvalidInputError: a trajectory is longer than the model's context.
    """
    with _tapped(policy) as tap:
        return _read(policy, tap, trajectories, readout, batch_tokens)


def fingerprint(folder: Path) -> str:
    """A digest of the model: its config and the content of its weight files."""
    digest = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with file.open("rb") as content:
            digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _name(model_print: str, chunk: Sequence[GradedTrajectory], readout: Readout) -> str:
    digest = hashlib.sha256(model_print.encode())
    for trajectory in chunk:
        digest.update(repr((trajectory.prompt_ids, trajectory.response_ids, trajectory.read_at(readout))).encode())
    return digest.hexdigest()[:32]


def _load(file: Path, chunk: Sequence[GradedTrajectory]) -> list[Tensor] | None:
    if not file.is_file():
        return None
    try:
        states = load_file(file)["states"]
    except Exception:  # a file that is no safetensors file is one that must be made again
        return None
    counts = [len(trajectory.step_ends) for trajectory in chunk]
    return list(states.split(counts)) if len(states) == sum(counts) else None


def _save(file: Path, states: Sequence[Tensor]) -> None:
    """Whole or not at all."""
    with replacing(file) as whole:
        whole.write(save({"states": torch.cat(list(states))}))


@contextmanager
def _tapped(policy: Any) -> Iterator[Tap]:
    tap = Tap(policy)
    try:
        yield tap
    finally:
        tap.remove()


def _read(
    policy: Any, tap: Tap, chunk: Sequence[GradedTrajectory], readout: Readout, batch_tokens: int
) -> list[Tensor]:
    """Right-padded batches of similar length: what stands behind a token changes nothing in a causal model."""
    limit: int | None = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
    rows = [(*trajectory.prompt_ids, *trajectory.response_ids) for trajectory in chunk]
    if limit is not None and (longest := max(map(len, rows))) > limit:
        raise InvalidInputError(f"a trajectory of {longest} tokens is longer than the model's context of {limit}")
    states: list[Tensor] = [torch.empty(0)] * len(chunk)
    order = sorted(range(len(chunk)), key=lambda i: len(rows[i]), reverse=True)
    while order:
        size = max(1, batch_tokens // len(rows[order[0]]))
        batch, order = order[:size], order[size:]
        ids = torch.zeros(len(batch), len(rows[batch[0]]), dtype=torch.long)
        for row, i in enumerate(batch):
            ids[row, : len(rows[i])] = torch.tensor(rows[i])
        tap.arm(lambda hidden: hidden)
        policy.get_decoder()(input_ids=ids.to(policy.device), use_cache=False)
        hidden = tap.take()
        for row, i in enumerate(batch):
            states[i] = hidden[row, chunk[i].read_at(readout)].cpu().clone()
    return states


def _load_policy(folder: Path, device: str, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        policy: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFoundError(f"no causal language model can be loaded from {str(folder)!r}: {error}") from error
    return policy.eval().requires_grad_(False).to(device)
