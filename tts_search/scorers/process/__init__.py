"""Process reward models: published models that score every step of a solution, as scorers.

Puts together a family (how a solution is written, `families`), a model here (`reward_model`) or behind HTTP
(`pooling`), and the memory of what was scored already. It knows no search.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from tts_search.core.protocols import Scores
from tts_search.core.tree import Trajectory
from tts_search.errors import MissingDependencyError, ScorerError
from tts_search.models import model_name
from tts_search.scorers.checkpoint import context_tokens, read_config, reward_folder
from tts_search.scorers.engine_sprm import probability
from tts_search.scorers.process.families import Family, recognize
from tts_search.scorers.process.family import Encoded
from tts_search.scorers.process.pooling import PoolingEndpoint, TooLongError
from tts_search.scorers.text import ScoreMemory, beyond, question_text, step_texts, written_steps

__all__ = ["ProcessRewardModel"]


class Reader(Protocol):
    """A model of a family: here, or behind an endpoint. `max_tokens` is its context."""

    @property
    def max_tokens(self) -> int: ...

    def read(self, solutions: Sequence[Encoded], wanted: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        """For each solution the logit of the steps that are wanted (by number), and how many tokens that took.

        Steps beyond the context are left out.
        """
        ...


class ProcessRewardModel:
    """A process reward model as a `Scorer`: each step's score is the model's probability that it is right.

    Steps that were scored before, as part of any trajectory with the same beginning, are not scored again. Of what is
    new, only the tokens behind the longest known prefix go through a local model. Of a trajectory that is longer than
    the model's context, the steps within it are scored. `aggregation` is the family's published one; a searcher uses it
    unless told otherwise.

    Made by `from_pretrained` or `from_endpoint`.
    """

    def __init__(
        self,
        family: Family,
        reader: Reader,
        *,
        name: str,
        concurrency: int = 1,
        memory_steps: int = 65_536,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.family = family
        self.warnings = warnings
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
        separator: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_tokens: int = 16_384,
        prefix_cache_tokens: int | None = None,
    ) -> ProcessRewardModel:
        """Load a checkpoint into this process, by way of transformers. Code that comes with it is never run.

        Args:
            name_or_path: a model folder, or the id of a repository on the Hugging Face hub.
            family: a name of `process.families.FAMILIES`, such as `"qwen-math-prm"` or `"trl"`, or a `Family` of yours;
                None goes by the checkpoint's architecture, files and name.
            separator: what ends a step in the training of a token classifier of TRL's; None goes by what its trainer
                left beside the weights.
            device: `"cpu"`, `"cuda:1"`, ...; `"auto"` prefers CUDA to MPS to the CPU.
            dtype: `"float32"`, `"bfloat16"`, ...; `"auto"` keeps the checkpoint's, but runs in fp32 on a CPU that
                does not compute the checkpoint's itself, if memory allows.
            batch_tokens: how many tokens go through the model at once.
            prefix_cache_tokens: how many tokens' keys and values are kept to go on from, what solutions share once;
                None is room for 16 of the longest, within a quarter of the memory that is free; 0 for none.

        Raises:
            ModelNotFoundError: no such checkpoint, or its weights lack the head.
            InvalidInputError: its family is not known, or does not fit its tokenizer.
        """
        folder = reward_folder(name_or_path)
        known = recognize(folder, str(name_or_path), family, separator)
        protocol = known.family
        try:
            from tts_search.scorers.reward_heads import load_head
            from tts_search.scorers.reward_model import RewardModel
        except ImportError as error:
            raise MissingDependencyError(
                f"reward models need torch and transformers ({error}): pip install torch transformers"
            ) from error
        backbone, head = load_head(protocol.head, folder, protocol.columns, device=device, dtype=dtype)
        model = RewardModel(backbone, head, batch_tokens=batch_tokens, prefix_tokens=prefix_cache_tokens)
        return cls(protocol, _Local(model, protocol), name=model_name(name_or_path), warnings=known.warnings)

    @classmethod
    def from_endpoint(
        cls,
        name_or_path: str | Path,
        url: str,
        *,
        family: str | type[Family] | None = None,
        separator: str | None = None,
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
            separator: as for `from_pretrained`.
            model: the model's name on the server; None where it serves only one.
            key: what the server takes for authorization.
            concurrency: requests in flight at once.
            seconds: limit of one request.
        """
        folder = reward_folder(name_or_path, weights=False)
        known = recognize(folder, str(name_or_path), family, separator)
        endpoint = PoolingEndpoint(url, model=model, key=key, seconds=seconds)
        reader = _Remote(endpoint, context_tokens(read_config(folder)))
        name = model_name(name_or_path)
        return cls(known.family, reader, name=name, concurrency=concurrency, warnings=known.warnings)

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        """One probability per finished step, in order; none for the steps beyond the model's context."""
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
            logits, tokens = self._read([solutions[i] for i in rows], [wanted[i] for i in rows])
            for i, found in zip(rows, logits, strict=True):
                for step, logit in zip(wanted[i], found, strict=False):
                    known[keys[i][step]] = probability(logit)
        with self._lock:
            for key, score in known.items():
                self._memory.put(key, score)
        values = [[known[key] for key in takewhile(known.__contains__, row)] for row in keys]
        cut = any(len(value) < len(row) for value, row in zip(values, keys, strict=True))
        return Scores(values, tokens=tokens, unread=beyond(self, self._reader.max_tokens) if cut else None)

    def _read(
        self, solutions: Sequence[tuple[str, Sequence[str]]], wanted: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], int]:
        """For each solution the logits of the steps that are wanted, as far as the model's context goes."""
        if not self.family.apart:
            return self._reader.read([self._encoded(*s) for s in solutions], wanted)
        # Step by step, so that what a text shares with the one before is read once.
        found: list[list[float]] = [[] for _ in solutions]
        tokens = 0
        for turn in range(max(map(len, wanted))):
            rows = [i for i, steps in enumerate(wanted) if turn < len(steps) and len(found[i]) == turn]
            texts = [(solutions[i][0], solutions[i][1][: wanted[i][turn] + 1]) for i in rows]
            logits, cost = self._reader.read([self.family.encode(*text) for text in texts], [[0]] * len(rows))
            for i, new in zip(rows, logits, strict=True):
                found[i] += new
            tokens += cost
        return found, tokens

    def _encoded(self, question: str, steps: Sequence[str]) -> Encoded:
        encoded = self.family.encode(question, steps)
        if len(encoded.positions) != len(steps):
            raise ScorerError(
                f"{self!r} found {len(encoded.positions)} places to score for {len(steps)} steps: a step's "
                "text holds the step tag itself"
            )
        return encoded


@dataclass(frozen=True, slots=True)
class _Local:
    """A model in this process, one call at a time."""

    model: Any
    family: Family
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def max_tokens(self) -> int:
        return self.model.max_tokens

    def read(self, solutions: Sequence[Encoded], wanted: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        ids, positions = _within(self.max_tokens, solutions, wanted)
        read = [i for i, places in enumerate(positions) if places]
        with self.lock:
            outputs, tokens = self.model.read([ids[i] for i in read], [positions[i] for i in read])
        # A language model's head holds the rows of the two columns alone, in their order.
        columns = (0, 1) if self.family.head == "language model" else self.family.columns
        found: list[list[float]] = [[] for _ in solutions]
        for i, output in zip(read, outputs, strict=True):
            found[i] = [_logit(row, columns) for row in output.tolist()]
        return found, tokens


@dataclass(slots=True)
class _Remote:
    """A model behind an endpoint, whose labels are (against, for), or one number.

    `max_tokens` is the checkpoint's context, and what the server says of its own where that is shorter.
    """

    endpoint: PoolingEndpoint
    max_tokens: int

    def read(self, solutions: Sequence[Encoded], wanted: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        while True:
            ids, positions = _within(self.max_tokens, solutions, wanted)
            read = [i for i, places in enumerate(positions) if places]
            tags = [[p for p in solutions[i].positions if p < len(ids[i])] for i in read]
            try:
                outputs, tokens = self._asked([ids[i] for i in read], [positions[i] for i in read], tags)
            except TooLongError as error:
                if error.max_tokens >= max(len(ids[i]) for i in read):
                    raise
                self.max_tokens = error.max_tokens
                continue
            found: list[list[float]] = [[] for _ in solutions]
            for i, rows in zip(read, outputs, strict=True):
                found[i] = [_logit(row, (1, 0) if len(row) == 2 else (0, None)) for row in rows]
            return found, tokens

    def _asked(
        self, ids: list[tuple[int, ...]], positions: list[list[int]], tags: list[list[int]]
    ) -> tuple[list[list[list[float]]], int]:
        return self.endpoint.read(ids, positions, tags) if ids else ([], 0)


def _within(
    max_tokens: int, solutions: Sequence[Encoded], wanted: Sequence[Sequence[int]]
) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Token ids up to the last place to read, and the places, as far as a context goes: nothing looks ahead of them."""
    positions = [
        [place for place in (s.positions[i] for i in steps) if place < max_tokens]
        for s, steps in zip(solutions, wanted, strict=True)
    ]
    ids = [s.token_ids[: places[-1] + 1] if places else () for s, places in zip(solutions, positions, strict=True)]
    return ids, positions


def _logit(outputs: Sequence[float], columns: tuple[int, int | None]) -> float:
    """The logit of a two-way softmax is the difference of its inputs; one output is a logit already."""
    good, bad = columns
    return outputs[good] - (0.0 if bad is None else outputs[bad])
