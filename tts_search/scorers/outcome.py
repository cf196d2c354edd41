"""Outcome reward models: published models that score a solution as a whole, as scorers.

Knows how a conversation is written for them, and how their number becomes a value in [0, 1]; it knows no search.
"""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts_search.core.protocols import Scores
from tts_search.core.tree import Trajectory
from tts_search.errors import InvalidInputError, MissingDependencyError
from tts_search.models import model_name
from tts_search.scorers.checkpoint import load_tokenizer, read_config, reward_folder, title
from tts_search.scorers.engine_sprm import probability
from tts_search.scorers.text import ScoreMemory, beyond, question_text, solution_text

if TYPE_CHECKING:
    from tts_search.scorers.reward_model import RewardModel

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
ACEMATH_SYSTEM = "Please reason step by step, and check your final answer within \\boxed{}."


class OutcomeRewardModel:
    """An outcome reward model as a `Scorer`: every step of a trajectory gets the value of all that is there.

    The value is the sigmoid of the model's number, or the second label's probability where it has two. It is read at
    the last token, as `transformers` does. Solutions that were scored before are not scored again, and one that
    continues another goes on from it. Of a solution longer than the model's context, as many steps are read as fit, and
    the others have no value.

    Made by `from_pretrained`.
    """

    aggregation = "last"

    def __init__(self, model: RewardModel, tokenizer: Any, *, labels: int, system: str | None, name: str) -> None:
        if labels not in (1, 2):
            raise InvalidInputError(f"{name!r} has {labels} labels: a reward model has one, or two (wrong, right)")
        if not tokenizer.chat_template:
            raise InvalidInputError(f"the tokenizer of {name!r} has no chat template, by which reward models are asked")
        self.name = name
        self.system = system
        self._model = model
        self._tokenizer = tokenizer
        self._memory = ScoreMemory[float](65_536)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"OutcomeRewardModel({self.name!r})"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        system: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_tokens: int = 16_384,
        prefix_cache_tokens: int | None = None,
    ) -> OutcomeRewardModel:
        r"""Load Qwen2.5-Math-RM, or any decoder that `AutoModelForSequenceClassification` takes.

        Such as Skywork-Reward-V2 and AceMath-RM.

        Args:
            name_or_path: a model folder, or the id of a repository on the Hugging Face hub. Its code is never run.
            system: the system turn; None is the one that Qwen2.5-Math-RM and AceMath-RM were trained with, and none for
                others.
            device: `"cpu"`, `"cuda:1"`, ...; `"auto"` prefers CUDA to MPS to the CPU.
            dtype: `"float32"`, `"bfloat16"`, ...; `"auto"` keeps the checkpoint's, but runs in fp32 on a CPU that
                does not compute the checkpoint's itself, if memory allows.
            batch_tokens: how many tokens go through the model at once.
            prefix_cache_tokens: how many tokens' keys and values are kept to go on from, what solutions share once;
                None is room for 16 of the longest, within a quarter of the memory that is free; 0 for none.

        Raises:
            ModelNotFoundError: no such checkpoint, or its weights lack the head.
            InvalidInputError: it has more than two labels, or no chat template.
        """
        folder = reward_folder(name_or_path)
        qwen = "Qwen2ForRewardModel" in (read_config(folder).get("architectures") or ())
        try:
            from tts_search.scorers.reward_heads import load_classifier, load_sequence_classifier
            from tts_search.scorers.reward_model import RewardModel
        except ImportError as error:
            raise MissingDependencyError(
                f"reward models need torch and transformers ({error}): pip install torch transformers"
            ) from error
        if qwen:
            backbone, head = load_classifier(folder, labels=1, device=device, dtype=dtype)
        else:
            backbone, head = load_sequence_classifier(folder, device=device, dtype=dtype)
        model = RewardModel(backbone, head, batch_tokens=batch_tokens, prefix_tokens=prefix_cache_tokens)
        labels = 1 if qwen else backbone.config.num_labels
        if system is None:
            named = re.search(r"acemath-\w+-rm", f"{name_or_path} {title(folder)}", re.IGNORECASE)
            system = QWEN_SYSTEM if qwen else ACEMATH_SYSTEM if named else None
        return cls(model, load_tokenizer(folder), labels=labels, system=system, name=model_name(name_or_path))

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        """The value of each trajectory, once per finished step; none for steps beyond the model's context."""
        with self._lock:
            read = [self._read_of(t) for t in trajectories]
            known = {key: value for key, _, _ in read if (value := self._memory.get(key)) is not None}
            new = {key: ids for key, ids, _ in read if key not in known and ids}
            outputs, tokens = self._model.read(list(new.values()), [[self._last(ids)] for ids in new.values()])
            for key, output in zip(new, outputs, strict=True):
                row = output[0].tolist()
                known[key] = probability(row[0] if len(row) == 1 else row[1] - row[0])
                self._memory.put(key, known[key])
            values = [[known[key]] * steps if steps else [] for key, _, steps in read]
            cut = any(steps < len(t.step_ends) for (_, _, steps), t in zip(read, trajectories, strict=True))
            return Scores(values, tokens=tokens, unread=beyond(self, self._model.max_tokens) if cut else None)

    def _read_of(self, trajectory: Trajectory) -> tuple[bytes, tuple[int, ...], int]:
        """What is read of a trajectory: its key in the memory, its token ids, and how many steps that is.

        No ids where nothing of it fits the context, or there is nothing.
        """
        question = question_text(trajectory)

        def written(steps: int) -> tuple[bytes, tuple[int, ...], int]:
            solution = solution_text(trajectory, steps)
            return self._memory.keys(question, [solution])[0], self._encode(question, solution) if steps else (), steps

        whole = written(len(trajectory.step_ends))
        if len(whole[1]) <= self._model.max_tokens:
            return whole
        fitting = bisect.bisect_left(
            range(1, whole[2]), True, key=lambda steps: len(written(steps)[1]) > self._model.max_tokens
        )
        return written(fitting)

    def _encode(self, question: str, solution: str) -> tuple[int, ...]:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": solution}]
        if self.system is not None:
            turns.insert(0, {"role": "system", "content": self.system})
        text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _last(self, ids: tuple[int, ...]) -> int:
        """Where the value is read: the last token that is not the padding token, which may be the end-of-text token."""
        pad = self._model.backbone.config.pad_token_id
        return max((i for i, token in enumerate(ids) if token != pad), default=len(ids) - 1)
