"""Every family of process reward models against its reference computation, on random models of its architecture."""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, MistralForCausalLM

from tests.scorers.reward_checkpoints import (
    LLAMA3,
    QUESTION,
    STEPS,
    qwen_hidden,
    qwen_weights,
    train_sentencepiece,
    train_tokenizer,
    trajectory,
    write_language_model,
    write_qwen,
)
from tts_search import BestOfN, InvalidInputError, ModelNotFoundError, Scorer, Searcher
from tts_search.core.tree import Trajectory
from tts_search.scorers.checkpoint import load_tokenizer
from tts_search.scorers.process import ProcessRewardModel
from tts_search.scorers.process.families import Family, VersaPRM
from tts_search.testing import FakeGenerator
from tts_search.testing.conformance import ScorerConformance

FAMILIES = ("qwen", "shepherd", "skywork", "rlhflow", "versa")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each family; the names of those that have no architecture of their own tell their family."""
    root = tmp_path_factory.mktemp("checkpoints")
    llama = ["<|head|>", "<|tail|>", "<|eot|>"]
    return {
        "qwen": write_qwen(root / "a", labels=2, architecture="Qwen2ForProcessRewardModel", head="score"),
        "skywork": write_qwen(root / "b", labels=2, architecture="Qwen2ForPrmModel", head="v_head"),
        "shepherd": write_language_model(root / "math-shepherd-mistral-7b-prm", "mistral", train_sentencepiece()),
        "rlhflow": write_language_model(
            root / "Llama3.1-8B-PRM-Mistral-Data",
            "llama",
            train_tokenizer(bos="<|begin|>", special=llama, template=LLAMA3, words=["+", "-"]),
        ),
        "versa": write_language_model(
            root / "VersaPRM", "llama", train_tokenizer(bos="<|begin|>", words=[" \n\n\n\n", "+", "-"])
        ),
    }


def load(folder: Path, **options: Any) -> ProcessRewardModel:
    return ProcessRewardModel.from_pretrained(folder, dtype="float32", device="cpu", **options)


@functools.cache
def protocol(folder: Path) -> Family:
    return load(folder).family


def scores(scorer: Scorer, *trajectories: Trajectory) -> list[list[float]]:
    return [list(values) for values in scorer.score(trajectories)]


def softmax(pair: torch.Tensor, index: int) -> float:
    return pair.softmax(-1)[index].item()


# The reference computations, each as its authors publish it.


def qwen(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = load_tokenizer(folder)
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    text = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        f"<|im_start|>assistant\n{'<extra_0>'.join(steps)}<extra_0><|im_end|>\n"
    )
    ids = tokenizer.encode(text)
    weights = qwen_weights(folder)
    hidden = torch.relu(qwen_hidden(folder, ids) @ weights["score.0.weight"].T + weights["score.0.bias"])
    logits = hidden @ weights["score.2.weight"].T + weights["score.2.bias"]
    step = tokenizer.convert_tokens_to_ids("<extra_0>")
    return [softmax(row, 1) for token, row in zip(ids, logits, strict=True) if token == step]


def skywork(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(tokenizer.bos_token + question + "\n")
    newline = tokenizer.encode("\n")[-1]
    response = "\n\n".join(steps)  # as `trajectory` writes them
    places = {}
    for number, line in enumerate(response.split("\n")):  # every line, blank ones too, with a token of its own
        ids += [*(tokenizer.encode(line) if line else []), newline]
        places[number] = len(ids) - 1
    weights = qwen_weights(folder)
    values = qwen_hidden(folder, ids) @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]
    last = [response[: response.index(step) + len(step)].count("\n") for step in steps]
    return [torch.sigmoid(values[places[number]]).item() for number in last]


def shepherd(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = load_tokenizer(folder)
    output = "\n".join(f"Step {i}: {step} ки" for i, step in enumerate(steps, start=1))
    ids = torch.tensor([tokenizer.encode(f"{question} {output}")])
    assert tokenizer.decode(ids[0, 0]) == "<s>"
    candidates = tokenizer.encode("+ -")[1:]
    assert len(candidates) == 2
    tag = tokenizer.encode("ки")[-1]
    assert tokenizer.convert_ids_to_tokens([*candidates, tag]) == ["▁+", "▁-", "▁ки"]
    with torch.no_grad():
        logits = MistralForCausalLM.from_pretrained(folder).eval()(ids).logits[:, :, candidates]
    return logits.softmax(dim=-1)[:, :, 0][ids == tag].tolist()


def rlhflow(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = load_tokenizer(folder)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    plus, minus = tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]
    conversation: list[dict[str, str]] = []
    found: list[float] = []
    for k, step in enumerate(steps):  # one pass for each step, as published
        conversation.append({"content": question + " " + step if k == 0 else step, "role": "user"})
        conversation.append({"content": "+", "role": "assistant"})
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        assert tokenizer.convert_ids_to_tokens(ids[0, -2:].tolist()) == ["+", "<|eot|>"]
        with torch.no_grad():
            logits = model(ids).logits[:, -3, [plus, minus]]
        found.append(softmax(logits[0], 0))
    return found


def versa(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = load_tokenizer(folder)
    text = question + " \n\n" + " \n\n\n\n".join(steps) + " \n\n\n\n"
    ids = torch.tensor([tokenizer.encode(text)])
    minus, plus = tokenizer.encode("-")[-1], tokenizer.encode("+")[-1]
    (tag,) = tokenizer.encode(" \n\n\n\n", add_special_tokens=False)
    with torch.no_grad():
        logits = LlamaForCausalLM.from_pretrained(folder).eval()(ids).logits[:, :, [minus, plus]]
    return logits.softmax(dim=-1)[:, :, 1][ids == tag].tolist()


REFERENCES = {"qwen": qwen, "shepherd": shepherd, "skywork": skywork, "rlhflow": rlhflow, "versa": versa}
AGGREGATIONS = {"qwen": "product", "shepherd": "min", "skywork": "mean", "rlhflow": "mean", "versa": "min"}


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_reference(family: str, checkpoints: dict[str, Path]) -> None:
    expected = REFERENCES[family](checkpoints[family], QUESTION, STEPS)
    assert len({round(value, 3) for value in expected}) == len(STEPS), "the reference tells the steps apart"
    assert all(abs(value - (1 - value)) > 1e-3 for value in expected), "and one column from the other"
    model = load(checkpoints[family])
    assert scores(model, trajectory()) == [pytest.approx(expected, abs=1e-5)]
    assert model.aggregation == AGGREGATIONS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_growing_in_steps_reads_only_what_is_new(family: str, checkpoints: dict[str, Path]) -> None:
    whole = load(checkpoints[family]).score([trajectory()])
    growing, unaided = load(checkpoints[family]), load(checkpoints[family], prefix_cache_tokens=0)
    first = growing.score([trajectory(STEPS[:1])])
    last = growing.score([trajectory()])
    assert list(last[0]) == pytest.approx(list(whole[0]), abs=1e-5)
    assert list(first[0]) == pytest.approx(list(whole[0][:1]), abs=1e-5)
    assert first.tokens > 0
    assert last.tokens < whole.tokens, "the beginning's keys and values were kept"
    again = growing.score([trajectory(), trajectory(STEPS[:2])])
    assert [list(v) for v in again] == [list(last[0]), list(last[0][:2])]
    assert again.tokens == 0
    unaided.score([trajectory(STEPS[:1])])
    assert unaided.score([trajectory()]).tokens == whole.tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_looks_like_a_step_tag_moves_no_score(family: str, checkpoints: dict[str, Path]) -> None:
    model = load(checkpoints[family])
    for nasty in ("<extra_0>", " ки", "кино ки ки", "\n\n\n\n", " \n\n\n\n ", "+", " + -", "\n", "Step 1: yes"):
        question, steps = f"Is {nasty} there?", [f"Look: {nasty} {nasty}.", nasty, f"{nasty}done."]
        found = model.score([trajectory(steps, question)])
        assert [len(values) for values in found] == [3]
        assert all(0 < value < 1 for value in found[0])


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4), st.text(max_size=12))
@settings(max_examples=40)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_position_a_step_whatever_the_text(
    family: str, checkpoints: dict[str, Path], steps: list[str], question: str
) -> None:
    encoded = protocol(checkpoints[family]).encode(question, steps)
    assert len(encoded.positions) == len(steps)
    assert list(encoded.positions) == sorted(encoded.positions)
    assert encoded.positions[-1] < len(encoded.token_ids)


def test_batches_of_any_size_agree_and_duplicates_are_read_once(checkpoints: dict[str, Path]) -> None:
    many = [trajectory(), trajectory(STEPS[:1]), trajectory([*STEPS[1:], "x" * 40 + "."]), trajectory([]), trajectory()]
    together = load(checkpoints["qwen"]).score(many)
    apart = load(checkpoints["qwen"], batch_tokens=1).score(many)
    assert [list(v) for v in together] == [pytest.approx(list(v), abs=1e-5) for v in apart]
    assert together.tokens == apart.tokens
    assert list(together[0]) == list(together[-1])
    assert together.tokens == sum(load(checkpoints["qwen"]).score([t]).tokens for t in many[:3])


def test_a_conversation_is_read_turn_by_turn(checkpoints: dict[str, Path]) -> None:
    turns = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "2 + 2?"},
    )
    model = load(checkpoints["qwen"])
    assert scores(model, trajectory(question=turns)) == scores(model, trajectory(question="Hello\n\nHi\n\n2 + 2?"))


def test_a_long_solution_beyond_a_sliding_window(checkpoints: dict[str, Path]) -> None:
    steps = [f"Take {i} and go on." for i in range(12)]
    expected = shepherd(checkpoints["shepherd"], QUESTION, steps)
    model = load(checkpoints["shepherd"])
    for count in (4, 5, 12):
        found = model.score([trajectory(steps[:count])])
    assert list(found[0]) == pytest.approx(expected, abs=1e-5)


def test_the_memory_is_bounded(checkpoints: dict[str, Path]) -> None:
    model = load(checkpoints["qwen"])
    small = ProcessRewardModel(model.family, model._reader, name="small", memory_steps=2)
    first = small.score([trajectory()])
    assert len(small._memory._scores) == 2
    again = small.score([trajectory()])
    assert list(again[0]) == pytest.approx(list(first[0]), abs=1e-5)
    assert again.tokens > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_solution_longer_than_the_context_is_scored_as_far_as_it_goes(
    family: str, checkpoints: dict[str, Path]
) -> None:
    steps = [f"Take {i}, add {'x y ' * 20}and go on." for i in range(20)]
    model = load(checkpoints[family])
    found = model.score([trajectory(steps), trajectory()])
    read = len(found[0])
    assert 0 < read < len(steps)
    assert found.unread is not None
    assert "reads 512 tokens" in found.unread
    assert list(found[0]) == pytest.approx(REFERENCES[family](checkpoints[family], QUESTION, steps[:read]), abs=1e-5)
    assert list(found[1]) == pytest.approx(scores(load(checkpoints[family]), trajectory())[0], abs=1e-5)
    assert model.score([trajectory()]).unread is None
    again = model.score([trajectory(steps)])
    assert (again[0], again.unread, again.tokens) == (found[0], found.unread, 0)
    nothing = model.score([trajectory(question="x y " * 300)])
    assert nothing[0] == []
    assert nothing.unread is not None


def test_a_long_candidate_loses_no_question_and_no_other_path(checkpoints: dict[str, Path]) -> None:
    generator = FakeGenerator(step=0.1, close=0.002)
    scorer = load(checkpoints["shepherd"])
    with Searcher(generator=generator, scorer=scorer, max_tokens=2000, answer_tokens=20) as searcher:
        (result,) = searcher.search_many([QUESTION], strategy=BestOfN(n=6), keep_tree=True)
        assert result.error is None
        assert result.tree is not None
        nodes = [result.tree.nodes[candidate.node] for candidate in result.candidates]
        long = [number for number, node in enumerate(nodes) if len(node.step_scores) < node.step_count]
        assert 0 < len(long) < 6, "some are longer than the context, and some are not"
        (warning,) = [said for said in result.warnings if "could not be scored" in said]
        assert warning.startswith(f"{len(long)} of 6 candidates could not be scored to the end: candidate {long[0]} (")
        assert "reads 512 tokens" in warning
        for node, candidate in zip(nodes, result.candidates, strict=True):
            assert candidate.score == min(node.step_scores)
        assert len(result.steps) == nodes[result.chosen or 0].step_count
        lost = searcher.search("x y " * 300, strategy=BestOfN(n=2))
    assert {candidate.score for candidate in lost.candidates} == {None}
    assert lost.score is None
    assert lost.answer
    assert "2 of 2 candidates could not be scored to the end: candidate 0 (step 1 of" in lost.warnings[0]


def test_weights_without_a_head_are_refused(tmp_path: Path) -> None:
    folder = write_qwen(tmp_path, labels=2, architecture="Qwen2ForPrmModel", head="score")
    with pytest.raises(ModelNotFoundError, match=r"lack v_head\.summary"):
        load(folder)


@pytest.mark.parametrize(
    ("described", "name", "family", "says"),
    [
        ({"architectures": ["Qwen2ForRewardModel"]}, "x", None, "outcome reward model .*OutcomeRewardModel"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "x", None, "outcome reward model"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "ThinkPRM-14B", None, "judges in words: use ThinkPRM"),
        ({"architectures": ["LlamaForCausalLM"]}, "my-own", None, "pass family=, one of qwen-math-prm, math-shepherd"),
        ({"architectures": ["LlamaForCausalLM"]}, "my-own", "versa", "unknown family 'versa': choose from"),
        ({"architectures": ["LlamaForCausalLM"]}, "my-own", "qwen-math-prm", "needs '<extra_0>' to be one token"),
        ({"architectures": ["LlamaForCausalLM"]}, "my-own", "skywork-prm", "this tokenizer names none"),
    ],
)
def test_a_checkpoint_of_no_known_family(
    described: dict[str, list[str]], name: str, family: str | None, says: str, tmp_path: Path
) -> None:
    folder = tmp_path / name
    train_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(InvalidInputError, match=says):
        ProcessRewardModel.from_pretrained(folder, family=family)


def test_a_family_can_be_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    renamed = tmp_path / "mine"
    renamed.symlink_to(checkpoints["versa"])
    with pytest.raises(InvalidInputError, match="which family"):
        ProcessRewardModel.from_pretrained(renamed)
    model = ProcessRewardModel.from_pretrained(renamed, family="versaprm", device="cpu")
    assert scores(model, trajectory()) == scores(load(checkpoints["versa"]), trajectory())


@pytest.mark.parametrize("dtype", ["bfloat16", "float64x"])
def test_dtype(dtype: str, checkpoints: dict[str, Path]) -> None:
    if dtype == "float64x":
        with pytest.raises(InvalidInputError, match="float64x"):
            ProcessRewardModel.from_pretrained(checkpoints["qwen"], dtype=dtype)
        return
    rough = ProcessRewardModel.from_pretrained(checkpoints["qwen"], dtype=dtype, device="cpu").score([trajectory()])
    exact = load(checkpoints["qwen"]).score([trajectory()])
    assert list(rough[0]) == pytest.approx(list(exact[0]), abs=0.1)
    assert all(math.isfinite(value) for value in rough[0])


def test_a_search_pays_for_what_the_model_read_and_aggregates_as_published(checkpoints: dict[str, Path]) -> None:
    generator = FakeGenerator(step=0.3, close=0.02)
    with Searcher(generator=generator, scorer=load(checkpoints["qwen"]), max_tokens=80) as searcher:
        first, again = (searcher.search(QUESTION, strategy=BestOfN(n=3)) for _ in range(2))
    assert first.usage.scored_tokens > 0
    assert again.usage.scored_tokens == 0, "all of it was scored before"
    assert again.usage.sampled_tokens == first.usage.sampled_tokens
    assert first.tree is not None
    paths = [first.tree.nodes[candidate.node] for candidate in first.candidates]
    assert max(len(path.step_scores) for path in paths) > 1
    assert all(path.value == pytest.approx(math.prod(path.step_scores)) for path in paths)


class PretrainedConformance(ScorerConformance):
    tolerance = 1e-5
    family = ""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, checkpoints: dict[str, Path]) -> None:
        self.folder = checkpoints[self.family]

    def make_scorer(self) -> Scorer:
        return load(self.folder)


class TestQwen(PretrainedConformance):
    family = "qwen"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\n\n\n\nb", "a\n\nb"),
        ("a \n\n \t\n  \n\n b", "a\n\nb"),
        ("a \n\n\n b", "a \n\n\n b"),
        (" \n a\n\n\n\n", "a"),
    ],
)
def test_versa_s_separator_is_not_in_a_step(text: str, clean: str) -> None:
    assert VersaPRM._clean(VersaPRM.__new__(VersaPRM), text) == clean


class TestShepherd(PretrainedConformance):
    family = "shepherd"


class TestSkywork(PretrainedConformance):
    family = "skywork"


class TestRLHFlow(PretrainedConformance):
    family = "rlhflow"


class TestVersa(PretrainedConformance):
    family = "versa"
