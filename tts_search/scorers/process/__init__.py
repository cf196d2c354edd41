"""Process reward models: published models that score every step of a solution, as scorers.

Puts together a family (how a solution is written, `families`), a model here (`reward_model`) or behind HTTP
(`pooling`), and the memory of what was scored already. It knows no search.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tts_search.core.protocols import Scores
from tts_search.core.tree import Trajectory
from tts_search.errors import InvalidInputError, MissingDependencyError, ScorerError
from tts_search.models import model_folder, model_name
from tts_search.scorers.checkpoint import load_tokenizer, read_config
from tts_search.scorers.engine_sprm import probability
from tts_search.scorers.process.families import FAMILIES, Encoded, Family, family_of
from tts_search.scorers.process.pooling import PoolingEndpoint
from tts_search.scorers.text import ScoreMemory, question_text, step_texts, written_steps

__all__ = ["ProcessRewardModel"]


class Reader(Protocol):
    """A model of a family: here, or behind an endpoint."""

    def read(self, solutions: Sequence[Encoded], wanted: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        """For each solution the logit of the steps that are wanted (by number), and how many tokens that took."""
        ...


class ProcessRewardModel:
    """A process reward model as a `Scorer`: each step's score is the model's probability that it is right.

    Steps that were scored before, as part of any trajectory with the same beginning, are not scored again. Of what is
    new, only the tokens behind the longest known prefix go through a local model. `aggregation` is the family's
    published one; a searcher uses it unless told otherwise.

    Made by `from_pretrained` or `from_endpoint`.
    """

    def __init__(
        self, family: Family, reader: Reader, *, name: str, concurrency: int = 1, memory_steps: int = 65_536
    ) -> None:
        self.family = family
        self.name = name
        self.concurrency = concurrency
        self.aggregation = family.aggregation
        self._reader = reader
        self._memory = ScoreMemory[float](memory_steps)
        self._lock = threading.Lock()  # of the memory; searchers may share a model

    def __repr__(self) -> str:
        return f"ProcessRewardModel({self.name!r}, family={type(self.family).__name__})"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        family: str | type[Family] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_tokens: int = 16_384,
        prefix_cache_tokens: int | None = None,
    ) -> ProcessRewardModel:
        """Load a checkpoint into this process, by way of transformers. Code that comes with it is never run.

        Args:
            name_or_path: a model folder, or the id of a repository on the Hugging Face hub.
            family: `"qwen-math-prm"`, `"math-shepherd"`, `"skywork-prm"`, `"rlhflow"`, `"versaprm"`, or a `Family` of
                yours; None goes by the checkpoint's architecture and name.
            device: `"cpu"`, `"cuda:1"`, ...; `"auto"` prefers CUDA to MPS to the CPU.
            dtype: `"float32"`, `"bfloat16"`, ...; `"auto"` keeps the checkpoint's.
            batch_tokens: how many tokens go through the model at once.
            prefix_cache_tokens: how many tokens' keys and values are kept to go on from, what solutions share once;
                None is room for 16 of the longest, within a quarter of the memory that is free; 0 for none.

        Raises:
            ModelNotFoundError: no such checkpoint, or its weights lack the head.
            InvalidInputError: its family is not known, or does not fit its tokenizer.
        """
        folder = model_folder(name_or_path)
        protocol = _family(folder, str(name_or_path), family)
        try:
            from tts_search.scorers import reward_model
        except ImportError as error:
            raise MissingDependencyError(
                f"reward models need torch and transformers ({error}): pip install torch transformers"
            ) from error
        if protocol.head == "classifier":
            loaded = reward_model.load_classifier(folder, labels=2, device=device, dtype=dtype)
        elif protocol.head == "value":
            loaded = reward_model.load_value_head(folder, device=device, dtype=dtype)
        else:
            columns = [column for column in protocol.columns if column is not None]
            loaded = reward_model.load_language_model(folder, columns, device=device, dtype=dtype)
        model = reward_model.RewardModel(*loaded, batch_tokens=batch_tokens, prefix_tokens=prefix_cache_tokens)
        return cls(protocol, _Local(model, protocol), name=model_name(name_or_path))

    @classmethod
    def from_endpoint(
        cls,
        name_or_path: str | Path,
        url: str,
        *,
        family: str | type[Family] | None = None,
        model: str | None = None,
        key: str | None = None,
        concurrency: int = 16,
        seconds: float = 300.0,
    ) -> ProcessRewardModel:
        """Use a checkpoint that `vllm serve` runs elsewhere; only its config and tokenizer are needed here.

        Args:
            name_or_path: as for `from_pretrained`.
            url: the server's root, such as `http://localhost:8000`.
            family: as for `from_pretrained`.
            model: the model's name on the server; None where it serves only one.
            key: what the server takes for authorization.
            concurrency: requests in flight at once.
            seconds: limit of one request.
        """
        protocol = _family(model_folder(name_or_path), str(name_or_path), family)
        endpoint = PoolingEndpoint(url, model=model, key=key, seconds=seconds)
        return cls(protocol, _Remote(endpoint), name=model_name(name_or_path), concurrency=concurrency)

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        """One probability per finished step, in order."""
        texts = written_steps if self.family.as_written else step_texts
        solutions = [(question_text(t), texts(t)) for t in trajectories]
        keys = [self._memory.keys(question, steps) for question, steps in solutions]
        with self._lock:
            known = {key: score for row in keys for key in row if (score := self._memory.get(key)) is not None}
        wanted = [[i for i, key in enumerate(row) if key not in known] for row in keys]
        # Of trajectories that are the same to the model, one is read.
        new = {row[-1]: i for i, row in enumerate(keys) if wanted[i]}
        rows = sorted(new.values())
        tokens = 0
        if rows:
            encoded = [self.family.encode(*solutions[i]) for i in rows]
            for solution, i in zip(encoded, rows, strict=True):
                if len(solution.positions) != len(keys[i]):
                    raise ScorerError(
                        f"{self!r} found {len(solution.positions)} places to score for {len(keys[i])} steps: a step's "
                        "text holds the step tag itself"
                    )
            logits, tokens = self._reader.read(encoded, [wanted[i] for i in rows])
            for i, found in zip(rows, logits, strict=True):
                for step, logit in zip(wanted[i], found, strict=True):
                    known[keys[i][step]] = probability(logit)
        with self._lock:
            for key, score in known.items():
                self._memory.put(key, score)
        return Scores(([known[key] for key in row] for row in keys), tokens=tokens)


@dataclass(frozen=True, slots=True)
class _Local:
    """A model in this process, one call at a time."""

    model: Any
    family: Family
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, solutions: Sequence[Encoded], wanted: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        positions = [[s.positions[i] for i in steps] for s, steps in zip(solutions, wanted, strict=True)]
        with self.lock:
            outputs, tokens = self.model.read([s.token_ids for s in solutions], positions)
        # A language model's head holds the rows of the two columns alone, in their order.
        columns = (0, 1) if self.family.head == "language model" else self.family.columns
        return [[_logit(row, columns) for row in output.tolist()] for output in outputs], tokens


@dataclass(frozen=True, slots=True)
class _Remote:
    """A model behind an endpoint, whose labels are (against, for), or one number."""

    endpoint: PoolingEndpoint

    def read(self, solutions: Sequence[Encoded], wanted: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        places = [s.positions for s in solutions]
        positions = [[s.positions[i] for i in steps] for s, steps in zip(solutions, wanted, strict=True)]
        outputs, tokens = self.endpoint.read([s.token_ids for s in solutions], positions, places)
        return [[_logit(row, (1, 0) if len(row) == 2 else (0, None)) for row in rows] for rows in outputs], tokens


def _logit(outputs: Sequence[float], columns: tuple[int, int | None]) -> float:
    """The logit of a two-way softmax is the difference of its inputs; one output is a logit already."""
    good, bad = columns
    return outputs[good] - (0.0 if bad is None else outputs[bad])


def _family(folder: Path, name: str, family: str | type[Family] | None) -> Family:
    if isinstance(family, str) and family not in FAMILIES:
        raise InvalidInputError(f"unknown family {family!r}: choose from {', '.join(FAMILIES)}, or pass a Family class")
    if family is None:
        family = family_of(read_config(folder), name)
    kind = FAMILIES[family] if isinstance(family, str) else family
    return kind(load_tokenizer(folder))
