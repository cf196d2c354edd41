"""Comparing strategies honestly: the same questions, seeds and grader for all, with intervals and paired differences.

`compare(...)` does the searches that its log does not hold yet; `tables` and `report` show what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tts_search.api import Searcher
from tts_search.core.protocols import Strategy
from tts_search.errors import InvalidInputError
from tts_search.evaluation.choices import Choice, choices
from tts_search.evaluation.datasets import Dataset
from tts_search.evaluation.runs import Evaluation, OnRun, Record, Setting, name_of
from tts_search.evaluation.warned import Warned, collected
from tts_search.grading import Grader
from tts_search.metrics import Floats, Interval, bootstrap, paired_difference
from tts_search.options import SelectorLike, resolve_strategy
from tts_search.store import RunLog


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One strategy under one budget, over all questions; records are `[repeats][questions]`."""

    setting: Setting
    records: Sequence[Sequence[Record]]

    @property
    def name(self) -> str:
        """The strategy, and the budget where there is one."""
        return self.setting.label + ("" if self.setting.budget is None else f", {self.setting.budget:,}")

    @cached_property
    def correct(self) -> Floats:
        """Accuracy of each question over its repeats (Pass@1). `[questions]`."""
        return np.array([[record["correct"] for record in repeat] for repeat in self.records], dtype=float).mean(0)

    @cached_property
    def accuracy(self) -> Interval:
        """Pass@1 and its 95 % interval over questions."""
        return bootstrap(self.correct)

    @cached_property
    def tokens(self) -> Interval:
        """Sampled tokens a question."""
        return bootstrap(self._usage("sampled_tokens"))

    @cached_property
    def seconds(self) -> Interval:
        """Wall time a question, as it was met beside the other questions in flight."""
        return bootstrap(self._usage("seconds"))

    @property
    def cached_share(self) -> float | None:
        """How much of the prompt tokens sent came from the prefix cache; None where none was sent."""
        sent = self._usage("prompt_tokens").sum()
        return float(self._usage("cached_tokens").sum() / sent) if sent else None

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """What each selector would have made of the same paths; empty where nobody can tell (see `choices`)."""
        return choices(self.records)

    @property
    def errors(self) -> int:
        """Searches that failed; they count as wrong."""
        return sum(record["error"] is not None for repeat in self.records for record in repeat)

    @property
    def unanswered(self) -> int:
        """Searches that ended without an answer; they count as wrong too."""
        return sum(not record["answer"].strip() and record["error"] is None for row in self.records for record in row)

    def _usage(self, name: str) -> Floats:
        return np.array([[r["usage"][name] for r in repeat] for repeat in self.records], dtype=float).mean(0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was measured. `cells` stand in the order asked for: all budgets of the first strategy, then the next's."""

    dataset: Dataset
    settings: dict[str, Any]
    seed: int
    repeats: int
    cells: tuple[Cell, ...]

    @cached_property
    def warnings(self) -> tuple[Warned, ...]:
        """What results were warned of, each once, the most frequent first."""
        searches = ((cell.name, record) for cell in self.cells for repeat in cell.records for record in repeat)
        return collected((name, record.get("warnings", ())) for name, record in searches)  # older records have none

    @property
    def last_seed(self) -> int:
        """The last repeat's."""
        return self.seed + self.repeats - 1

    def baseline(self, cell: Cell) -> Cell:
        """What a cell is compared with: the first strategy under the same budget."""
        return next(c for c in self.cells if c.setting.budget == cell.setting.budget)

    def difference(self, cell: Cell) -> Interval | None:
        """Accuracy minus the baseline's on the same questions; None for the baseline itself."""
        baseline = self.baseline(cell)
        return None if cell is baseline else paired_difference(cell.correct, baseline.correct)


def compare(
    dataset: Dataset,
    searcher: Searcher,
    *,
    strategies: Sequence[str | Strategy],
    labels: Sequence[str] | None = None,
    budgets: Sequence[int | None] = (None,),
    selector: SelectorLike | None = None,
    repeat: bool = True,
    repeats: int = 1,
    seed: int = 0,
    grader: Grader | str | None = None,
    log: str | Path | None = None,
    on_progress: OnRun | None = None,
) -> Comparison:
    """Search every question with every strategy under every budget.

    Args:
        dataset: the questions, as `load_dataset` gives them.
        searcher: the engine; its `concurrency` questions are in flight at once.
        strategies: names or objects; the first is the baseline of the paired differences.
        labels: what to call the strategies; by default their names, or how they would be typed.
        budgets: caps on sampled tokens a question; None for none.
        selector: how paths are chosen; as in `search`.
        repeat: under a budget, do strategies of a fixed size again until it is spent, so that all spend as much; False
            does each once.
        repeats: searches of each question under each setting, with seeds `seed`, `seed + 1`, ...; their mean counts.
        seed: of the first repeat.
        grader: a function or a name; the data set's own by default.
        log: a file that every finished search is written to. The same call with the same log goes on where it was
            interrupted, and asks nothing twice.
        on_progress: called after each search, from one of several threads.

    Raises:
        InvalidInputError: nothing to compare, two settings that are the same, or an option that cannot be used.
    """
    names = labels or [s if isinstance(s, str) else name_of(s) for s in strategies]
    if len(names) != len(strategies):
        raise InvalidInputError(f"{len(strategies)} strategies need as many labels, got {len(names)}")
    settings = [
        Setting(
            label=name,
            strategy=resolve_strategy(strategy, repeat=repeat and budget is not None),
            budget=budget,
            selector=selector,
        )
        for name, strategy in zip(names, strategies, strict=True)
        for budget in budgets
    ]
    if not settings:
        raise InvalidInputError("nothing to compare: give at least one strategy and one budget (None for no limit)")
    told = [(name_of(setting.strategy), setting.budget) for setting in settings]
    if len(set(told)) < len(told):
        twice = next(pair for pair in told if told.count(pair) > 1)
        raise InvalidInputError(f"{twice[0]} with budget {twice[1]} is there twice")
    with RunLog(log) as runs:
        evaluation = Evaluation(dataset=dataset, searcher=searcher, log=runs, grader=grader)
        records = evaluation.run(settings, repeats=repeats, seed=seed, on_progress=on_progress)
    return Comparison(
        dataset=dataset,
        settings=searcher.settings,
        seed=seed,
        repeats=repeats,
        cells=tuple(Cell(setting=s, records=r) for s, r in zip(settings, records, strict=True)),
    )
