"""The paper's tables and figures that searching alone can show, as items of `reproduce`.

Each measures on the study's model and judges by a rule that is fixed here, before any number is seen. Paper: Test-Time
Scaling with Reflective Generative Model, arXiv 2507.01951; its numbers are MetaStone-S1-1.5B's on AIME24, in percent.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tts_search.core.protocols import Until
from tts_search.evaluation.plots import Curve, curves
from tts_search.evaluation.tables import percent
from tts_search.metrics import bootstrap, paired_difference
from tts_search.paper.scaling import fit_scaling_law, plot_scaling_law
from tts_search.paper.step_scores import step_scores
from tts_search.paper.study import Finding, Item, Study
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.mcts import MCTS

EFFORTS = {"low": 2, "medium": 8, "high": 32}
PAPER_EFFORTS = {"low": "44.0", "medium": "53.1", "high": "57.9"}
PAPER_PASS_AT_1 = "39.3"  # the tree search's point at no budget
PAPER_TREE = ("48.8", "50.0", "51.7", "52.8")  # at 40k, 80k, 120k and 160k tokens
STEPWISE = MCTS(until=Until.STEP, expansion_tokens=None, exploration=2**0.5)  # UCT: thoughts here are short
SELECTORS = {"score": "SPRM", "logprob": "mean log-probability", "majority": "majority", "oracle": "oracle"}


def table_1(study: Study) -> Finding:
    """Efforts against a single sample."""
    efforts = {name: k for name, k in EFFORTS.items() if k <= study.samples}
    single = study.pool.by_question("score", 1)
    rows, steps, before = [("single sample", "1", percent(bootstrap(single)), "", PAPER_PASS_AT_1)], [], single
    for name, k in efforts.items():
        now = study.pool.by_question("score", k)
        gain = paired_difference(now, single)
        rows.append((name, str(k), percent(bootstrap(now)), percent(gain, sign=True), PAPER_EFFORTS[name]))
        steps.append(paired_difference(now, before))
        before = now
    same = all(step.low > 0 for step in steps)
    last = f"the highest effort gains {percent(paired_difference(before, single), sign=True)} points on a single sample"
    reason = (
        f"Every effort is better than the one below it, by more than its interval; {last}."
        if same
        else f"Not every effort is better than the one below it by more than its interval; {last}."
    )
    return Finding(
        name="Table 1",
        title="more thoughts to choose from, better answers",
        paper="accuracy rises with the effort: k = 2, 8, 32 thoughts, of which the best-scored is answered from.",
        header=("effort", "k", "accuracy", "gain", "paper"),
        rows=rows,
        same=same,
        sentence=reason,
    )


def table_2(study: Study) -> Finding:
    """The head against choices that need no reward model."""
    pool, k = study.pool, study.samples
    by_score = pool.by_question("score", k)
    rows, margins = [], []
    for selector, name in SELECTORS.items():
        found = pool.by_question(selector, k)
        margin = paired_difference(by_score, found)
        rows.append((name, percent(bootstrap(found)), "" if selector == "score" else percent(margin, sign=True)))
        if selector in ("logprob", "majority"):
            margins.append(margin)
    within = pool.auc()[1]
    rows.append(("AUC of SPRM within a question", "-" if within is None else str(within), ""))
    same = all(margin.low > 0 for margin in margins)
    return Finding(
        name="Table 2, in part",
        title=f"choosing among {k} by the SPRM head, and without a reward model",
        paper="it compares SPRM with reward models that are models of their own. Those were trained on other text and "
        "cannot judge this task, so here SPRM meets only what needs no reward model.",
        header=("choice", "accuracy", "SPRM's margin"),
        rows=rows,
        same=same,
        sentence="The head chooses better than the majority and the mean log-probability, by more than the intervals."
        if same
        else "The head is not better than both the majority and the mean log-probability by more than the intervals.",
    )


def table_4(study: Study) -> Finding:
    """Tree search: accuracy against its token budget."""
    single = study.search("no search", BestOfN(n=1))
    cells = [study.search(f"{budget:,}", STEPWISE, budget) for budget in study.budgets]
    rows = [("no search", f"{single.tokens.mean:,.0f}", percent(single.accuracy), "", PAPER_PASS_AT_1)]
    for i, cell in enumerate(cells):
        gain = paired_difference(cell.correct, single.correct)
        paper = PAPER_TREE[i] if len(cells) == len(PAPER_TREE) else ""
        rows.append(
            (cell.setting.label, f"{cell.tokens.mean:,.0f}", percent(cell.accuracy), percent(gain, sign=True), paper)
        )
    gains = [paired_difference(cell.correct, single.correct) for cell in cells]
    same = all(gain.low > 0 for gain in gains)
    worse = [cell.setting.label for cell, gain in zip(cells, gains, strict=True) if gain.high < 0]
    line = Curve(label="MCTS, one step an expansion", x=[c.tokens.mean for c in cells], y=[c.accuracy for c in cells])
    best = study.pool.curve("score", study.ks)
    chosen = Curve(label="Best-of-N", x=[k * study.pool.tokens for k in best], y=list(best.values()))
    point = Curve(label="no search", x=[single.tokens.mean], y=[single.accuracy], joined=False)
    return Finding(
        name="Table 4",
        title="tree search turns tokens into accuracy",
        paper="MCTS guided by SPRM rises from 39.3 without search to 48.8, 50.0, 51.7 and 52.8 at budgets of 40k, 80k, "
        "120k and 160k tokens.",
        header=("budget", "tokens used", "accuracy", "gain", "paper"),
        rows=rows,
        same=same,
        sentence=f"At the largest budget the gain over no search is {percent(gains[-1], sign=True)} points"
        + (", and every smaller one gains, too." if same else ", but not every budget gains by more than its interval.")
        + (f" Searching does worse than not searching at {' and '.join(worse)} tokens." if worse else ""),
        figures=[
            (
                curves([line, chosen, point], xlabel="sampled tokens a question"),
                "Accuracy against sampled tokens, with 95 % intervals.",
            )
        ],
    )


def figure_2(study: Study) -> Finding:
    """Accuracy against k."""
    pool, ks = study.pool, study.ks
    found = {name: pool.curve(selector, ks) for selector, name in SELECTORS.items()}
    rows = [(name, *(percent(row[k]) for k in ks)) for name, row in found.items()]
    by_k = [pool.by_question("score", k) for k in ks]
    doublings = [paired_difference(b, a) for a, b in pairwise(by_k)]
    gain = paired_difference(by_k[-1], by_k[0])
    same = gain.low > 0 and all(step.high >= 0 for step in doublings)
    return Finding(
        name="Figure 2",
        title="accuracy against the number of thoughts",
        paper="accuracy rises with k.",
        header=("choice", *(f"k = {k}" for k in ks)),
        rows=rows,
        same=same,
        sentence=f"From k = 1 to {ks[-1]} SPRM gains {percent(gain, sign=True)} points, and "
        + ("no doubling of k loses beyond its interval." if same else "some doubling of k loses beyond its interval."),
        figures=[
            (
                curves(
                    [Curve(label=name, x=ks, y=list(row.values())) for name, row in found.items()],
                    xlabel="k, thoughts to choose from",
                    ticks=ks,
                ),
                "Accuracy against k by who chooses, with 95 % intervals.",
            )
        ],
    )


def figure_5(study: Study) -> Finding:
    """The scaling law."""
    pool, ks = study.pool, study.ks
    compute = [study.parameters * pool.tokens * k for k in ks]
    law = fit_scaling_law(compute, np.stack([pool.by_question("score", k) for k in ks], axis=1))
    same = law.slope.low > 0
    fit = "-" if law.r2 is None else f"{law.r2:.3f}"
    return Finding(
        name="Figure 5",
        title="accuracy against the logarithm of compute",
        paper="accuracy grows with log C, C = parameters x sampled tokens.",
        header=("points a doubling of C", "R² of the line", "C from", "to"),
        rows=[(percent(law.slope, sign=True), fit, f"{compute[0]:.3g}", f"{compute[-1]:.3g}")],
        same=same,
        sentence=f"Each doubling of C adds {percent(law.slope, sign=True)} points"
        + ("." if same else ", an interval that holds 0.")
        + " One model size only: the paper's curves of several sizes are not shown by it.",
        figures=[
            (
                plot_scaling_law([("Best-of-k by SPRM", law)]),
                "Accuracy against C, and the fitted line with its 95 % band.",
            )
        ],
    )


def figure_6(study: Study) -> Finding:
    """Step scores on trajectories."""
    found = step_scores(study)
    shown = [t for t in (found.example(right=True), found.example(right=False)) if t is not None]
    rows = [
        ("right" if example.first_error == -1 else "wrong", str(i + 1), " ".join(step.split()), f"{score:.2f}", mark)
        for example in shown
        for i, (step, score) in enumerate(zip(example.steps, example.scores, strict=True))
        for mark in ["first wrong step" if i == example.first_error else ""]
    ]
    drop = found.drop()
    same = drop is not None and drop.low > 0
    f1 = found.first_error_f1()
    if f1 is not None:
        rows.append(
            ("", "", f"first-error F1 at the threshold 0.5, {len(found.trajectories)} trajectories", str(f1), "")
        )
    if drop is not None:
        rows.append(("", "", "score before the first wrong step minus score at it", str(drop), ""))
    return Finding(
        name="Figure 6",
        title="step scores fall where the reasoning goes wrong",
        paper="on an example, right steps score high and the first wrong step scores low.",
        header=("trajectory", "step", "reasoning", "score", "note"),
        rows=rows,
        same=same,
        sentence=f"At the first wrong step the score is lower than before it by {drop}, over {found.wrong} "
        "trajectories whose first wrong step is known exactly: the numbers left can no longer make the target."
        if drop is not None
        else "No trajectory went wrong after its first step, so there is nothing to compare.",
    )


ITEMS: tuple[Item, ...] = (table_1, table_2, table_4, figure_2, figure_5, figure_6)
