"""Joint training as an experiment (paper, Table 3, Figures 3, 4 and 7): runs from one policy with the same new head and
the same puzzles, which differ in the head's loss alone.

A run keeps its curves, what its head said of a few fixed trajectories on the way, and the trained model as a folder
that a `Searcher` opens. What the runs show is judged elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, PrinterCallback, ProgressCallback, TrainerCallback

from tts_search.api import Searcher
from tts_search.embedded.puzzles import draw
from tts_search.errors import InvalidInputError, MissingDependencyError
from tts_search.evaluation.datasets import PUZZLES
from tts_search.evaluation.runs import Evaluation, Ticker
from tts_search.grading.named import resolve_grader
from tts_search.paper.sample_pool import Pool, sample_pool
from tts_search.paper.study import Study
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.module import SPRM
from tts_search.training.fit import score
from tts_search.training.states import read_states
from tts_search.training.trajectories import GradedTrajectory

ArmLoss = Literal["spr", "bce"]
LOSSES: Mapping[ArmLoss, str] = {"spr": "SPR loss (Eq. 6)", "bce": "BCE"}
SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class JointSchedule:
    """How policy and head are trained. Eq. 6 begins with `warmup` steps of BCE: from a random head it confirms itself.

    The policy's learning rate is one at which it learns within so few steps. Every `look_every` steps the head is
    asked about the fixed trajectories.
    """

    steps: int = 150
    warmup: int = 40
    completions: int = 64  # in one step, in groups of 8
    learning_rate: float = 3e-4
    head_learning_rate: float = 1e-3
    look_every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.completions < SAMPLES or self.completions % SAMPLES:
            raise InvalidInputError(f"completions must be a multiple of {SAMPLES}, got {self.completions}")
        if min(self.steps, self.look_every) < 1:
            raise InvalidInputError(f"steps and look_every must be at least 1, got {self.steps} and {self.look_every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run: `history` by training step, and `looks`, the step scores `[trajectories][steps]` of the fixed
    trajectories by training step. `folder` holds the trained policy with its head.
    """

    history: list[dict[str, float]]
    looks: Mapping[int, list[list[float]]]
    folder: Path

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Training steps and values of one metric, where it has one."""
        rows = [(int(row["step"]), row[name]) for row in self.history if name in row]
        return [step for step, _ in rows], [value for _, value in rows]


def check_installed() -> None:
    """Whether joint training can run.

    Raises:
        MissingDependencyError: TRL is not installed.
    """
    if any(importlib.util.find_spec(name) is None for name in ("trl", "datasets", "accelerate")):
        raise MissingDependencyError(
            "Tables 2 and 3 and Figures 3, 4 and 7 train models, which needs TRL: pip install 'tts-search[train]', or "
            "leave these items out with --no-heads"
        )


def joint_arms(
    study: Study, fixed: Sequence[GradedTrajectory], schedule: JointSchedule | None = None
) -> dict[ArmLoss, Arm]:
    """A run with each loss, from the study's policy; what the log and its folder hold is not trained again.

    Raises:
        InvalidInputError: the study keeps no log file, beside which the trained models lie, asks no
            puzzles, or its model is not on this machine.
    """
    schedule = schedule or JointSchedule()
    if study.log.path is None or study.dataset.name != PUZZLES or (model := study.evaluation.folder) is None:
        raise InvalidInputError(
            "joint training needs puzzles, a model that is on this machine, and a log with a path, beside which the "
            "trained models are kept"
        )
    arms: dict[ArmLoss, Arm] = {}
    for loss, name in LOSSES.items():
        settings = {"joint training": loss, **asdict(schedule), "weights": study.evaluation.engine["weights"]}
        key = {**settings, "fixed": _digest([(t.prompt_ids, t.response_ids) for t in fixed])}
        folder = study.log.path.parent / f"joint-{loss}-{_digest(key)}"
        record = study.log.get(key)
        if record is None or not (folder / "config.json").is_file():
            ticker = Ticker(schedule.steps, study.on_progress, "steps")
            arm = train_arm(
                model, loss, schedule, folder,
                fixed=fixed, on_step=lambda t=ticker, n=name: t.one(f"joint training with {n}"),
            )  # fmt: skip
            record = {"history": arm.history, "looks": list(arm.looks.items())}
            study.log.add(key, record)
        looks = {int(step): scores for step, scores in record["looks"]}
        arms[loss] = Arm(history=record["history"], looks=looks, folder=folder)
    return arms


def held_out_pool(study: Study, arm: Arm) -> Pool:
    """The study's questions answered by the trained policy and scored by its head, `SAMPLES` times each."""
    settings = study.searcher.settings
    limits = {name: settings[name] for name in ("max_tokens", "answer_tokens")}
    with Searcher(arm.folder, generator="transformers", **limits) as searcher:
        evaluation = Evaluation(dataset=study.dataset, searcher=searcher, log=study.log)
        return sample_pool(evaluation, SAMPLES, seed=study.seed, on_progress=study.on_progress)


def train_arm(
    model: Path,
    loss: str,
    schedule: JointSchedule,
    folder: Path,
    *,
    fixed: Sequence[GradedTrajectory] = (),
    on_step: Callable[[], None] = lambda: None,
) -> Arm:
    """One run of joint training; the trained model is written to `folder`, whole or not at all.

    Raises:
        MissingDependencyError: TRL is not installed.
        KeyboardInterrupt: Ctrl-C came; nothing of the run is kept.
    """
    check_installed()
    from datasets import Dataset as Rows

    from tts_search.training.rewards import Correctness
    from tts_search.training.trainer import ReflectiveGRPOTrainer

    rng = random.Random(schedule.seed)
    drawn = [draw(rng).question for _ in range(schedule.steps * schedule.completions // SAMPLES)]
    rows = Rows.from_list([{"prompt": [{"role": "user", "content": q}], "answer": q} for q in drawn])
    torch.manual_seed(schedule.seed)
    head = SPRM(SPRMConfig(hidden_size=AutoConfig.from_pretrained(model).get_text_config().hidden_size))
    looks = _Looks(fixed, schedule.look_every, on_step)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".joint-") as scratch:
        trainer = ReflectiveGRPOTrainer(
            str(model), Correctness(resolve_grader("puzzle"), threads=1), _arguments(schedule, loss, scratch), rows,
            head=head, callbacks=[looks],
        )  # fmt: skip
        for talker in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(talker)
        trainer.train()
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.save_model(str(Path(scratch) / "model"))
        (Path(scratch) / "model" / "training_args.bin").unlink(missing_ok=True)  # names the scratch folder
        shutil.rmtree(folder, ignore_errors=True)
        (Path(scratch) / "model").rename(folder)
    history = [
        {name: float(value) for name, value in row.items() if _told(name) and math.isfinite(value)}
        for row in trainer.state.log_history
        if "reward" in row
    ]
    return Arm(history=history, looks=looks.found, folder=folder)


def _arguments(schedule: JointSchedule, loss: str, scratch: str) -> Any:
    from tts_search.training.settings import ReflectiveConfig

    return ReflectiveConfig(
        output_dir=scratch,
        per_device_train_batch_size=schedule.completions,
        num_generations=SAMPLES,
        max_completion_length=96,
        max_steps=schedule.steps,
        learning_rate=schedule.learning_rate,
        head_learning_rate=schedule.head_learning_rate,
        head_loss=loss,
        head_warmup_steps=schedule.warmup,
        lr_scheduler_type="constant",
        temperature=0.6,
        top_p=1.0,
        mask_truncated_completions=True,
        loss_type="bnpo",
        gradient_checkpointing=False,
        alarm_window=0,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=schedule.seed,
    )


class _Looks(TrainerCallback):
    """Asks policy and head, as they stand, about fixed trajectories, and tells of every step."""

    def __init__(self, fixed: Sequence[GradedTrajectory], every: int, on_step: Callable[[], None]) -> None:
        self._fixed, self._every, self._on_step = fixed, every, on_step
        self.found: dict[int, list[list[float]]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Before the first step."""
        self._look(model, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Every few steps, and behind the last."""
        self._on_step()
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._look(model, state.global_step)

    def _look(self, model: Any, step: int) -> None:
        if not self._fixed:
            return
        from tts_search.training.trainer import HEAD

        head = cast(SPRM, model.get_submodule(HEAD))
        training = model.training
        model.eval()
        states = read_states(model, self._fixed, readout=head.config.readout)
        self.found[step] = [[round(value, 6) for value in steps] for steps in score(head, states)[0]]
        model.train(training)


def _told(name: str) -> bool:
    return name in ("step", "reward") or name.startswith("sprm/")


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
