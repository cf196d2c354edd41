"""A joint run from a description of it: what `tts-search train` does, for scripts.

It reads the description, puts data, rewards and trainer together, goes on from the last checkpoint if there is one, and
leaves a folder that `Searcher` opens. The training itself is the trainer's.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tts_search.errors import InvalidInputError, MissingDependencyError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.grading import Grader
from tts_search.models import model_folder
from tts_search.sprm.loading import FOLDER, is_head
from tts_search.training.curves import aha_step, history, plot
from tts_search.training.problems import Problem, read_problems
from tts_search.training.rewards import Correctness, RewardFunction, length_limit, well_formed
from tts_search.training.settings import ReflectiveConfig, preset
from tts_search.training.trainer import ReflectiveGRPOTrainer
from tts_search.whole_files import replacing_folder, write_atomically

FINAL, LOG, PICTURE, MARK = "final", "log.jsonl", "curves.png", "tts-search-run.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Rewards(_Part):
    """Weights of the terms; a term of weight 0 is off. `soft_tokens`: over how many tokens the length term falls."""

    correctness: float = 1.0
    well_formed: float = 0.0
    length: float = 0.0
    soft_tokens: int = 128


class RunConfig(_Part):
    """A joint run. `training` takes every field of `ReflectiveConfig`, `lora` those of `peft.LoraConfig`."""

    model: str
    data: Path
    out: Path
    eval_data: Path | None = None
    head: Path | None = None
    grader: str = "math"
    preset: str | None = None
    rewards: Rewards = Field(default_factory=Rewards)
    training: dict[str, Any] = Field(default_factory=dict)
    lora: dict[str, Any] | None = None


def read_config(file: str | Path | None, **given: Any) -> RunConfig:
    """A description in TOML; what is given by name goes before what the file says. `training` is merged.

    Raises:
        InvalidInputError: the file cannot be read, or names what there is not.
    """
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{str(file)!r} cannot be read as TOML: {error}") from error
    training = {**found.get("training", {}), **given.pop("training", {})}
    found |= {name: value for name, value in given.items() if value is not None} | {"training": training}
    try:
        return RunConfig.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(f"{file or 'the run'}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def train(
    config: RunConfig, grader: Grader, *, report: Callable[[str], None] = print
) -> tuple[ReflectiveGRPOTrainer, Path | None]:
    """Run it, from the last checkpoint in `config.out` if there is one.

    Returns:
        The trainer, and the folder of the trained model with its head; None where Ctrl-C ended the run first.

    Raises:
        InvalidInputError: something in the description cannot be used.
    """
    folder = model_folder(config.model)
    _check_out(config.out, folder)
    tokenizer = PretrainedTokenizer(folder)
    chat = _has_template(tokenizer)
    args = _arguments(config)
    functions, weights = _rewards(
        config, grader, thinks=tokenizer.thinking is not None, limit=args.max_completion_length
    )
    args.reward_weights = weights
    if args.process_index > 0:
        report = _nothing  # one process speaks for all
    trainer = ReflectiveGRPOTrainer(
        config.model,
        functions,
        args,
        _dataset(read_problems(config.data), chat=chat),
        None if config.eval_data is None else _dataset(read_problems(config.eval_data), chat=chat),
        head=config.head,
        peft_config=None if config.lora is None else _adapter(config.lora),
        callbacks=[_Say(report)],
    )
    for talker in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(talker)
    if args.process_index == 0:  # before there is anything else: whose the folder is, if the run is killed
        config.out.mkdir(parents=True, exist_ok=True)
        write_atomically(config.out / MARK, json.dumps({"format": "tts-search training run"}) + "\n")
    checkpoint = last_checkpoint(config.out)
    if checkpoint is not None:
        report(f"going on from {checkpoint}")
    if checkpoint is None or not _load_if_done(trainer, checkpoint):
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.accelerator.is_main_process:
        _write_log(trainer.state.log_history, config.out, report)
    if trainer.interrupted:
        report(f"interrupted behind step {trainer.state.global_step}; run it again to go on")
        return trainer, None
    final = config.out / FINAL
    save_policy(trainer, final)
    return trainer, final


def last_checkpoint(out: Path) -> str | None:
    """The last checkpoint that is whole: a process that is killed while it writes one leaves half of it.

    The trainer's state is written last; where it can be read, all else is there.
    """

    def step(folder: Path) -> int:
        number = folder.name.rpartition("-")[2]
        return int(number) if number.isdecimal() else -1

    for folder in sorted(out.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=step, reverse=True):
        try:
            json.loads((folder / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


def _load_if_done(trainer: ReflectiveGRPOTrainer, checkpoint: str) -> bool:
    """Load a checkpoint that has nothing left to train: a run that was killed before it wrote its final model.

    `Trainer.train` would train such a one for a step more.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    steps = trainer.args.max_steps if trainer.args.max_steps > 0 else state.max_steps
    if state.global_step < steps or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return False
    trainer._load_from_checkpoint(checkpoint)
    trainer.state = state
    return True


def save_policy(trainer: ReflectiveGRPOTrainer, folder: Path) -> None:
    """Write the trained policy as a plain folder with its head; an adapter is merged into it for good.

    The folder appears whole, or what was there stays. Every process calls it, and one of them writes.
    """
    merged = trainer.model.merge_and_unload() if hasattr(trainer.model, "peft_config") else None
    with replacing_folder(folder) if trainer.args.should_save else nullcontext(folder) as whole:
        if merged is None:
            trainer.save_model(str(whole))
        elif trainer.args.should_save:
            merged.save_pretrained(whole)
            trainer.processing_class.save_pretrained(whole)  # type: ignore[union-attr]
            trainer.head.save_pretrained(whole / FOLDER)


def _check_out(out: Path, model: Path) -> None:
    """Refuse a folder in which a run would write over, or clear away, what no earlier run left there: of one there is
    its mark, or, of the first edition's, a checkpoint or the final model, which have a head.
    """
    places = [*out.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), out / FINAL]
    if any(place.exists() and place.samefile(model) for place in places):
        raise InvalidInputError(f"the model {model} lies where this run saves its own: name another folder than {out}")
    taken = [path for path in (*places, out / LOG, out / PICTURE) if path.exists()]
    if taken and not (out / MARK).is_file() and not any(is_head(place / FOLDER) for place in places):
        raise InvalidInputError(
            f"{taken[0]} is there already and of no earlier run: move it away, or name another folder than {out}"
        )


def _nothing(_: str) -> None:
    pass


class _Say(TrainerCallback):
    """One line a log."""

    SHOWN = ("reward", "sprm/auc", "sprm/gap", "sprm/best_of_group", "sprm/loss", "step_time")

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Say the numbers that matter most."""
        shown = [f"{name} {logs[name]:.3f}" for name in self.SHOWN if (logs or {}).get(name) is not None]
        if shown:
            self._report(f"step {state.global_step}/{state.max_steps}  {'  '.join(shown)}")


def _arguments(config: RunConfig) -> ReflectiveConfig:
    given = dict(config.training)
    processes, rows = int(os.environ.get("WORLD_SIZE", "1")), given.get("per_device_train_batch_size", 8)
    base = {} if config.preset is None else preset(config.preset, processes=processes, rows=rows)
    usual: dict[str, Any] = {"report_to": [], "logging_steps": 1, "save_steps": 50, "save_total_limit": 2}
    if not torch.cuda.is_available():
        usual["bf16"] = False
    try:
        return ReflectiveConfig(output_dir=str(config.out), **usual | base | given)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"training: {error}") from error


def _rewards(
    config: RunConfig, grader: Grader, *, thinks: bool, limit: int | None
) -> tuple[list[RewardFunction], list[float]]:
    terms: list[tuple[RewardFunction, float]] = [(Correctness(grader, thinks=thinks), config.rewards.correctness)]
    if config.rewards.well_formed:
        terms.append((well_formed, config.rewards.well_formed))
    if config.rewards.length:
        terms.append((length_limit(limit or 256, soft_tokens=config.rewards.soft_tokens), config.rewards.length))
    return [function for function, _ in terms], [weight for _, weight in terms]


def _dataset(problems: list[Problem], *, chat: bool) -> Dataset:
    def prompt(question: Any) -> Any:
        return [{"role": "user", "content": question}] if chat and isinstance(question, str) else question

    return Dataset.from_list([{"prompt": prompt(p.question), "answer": p.reference} for p in problems])


def _has_template(tokenizer: PretrainedTokenizer) -> bool:
    try:
        tokenizer.render([{"role": "user", "content": "?"}])
    except InvalidInputError:
        return False
    return True


def _adapter(options: dict[str, Any]) -> Any:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingDependencyError("LoRA needs peft: pip install 'tts-search[train]'") from error
    try:
        chosen: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": "all-linear"} | options
        return LoraConfig(**chosen)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"lora: {error}") from error


def _write_log(log: list[dict[str, Any]], out: Path, report: Callable[[str], None]) -> None:
    write_atomically(out / LOG, "".join(json.dumps(row) + "\n" for row in log))
    try:
        plot(log, out / PICTURE)
    except MissingDependencyError as error:
        report(str(error))
    parted = aha_step(*history(log, "sprm/gap"))
    report("the score curves have not parted" if parted is None else f"the score curves part at step {parted}")
