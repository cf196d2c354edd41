"""The scaling law of test-time compute (paper, Fig. 5): accuracy as a line in log C, C = parameters x sampled tokens.

The points come from the same questions, so the fit's interval is a bootstrap over questions, not over points. It fits
what it is given; how far the line holds beyond it, nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tts_search.errors import InvalidInputError
from tts_search.evaluation.plots import COLORS, curves
from tts_search.evaluation.plots import Curve as Line
from tts_search.metrics import Floats, Interval, bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingLaw:
    """accuracy = intercept + slope * log2(C), least squares over the points.

    `slope` is accuracy gained with each doubling of C, with its 95 % interval. `r2` is how much of the points' variance
    the line explains; None where they have none.
    """

    compute: Floats  # [points]
    accuracy: Floats  # [questions, points]
    slope: Interval
    intercept: Interval
    r2: float | None

    def predict(self, compute: float) -> Interval:
        """The line's accuracy at a compute, with its 95 % interval over questions."""
        return bootstrap(self.accuracy @ _weights(self.compute, np.log2(compute)))


def fit_scaling_law(compute: ArrayLike, accuracy: ArrayLike) -> ScalingLaw:
    """Fit the line.

    Args:
        compute: C of each point, `[points]`, at least two that differ.
        accuracy: of each question at each point, `[questions, points]`.

    Raises:
        InvalidInputError: C is not positive, all the same, or does not fit the accuracies.
    """
    at, rows = np.asarray(compute, dtype=float), np.asarray(accuracy, dtype=float)
    if at.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(at) or not len(rows):
        raise InvalidInputError(f"compute is [points], accuracy [questions, points]: got {at.shape} and {rows.shape}")
    if not (at > 0).all() or len(set(at.tolist())) < 2:
        raise InvalidInputError(f"a line needs at least two different positive values of compute: got {at.tolist()}")
    zero, one = _weights(at, 0.0), _weights(at, 1.0)
    means = rows.mean(0)
    fitted = means @ zero + np.log2(at) * (means @ (one - zero))
    spread = ((means - means.mean()) ** 2).sum()
    return ScalingLaw(
        compute=at,
        accuracy=rows,
        slope=bootstrap(rows @ (one - zero)),
        intercept=bootstrap(rows @ zero),
        r2=float(1 - ((means - fitted) ** 2).sum() / spread) if spread > 0 else None,
    )


def plot_scaling_law(laws: Sequence[tuple[str, ScalingLaw]], *, title: str = "") -> Figure:
    """Each law's points with their intervals, its line, and the line's 95 % band."""
    figure = curves(
        [
            Line(label=name, x=law.compute.tolist(), y=[bootstrap(column) for column in law.accuracy.T], joined=False)
            for name, law in laws
        ],
        xlabel="C = parameters x sampled tokens a question",
        title=title,
    )
    (axes,) = figure.axes
    for i, (_, law) in enumerate(laws):
        grid = np.geomspace(law.compute.min(), law.compute.max(), 40)
        band = [law.predict(float(c)) for c in grid]
        axes.plot(grid, [y.mean for y in band], color=COLORS[i % len(COLORS)], linewidth=1.6)
        axes.fill_between(
            grid, [y.low for y in band], [y.high for y in band], color=COLORS[i % len(COLORS)], alpha=0.15, linewidth=0
        )
    return figure


def _weights(compute: Floats, at: float) -> Floats:
    """The least-squares line at `at` (a log2 of compute) is linear in the accuracies: these are its weights."""
    x = np.log2(compute)
    centred = x - x.mean()
    return 1 / len(x) + (at - x.mean()) * centred / (centred**2).sum()
