"""Outcome reward models against `transformers` and the published computation."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from tests.scorers.reward_checkpoints import (
    CHATML,
    QUESTION,
    SIZES,
    STEPS,
    qwen_hidden,
    qwen_weights,
    train_tokenizer,
    trajectory,
    write_qwen,
    write_sequence_classifier,
)
from tts_search import InvalidInputError, ModelNotFoundError, Scorer
from tts_search.scorers.checkpoint import load_tokenizer
from tts_search.scorers.outcome import OutcomeRewardModel
from tts_search.testing.conformance import ScorerConformance

SOLUTION = "\n\n".join(STEPS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("outcome")
    return {
        "qwen": write_qwen(root / "qwen", labels=1, architecture="Qwen2ForRewardModel", head="score"),
        "one": write_sequence_classifier(root / "one"),
        "two": write_sequence_classifier(root / "two", labels=2),
        "three": write_sequence_classifier(root / "three", labels=3),
    }


def load(folder: Path) -> OutcomeRewardModel:
    return OutcomeRewardModel.from_pretrained(folder, dtype="float32", device="cpu")


def value(model: Scorer) -> float:
    (found,) = model.score([trajectory()])
    assert len(found) == len(STEPS)
    assert len(set(found)) == 1, "every step has the value of the whole"
    return found[0]


def test_qwen_math_rm(folders: dict[str, Path]) -> None:
    folder = folders["qwen"]
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    text = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        f"<|im_start|>assistant\n{SOLUTION}<|im_end|>\n"
    )
    ids = load_tokenizer(folder).encode(text, add_special_tokens=False)
    weights = qwen_weights(folder)
    hidden = torch.relu(qwen_hidden(folder, ids)[-1] @ weights["score.0.weight"].T + weights["score.0.bias"])
    number = hidden @ weights["score.2.weight"].T + weights["score.2.bias"]
    assert number.shape == (1,)
    model = load(folder)
    assert value(model) == pytest.approx(torch.sigmoid(number).item(), abs=1e-5)
    assert model.aggregation == "last"


@pytest.mark.parametrize("labels", ["one", "two"])
def test_a_sequence_classifier(labels: str, folders: dict[str, Path]) -> None:
    folder = folders[labels]
    tokenizer = load_tokenizer(folder)
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": SOLUTION}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        logits = LlamaForSequenceClassification.from_pretrained(folder).eval()(ids).logits[0]
    expected = torch.sigmoid(logits[0]) if labels == "one" else logits.softmax(-1)[1]
    assert value(load(folder)) == pytest.approx(expected.item(), abs=1e-5)


def test_the_padding_token_is_no_last_token(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders["one"]
    model = load(folder)
    end = load_tokenizer(folder).convert_tokens_to_ids("<|eot|>")
    monkeypatch.setattr(model._model.backbone.config, "pad_token_id", end)
    ids = model._encode(QUESTION, SOLUTION)
    reference = LlamaForSequenceClassification.from_pretrained(folder, pad_token_id=end).eval()
    with torch.no_grad():
        expected = torch.sigmoid(reference(torch.tensor([ids])).logits[0, 0]).item()
    assert ids[-1] == end
    assert value(model) == pytest.approx(expected, abs=1e-5)


def test_a_solution_is_read_once_and_a_longer_one_goes_on_from_it(folders: dict[str, Path]) -> None:
    model = load(folders["qwen"])
    short = model.score([trajectory(STEPS[:2])])
    long = model.score([trajectory()])
    assert long.tokens < load(folders["qwen"]).score([trajectory()]).tokens
    assert short.tokens > 0
    again = model.score([trajectory(), trajectory(STEPS[:2]), trajectory([])])
    assert again.tokens == 0
    assert again == [long[0], short[0], []]


def test_a_classifier_of_other_labels_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError, match="has 3 labels"):
        load(folders["three"])


def test_a_language_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = write_qwen(tmp_path, labels=2, architecture="Qwen2ForPrmModel", head="v_head")
    with pytest.raises(ModelNotFoundError, match=r"lack score\.weight"):
        load(folder)


def test_of_a_solution_longer_than_the_context_as_many_steps_are_read_as_fit(folders: dict[str, Path]) -> None:
    steps = [f"Take {i}, add {'x y ' * 20}and go on." for i in range(20)]
    model = load(folders["one"])
    found = model.score([trajectory(steps), trajectory()])
    read = len(found[0])
    assert 1 < read < len(steps)
    assert found.unread is not None
    assert "reads 512 tokens" in found.unread
    whole = load(folders["one"]).score([trajectory(steps[:read])])
    assert list(found[0]) == pytest.approx(list(whole[0]), abs=1e-5), "the value of what fits"
    assert whole.unread is None
    longer = len(model._encode(QUESTION, "\n\n".join(steps[: read + 1])))
    assert longer > 512, "and no more fits"
    assert len(found[1]) == len(STEPS)
    lost = model.score([trajectory(question="x y " * 300)])
    assert lost == [[]]
    assert lost.unread is not None


ACEMATH = "Please reason step by step, and check your final answer within \\boxed{}."


@pytest.mark.parametrize(("name", "system"), [("AceMath-7B-RM", ACEMATH), ("Skywork-Reward-V2-Qwen3-4B", None)])
def test_published_sequence_classifiers(name: str, system: str | None, tmp_path: Path) -> None:
    folder = tmp_path / name
    tokenizer = train_tokenizer(special=["<|im_start|>", "<|im_end|>"], template=CHATML)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(6)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": len(tokenizer), "num_labels": 1, "head_dim": 16}
    if system:
        Qwen2ForSequenceClassification(Qwen2Config(**sizes)).save_pretrained(folder)
    else:
        Qwen3ForSequenceClassification(Qwen3Config(**sizes)).save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    for key in ("id2label", "label2id", "num_labels"):  # AceMath's code says how many there are, its config does not
        described.pop(key, None)
    (folder / "config.json").write_text(json.dumps(described))
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": SOLUTION}]
    turns = [{"role": "system", "content": system}, *turns] if system else turns
    conversation_str = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False))
    input_ids = tokenizer.encode(conversation_str, return_tensors="pt", add_special_tokens=False)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    with torch.no_grad():
        expected = torch.sigmoid(model(input_ids).logits[0][0]).item()
    assert value(load(folder)) == pytest.approx(expected, abs=1e-5)


class TestOutcomeRewardModel(ScorerConformance):
    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _folder(self, folders: dict[str, Path]) -> None:
        self.folder = folders["one"]

    def make_scorer(self) -> Scorer:
        return load(self.folder)
