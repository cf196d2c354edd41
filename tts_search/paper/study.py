"""The paper's tables and figures in kind: the same measurements on another model, each beside what the paper found.

This is the frame: one engine, one data set, one log, and items that measure and judge. Which items there are stands in
`items` and `training_items`; what is not measured is not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tts_search.api import Searcher
from tts_search.core.protocols import Strategy
from tts_search.evaluation import report
from tts_search.evaluation.comparison import Cell
from tts_search.evaluation.datasets import Dataset
from tts_search.evaluation.report import Html
from tts_search.evaluation.runs import Evaluation, OnRun, Setting
from tts_search.paper.sample_pool import Pool, sample_pool
from tts_search.store import RunLog

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(kw_only=True)
class Study:
    """What all items measure with. The pool is sampled once, with the first item that needs it.

    `parameters` is the model's size, `samples` the pool's samples a question (a power of two, at least 8), `budgets`
    the tree search's caps in tokens. `keep_tokens`: the pool has its trajectories, for items that train and judge.
    """

    searcher: Searcher
    dataset: Dataset
    log: RunLog
    parameters: int
    samples: int = 32
    budgets: Sequence[int] = (150, 300, 600, 1200)
    seed: int = 0
    keep_tokens: bool = False
    on_progress: OnRun | None = None
    kept: dict[str, Any] = field(default_factory=dict, repr=False)  # what several items show, measured once

    @property
    def evaluation(self) -> Evaluation:
        """The data set with its engine, grader and log."""
        return Evaluation(dataset=self.dataset, searcher=self.searcher, log=self.log)

    @cached_property
    def pool(self) -> Pool:
        """`samples` graded samples of every question."""
        evaluation = replace(self.evaluation, keep_tokens=self.keep_tokens)
        return sample_pool(evaluation, self.samples, seed=self.seed, on_progress=self.on_progress)

    @property
    def ks(self) -> list[int]:
        """1, 2, 4, ... up to the pool's size."""
        return [1 << i for i in range(self.samples.bit_length()) if 1 << i <= self.samples]

    def search(self, label: str, strategy: Strategy, budget: int | None = None) -> Cell:
        """One search of every question."""
        setting = Setting(label=label, strategy=strategy, budget=budget)
        (records,) = self.evaluation.run([setting], seed=self.seed, on_progress=self.on_progress)
        return Cell(setting=setting, records=records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One table or figure: what the paper shows, what was measured, and whether it is the same in kind.

    `rows` stand under `header`, as people read them; `sentence` says the verdict in plain words with its reason.
    """

    name: str
    title: str
    paper: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    same: bool
    sentence: str
    figures: Sequence[tuple[Figure, str]] = field(default=(), compare=False)


Item = Callable[[Study], Finding]


def reproduce(study: Study, items: Sequence[Item]) -> list[Finding]:
    """Measure every item in turn. What the log holds is not searched again."""
    return [item(study) for item in items]


def findings_page(study: Study, findings: Sequence[Finding], *, command: str | None = None) -> str:
    """All findings as one page: a summary, then each with its table, plots and verdict."""
    model = study.searcher.settings["model"]
    parts: list[Html] = [
        report.paragraph(
            "The measurements of “Test-Time Scaling with Reflective Generative Model” (arXiv 2507.01951) on the model "
            f"{model!r} ({study.parameters:,} parameters) and {len(study.dataset)} questions of {study.dataset.name}. "
            "A small model on another task cannot give the paper's numbers; it can show whether the same happens. "
            "Intervals are 95 %, bootstrapped over questions.",
        ),
        report.table(
            ("item", "what it shows", "the same in kind?"),
            [(f.name, f.title, _verdict(f)) for f in findings],
        ),
    ]
    for finding in findings:
        parts += [
            report.heading(f"{finding.name}: {finding.title}"),
            report.paragraph(f"The paper: {finding.paper}", faint=True),
            report.table(finding.header, finding.rows),
            *(report.figure(drawn, caption) for drawn, caption in finding.figures),
            Html(f"<p><strong>{_verdict(finding).text}.</strong> {report.paragraph(finding.sentence).text[3:]}"),
        ]
    parts.append(report.heading("How it was measured"))
    parts.append(report.definitions({k.replace("_", " "): report.plain(v) for k, v in study.searcher.settings.items()}))
    if command:
        parts.append(report.preformatted(command))
    return report.page("The paper's results in kind", parts)


def findings_markdown(findings: Sequence[Finding]) -> str:
    """The same as Markdown, without the plots."""
    parts = []
    for f in findings:
        lines = [f.header, ["---"] * len(f.header), *f.rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
        verdict = "The same in kind" if f.same else "Not the same in kind"
        parts.append(f"## {f.name}: {f.title}\n\nThe paper: {f.paper}\n\n{table}\n\n**{verdict}.** {f.sentence}\n")
    return "\n".join(parts)


def _verdict(finding: Finding) -> Html:
    said, kind = ("The same in kind", "good") if finding.same else ("Not the same in kind", "bad")
    return Html(f'<span class="{kind}">{said}</span>')
