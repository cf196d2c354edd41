"""From graded trajectories to a head that a search uses; the cache of hidden states; what is refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from tests.checkpoints import HIDDEN, write_checkpoint
from tests.training.texts import line, write_lines
from tts_search.api import Searcher
from tts_search.cli import app
from tts_search.errors import InvalidInputError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.metrics import Interval
from tts_search.segmentation import Contains, Segmenter, TokenIds
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import CONFIG_FILE, WEIGHTS_FILE
from tts_search.sprm.module import SPRM
from tts_search.training import states
from tts_search.training.fit import FitSettings, fit_head, part_of, score
from tts_search.training.held_out import REPORT_FILE, judge
from tts_search.training.probe import ProbeSettings, fit_probe
from tts_search.training.trajectories import GradedTrajectory, read_trajectories

QUICK = FitSettings(probe=ProbeSettings(epochs=8, batch=64), held_out=0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_checkpoint(tmp_path_factory.mktemp("model"), readout=None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "graded.jsonl")


def quiet(_: str) -> None:
    pass


def test_a_head_that_search_uses(model: Path, data: Path, tmp_path: Path) -> None:
    report = fit_head(model, data, tmp_path / "head", settings=QUICK, report=quiet)
    assert report.auc is not None
    assert report.auc > 0.95
    assert report.auc_within is not None
    assert report.auc_within.mean > 0.95
    assert report.best_of["SPRM"][4].mean == report.best_of["oracle"][4].mean
    assert report.gain is not None
    assert report.gain.low > 0
    assert json.loads((tmp_path / "head" / REPORT_FILE).read_text()) == report.to_dict()
    assert "Best-of-4 by the head against a single sample: +" in report.markdown()
    head = SPRM.from_pretrained(tmp_path / "head", hidden_size=HIDDEN)
    assert head.config == SPRMConfig(hidden_size=HIDDEN)

    (model / "sprm").mkdir(exist_ok=True)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        (model / "sprm" / file).write_bytes((tmp_path / "head" / file).read_bytes())
    with Searcher(model, generator="transformers", max_tokens=20, answer_tokens=8) as searcher:
        result = searcher.search("Question 1?", effort="low")
    assert result.score is not None


@pytest.mark.parametrize("readout", ["previous", "step"])
def test_states_are_the_second_to_last_hidden_states(model: Path, data: Path, tmp_path: Path, readout: Any) -> None:
    tokenizer = PretrainedTokenizer(model)
    trajectories = read_trajectories(data, tokenizer, Segmenter(tokenizer), report=quiet)[:10]
    found = states.step_states(
        model,
        trajectories,
        readout=readout,
        cache=tmp_path / "cache",
        reader=states.Reader(batch_tokens=300),
        report=quiet,
    )
    policy: Any = AutoModelForCausalLM.from_pretrained(model)
    for trajectory, got in zip(trajectories, found, strict=True):
        ids = torch.tensor([[*trajectory.prompt_ids, *trajectory.response_ids]])
        with torch.inference_mode():
            everything = policy(ids, output_hidden_states=True).hidden_states[-2][0]
        step_tokens = [len(trajectory.prompt_ids) + end - 1 for end in trajectory.step_ends]
        assert len(step_tokens) == 3
        assert torch.allclose(got, everything[[p - (readout == "previous") for p in step_tokens]], atol=1e-4)


def test_hidden_states_are_computed_once_and_never_confused(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "CHUNK", 50)
    loads = list[Path]()
    real = states._load_policy

    def counted(folder: Path, device: str, dtype: str) -> Any:
        loads.append(folder)
        return real(folder, device, dtype)

    monkeypatch.setattr(states, "_load_policy", counted)

    def fit() -> bytes:
        fit_head(model, data, tmp_path / "head", settings=QUICK, report=quiet)
        return (tmp_path / "head" / WEIGHTS_FILE).read_bytes()

    first = fit()
    cache = data.with_suffix(".states")
    assert len(list(cache.iterdir())) == 3
    assert fit() == first
    assert len(loads) == 1, "the second run reads nothing"

    torn, *_ = sorted(cache.iterdir())
    torn.write_bytes(torn.read_bytes()[:100])
    assert fit() == first
    assert len(loads) == 2, "a file that was cut off is made again"

    with data.open("a") as file:
        file.write(json.dumps(line("A new question?", True, random.Random(1))) + "\n")
    fit()
    assert len(loads) == 3
    assert len(list(cache.iterdir())) == 4, "only the chunk that changed is new"

    weights = model / "model.safetensors"
    before = weights.read_bytes()
    policy: Any = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        policy.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    policy.save_pretrained(model)
    fit()
    weights.write_bytes(before)
    assert len(list(cache.iterdir())) == 7, "another model, other states"


def test_an_interrupted_run_goes_on(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "CHUNK", 50)
    real, done = states._read, list[int]()

    def interrupted(*args: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args)

    monkeypatch.setattr(states, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_head(model, data, tmp_path / "head", settings=QUICK, report=quiet)
    assert not (tmp_path / "head").exists()
    done.pop()
    fit_head(model, data, tmp_path / "head", settings=QUICK, report=quiet)
    assert len(done) == 2, "one chunk of three was missing"


def test_the_probe_repeats_itself_and_keeps_the_best_epoch() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 8, generator=generator)
    labels = (hidden[:, 0] > 0).float()
    config, settings = SPRMConfig(hidden_size=8), ProbeSettings(epochs=30, batch=32, learning_rate=1e-2)
    heads = [fit_probe(hidden, labels, config, settings, report=quiet) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*(h.state_dict().values() for h in heads), strict=True))
    assert not heads[0].training
    lines = list[str]()
    opposite = (hidden[:200], 1 - labels[:200])  # the longer it learns, the worse it does there
    least = fit_probe(hidden, labels, config, settings, validation=opposite, report=lines.append)
    assert "validation" in lines[0]
    assert least(hidden).std().item() < heads[0](hidden).std().item(), "an early epoch was kept"


def test_few_steps_in_many_dimensions_teach_what_other_questions_need() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = (torch.rand(n, generator=generator) < 0.5).float()
        hidden = torch.randn(n, 256, generator=generator) * torch.logspace(0.5, -2, 256)
        hidden[:, 0] += 6 * (labels - 0.5)
        return hidden, labels

    head = fit_probe(*draw(160), SPRMConfig(hidden_size=256), ProbeSettings(epochs=10), report=quiet)
    hidden, labels = draw(400)
    assert binary_cross_entropy_with_logits(head(hidden), labels).item() < 0.8  # 1.1 with every direction blown up
    assert ((head(hidden) > 0) == (labels > 0.5)).float().mean().item() > 0.6  # 0.54


def test_parts_are_a_matter_of_the_question_alone() -> None:
    settings = FitSettings(held_out=0.25, validation=0.25)
    parts = [part_of(f"q{i}", settings) for i in range(400)]
    assert parts == [part_of(f"q{i}", settings) for i in range(400)]
    assert 70 < parts.count("held-out") < 130
    assert 70 < parts.count("validation") < 130
    assert "held-out" not in [part_of(f"q{i}", FitSettings(held_out=0, validation=0.25)) for i in range(400)]
    assert "validation" not in [part_of(f"q{i}", FitSettings(held_out=0.25, validation=0)) for i in range(400)]
    reseeded = replace(settings, probe=ProbeSettings(seed=1))
    assert parts != [part_of(f"q{i}", reseeded) for i in range(400)]


def test_step_labels_and_readouts_go_where_they_belong(model: Path, tmp_path: Path) -> None:
    rng, rows = random.Random(0), list[dict[str, Any]]()
    for q in range(160):  # the outcome says nothing, the step labels everything
        row = line(f"Q{q}", q % 2 == 0, rng) | {"step_labels": [int(q % 2 == 0)] * 3, "correct": rng.random() < 0.5}
        rows.append(row)
    data = tmp_path / "steps.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = FitSettings(
        labels="steps",
        readout="previous",
        step_rule=lambda text: ".\n\n" in text,  # type: ignore[arg-type]
        aggregation="min",
        held_out=0.4,
        probe=ProbeSettings(epochs=20, batch=16),
    )
    report = fit_head(model, data, tmp_path / "head", settings=settings, report=quiet)
    assert report.step_accuracy is not None
    assert report.step_accuracy > 0.9
    assert report.best_of == {}
    assert "not measured" in report.markdown()
    config = SPRM.from_pretrained(tmp_path / "head").config
    assert (config.readout, config.aggregation) == ("previous", "min")
    assert isinstance(config.step_rule, TokenIds), "a function cannot be saved, what it chose can"


@pytest.mark.parametrize(("name", "said"), [("report.json", "already, with no head"), (WEIGHTS_FILE, "no head's")])
def test_another_folders_files_are_left_alone(model: Path, data: Path, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InvalidInputError, match=said):
        fit_head(model, data, tmp_path, report=quiet)
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / CONFIG_FILE).exists()


def gap(head: SPRM, model: Path, data: Path, cache: Path) -> float:
    """By how much the steps of right trajectories are scored above those of wrong ones, on average."""
    tokenizer = PretrainedTokenizer(model)
    trajectories = read_trajectories(data, tokenizer, Segmenter(tokenizer), report=quiet)
    scores, _ = score(head, states.step_states(model, trajectories, readout="previous", cache=cache, report=quiet))
    steps = {True: list[float](), False: list[float]()}
    for trajectory, row in zip(trajectories, scores, strict=True):
        steps[trajectory.right] += row
    return mean(steps[True]) - mean(steps[False])


@pytest.mark.parametrize(
    ("labels", "told", "apart"),
    [
        ("outcome", None, 1),
        ("outcome", [1, 1, 1], 1),  # as they stand they would teach nothing
        ("outcome", "opposite", 1),
        ("steps", None, 1),  # where a trajectory has none, its outcome counts
        ("steps", "opposite", -1),
        ("steps", "some", 1),  # what has no label teaches nothing
    ],
)
def test_which_labels_teach(model: Path, tmp_path: Path, labels: Any, told: str | list[int] | None, apart: int) -> None:
    rng, rows = random.Random(0), list[dict[str, Any]]()
    for q in range(60):
        right = q % 2 == 0
        of = {"opposite": [int(not right)] * 3, "some": [None, int(right), int(right)]}
        steps = of[told] if isinstance(told, str) else told
        rows.append(line(f"Q{q}", right, rng) | ({} if steps is None else {"step_labels": steps}))
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = FitSettings(labels=labels, held_out=0.2, probe=ProbeSettings(epochs=10, batch=32))
    fit_head(model, data, tmp_path / "head", settings=settings, report=quiet)
    head = SPRM.from_pretrained(tmp_path / "head")
    assert apart * gap(head, model, data, tmp_path / "states") > 0.15


def test_a_step_without_a_label_is_no_wrong_one(model: Path, tmp_path: Path) -> None:
    rows = [line(f"Q{q}", q % 2 == 0, random.Random(q)) | {"step_labels": [1, None, 1]} for q in range(9)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = FitSettings(labels="steps", held_out=0, validation=0)
    with pytest.raises(InvalidInputError, match="every training step is labelled right"):
        fit_head(model, tmp_path / "data.jsonl", tmp_path / "head", settings=settings, report=quiet)


def test_questions_of_the_validation_choose_the_epoch(model: Path, tmp_path: Path) -> None:
    settings = FitSettings(held_out=0, validation=0.3, probe=ProbeSettings(epochs=20, batch=16))
    gaps, lines = list[float](), list[str]()
    for turned in (False, True):  # where validation says the opposite, the first epoch is the best
        rows = list[dict[str, Any]]()
        for q in range(80):
            right, against = q % 2 == 0, turned and part_of(f"Q{q}", settings) == "validation"
            rows.append(line(f"Q{q}", right, random.Random(q)) | {"correct": right != against})
        data = tmp_path / f"{turned}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        fit_head(model, data, tmp_path / "head", settings=settings, report=lines.append)
        gaps.append(gap(SPRM.from_pretrained(tmp_path / "head"), model, tmp_path / "False.jsonl", tmp_path / "states"))
    assert abs(gaps[1]) < gaps[0] / 3
    assert all("validation" in line for line in lines if line.startswith("head:"))


def test_judging_by_hand() -> None:
    def one(question: str, right: bool, answer: str) -> GradedTrajectory:
        labels = (True, None) if question == "a" else None
        return GradedTrajectory(
            question=question,
            prompt_ids=(1,),
            response_ids=(2, 3, 4, 5),
            step_ends=(2, 4),
            right=right,
            step_labels=labels,
            answer=answer,
            mean_logprob=-1.0,
        )

    trajectories = [one("a", True, "1"), one("a", False, "2"), one("b", False, "3"), one("b", True, "4")]
    report = judge(trajectories, [[0.9, 0.8], [0.4, 0.3], [0.6, 0.6], [0.2, 0.2]], [0.8, 0.3, 0.6, 0.2])
    assert report.auc == 0.5
    assert report.auc_within == Interval(0.5, 0.0, 1.0)
    assert report.step_accuracy == 0.5
    assert report.labelled_steps == 2
    assert report.best_of["SPRM"][2].mean == 0.5
    assert report.best_of["oracle"][2].mean == 1.0
    assert report.calibration_error == pytest.approx((0.2 + 0.3 + 0.6 + 0.8) / 4)


def test_pools_of_different_sizes_are_cut_to_what_half_of_the_questions_have() -> None:
    def pool(question: str, size: int) -> list[GradedTrajectory]:
        one = GradedTrajectory(question=question, prompt_ids=(1,), response_ids=(2,), step_ends=(1,), right=True)
        return [replace(one, right=i % 2 == 0) for i in range(size)]

    sizes = {"a": 8, "b": 4, "c": 4, "d": 1}
    trajectories = [one for question, size in sizes.items() for one in pool(question, size)]
    scores = [0.9 if one.right else 0.1 for one in trajectories]
    report = judge(trajectories, [[score] for score in scores], scores)
    assert (report.samples, report.questions, report.trajectories) == (4, 4, 17)
    assert list(report.best_of["SPRM"]) == [1, 2, 4]
    assert report.best_of["SPRM"][1].mean == 0.5
    assert report.best_of["SPRM"][4].mean == 1.0
    assert report.gain is not None
    assert report.gain.mean == 0.5
    pairs = judge(trajectories[:2], [[0.9], [0.1]], [0.9, 0.1])
    assert (pairs.samples, list(pairs.best_of["SPRM"])) == (2, [1, 2])


def test_the_learning_rate_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = list[float]()

    class Watched(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    hidden, labels = torch.randn(8, 4), torch.tensor([0.0, 1.0] * 4)
    settings = ProbeSettings(epochs=4, batch=4, learning_rate=0.4)
    fit_probe(hidden, labels, SPRMConfig(hidden_size=4), settings, report=quiet)
    assert rates == pytest.approx([0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1])


def test_a_head_reads_states_wherever_their_middle_is() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 4, generator=generator)
    labels = (hidden[:, 0] > 0).float()

    def fitted(seen: torch.Tensor) -> torch.Tensor:
        return fit_probe(seen, labels, SPRMConfig(hidden_size=4), ProbeSettings(epochs=3, batch=50), report=quiet)(seen)

    assert torch.allclose(fitted(hidden), fitted(hidden + 7), atol=0.02)


def test_a_trajectory_without_steps_scores_zero() -> None:
    scores, values = score(SPRM(SPRMConfig(hidden_size=4)).eval(), [torch.zeros(0, 4), torch.zeros(2, 4)])
    assert scores[0] == []
    assert values[0] == 0.0
    assert 0 < values[1] < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "none of 0 trajectories"),
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: a JSON object is wanted"),
        ('{"question": "q", "response": "a.\\n\\n"}', "line 1: the line: .*neither correct nor a finite reward"),
        ('{"question": "q", "response": "a", "reward": NaN}', "neither correct nor a finite reward .*nan"),
        ('{"question": "q", "correct": true}', "neither response nor response_ids"),
        ('{"response": "q", "correct": true}', "line 1: question"),
        ('\n{"question": "q", "response": "a", "correct": "yes"}', "line 2: correct"),
        ('{"question": "q", "response_ids": [99999], "correct": true}', "another model's"),
        ('{"question": "q", "response": "a.\\n\\n", "correct": true, "step_labels": [1, 0]}', "2 step_labels for 1"),
        ('{"question": "q", "response": "a.\\n\\n", "correct": true, "step_labels": [3]}', "step_labels are 1, 0"),
        ('{"question": "q", "response": "a", "correct": true}', r"none of 1 .*choose another step rule"),
    ],
)
def test_lines_that_cannot_be_used(model: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        fit_head(model, tmp_path / "bad.jsonl", tmp_path / "head", report=quiet)


def test_what_else_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"config\.json that is no head.s.*sprm"):
        fit_head(model, data, model, report=quiet)
    with pytest.raises(InvalidInputError, match="keeps its own head"):
        fit_head("embedded", data, report=quiet)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        fit_head(model, tmp_path / "absent.jsonl", tmp_path / "head", report=quiet)
    for row in (line("q", True, random.Random(0)), line("p", True, random.Random(1))):
        (tmp_path / "right.jsonl").open("a").write(json.dumps(row) + "\n")
    with pytest.raises(InvalidInputError, match="every training step is labelled right"):
        fit_head(
            model, tmp_path / "right.jsonl", tmp_path / "head", settings=FitSettings(held_out=0, validation=0),
            report=quiet,
        )  # fmt: skip
    for wrong in ({"held_out": 0.9, "validation": 0.2}, {"labels": "words"}, {"aggregation": "median"}):
        with pytest.raises(InvalidInputError):
            FitSettings(**wrong)  # type: ignore[arg-type]
    for wrong in ({"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}):
        with pytest.raises(InvalidInputError):
            ProbeSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="NaN"):
        fit_probe(torch.full((2, 4), float("nan")), torch.ones(2), SPRMConfig(hidden_size=4), ProbeSettings())
    with pytest.raises(InvalidInputError, match=r"\[steps, 4\]"):
        fit_probe(torch.zeros(2, 3), torch.ones(2), SPRMConfig(hidden_size=4), ProbeSettings())


def test_the_command(model: Path, data: Path, tmp_path: Path) -> None:
    def run(*args: str) -> Any:
        return CliRunner().invoke(app, ["fit-head", *args])

    made = run(str(data), "--model", str(model), "--out", str(tmp_path / "h"), "--epochs", "3", "--step", r".\n\n")
    assert made.exit_code == 0, made.output
    assert "AUC of trajectory scores" in made.stdout
    assert SPRM.from_pretrained(tmp_path / "h").config.step_rule == Contains(".\n\n")
    again = run(str(data), "--model", str(model), "--out", str(tmp_path / "h"), "--epochs", "3", "--json")
    assert json.loads(again.stdout)["trajectories"] > 0
    refused = run(str(tmp_path / "absent"), "--model", str(model), "--out", str(tmp_path / "h"))
    assert refused.exit_code == 2
    assert "is not there" in refused.stderr
