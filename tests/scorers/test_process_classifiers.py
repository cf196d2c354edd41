"""Families with heads of their own, and how a checkpoint is recognized: each against its authors' computation."""

from __future__ import annotations

import json
import math
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertForTokenClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
)

from tests.scorers.reward_checkpoints import (
    CHATML,
    QUESTION,
    SIZES,
    STEPS,
    TrainingArguments,
    qwen_hidden,
    qwen_weights,
    train_tokenizer,
    trajectory,
    write_language_model,
    write_qwen,
    write_token_classifier,
)
from tts_search import InvalidInputError, ModelNotFoundError, Scorer
from tts_search.scorers.aggregate import resolve_aggregation
from tts_search.scorers.checkpoint import load_tokenizer, training_argument
from tts_search.scorers.process import ProcessRewardModel
from tts_search.testing.conformance import ScorerConformance

FAMILIES = {
    "trl": "TokenClassifierPRM",
    "pure": "PurePRM",
    "reasonflux": "ReasonFluxPRM",
    "reasonflux-1.5b": "ReasonFluxSmallPRM",
    "universal": "UniversalPRM",
    "universal-linear": "UniversalPRM",
    "actprm": "ActPRM",
    "math-psa": "MathPSA",
}
AGGREGATIONS = {"pure": "soft_min", "universal": "last", "universal-linear": "last", "reasonflux-1.5b": "last"}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("classifiers")
    classifier: dict[str, Any] = {"architecture": "Qwen2ForProcessRewardModel", "head": "score"}
    value: dict[str, Any] = {"architecture": "Qwen2ForRewardModel", "head": "score"}
    return {
        "trl": write_token_classifier(root / "mine", separator="\n\n"),
        "pure": write_token_classifier(root / "PURE-PRM-7B", separator=None),
        "reasonflux": write_qwen(root / "ReasonFlux-PRM-7B", labels=2, **classifier),
        "reasonflux-1.5b": write_reward_head(root / "any"),
        "universal": write_qwen(root / "Universal-PRM-7B", labels=1, **value),
        "universal-linear": write_linear(root / "universal-prm-linear"),
        "actprm": write_qwen(root / "x", labels=1, architecture="Qwen2ForEnsemblePRM", head="ensemble"),
        "math-psa": write_language_model(
            root / "Math-psa", "llama", train_tokenizer(words=[" \n\n\n\n\n", " +", " -"]), context_tokens=512
        ),
    }


def write_reward_head(folder: Path) -> Path:
    write_qwen(folder, labels=1, architecture="Qwen2ForCausalLM", head="score")
    torch.manual_seed(5)
    torch.save({"weight": torch.randn(1, 32) / 3, "bias": torch.randn(1)}, folder / "reward_head.pt")
    return folder


def write_linear(folder: Path) -> Path:
    """A linear head in a file that only pickle can hold, without a name for its architecture."""
    write_qwen(folder, labels=1, architecture="ForUniversal", head="score")
    weights = {name: value for name, value in qwen_weights(folder).items() if not name.startswith("score")}
    weights["score.weight"] = torch.randn(1, 32) / 3
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def load(folder: Path, **options: Any) -> ProcessRewardModel:
    return ProcessRewardModel.from_pretrained(folder, dtype="float32", device="cpu", **options)


# The reference computations, each as its authors publish it.


def trl(folder: Path, separator: str = "\n\n") -> list[float]:
    """`PRMTrainer.tokenize_row`, and the probability of label 1 where it puts a label."""
    tokenizer = load_tokenizer(folder)
    prompt_ids = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    completions_ids = [tokenizer(step, add_special_tokens=False)["input_ids"] for step in STEPS]
    separator_ids = tokenizer.encode(separator, add_special_tokens=False)
    completions_ids = [completion + separator_ids for completion in completions_ids]
    labels = [-100] * len(prompt_ids)
    for completion in completions_ids:
        labels += [-100] * (len(completion) - 1) + [1]
    if tokenizer.bos_token_id is not None:
        prompt_ids, labels = [tokenizer.bos_token_id, *prompt_ids], [-100, *labels]
    ids = torch.tensor([[*prompt_ids, *(token for completion in completions_ids for token in completion)]])
    with torch.no_grad():
        logits = Qwen2ForTokenClassification.from_pretrained(folder).eval()(ids).logits[0]
    return logits.softmax(dim=-1)[torch.tensor(labels) == 1, 1].tolist()


def pure(folder: Path) -> list[float]:
    """Their reward, and from [-1, 1] to [0, 1]."""
    tokenizer = load_tokenizer(folder)
    separator = tokenizer("\n", add_special_tokens=False, return_tensors="pt")["input_ids"]
    input_ids = tokenizer(QUESTION, add_special_tokens=False, return_tensors="pt")["input_ids"]
    score_ids = []
    for step in STEPS:
        step_ids = tokenizer(step, add_special_tokens=False, return_tensors="pt")["input_ids"]
        input_ids = torch.cat([input_ids, step_ids, separator], dim=-1)
        score_ids.append(input_ids.size(-1) - 1)
    with torch.no_grad():
        logits = Qwen2ForTokenClassification.from_pretrained(folder).eval()(input_ids).logits[0]
    probs = logits[score_ids].softmax(dim=-1)
    return ((1 + probs[:, 1] - probs[:, 0]) / 2).tolist()


def chat(folder: Path, messages: list[dict[str, str]]) -> tuple[list[int], Tensor]:
    tokenizer = load_tokenizer(folder)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = tokenizer.encode(text)
    return ids, torch.tensor(ids) == tokenizer.convert_tokens_to_ids("<extra_0>")


def reasonflux(folder: Path) -> list[float]:
    said = "<extra_0>".join(STEPS) + "<extra_0>"
    ids, mask = chat(folder, [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": said}])
    weights = qwen_weights(folder)
    hidden = torch.relu(qwen_hidden(folder, ids) @ weights["score.0.weight"].T + weights["score.0.bias"])
    logits = hidden @ weights["score.2.weight"].T + weights["score.2.bias"]
    return logits.softmax(-1)[mask, 1].tolist()


def reasonflux_small(folder: Path) -> list[float]:
    """Question and the completion so far, one behind the other; at the last token."""
    tokenizer = load_tokenizer(folder)
    model = Qwen2ForCausalLM.from_pretrained(folder).eval()
    head = torch.nn.Linear(32, 1)
    head.load_state_dict(torch.load(folder / "reward_head.pt"))
    found = []
    for k in range(1, len(STEPS) + 1):
        encoded = tokenizer(QUESTION + "\n\n".join(STEPS[:k]), return_tensors="pt")
        with torch.no_grad():
            hidden = model(encoded["input_ids"], output_hidden_states=True).hidden_states[-1]
            found.append(torch.sigmoid(head(hidden[0, -1])).item())
    return found


def universal_ids(folder: Path, steps: Sequence[str]) -> list[int]:
    tokenizer = load_tokenizer(folder)
    asked = QUESTION + "\n\n###\n\nThe reference answer is: There is no reference answer for this question."
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": asked}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    answer_tokens = tokenizer("\n\n".join(steps) + "\n\n")["input_ids"]
    return [*tokenizer.encode(text, add_special_tokens=False), *answer_tokens, tokenizer.eos_token_id]


def universal(folder: Path) -> list[float]:
    weights = qwen_weights(folder)
    found = []
    for step_idx in range(1, len(STEPS) + 1):
        hidden = qwen_hidden(folder, universal_ids(folder, STEPS[:step_idx]))[-1]
        hidden = torch.relu(hidden @ weights["score.0.weight"].T + weights["score.0.bias"])
        found.append(torch.sigmoid(hidden @ weights["score.2.weight"].T + weights["score.2.bias"]).item())
    return found


def universal_linear(folder: Path) -> list[float]:
    model = Qwen2ForSequenceClassification.from_pretrained(folder, num_labels=1, use_safetensors=False).eval()
    found = []
    for step_idx in range(1, len(STEPS) + 1):
        with torch.no_grad():
            outputs = model(torch.tensor([universal_ids(folder, STEPS[:step_idx])]))
        found.append(torch.sigmoid(outputs.logits[0]).item())
    return found


def actprm(folder: Path) -> list[float]:
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    said = "<extra_0>".join(STEPS) + "<extra_0>"
    turns = [{"role": "system", "content": system}, {"role": "user", "content": QUESTION}]
    ids, mask = chat(folder, [*turns, {"role": "assistant", "content": said}])
    weights = qwen_weights(folder)
    x = qwen_hidden(folder, ids)[None, None].repeat(4, 1, 1, 1)
    for place in ("nn1", "nn2", "nn_out"):
        x = torch.einsum("eblh,ehm->eblm", x, weights[f"score.model.{place}.weight"])
        x = torch.add(x, weights[f"score.model.{place}.bias"][:, None, None, :])
        x = x if place == "nn_out" else torch.relu(x)
    return torch.sigmoid(x.squeeze(-1))[:, 0, mask].mean(dim=0).tolist()


def math_psa(folder: Path) -> list[float]:
    from transformers import LlamaForCausalLM

    tokenizer = load_tokenizer(folder)
    candidate_tokens = tokenizer.encode(" + -")
    step_tag_id = tokenizer.encode(" \n\n\n\n\n")[-1]
    assert len(candidate_tokens) == 2
    answer = " \n\n\n\n\n ".join(f"Step {i}: {step}" for i, step in enumerate(STEPS, start=1)) + " \n\n\n\n\n "
    input_id = torch.tensor([tokenizer.encode(f"{QUESTION} {answer}")])
    with torch.no_grad():
        logits = LlamaForCausalLM.from_pretrained(folder).eval()(input_id).logits[:, :, candidate_tokens]
    return logits.softmax(dim=-1)[:, :, 0][input_id == step_tag_id].tolist()


REFERENCES = {
    "trl": trl,
    "pure": pure,
    "reasonflux": reasonflux,
    "reasonflux-1.5b": reasonflux_small,
    "universal": universal,
    "universal-linear": universal_linear,
    "actprm": actprm,
    "math-psa": math_psa,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_reference(family: str, checkpoints: dict[str, Path]) -> None:
    expected = REFERENCES[family](checkpoints[family])
    assert len({round(value, 3) for value in expected}) == len(STEPS), "the reference tells the steps apart"
    model = load(checkpoints[family])
    assert type(model.family).__name__ == FAMILIES[family]
    assert model.warnings == ()
    assert [list(values) for values in model.score([trajectory()])] == [pytest.approx(expected, abs=1e-5)]
    assert model.aggregation == AGGREGATIONS.get(family, "min")


@pytest.mark.parametrize("family", FAMILIES)
def test_growing_in_steps_gives_the_same_and_reads_less(family: str, checkpoints: dict[str, Path]) -> None:
    whole = load(checkpoints[family]).score([trajectory()])
    growing = load(checkpoints[family])
    growing.score([trajectory(STEPS[:1])])
    last = growing.score([trajectory(), trajectory(STEPS[:2]), trajectory([])])
    assert [list(v) for v in last] == [pytest.approx(list(whole[0][:k]), abs=1e-5) for k in (3, 2, 0)]
    assert last.tokens < whole.tokens
    assert growing.score([trajectory()]).tokens == 0


class TestConformance(ScorerConformance):
    tolerance = 1e-5

    @pytest.fixture(autouse=True, params=sorted(FAMILIES))
    def _checkpoint(self, request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> None:
        self.folder = checkpoints[request.param]

    def make_scorer(self) -> Scorer:
        return load(self.folder)


@pytest.mark.parametrize("scores", [[0.9], [0.9, 0.2, 0.7], [0.0, 1.0], [0.5] * 40])
def test_pure_s_weighted_sum(scores: list[float]) -> None:
    rewards = torch.tensor([2 * s - 1 for s in scores], dtype=torch.float64)
    expected = (torch.softmax(-rewards / 0.1, dim=-1) * rewards).sum()  # in [-1, 1]
    assert resolve_aggregation("soft_min")(scores) == pytest.approx((1 + expected.item()) / 2)


# How a checkpoint is recognized.


@pytest.mark.parametrize("separator", ["\n\n", "\n", " ки\n", "step_separator", "|"])
def test_the_separator_is_the_one_of_the_training(separator: str, tmp_path: Path) -> None:
    folder = write_token_classifier(tmp_path, separator=separator)
    assert training_argument(folder, "step_separator") == separator
    assert training_argument(folder, "max_length") is None, "no text"
    assert training_argument(folder, "sep") is None
    model = load(folder)
    assert model.warnings == ()
    assert list(model.score([trajectory()])[0]) == pytest.approx(trl(folder, separator), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "card", "separator"),
    [
        ("Qwen2.5-Math-1.5B-Instruct-PRM-0.2", "", "\n\n"),
        ("Qwen2.5-0.5B-Math-Shepherd-PRM-0.2", "", "\n"),
        ("copy", "---\nlicense: x\n---\n\n# Qwen2.5-Math-7B-PRM-0.1\n", "\n\n"),
        ("copy", "---\nlicense: x\n---\n\n# Qwen2-0.5B-Reward-Math-Sheperd\n", "\n"),
    ],
)
def test_the_separator_of_what_trl_s_people_published(name: str, card: str, separator: str, tmp_path: Path) -> None:
    folder = write_token_classifier(tmp_path / name, separator=None)
    (folder / "README.md").write_text(card)
    model = load(folder)
    assert model.warnings == ()
    assert list(model.score([trajectory()])[0]) == pytest.approx(trl(folder, separator), abs=1e-5)


def test_a_separator_that_nothing_tells_is_a_warning_and_can_be_said(tmp_path: Path) -> None:
    folder = write_token_classifier(tmp_path / "mine", separator=None)
    guessed, said = load(folder), load(folder, separator="\n\n")
    assert len(guessed.warnings) == 1
    assert "pass separator=" in guessed.warnings[0]
    assert list(guessed.score([trajectory()])[0]) == pytest.approx(trl(folder, "\n"), abs=1e-5)
    assert said.warnings == ()
    assert list(said.score([trajectory()])[0]) == pytest.approx(trl(folder, "\n\n"), abs=1e-5)
    with pytest.raises(InvalidInputError, match="separator='' is no token"):
        load(folder, separator="")


def test_a_separator_is_nothing_to_other_families(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError, match="separator='x' is for token classifiers"):
        load(checkpoints["actprm"], separator="x")


class Bomb:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["training_args.bin", "reward_head.pt"])
def test_no_pickle_is_carried_out(name: str, tmp_path: Path) -> None:
    folder = write_token_classifier(tmp_path / "mine", separator=None)
    torch.save({"step_separator": "\n\n", "b": Bomb(tmp_path / "went-off")}, folder / name)
    if name == "reward_head.pt":
        with pytest.raises(ModelNotFoundError, match=r"reward_head\.pt' is not the linear layer|lack lm_head"):
            load(folder)
    else:
        assert training_argument(folder, "step_separator") == "\n\n"
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps({"step_separator": "x"}), b"\x80\x02X\xff"])
def test_arguments_that_are_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "training_args.bin").write_bytes(data)
    assert training_argument(tmp_path, "step_separator") is None
    with zipfile.ZipFile(tmp_path / "training_args.bin", "w") as archive:
        archive.writestr("x/data.pkl", data[:6])
    assert training_argument(tmp_path, "step_separator") is None


@pytest.mark.parametrize("task", ["TOKEN_CLS", "CAUSAL_LM"])
def test_an_adapter_stands_on_its_base(task: str, tmp_path: Path) -> None:
    """As TRL saves with LoRA, and as Math-PSA is published: the adapter alone, with or without a tokenizer."""
    import peft

    base, folder = tmp_path / "base", tmp_path / ("Math-psa" if task == "CAUSAL_LM" else "mine")
    words = ["\n\n", " \n\n\n\n\n", " +", " -"]
    tokenizer = train_tokenizer(special=["<|im_start|>", "<|im_end|>"], template=CHATML, words=words)
    tokenizer.save_pretrained(base)
    torch.manual_seed(7)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": len(tokenizer), "tie_word_embeddings": False}
    Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained(base)
    kind = AutoModelForTokenClassification if task == "TOKEN_CLS" else Qwen2ForCausalLM
    targets = ["q_proj", "v_proj"] if task == "TOKEN_CLS" else ["q_proj", "lm_head"]
    config = peft.LoraConfig(task_type=task, r=4, init_lora_weights=False, target_modules=targets)
    adapted = peft.get_peft_model(kind.from_pretrained(base), config)
    adapted.save_pretrained(str(folder))
    if task == "TOKEN_CLS":
        tokenizer.save_pretrained(folder)
        torch.save(TrainingArguments(step_separator="\n\n"), folder / "training_args.bin")
    model = load(folder)
    encoded = model.family.encode(QUESTION, STEPS)
    with torch.no_grad():
        logits = adapted.eval()(torch.tensor([encoded.token_ids])).logits[0, list(encoded.positions)]
    good, bad = model.family.columns
    expected = torch.sigmoid(logits[:, good] - logits[:, bad]).tolist()
    assert list(model.score([trajectory()])[0]) == pytest.approx(expected, abs=1e-5)
    assert model.warnings == ()


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    sizes = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
    BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError, match="BertForTokenClassification, which is no decoder"):
        load(tmp_path)


def test_other_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="tells 5 labels of a token apart"):
        load(write_token_classifier(tmp_path, separator="\n", labels=5))


def test_a_head_that_is_not_known_is_named(tmp_path: Path) -> None:
    folder = write_qwen(tmp_path / "Universal-PRM-7B", labels=1, architecture="Unknown", head="other")
    with pytest.raises(ModelNotFoundError, match=r"hold judge\.weight beside the backbone: a head is known as"):
        load(folder)


QWEN = {"architectures": ["Qwen2ForProcessRewardModel"]}


@pytest.mark.parametrize(
    ("described", "name", "card", "family"),
    [
        (QWEN, "x", "# ReasonFlux-PRM-7B", "ReasonFluxPRM"),
        (QWEN | {"_name_or_path": "a/ReasonFlux-PRM-7B"}, "x", "", "ReasonFluxPRM"),
        (QWEN, "x", "# Better than ReasonFlux", "QwenMathPRM"),
        (QWEN, "math-shepherd", "", "QwenMathPRM"),
        ({"architectures": ["Qwen2ForTokenClassification"]}, "x", "# PURE's PRM based on Qwen2.5-Math-7B", "PurePRM"),
        ({}, "Qwen2.5-Math-PRM-7B", "", "QwenMathPRM"),
    ],
)
def test_what_tells_a_family(described: dict[str, Any], name: str, card: str, family: str, tmp_path: Path) -> None:
    from tts_search.scorers.process.families import recognize

    folder = tmp_path / name
    train_tokenizer(special=["<extra_0>"], template=CHATML).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n{card}\n\n# Math-PSA\n")
    assert type(recognize(folder, str(folder), None, None).family).__name__ == family


def test_a_policy_of_reasonflux_s_is_no_reward_model(tmp_path: Path) -> None:
    folder = tmp_path / "ReasonFlux-PRM-Qwen-2.5-7B"
    train_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]}))
    with pytest.raises(InvalidInputError, match="which family of process reward models is"):
        load(folder)


def test_ensembles_near_certainty_keep_their_digits() -> None:
    from tts_search.scorers.engine_sprm import probability
    from tts_search.scorers.reward_heads import Ensemble

    heads = Ensemble(2, 3, 2)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
        heads.nn_out.bias.copy_(torch.tensor([[18.0], [20.0]]))
        (logit,) = heads(torch.zeros(1, 2))[0].tolist()
    mean = sum(1 / (1 + math.exp(-x)) for x in (18.0, 20.0)) / 2
    assert 1 - probability(logit) == pytest.approx(1 - mean, rel=1e-6)
