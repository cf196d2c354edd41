"""`ReflectiveGRPOTrainer`: TRL's GRPO for the policy and the self-supervised process loss for its SPRM head, on the
same rollouts, in the same forward pass.

Data, rewards, callbacks, logging and rollouts are TRL's. Some of what is overridden here is private to TRL, hence the
narrow version pin and the contract tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.logging import get_logger
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from trl.trainer.grpo_trainer import GRPOTrainer

from tts_search.errors import HeadMismatchError, InvalidInputError
from tts_search.models import model_folder
from tts_search.segmentation import Segmenter
from tts_search.sprm.loading import FOLDER
from tts_search.sprm.module import SPRM
from tts_search.training import groups
from tts_search.training.assemble import (
    check_settings,
    check_tokenizer,
    head_for,
    name_failures,
    outcome_index,
    wrap_tokenizer,
)
from tts_search.training.interrupt import SaveOnInterrupt
from tts_search.training.losses import LossName, process_loss, scale_gradient
from tts_search.training.monitor import Watch
from tts_search.training.settings import ReflectiveConfig
from tts_search.training.states import Tap

logger = get_logger(__name__)

HEAD = "sprm"
"""The head's name as a submodule of the policy: data parallelism reduces only what is one."""


class ReflectiveGRPOTrainer(GRPOTrainer):
    """Trains a policy and its head jointly.

    Args:
        model: a model folder, a hub id, `"embedded"`, or a loaded causal language model (a PEFT model, too).
        reward_funcs: as TRL takes them. One of them says what is right: `args.outcome_reward`, else the one named
            `correctness`, else the only one.
        args: TRL's settings and the head's.
        train_dataset, eval_dataset, reward_processing_classes, callbacks, optimizers, quantization_config, peft_config,
        rollout_func: TRL's.
        processing_class: the tokenizer; by default the model folder's.
        head: a head or its folder; by default the model folder's, or a new one where there is none.

    Raises:
        InvalidInputError: settings that do not combine; the message says why.
        HeadMismatchError: the head does not fit the model.
    """

    args: ReflectiveConfig
    model: Any
    accelerator: Any
    train_dataset: Any
    num_generations: int

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: ReflectiveConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        head: SPRM | str | Path | None = None,
        reward_processing_classes: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        rollout_func: Any = None,
    ) -> None:
        source = model if isinstance(model, str | Path) else getattr(model.config, "_name_or_path", "")
        folder = model_folder(source) if isinstance(model, str | Path) or processing_class is None else Path(source)
        adapted = peft_config is not None or hasattr(model, "peft_config")
        check_settings(args, policy=str(source), adapted=adapted)
        tokenizer = processing_class or PreTrainedTokenizerFast.from_pretrained(
            str(folder), padding_side="left", truncation_side="left"
        )
        check_tokenizer(tokenizer)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # every parameter has a gradient, the head's even without steps
        functions = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        super().__init__(
            model=str(folder) if isinstance(model, str | Path) else model,
            reward_funcs=[name_failures(function) for function in functions],
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            rollout_func=rollout_func,
        )
        if args.groups == "resample" and isinstance(self.train_dataset, IterableDataset):
            raise InvalidInputError('groups="resample" picks fresh questions, which a stream cannot: use "drop"')
        self._outcome = outcome_index(self.reward_func_names, args.outcome_reward)
        self._interrupt = SaveOnInterrupt()
        self.add_callback(self._interrupt)
        self._watch = Watch(self.num_generations, args.alarm_window)
        self._rewards = self._outcomes = torch.empty(0)  # of all processes
        self._rollouts = 0
        self._tap = Tap(self.model)
        self.head = head_for(self.model, head, folder, args).to(self.accelerator.device)
        self.model.add_module(HEAD, self.head)
        self._segmenter = Segmenter(wrap_tokenizer(tokenizer), self.head.config.step_rule)
        if self.use_vllm:
            skip_head(self.vllm_generation)

    def end(self) -> None:
        """As the base class: close the process group, once, when nothing more is asked of the other processes.

        The wrapper that keeps the models of all processes alike goes first. As the group's last holder it would close
        it under the interpreter's lock, and wait for a thread of the group that waits for this lock.
        """
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        super().end()

    # Rollouts: which tokens are read, and which trajectories are right.

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        self._rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self._rollout(inputs)
        if not self.model.training or self.args.groups == "keep":
            return batch
        one_sided = groups.one_sided(self._outcomes, self.num_generations)
        if self.args.groups == "drop":
            batch = groups.mask_rows(batch, self._own_rows(one_sided))
        for turn in range(self.args.resample_rounds if self.args.groups == "resample" else 0):
            if not bool(one_sided.any()):
                break
            fresh = self._rollout(self._fresh(len(inputs), turn))
            usable = one_sided & ~groups.one_sided(self._outcomes, self.num_generations)
            batch = groups.replace_rows(batch, fresh, self._own_rows(usable), cast(int, self._tokenizer.pad_token_id))
            one_sided = one_sided & ~usable
        self._metrics["train"]["sprm/one_sided"].append(one_sided.float().mean().item())
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        return batch

    def _rollout(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """A generated batch with, for each completion, `outcome` (NaN without one), `step_mask` and `group`."""
        batch = super()._generate_and_score_completions(inputs)
        rewards = self._rewards[:, self._outcome]
        self._outcomes = torch.where(rewards.isnan(), rewards, (rewards > 0.5).to(rewards.dtype))
        batch["outcome"] = self._own_rows(self._outcomes)
        batch["step_mask"] = self._step_mask(batch)
        number = torch.arange(len(rewards), device=rewards.device) // self.num_generations
        batch["group"] = self._own_rows(number + self._rollouts * len(rewards))
        self._rollouts += 1
        return batch

    def _step_mask(self, batch: dict[str, Any]) -> Tensor:
        """Which completion tokens end a step, `[completions, tokens]`."""
        mask = torch.zeros_like(batch["completion_mask"], dtype=torch.bool)
        prompts = [
            ids[kept.bool()].tolist() for ids, kept in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
        ]
        for row, prompt in enumerate(prompts):
            ids = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
            ends, _ = self._segmenter.scan(self._segmenter.start(prompt), ids)
            mask[row, [end - 1 for end in ends]] = True
        return mask

    def _own_rows(self, everybody: Tensor) -> Tensor:
        """Of what all processes hold, the part of this one."""
        return everybody.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def _fresh(self, rows: int, turn: int) -> list[dict[str, Any]]:
        """Other questions for the same places; all processes draw alike, because a group may lie across them."""
        count = rows * self.accelerator.num_processes // self.num_generations
        rng = random.Random(repr((self.args.seed, self._step, turn)))
        chosen = [rng.randrange(len(self.train_dataset)) for _ in range(count)]
        first = rows * self.accelerator.process_index
        return [self.train_dataset[chosen[i // self.num_generations]] for i in range(first, first + rows)]

    # The loss.

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        known = ~inputs["outcome"].isnan()
        rows, columns = (inputs["step_mask"] & known[:, None]).nonzero(as_tuple=True)
        columns = columns + (inputs["prompt_ids"].shape[1] - (self.head.config.readout == "previous"))
        self._tap.arm(lambda hidden: self._read(hidden[rows, columns]))
        policy_loss = super()._compute_loss(model, inputs)
        logits = self._tap.take()
        mode = "train" if self.model.training else "eval"
        warming = self.state.global_step < self.args.head_warmup_steps
        loss = process_loss(logits, inputs["outcome"][rows], "bce" if warming else cast(LossName, self.args.head_loss))
        self._metrics[mode]["sprm/loss"].append(self.accelerator.gather(loss.detach()).mean().item())
        self._watch.remember(mode, rows, logits, inputs["outcome"], inputs["group"])
        accumulated = self.current_gradient_accumulation_steps if mode == "train" else 1.0
        return policy_loss + self.args.head_coef * loss / accumulated

    def _read(self, hidden: Tensor) -> Tensor:
        """Logits `[steps]` in fp32, whatever the policy computes in."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(scale_gradient(hidden, self.args.backbone_gradient))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, with what the head's scores say."""
        mode = "train" if self.model.training else "eval"
        for name, value in self._watch.metrics(mode, self.head.config.aggregation).items():
            self._metrics[mode][name].append(value)
        warning = self._watch.alarm() if self.state.global_step >= self.args.head_warmup_steps else None
        if warning is not None:
            logger.warning(warning)
        super().log(logs, start_time)

    # The head beside the policy: its own optimizer group, its own files.

    def create_optimizer(self, model: Any = None) -> Any:
        """TRL's optimizer, the head moved into a group of its own learning rate."""
        optimizer = super().create_optimizer(model)
        own = {id(parameter) for parameter in self.head.parameters()}
        if not any(group.get("name") == HEAD for group in optimizer.param_groups):
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in own]
            optimizer.add_param_group(
                {
                    "params": list(self.head.parameters()),
                    "lr": self.args.head_learning_rate,
                    "weight_decay": self.args.weight_decay,
                    "name": HEAD,
                }
            )
        return optimizer

    def train(self, *args: Any, **options: Any) -> Any:
        """TRL's. Ctrl-C ends it behind the current step, with a checkpoint; a second one at once."""
        try:
            return super().train(*args, **options)
        finally:
            self._interrupt.restore()

    @property
    def interrupted(self) -> bool:
        """Whether training ended early because of Ctrl-C."""
        return self._interrupt.asked and self.state.global_step < self.state.max_steps

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """A plain language-model folder, and the head in `sprm/`: what `Searcher(model=folder)` opens."""
        head = self.head
        if state_dict is not None:  # gathered from shards
            own = {name.rpartition(f"{HEAD}.")[2]: w for name, w in state_dict.items() if name.startswith(f"{HEAD}.")}
            state_dict = {name: w for name, w in state_dict.items() if not name.startswith(f"{HEAD}.")}
            head = SPRM(self.head.config)
            head.load_state_dict(own)
        with self._headless():
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            head.save_pretrained(Path(output_dir or self.args.output_dir or ".") / FOLDER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_head(resume_from_checkpoint)
        with self._headless():
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._load_head(cast(str, self.state.best_model_checkpoint))
        with self._headless():
            super()._load_best_model()

    def _load_head(self, checkpoint: str) -> None:
        saved = SPRM.from_pretrained(checkpoint, hidden_size=self.head.config.hidden_size)
        if saved.config != self.head.config:
            raise HeadMismatchError(
                f"the head in {checkpoint!r} is {saved.config}, but this run trains {self.head.config}: resume with "
                "the settings of the run that saved it"
            )
        self.head.load_state_dict(saved.state_dict())

    @contextmanager
    def _headless(self) -> Iterator[None]:
        """The policy without its head, as a plain language model is saved and loaded."""
        modules = self.model._modules
        head = modules.pop(HEAD)
        try:
            yield
        finally:
            modules[HEAD] = head


def skip_head(generation: Any) -> None:
    """Keep the head's parameters from vLLM's copy of the policy, which has none."""
    everything = generation._iter_named_params

    def without_head() -> Iterator[tuple[str, Any]]:
        return ((name, weight) for name, weight in everything() if HEAD not in name.split("."))

    generation._iter_named_params = without_head
