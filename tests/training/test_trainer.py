"""Joint training on a tiny policy: what is learned, what is saved, what goes wrong and how it is said."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl.generation.vllm_generation import VLLMGeneration

from tests.training.joint import WIDTH, correctness, questions, settings, trainer, write_policy
from tts_search.api import Searcher
from tts_search.errors import HeadMismatchError, InvalidInputError, TrainingError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.segmentation import Segmenter
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import FOLDER, WEIGHTS_FILE
from tts_search.sprm.module import SPRM
from tts_search.training.interrupt import SIGNALS
from tts_search.training.losses import process_loss
from tts_search.training.settings import ReflectiveConfig
from tts_search.training.trainer import ReflectiveGRPOTrainer, skip_head


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


def logged(run: ReflectiveGRPOTrainer, name: str) -> list[float]:
    return [row[name] for row in run.state.log_history if row.get(name) is not None]


def test_a_run_trains_both_heads_and_leaves_a_folder_to_search_with(policy: Path, tmp_path: Path) -> None:
    run = trainer(policy, tmp_path / "out", max_steps=3, save_strategy="steps", save_steps=3)
    weights = {n: p.detach().clone() for n, p in run.model.named_parameters()}
    run.train()
    optimizer: Any = run.optimizer
    groups = optimizer.param_groups
    assert [group.get("name") for group in groups] == [None, None, "sprm"]
    assert groups[2]["initial_lr"] == 1e-2
    assert groups[0]["initial_lr"] == 1e-3
    assert sum(len(group["params"]) for group in groups) == len(list(run.model.parameters()))
    changed = {n for n, p in run.model.named_parameters() if not torch.equal(p, weights[n])}
    assert {"sprm.layers.0.weight", "lm_head.weight"} <= changed
    names = {"sprm/loss", "sprm/score_right", "sprm/gap", "sprm/auc", "sprm/kept_wrong", "sprm/best_of_group", "reward"}
    assert all(len(logged(run, name)) == 3 for name in names)

    checkpoint = tmp_path / "out" / "checkpoint-3"
    assert not any("sprm" in name for name in load_file(checkpoint / "model.safetensors"))
    head = SPRM.from_pretrained(checkpoint, hidden_size=WIDTH)
    for name, value in run.head.state_dict().items():
        assert torch.equal(head.state_dict()[name], value)
    with Searcher(checkpoint, generator="transformers", max_tokens=12, answer_tokens=4) as searcher:
        assert searcher.search("Using 1, make 3.", effort="low").score is not None


def batch_of(run: ReflectiveGRPOTrainer) -> dict[str, Any]:
    torch.manual_seed(1)
    run.model.train()
    rows = [row for row in run.train_dataset for _ in range(run.num_generations)][:8]
    return run._generate_and_score_completions(rows)


def losses(run: ReflectiveGRPOTrainer, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """The head's share of the loss alone, and all gradients of the whole."""
    run.model.train()
    run.current_gradient_accumulation_steps = 1
    for module in run.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    run.model.zero_grad()
    run._compute_loss(run.model, batch).backward()
    gradients = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}
    return run._metrics["train"]["sprm/loss"][-1], gradients


@pytest.mark.parametrize("readout", ["previous", "step"])
def test_the_head_reads_the_second_to_last_hidden_states_at_the_steps(
    policy: Path, tmp_path: Path, readout: str
) -> None:
    run = trainer(policy, tmp_path, readout=readout, head_loss="bce")
    batch = batch_of(run)
    got, _ = losses(run, batch)
    tokenizer = PretrainedTokenizer(policy)
    segmenter = Segmenter(tokenizer)
    clean: Any = AutoModelForCausalLM.from_pretrained(policy)
    logits, outcomes = list[torch.Tensor](), list[float]()
    for row in range(8):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row] == 1].tolist()
        response = batch["completion_ids"][row][batch["completion_mask"][row] == 1].tolist()
        ends, _ = segmenter.scan(segmenter.start(prompt), response)
        with torch.no_grad():
            states = clean(torch.tensor([prompt + response]), output_hidden_states=True).hidden_states[-2][0]
            logits += [run.head(states[len(prompt) + end - 1 - (readout == "previous")]) for end in ends]
        outcomes += [float(batch["outcome"][row])] * len(ends)
    assert len(logits) > 8
    expected = process_loss(torch.stack(logits), torch.tensor(outcomes), "bce")
    assert got == pytest.approx(float(expected), abs=1e-5)


def test_gradient_checkpointing_changes_nothing_and_the_gradient_into_the_backbone_is_as_set(
    policy: Path, tmp_path: Path
) -> None:
    plain = trainer(policy, tmp_path, backbone_gradient=1.0)
    batch = batch_of(plain)
    _, whole = losses(plain, batch)
    checkpointed = trainer(policy, tmp_path, backbone_gradient=1.0, gradient_checkpointing=True)
    checkpointed.model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed.head.load_state_dict(plain.head.state_dict())
    _, again = losses(checkpointed, batch)
    assert whole.keys() == again.keys()
    assert all(torch.allclose(whole[n], again[n], atol=1e-6) for n in whole)

    plain.args.backbone_gradient = 0.0
    _, detached = losses(plain, batch)
    plain.args.head_coef = 0.0
    _, without = losses(plain, batch)
    backbone = [n for n in whole if not n.startswith("sprm")]
    assert all(torch.equal(detached[n], without[n]) for n in backbone)
    first = "model.layers.0.mlp.up_proj.weight"
    assert not torch.allclose(whole[first], detached[first])
    plain.args.head_coef, plain.args.backbone_gradient = 1.0, 0.25
    _, quarter = losses(plain, batch)
    assert torch.allclose(quarter[first] - without[first], 0.25 * (whole[first] - without[first]), atol=1e-6)


def test_a_resumed_run_continues_the_curve(policy: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "constant",
    }
    whole = trainer(policy, tmp_path / "whole", **options)
    whole.train()
    resumed = trainer(policy, tmp_path / "again", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name in ("loss", "sprm/loss", "reward", "sprm/score_right"):
        assert logged(resumed, name) == pytest.approx(logged(whole, name), abs=1e-6), name
    assert len(logged(whole, "loss")) == 4


def test_a_checkpoint_of_another_head_is_refused(policy: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer(policy, tmp_path, **options).train()
    place = tmp_path / "checkpoint-1"
    SPRM(SPRMConfig(hidden_size=WIDTH * 2)).save_pretrained(place / FOLDER)
    with pytest.raises(HeadMismatchError, match=f"size {WIDTH * 2}.*size {WIDTH}"):
        trainer(policy, tmp_path, **options).train(resume_from_checkpoint=str(place))
    SPRM(SPRMConfig(hidden_size=WIDTH, readout="step")).save_pretrained(place / FOLDER)
    with pytest.raises(HeadMismatchError, match="resume with"):
        trainer(policy, tmp_path, **options).train(resume_from_checkpoint=str(place))
    with pytest.raises(HeadMismatchError, match="fitted on this policy"):
        trainer(policy, tmp_path, extra={"head": SPRM(SPRMConfig(hidden_size=5))})


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_can_go_on(sent: signal.Signals, policy: Path, tmp_path: Path) -> None:
    calls = list[int]()

    def interrupting(*, completion_ids: Any, **_: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), sent)
        return [float(i % 2) for i in range(len(completion_ids))]

    before = [signal.getsignal(number) for number in SIGNALS]
    run = trainer(policy, tmp_path, rewards=interrupting, max_steps=5)
    run.train()
    assert run.interrupted
    assert run.state.global_step == 2
    assert (tmp_path / "checkpoint-2" / FOLDER / WEIGHTS_FILE).is_file()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    again = trainer(policy, tmp_path, rewards=interrupting, max_steps=5)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 5
    assert not again.interrupted


def returning(value: Any) -> Any:
    def reward(*, completion_ids: list[Any], **_: Any) -> Any:
        return value(len(completion_ids))

    return reward


def failing(**_: Any) -> list[float]:
    raise ZeroDivisionError("oh")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (failing, "'failing' raised ZeroDivisionError on 8 completions: oh"),
        (returning(lambda n: [1.0] * (n - 1)), "'reward' returned 7 rewards for 8"),
        (returning(lambda n: [[1.0], [1.0, 2.0]] * (n // 2)), "must return one number"),
        (returning(lambda n: [float("inf")] * n), "infinite reward"),
    ],
)
def test_rewards_that_cannot_be_used(policy: Path, tmp_path: Path, reward: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        trainer(policy, tmp_path, rewards=reward).train()


def test_what_has_no_reward_teaches_nobody(policy: Path, tmp_path: Path) -> None:
    nan = float("nan")
    run = trainer(policy, tmp_path, rewards=returning(lambda n: [nan, 1.0, 0.0, None] * (n // 4)))
    run.train()
    assert all(map(lambda x: x == x, logged(run, "loss")))  # noqa: C417
    batch = batch_of(run)
    assert batch["outcome"].isnan().tolist() == [True, False, False, True] * 2
    assert batch["advantages"][0] == 0
    run = trainer(policy, tmp_path, rewards=returning(lambda n: [nan] * n))
    run.train()
    assert logged(run, "sprm/loss") == [0.0, 0.0]


def test_batches_without_steps_and_batches_of_one_kind(policy: Path, tmp_path: Path) -> None:
    run = trainer(policy, tmp_path, step_text="= 7 left", max_steps=1)
    run.train()
    assert logged(run, "sprm/loss") == [0.0]
    assert logged(run, "sprm/steps") == [0.0]
    run = trainer(policy, tmp_path, rewards=returning(lambda n: [1.0] * n), head_loss="bce", max_steps=1)
    before = copy.deepcopy(run.head.state_dict())
    run.train()
    assert logged(run, "frac_reward_zero_std") == [1.0]
    assert logged(run, "sprm/loss")[0] > 0
    assert not torch.equal(run.head.state_dict()["layers.3.weight"], before["layers.3.weight"]), "kept for the head"


def test_one_sided_groups_can_be_dropped(policy: Path, tmp_path: Path) -> None:
    pattern = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]  # the first group is all right
    run = trainer(policy, tmp_path, rewards=returning(lambda n: pattern[:n]), groups="drop")
    batch = batch_of(run)
    assert batch["completion_mask"].any(1).tolist() == [False] * 4 + [True] * 4
    assert not batch["step_mask"][:4].any()
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    run.train()
    assert logged(run, "sprm/one_sided") == [0.5, 0.5]


def test_one_sided_groups_can_be_sampled_anew(policy: Path, tmp_path: Path) -> None:
    rounds = list[list[str]]()

    def reward(*, prompts: Any, **_: Any) -> list[float]:
        rounds.append([prompt[0]["content"] for prompt in prompts])
        first = [1.0] * 4 if len(rounds) == 1 else [1.0, 0.0, 0.0, 0.0]
        second = [1.0, 1.0, 0.0, 0.0] if len(rounds) == 1 else [0.0] * 4
        return first + second

    run = trainer(policy, tmp_path, rewards=reward, groups="resample", max_completion_length=30)
    batch = batch_of(run)
    assert len(rounds) == 2, "one fresh round was enough"
    assert batch["outcome"].tolist() == [1, 0, 0, 0, 1, 1, 0, 0]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy)
    texts = tokenizer.batch_decode(batch["prompt_ids"])
    assert all(rounds[1][0] in text for text in texts[:4]), "fresh questions"
    assert all(rounds[0][4] in text for text in texts[4:])
    assert len(set(batch["group"].tolist())) == 2
    never = trainer(policy, tmp_path, rewards=returning(lambda n: [0.0] * n), groups="resample", resample_rounds=2)
    assert batch_of(never)["outcome"].tolist() == [0] * 8
    never.train()


def test_adapters_leave_the_base_alone_and_the_head_is_trained(policy: Path, tmp_path: Path) -> None:
    extra = {"peft_config": LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")}
    run = trainer(policy, tmp_path, extra=extra, max_steps=2, save_strategy="steps", save_steps=1, beta=0.01)
    before = copy.deepcopy(run.head.state_dict())
    run.train()
    trained = {n for n, p in run.model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n.startswith("sprm.") for n in trained)
    assert not any("lora_" in n and "sprm" in n for n in trained)
    assert not torch.equal(run.head.state_dict()["layers.3.weight"], before["layers.3.weight"])
    place = tmp_path / "checkpoint-1"
    base: Any = AutoModelForCausalLM.from_pretrained(policy)
    PeftModel.from_pretrained(base, str(place))
    assert not any("sprm" in name for name in load_file(place / "adapter_model.safetensors"))
    again = trainer(policy, tmp_path / "again", extra=extra, max_steps=2, beta=0.01)
    again.train(resume_from_checkpoint=str(place))
    assert again.state.global_step == 2


def test_a_warm_up_uses_bce_and_collapse_is_called(
    policy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(
        policy, tmp_path, max_steps=4, head_loss="spr", head_warmup_steps=2, alarm_window=2, head_learning_rate=0.0
    )
    with torch.no_grad():  # every score is near 1: Eq. 6 has nothing to say about wrong trajectories
        run.head.layers[3].bias.fill_(9.0)  # type: ignore[union-attr, operator]
    run.train()
    first, second, third, fourth = logged(run, "sprm/loss")
    assert min(first, second) > 1
    assert max(third, fourth) < 0.1
    assert [r.message for r in caplog.records if "collapsed" in r.message]
    assert "warmup" in caplog.text


def test_the_outcome_is_a_named_reward(policy: Path, tmp_path: Path) -> None:
    def length(*, completion_ids: Any, **_: Any) -> list[float]:
        return [0.1 * len(ids) for ids in completion_ids]

    run = trainer(policy, tmp_path, rewards=[length, correctness])
    assert run._outcome == 1
    assert set(batch_of(run)["outcome"].tolist()) <= {0.0, 1.0}
    with pytest.raises(InvalidInputError, match="set outcome_reward to one of length, failing"):
        trainer(policy, tmp_path, rewards=[length, failing])
    with pytest.raises(InvalidInputError, match="not 'other'"):
        trainer(policy, tmp_path, rewards=[length], outcome_reward="other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_liger_kernel": True}, "Liger"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant"),
    ],
)
def test_what_does_not_combine(policy: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        trainer(policy, tmp_path, **changes)


def test_a_reference_needs_a_folder(policy: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(policy)
    model.config._name_or_path = "here"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left")
    with pytest.raises(InvalidInputError, match="save the model first"):
        trainer(model, tmp_path, extra={"processing_class": tokenizer}, beta=0.1)
    with pytest.raises(InvalidInputError, match="must be a tokenizer"):
        trainer(model, tmp_path, extra={"processing_class": object()})
    for wrong in ({"head_loss": "mse"}, {"groups": "split"}, {"head_coef": -1.0}, {"resample_rounds": 0}):
        with pytest.raises(InvalidInputError):
            settings(tmp_path, **wrong)
    with pytest.raises(InvalidInputError, match="a stream"):
        trainer(policy, tmp_path, data=questions().to_iterable_dataset(), groups="resample")


def test_vllm_never_sees_the_heads_weights(policy: Path, tmp_path: Path) -> None:
    run = trainer(policy, tmp_path)
    generation: Any = object.__new__(VLLMGeneration)
    generation.model, generation._dist = run.model, run._dist
    names = [name for name, _ in generation._iter_named_params()]
    assert any(name.startswith("sprm.") for name in names)
    skip_head(generation)
    assert [name for name, _ in generation._iter_named_params()] == [n for n in names if not n.startswith("sprm.")]


def test_a_head_that_is_there_is_taken_up(policy: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    head = SPRM(SPRMConfig(hidden_size=WIDTH, readout="step", aggregation="min"))
    head.save_pretrained(tmp_path / "head")
    run = trainer(policy, tmp_path, extra={"head": tmp_path / "head"})
    assert run.head.config == head.config
    assert torch.equal(run.head.state_dict()["layers.0.weight"], head.state_dict()["layers.0.weight"])
    assert run.head.training
    assert isinstance(run.args, ReflectiveConfig)
    assert json.dumps(run.args.to_dict())
