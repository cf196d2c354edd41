"""Reward models of the policy's own size beside its SPRM head (paper, Table 2): an outcome and a process reward model.

Each is a copy of the policy's backbone with a linear head, trained whole; a third scorer is an SPRM head on the frozen
policy. All learn from the same samples of training puzzles, and from the outcome alone: a step's label is its
trajectory's. They judge the study's pool.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForCausalLM

from tts_search.embedded.puzzles import draw
from tts_search.errors import InvalidInputError
from tts_search.evaluation.datasets import PUZZLES, Dataset, Problem
from tts_search.evaluation.runs import Evaluation, Ticker
from tts_search.evaluation.tables import percent
from tts_search.metrics import Floats, auc_within, best_of_k, bootstrap, paired_difference
from tts_search.paper.items import SELECTORS
from tts_search.paper.sample_pool import Pool, sample_pool
from tts_search.paper.study import Finding, Study
from tts_search.scorers.aggregate import geometric_mean, last, minimum
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.module import SPRM
from tts_search.training.fit import score
from tts_search.training.probe import ProbeSettings, fit_probe
from tts_search.training.states import read_states
from tts_search.training.trajectories import GradedTrajectory

Pooled = Sequence[Sequence[GradedTrajectory | None]]
OWN, ORM = "SPRM head, fitted on the same samples", "ORM, a model of its own"
PRM: Mapping[str, Callable[[Sequence[float]], float]] = {
    "PRM, geometric mean": geometric_mean,
    "PRM, minimum": minimum,
    "PRM, last step": last,
}
_UNIT = "batches"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSchedule:
    """How the reward models are trained: samples of training puzzles, passes over them, AdamW's learning rate."""

    puzzles: int = 300
    samples: int = 8
    epochs: int = 3
    batch: int = 64  # trajectories
    learning_rate: float = 5e-4
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardScores:
    """What each scorer says of the pool, `[questions, samples]`, how many parameters it adds, and the mean number of
    tokens that a reward model reads to judge one sample (a head reads none).
    """

    scores: Mapping[str, Floats]
    parameters: Mapping[str, int]
    tokens: float


class RewardModel(nn.Module):
    """A copy of a policy's backbone, and one logit for every token."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(policy.get_decoder()).float()
        self.head = nn.Linear(policy.config.hidden_size, 1)

    def forward(self, trajectories: Sequence[GradedTrajectory], *, outcome: bool) -> list[Tensor]:
        """Logits of each trajectory: at its last token for an outcome, else at each of its step tokens."""
        rows = [torch.tensor(t.prompt_ids + t.response_ids) for t in trajectories]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # causal: what stands behind a token changes nothing
        hidden = self.backbone(input_ids=ids, use_cache=False).last_hidden_state
        places = [[len(row) - 1] if outcome else t.read_at("step") for row, t in zip(rows, trajectories, strict=True)]
        return [self.head(states[place]).squeeze(-1) for states, place in zip(hidden, places, strict=True)]


def reward_scores(study: Study, schedule: RewardSchedule | None = None) -> RewardScores:
    """Train the three and have them judge the study's pool; what its log holds is not done again.

    Raises:
        InvalidInputError: the study asks no puzzles, or its pool keeps no tokens.
    """
    schedule = schedule or RewardSchedule()
    if study.dataset.name != PUZZLES or not study.keep_tokens:
        raise InvalidInputError("reward models are trained on puzzles, for a study that keeps the tokens of its pool")
    asked = hashlib.blake2b("\0".join(p.question for p in study.dataset.problems).encode(), digest_size=8).hexdigest()
    pool = {"questions": asked, "samples": study.samples, "seed": study.seed}
    key = {"reward models": asdict(schedule), "pool": pool, **study.evaluation.engine}
    record = study.log.get(key)
    if record is None:
        record = _measured(study, schedule)
        study.log.add(key, record)
    scores = {name: np.array(rows, dtype=float) for name, rows in record["scores"].items()}
    return RewardScores(scores=scores, parameters=record["parameters"], tokens=record["tokens"])


def table_2(study: Study, schedule: RewardSchedule | None = None) -> Finding:
    """The head against reward models, and against choices that need none."""
    pool, k = study.pool, study.samples
    judged = reward_scores(study, schedule)
    config = study.searcher.generator.head_config
    size = "" if config is None else f"{sum(p.numel() for p in SPRM(config).parameters()):,}"
    ours = pool.by_question("score", k)
    rows = [("SPRM", size, "0", percent(bootstrap(ours)), "", _within(pool, pool.scores))]
    better, as_good = [], []
    for name, scores in judged.scores.items():
        found = best_of_k(pool.correct, scores, k)
        margin = paired_difference(ours, found)
        read = "0" if name == OWN else f"{judged.tokens:,.0f}"
        numbers = (percent(bootstrap(found)), percent(margin, sign=True), _within(pool, scores))
        rows.append((name, f"{judged.parameters[name]:,}", read, *numbers))
        if name != OWN:
            as_good.append(margin.high >= 0)
    for selector in ("logprob", "majority", "oracle"):
        found = pool.by_question(selector, k)
        margin = paired_difference(ours, found)
        within = _within(pool, pool.logprobs) if selector == "logprob" else ""
        rows.append((SELECTORS[selector], "", "", percent(bootstrap(found)), percent(margin, sign=True), within))
        if selector != "oracle":
            better.append(margin.low > 0)
    against = "not worse than any of the reward models" if all(as_good) else "worse than one of the reward models"
    without = "better than" if all(better) else "not better than both"
    return Finding(
        name="Table 2",
        title=f"choosing among {k} by the SPRM head, by reward models, and without any",
        paper="SPRM, a small head on the policy, chooses at least as well as reward models that are much larger models "
        "of their own. Those cannot judge this task, so here an outcome (ORM) and a process reward model (PRM) of the "
        "policy's own size are trained for it, on samples of training puzzles and their outcomes.",
        header=("choice", "added parameters", "tokens read", "accuracy", "SPRM's margin", "AUC within a question"),
        rows=rows,
        same=all(better) and all(as_good),
        sentence=f"The head is {without} the majority and the mean log-probability, and {against}, by more than the "
        "intervals. It learned from more samples than they did; the second row is a head that learned from the same.",
    )


def training_puzzles(count: int, seed: int) -> Dataset:
    """Different puzzles of the training part."""
    rng, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        found.setdefault(draw(rng).question)
    problems = tuple(Problem(id=str(i), question=q, reference=q) for i, q in enumerate(found, start=1))
    return Dataset(name="training puzzles", problems=problems, grader="puzzle")


def _measured(study: Study, schedule: RewardSchedule) -> dict[str, Any]:
    judged = study.pool.trajectories
    taught = _samples(study, schedule)
    folder = study.evaluation.folder
    if folder is None:
        raise InvalidInputError("reward models begin as copies of the policy, and it is not on this machine")
    policy: Any = AutoModelForCausalLM.from_pretrained(folder)
    policy.eval().requires_grad_(False)
    config = SPRMConfig(hidden_size=policy.config.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        states = read_states(policy, taught, readout=config.readout)
        labels = torch.cat([torch.full((len(t.step_ends),), float(t.right)) for t in taught])
        own = fit_probe(torch.cat(states), labels, config, ProbeSettings(seed=schedule.seed), report=lambda _: None)
        scores = {OWN: _spread(judged, score(own, read_states(policy, _flat(judged), readout=config.readout))[1])}
        model = _trained(policy, taught, schedule, study, outcome=True)
        scores[ORM] = _spread(judged, [steps[-1] for steps in _judge(model, _flat(judged), schedule, outcome=True)])
        model = _trained(policy, taught, schedule, study, outcome=False)
        steps = _judge(model, _flat(judged), schedule, outcome=False)
    scores |= {name: _spread(judged, list(map(aggregate, steps))) for name, aggregate in PRM.items()}
    size = sum(p.numel() for p in model.parameters())
    sizes = {name: sum(p.numel() for p in own.parameters()) if name == OWN else size for name in scores}
    read = [len(t.prompt_ids) + len(t.response_ids) for t in _flat(judged)]
    return {"scores": scores, "parameters": sizes, "tokens": round(sum(read) / len(read), 1)}


def _samples(study: Study, schedule: RewardSchedule) -> list[GradedTrajectory]:
    dataset = training_puzzles(schedule.puzzles, schedule.seed + 100)
    evaluation = Evaluation(dataset=dataset, searcher=study.searcher, log=study.log, keep_tokens=True)
    pool = sample_pool(evaluation, schedule.samples, seed=schedule.seed + 100, on_progress=study.on_progress)
    return [trajectory for trajectory in _flat(pool.trajectories) if trajectory.step_ends]


def _trained(
    policy: Any, taught: Sequence[GradedTrajectory], schedule: RewardSchedule, study: Study, *, outcome: bool
) -> RewardModel:
    """BCE of every place that is read against the outcome; AdamW, linear warm-up and decay."""
    model = RewardModel(policy).train().requires_grad_(True)
    rng, order = random.Random(schedule.seed), list(taught)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=0.01)
    total = schedule.epochs * -(-len(order) // schedule.batch)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, total // 10)) * (1 - step / total)
    )
    ticker = Ticker(total, study.on_progress, _UNIT)
    for _ in range(schedule.epochs):
        rng.shuffle(order)
        for batch in _batches(order, schedule.batch):
            logits = model(batch, outcome=outcome)
            labels = torch.cat([torch.full_like(row, float(t.right)) for row, t in zip(logits, batch, strict=True)])
            loss = binary_cross_entropy_with_logits(torch.cat(logits), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            ticker.one("training the ORM" if outcome else "training the PRM")
    return model.eval()


@torch.inference_mode()
def _judge(
    model: RewardModel, judged: Sequence[GradedTrajectory], schedule: RewardSchedule, *, outcome: bool
) -> list[list[float]]:
    batches = _batches(judged, schedule.batch)
    return [row.double().sigmoid().tolist() for batch in batches for row in model(batch, outcome=outcome)]


def _batches(rows: Sequence[GradedTrajectory], size: int) -> list[Sequence[GradedTrajectory]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _flat(pooled: Pooled) -> list[GradedTrajectory]:
    return [trajectory for row in pooled for trajectory in row if trajectory is not None]


def _spread(pooled: Pooled, values: Sequence[float]) -> list[list[float]]:
    """Values of the trajectories there are, back in the pool's order; 0 where there is none."""
    rest = iter(values)
    return [[0.0 if trajectory is None else next(rest) for trajectory in row] for row in pooled]


def _within(pool: Pool, scores: Floats) -> str:
    found = auc_within(zip(scores, pool.correct, strict=True))
    return str(bootstrap(found)) if found else "-"
