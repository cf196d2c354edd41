"""The paper's tables and figures that take joint training, as items of `reproduce`: Table 3, Figures 3, 4 and 7.

Like those of `items`, each judges by a rule that is fixed here, before any number is seen. All show the same two runs,
of one seed, so that an interval says nothing of other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tts_search.embedded.puzzles import parse_question
from tts_search.evaluation.plots import Curve, curves
from tts_search.evaluation.tables import percent
from tts_search.metrics import Floats, Interval, auc_within, bootstrap, paired_difference
from tts_search.paper import items as paper
from tts_search.paper.joint import LOSSES, SAMPLES, Arm, ArmLoss, JointSchedule, held_out_pool, joint_arms
from tts_search.paper.reward_models import table_2
from tts_search.paper.sample_pool import Pool
from tts_search.paper.step_scores import first_error
from tts_search.paper.study import Finding, Item, Study
from tts_search.training.curves import aha_step
from tts_search.training.trajectories import GradedTrajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIXED_QUESTIONS = 64
WHOLE = 4  # three moves and the check: a whole trajectory
BIN = 5  # training steps in one point of a curve
ONE_SEED = "One seed; benchmarks/joint_training.py trains several."


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A trajectory of the pool whose first wrong step is known exactly; `first_error` is its index, -1 for none."""

    trajectory: GradedTrajectory
    steps: list[str]
    first_error: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """The runs, their trained models on the held-out questions, and the trajectories that they were asked about: of
    each of some questions a right one and a wrong one.
    """

    arms: dict[ArmLoss, Arm]
    pools: dict[ArmLoss, Pool]
    pairs: list[tuple[Known, Known]]
    warmup: int


def table_3(study: Study) -> Finding:
    """Best-of-N after joint training with either loss."""
    joint = _once(study)
    pools = {"before training, its own head": study.pool} | {LOSSES[loss]: p for loss, p in joint.pools.items()}
    rows = [
        (name, percent(bootstrap(p.by_question("score", 1))), percent(bootstrap(_best(p))), _within(p))
        for name, p in pools.items()
    ]
    margin = paired_difference(_best(joint.pools["spr"]), _best(joint.pools["bce"]))
    return Finding(
        name="Table 3",
        title="joint training with the self-supervised loss and with BCE",
        paper="trained jointly with the policy, the SPR loss gives better Best-of-N accuracy than BCE.",
        header=("loss", "single sample", f"Best-of-{SAMPLES}", "AUC within a question"),
        rows=rows,
        same=margin.low > 0,
        sentence=f"The SPR loss minus BCE: {percent(margin, sign=True)} points of Best-of-{SAMPLES} on held-out "
        f"questions, each by its own policy. {ONE_SEED}",
    )


def figure_3(study: Study) -> Finding:
    """The gap between right and wrong trajectories during joint training."""
    joint = _once(study)
    gaps = {loss: _gaps(pool) for loss, pool in joint.pools.items()}
    both = ~np.isnan(gaps["spr"]) & ~np.isnan(gaps["bce"])
    margin = paired_difference(gaps["spr"][both], gaps["bce"][both]) if both.any() else None
    rows = [
        (LOSSES[loss], f"{np.mean(arm.curve('sprm/gap')[1][-BIN:]):.3f}", _shown(gaps[loss][both]))
        for loss, arm in joint.arms.items()
    ]
    lines = [_binned(LOSSES[loss], arm.curve("sprm/gap")) for loss, arm in joint.arms.items()]
    return Finding(
        name="Figure 3",
        title="the score gap between right and wrong trajectories",
        paper="the gap grows wider with the SPR loss than with BCE.",
        header=("loss", f"gap in the last {BIN} training steps", "gap on held-out questions"),
        rows=rows,
        same=margin is not None and margin.low > 0,
        sentence=f"The SPR loss minus BCE: {margin} of score at the end, on {both.sum()} held-out questions with right "
        f"and wrong samples in both runs. {ONE_SEED}"
        if margin is not None
        else "No held-out question has right and wrong samples in both runs, so there is nothing to compare.",
        figures=[
            (
                curves(
                    lines, xlabel="training step", ylabel="score of right minus wrong", log_x=False,
                    marks={"end of the BCE warm-up": joint.warmup},
                ),
                f"Score gap on the training rollouts; each point is {BIN} steps, with their 95 % interval.",
            )
        ],
    )  # fmt: skip


def figure_4(study: Study) -> Finding:
    """Scores of right and wrong trajectories during joint training, and where they part."""
    joint = _once(study)
    arm = joint.arms["spr"]
    parted = {loss: aha_step(*each.curve("sprm/gap")) for loss, each in joint.arms.items()}
    rows, same = [], False
    for loss, each in joint.arms.items():
        steps, gaps = each.curve("sprm/gap")
        at = parted[loss]
        before = [gap for step, gap in zip(steps, gaps, strict=True) if at is not None and step < at]
        after = [gap for step, gap in zip(steps, gaps, strict=True) if at is not None and step >= at]
        reward = each.curve("reward")[1]
        rise = f"{np.mean(reward[:BIN]):.2f} to {np.mean(reward[-BIN:]):.2f}"
        rows.append((LOSSES[loss], "none" if at is None else str(at), _shown(before), _shown(after), rise))
        if loss == "spr" and before and after:
            same = bootstrap(after).low > bootstrap(before).high
    at = parted["spr"]
    where = "" if at is None else f" It lies {'within' if at <= joint.warmup else 'behind'} the warm-up of "
    where += "" if at is None else f"{joint.warmup} steps, in which the loss is BCE: Eq. 6 does not start from nothing."
    marks = {"end of the BCE warm-up": float(joint.warmup)} | ({} if at is None else {f"aha step, {at}": float(at)})
    lines = [_binned(f"{kind} trajectories", arm.curve(f"sprm/score_{kind}")) for kind in ("right", "wrong")]
    return Finding(
        name="Figure 4",
        title="the scores of right and wrong trajectories part during training",
        paper="in joint training the two curves lie together at first and part at an aha moment.",
        header=("loss", "aha step", "gap before", "gap after", f"reward, first and last {BIN} steps"),
        rows=rows,
        same=same,
        sentence=(
            f"With the SPR loss the curves part at step {at}: the gap is larger behind it by more than both intervals."
            if same
            else "With the SPR loss no step is found behind which the gap is larger by more than both intervals."
        )
        + f"{where} {_course(arm, joint.warmup)}{ONE_SEED}",
        figures=[
            (
                curves(lines, xlabel="training step", ylabel="trajectory score", log_x=False, marks=marks),
                f"Mean scores in the run with the SPR loss; each point is {BIN} steps, with their 95 % interval.",
            )
        ],
    )


def figure_7(study: Study) -> Finding:
    """The same trajectories as the head saw them before and after the aha step."""
    joint = _once(study)
    arm = joint.arms["spr"]
    at, end = aha_step(*arm.curve("sprm/gap")), max(arm.looks)
    early = max((step for step in arm.looks if at is not None and step < at), default=min(arm.looks))
    margins = {
        step: [_margin(wrong, *look) for (_, wrong), look in zip(joint.pairs, _looks(arm, step), strict=True)]
        for step in (early, end)
    }
    growth = paired_difference(margins[end], margins[early]) if joint.pairs else None
    rows, lines = [], []
    for place, kind in enumerate(("right", "wrong") if joint.pairs else ()):
        known, before, after = joint.pairs[0][place], _looks(arm, early)[0][place], _looks(arm, end)[0][place]
        for j, step in enumerate(known.steps):
            note = "first wrong step" if j == known.first_error else ""
            rows.append((kind, str(j + 1), step, f"{before[j]:.2f}", f"{after[j]:.2f}", note))
        for when, scores in ((early, before), (end, after)):
            points = [Interval(score, score, score) for score in scores]
            lines.append(Curve(label=f"{kind}, at training step {when}", x=range(1, len(points) + 1), y=points))
    said = "score of the right one's step minus that of the first wrong step, in the same place; over "
    rows.append(("", "", f"{said}{len(joint.pairs)} questions", _shown(margins[early]), _shown(margins[end]), ""))
    grown = "No question has a right trajectory and one that goes wrong after its first step."
    if growth is not None:
        grown = f"From training step {early} to {end} a right step comes to stand higher above the first wrong step in "
        grown += f"its place by {growth}, over {len(joint.pairs)} questions."
    which = "The earlier step is the last look before the aha step." if at is not None else "There was no aha step."
    return Finding(
        name="Figure 7",
        title="the same trajectory before and after the aha step",
        paper="before the aha moment the head scores right and wrong steps much alike; after it, wrong ones score low.",
        header=("trajectory", "step", "reasoning", f"score at training step {early}", f"at {end}", "note"),
        rows=rows,
        same=at is not None and growth is not None and growth.low > 0,
        sentence=f"{grown} {which} Policy and head are those of that step of the run with the SPR loss, the "
        f"trajectories those of the policy before training. {ONE_SEED}",
        figures=[_scores_plot(lines)] if lines else [],
    )


ITEMS: tuple[Item, ...] = (
    paper.table_1,
    table_2,
    table_3,
    paper.table_4,
    paper.figure_2,
    figure_3,
    figure_4,
    paper.figure_5,
    paper.figure_6,
    figure_7,
)


def joint_runs(study: Study, schedule: JointSchedule | None = None) -> Joint:
    """Train with either loss, and measure both on the study's questions."""
    schedule = schedule or JointSchedule()
    pairs = known_pairs(study)
    arms = joint_arms(study, [known.trajectory for pair in pairs for known in pair], schedule)
    pools: dict[ArmLoss, Pool] = {loss: held_out_pool(study, arm) for loss, arm in arms.items()}
    return Joint(arms=arms, pools=pools, pairs=pairs, warmup=schedule.warmup)


def known_pairs(study: Study) -> list[tuple[Known, Known]]:
    """Of the pool's first questions the first right trajectory, and the first that goes wrong after its first step."""
    decode = study.searcher.generator.tokenizer.decode
    pairs = []
    for row in study.pool.trajectories[:FIXED_QUESTIONS]:
        found: dict[bool, Known] = {}
        for trajectory in row:
            if trajectory is None or len(found) == 2:
                continue
            parts = pairwise((0, *trajectory.step_ends))
            steps = [" ".join(decode(trajectory.response_ids[a:b]).split()) for a, b in parts]
            label = first_error(parse_question(trajectory.question), steps)
            if len(steps) == WHOLE and label is not None and (label > 0 or (label == -1 and trajectory.right)):
                found.setdefault(label == -1, Known(trajectory=trajectory, steps=steps, first_error=label))
        if len(found) == 2:
            pairs.append((found[True], found[False]))
    return pairs


def _once(study: Study) -> Joint:
    """All items show the same runs."""
    if "joint" not in study.kept:
        study.kept["joint"] = joint_runs(study)
    return study.kept["joint"]


def _course(arm: Arm, warmup: int) -> str:
    """How large the gap was at first, when Eq. 6 took over, and at the end."""
    gaps = arm.curve("sprm/gap")[1]
    if not gaps[:warmup] or not gaps[warmup:]:
        return ""
    taught, end = (np.mean(part[-BIN:]) for part in (gaps[:warmup], gaps[warmup:]))
    return f"The gap was {gaps[0]:.2f} at first, {taught:.2f} when the warm-up by BCE ended, {end:.2f} at the end. "


def _looks(arm: Arm, step: int) -> list[tuple[list[float], list[float]]]:
    """Step scores of the pairs at one training step."""
    scores = arm.looks[step]
    return list(zip(scores[::2], scores[1::2], strict=True))


def _margin(wrong: Known, right_scores: Sequence[float], wrong_scores: Sequence[float]) -> float:
    """How far the right one's step stands above the first wrong one in the same place: a new head's scores fall along
    every trajectory, so that the step before would be no measure.
    """
    return right_scores[wrong.first_error] - wrong_scores[wrong.first_error]


def _scores_plot(lines: Sequence[Curve]) -> tuple[Figure, str]:
    ticks = sorted({x for line in lines for x in line.x})
    drawn = curves(lines, xlabel="step of the trajectory", ylabel="step score", log_x=False, ticks=ticks)
    return drawn, "Step scores of one right and one wrong trajectory, by policy and head at two training steps."


def _best(pool: Pool) -> Floats:
    return pool.by_question("score", SAMPLES)


def _gaps(pool: Pool) -> Floats:
    """Mean score of right minus wrong samples, `[questions]`; NaN without both."""
    rows = zip(pool.scores, pool.correct > 0.5, strict=True)
    return np.array([s[r].mean() - s[~r].mean() if r.any() and not r.all() else np.nan for s, r in rows])


def _within(pool: Pool) -> str:
    return _shown(auc_within(zip(pool.scores, pool.correct, strict=True)))


def _shown(values: Sequence[float] | Floats) -> str:
    return str(bootstrap(values)) if len(values) else "-"


def _binned(label: str, curve: tuple[Sequence[int], Sequence[float]]) -> Curve:
    """A metric over training, each point the mean of `BIN` steps."""
    steps, values = curve
    bins = [slice(start, start + BIN) for start in range(0, len(steps), BIN)]
    return Curve(label=label, x=[float(np.mean(steps[b])) for b in bins], y=[bootstrap(values[b]) for b in bins])
