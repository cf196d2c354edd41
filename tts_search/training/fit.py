"""`fit_head`: from a frozen policy and graded trajectories to an SPRM head, and what it is worth on held-out questions.

This is how most heads begin. The policy is never changed; its hidden states are computed once and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tts_search.errors import InvalidInputError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.models import EMBEDDED, model_folder
from tts_search.scorers.aggregate import resolve_aggregation
from tts_search.segmentation import DEFAULT_STEP_RULE, Segmenter, StepRule, TokenIds
from tts_search.sprm.config import Readout, SPRMConfig
from tts_search.sprm.loading import FOLDER, check_free, is_head
from tts_search.sprm.module import SPRM
from tts_search.training.held_out import REPORT_FILE, HeadReport, judge
from tts_search.training.probe import ProbeSettings, fit_probe
from tts_search.training.states import Reader, step_states
from tts_search.training.trajectories import GradedTrajectory, read_trajectories
from tts_search.whole_files import replacing_folder

Part = Literal["train", "validation", "held-out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a head is fitted.

    `readout`, `step_rule` and `aggregation` go into the head's config. `labels="outcome"` gives every step its
    trajectory's outcome; `"steps"` takes step labels where a trajectory has them. Of the questions a share of
    `held_out` is only measured on, and a share of `validation` chooses the epoch; a hash of the question decides, so
    more data never moves a question from one part to another. 0 for none.
    """

    readout: Readout = "previous"
    step_rule: StepRule | str = DEFAULT_STEP_RULE
    aggregation: str = "geometric_mean"
    labels: Literal["outcome", "steps"] = "outcome"
    held_out: float = 0.2
    validation: float = 0.1
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    reader: Reader = field(default_factory=Reader)

    def __post_init__(self) -> None:
        resolve_aggregation(self.aggregation)
        if self.labels not in ("outcome", "steps"):
            raise InvalidInputError(f'labels must be "outcome" or "steps", got {self.labels!r}')
        if min(self.held_out, self.validation) < 0 or self.held_out + self.validation >= 1:
            raise InvalidInputError(
                f"held_out and validation are shares of the questions, below 1 together; got {self.held_out} and "
                f"{self.validation}"
            )


def fit_head(
    model: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    *,
    settings: FitSettings = FitSettings(),
    cache: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> HeadReport:
    """Fit a head to a frozen policy and write it to `out`.

    Args:
        model: the policy: a model folder, a hub id, or `"embedded"`.
        data: graded trajectories as JSON lines (see `tts_search.training.trajectories`).
        out: the head's folder; by default `sprm/` in the model's folder, where `Searcher(model)` finds it.
        settings: all choices.
        cache: where hidden states are kept; by default beside the data, `<data>.states/`.
        report: what progress lines go to.

    Returns:
        What the head is worth on the held-out questions; also written to `out` as `report.json`.

    Raises:
        InvalidInputError: the data cannot be used, or there is no place for the head.
        ModelNotFoundError: no such model.
    """
    folder = model_folder(model)
    if out is None and model == EMBEDDED:
        raise InvalidInputError("the embedded model keeps its own head: name a folder for yours with out=...")
    place = _free_place(folder / FOLDER if out is None else Path(out))
    tokenizer = PretrainedTokenizer(folder)
    segmenter = Segmenter(tokenizer, settings.step_rule)
    trajectories = read_trajectories(data, tokenizer, segmenter, report=report)
    parts = [part_of(t.question, settings) for t in trajectories]
    states = step_states(
        folder,
        trajectories,
        readout=settings.readout,
        cache=Path(cache) if cache is not None else Path(data).with_suffix(".states"),
        reader=settings.reader,
        report=report,
    )
    hidden_size = next(s for s in states if len(s)).shape[1]
    config = SPRMConfig(
        hidden_size=hidden_size,
        readout=settings.readout,
        step_rule=TokenIds(segmenter.step_ids) if callable(segmenter.rule) else segmenter.rule,
        aggregation=settings.aggregation,
    )
    chosen = {name: [i for i, part in enumerate(parts) if part == name] for name in ("train", "validation", "held-out")}
    learned, watched = (_steps(trajectories, states, chosen[p], settings.labels) for p in ("train", "validation"))
    if not len(learned[1]):
        raise InvalidInputError(f"{data}: no steps to learn from among {len(chosen['train'])} training trajectories")
    if learned[1].min() == learned[1].max():
        kind = "right" if learned[1].max() else "wrong"
        raise InvalidInputError(
            f"{data}: every training step is labelled {kind}: a head needs both kinds to tell apart"
        )
    head = fit_probe(*learned, config, settings.probe, validation=watched if len(watched[1]) else None, report=report)
    held = [trajectories[i] for i in chosen["held-out"]]
    scores, values = score(head, [states[i] for i in chosen["held-out"]])
    found = judge(held, scores, values)
    _write(head, found, place)
    return found


def part_of(question: str, settings: FitSettings) -> Part:
    """Which part of the data a question belongs to: decided by a hash, with the seed of the probe."""
    digest = hashlib.blake2b(f"{settings.probe.seed}:{question}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    if place < settings.held_out:
        return "held-out"
    return "validation" if place < settings.held_out + settings.validation else "train"


@torch.inference_mode()
def score(head: SPRM, states: Sequence[Tensor]) -> tuple[list[list[float]], list[float]]:
    """Step scores in [0, 1] of each trajectory, and their aggregation by the head's config."""
    aggregate = resolve_aggregation(head.config.aggregation)
    scores: list[list[float]] = [head(s).sigmoid().tolist() if len(s) else [] for s in states]
    return scores, [aggregate(steps) for steps in scores]


def _steps(
    trajectories: Sequence[GradedTrajectory], states: Sequence[Tensor], chosen: Sequence[int], labels: str
) -> tuple[Tensor, Tensor]:
    """Hidden states `[steps, hidden]` and labels `[steps]` of the chosen trajectories."""
    rows, wanted = list[Tensor](), list[float]()
    for i in chosen:
        t = trajectories[i]
        own = t.step_labels if labels == "steps" else None
        for row, label in zip(states[i], own or (t.right,) * len(states[i]), strict=True):
            if label is not None:
                rows.append(row)
                wanted.append(float(label))
    return (torch.stack(rows) if rows else torch.zeros(0, 0)), torch.tensor(wanted)


def _free_place(place: Path) -> Path:
    check_free(place)
    if (place / REPORT_FILE).exists() and not is_head(place):
        raise InvalidInputError(
            f"{str(place / REPORT_FILE)!r} is there already, with no head beside it: move it away, or name another "
            "folder for the head"
        )
    return place


def _write(head: SPRM, report: HeadReport, place: Path) -> None:
    """Whole files or none, so that an interruption never leaves half a head."""
    with replacing_folder(place) as folder:  # the config comes first: it says that the others are a head's
        head.save_pretrained(folder)
        report.save(folder)
