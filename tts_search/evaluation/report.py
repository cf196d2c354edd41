"""Results as one HTML page that needs nothing else: no network, no script. Texts reach it as text alone."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tts_search.evaluation import tables
from tts_search.evaluation.comparison import Comparison
from tts_search.evaluation.plots import Curve, curves, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_QUESTIONS = 100
TEXT_COLUMNS = (
    "question",
    "reference",
    "strategy",
    "what it shows",
    "reasoning",
    "note",
    "step",
    "choice",
    "loss",
    "trajectory",
    "warning",
    "where",
)
_LONGEST_TEXT = 160

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --faint: #5d6673; --line: #dde1e6; --paper: #fff; --band: #f6f7f9;
  --good: #17703a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --faint: #9aa3af; --line: #3a414c; --paper: #14181f;
  --band: #1b2029; --good: #6fce93; --bad: #f2867d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; } .faint { color: var(--faint); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { color: var(--faint); font-weight: 600; } tbody tr:hover { background: var(--band); }
th:first-child, td:first-child { text-align: left; padding-left: 0; } .text { text-align: left; }
td.text { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } img { width: 100%; max-width: 54rem; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--faint); font-size: .9rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
code, pre { font: .85rem/1.45 ui-monospace, monospace; } pre { background: var(--band); padding: .8rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that is safe to put into a page."""

    text: str


def comparison_page(comparison: Comparison, *, command: str | None = None) -> str:
    """A page to send to a colleague: the table, both plots, where strategies disagree, and how it was measured."""
    tokens, seconds = comparison_figures(comparison)
    return page(
        f"Strategies compared on {comparison.dataset.name}",
        [
            paragraph(tables.caption(comparison), faint=True),
            heading("Accuracy and cost"),
            table(tables.HEADER, tables.rows(comparison)),
            paragraph(
                "Accuracy in percent with its 95 % interval, bootstrapped over questions. Difference: percentage "
                "points against the first strategy under the same budget on the same questions; where its interval "
                "does not hold 0, chance in the choice of questions is an unlikely reason. Tokens and seconds are "
                "means a question; seconds were met with other questions in flight. A failed search, and one without "
                "an answer, counts as wrong."
            ),
            figure(tokens, "Accuracy against sampled tokens a question, with 95 % intervals."),
            figure(seconds, "Accuracy against wall time a question, with 95 % intervals."),
            *_choices(comparison),
            *_warnings(comparison),
            heading("Where they disagree"),
            *_disagreements(comparison),
            heading("How it was measured"),
            definitions(
                {
                    "data set": f"{comparison.dataset.name}, {len(comparison.dataset)} questions, graded by "
                    f"{comparison.dataset.grader}",
                    "seeds": " to ".join(str(s) for s in sorted({comparison.seed, comparison.last_seed})),
                    **{name.replace("_", " "): plain(value) for name, value in comparison.settings.items()},
                }
            ),
            *([preformatted(command)] if command else []),
        ],
    )


def _choices(comparison: Comparison) -> list[Html]:
    rows = tables.choice_rows(comparison)
    if not rows:
        return []
    return [
        heading("The same paths, chosen otherwise"),
        table(tables.CHOICES_HEADER, rows),
        paragraph(
            "What each selector would have made of the paths that a strategy found, at no token more. Gain: percentage "
            "points over a path at random, on the same questions. The oracle takes a right path if there is one. "
            "Settings with one path a question, or with paths that were never answered, are left out."
        ),
    ]


def _warnings(comparison: Comparison) -> list[Html]:
    rows = tables.warning_rows(comparison)
    return [heading("Warnings"), table(tables.WARNINGS_HEADER, rows)] if rows else []


def comparison_figures(comparison: Comparison) -> tuple[Figure, Figure]:
    """Accuracy against sampled tokens, and against seconds: one line a strategy, one point a budget."""
    by_label: dict[str, list] = {}
    for cell in comparison.cells:
        by_label.setdefault(cell.setting.label, []).append(cell)

    def draw(quantity: str, xlabel: str) -> Figure:
        lines = [
            Curve(
                label=_wrapped(label),
                x=[max(getattr(cell, quantity).mean, 1e-3) for cell in cells],
                y=[cell.accuracy for cell in cells],
            )
            for label, cells in by_label.items()
        ]
        return curves(lines, xlabel=xlabel, title=tables.caption(comparison))

    return draw("tokens", "sampled tokens a question"), draw("seconds", "seconds a question")


def _wrapped(label: str, width: int = 26) -> str:
    """A long label in lines that leave the plot its room."""
    lines = [label[i : i + width] for i in range(0, len(label), width)]
    return "\n".join(lines[:3]) + ("…" if len(lines) > 3 else "")


def _disagreements(comparison: Comparison) -> list[Html]:
    cells = comparison.cells
    found = [i for i in range(len(comparison.dataset)) if len({float(cell.correct[i]) for cell in cells}) > 1]
    if not found:
        return [paragraph("Nowhere: on every question all of them are as good.")]
    told = any(problem.reference != problem.question for problem in comparison.dataset.problems)
    rows = []
    for i in found[:SHOWN_QUESTIONS]:
        problem = comparison.dataset.problems[i]
        marks = [_mark(float(cell.correct[i])) for cell in cells]
        rows.append([problem.id, _cut(problem.question), *([_cut(problem.reference)] if told else []), *marks])
    names = [cell.name for cell in cells]
    said = f"{len(found)} of {len(comparison.dataset)} questions"
    more = f"; the first {SHOWN_QUESTIONS} are shown" if len(found) > SHOWN_QUESTIONS else ""
    return [
        paragraph(f"On {said} they are not all as good{more}."),
        table(("id", "question", *(["reference"] if told else []), *names), rows),
    ]


def plain(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(inner)}" for name, inner in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _mark(share: float) -> Html | str:
    if share in (0.0, 1.0):
        return Html('<span class="good">right</span>' if share else '<span class="bad">wrong</span>')
    return f"{100 * share:.0f} %"


def _cut(text: str) -> Html:
    folded = " ".join(text.split())
    return Html(html.escape(folded if len(folded) <= _LONGEST_TEXT else folded[: _LONGEST_TEXT - 1] + "…"))


def page(title: str, parts: Sequence[Html]) -> str:
    """A whole document. Its policy lets it load nothing and run nothing."""
    body = "\n".join(part.text for part in parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{body}
</body>
</html>
"""


def heading(text: str) -> Html:
    """A section begins."""
    return Html(f"<h2>{html.escape(text)}</h2>")


def paragraph(text: str, *, faint: bool = False) -> Html:
    """Running text."""
    return Html(f"<p{' class=faint' if faint else ''}>{html.escape(text)}</p>")


def preformatted(text: str) -> Html:
    """A command, as it is typed."""
    return Html(f"<pre>{html.escape(text)}</pre>")


def figure(drawn: Figure, caption: str) -> Html:
    """A plot inside the page, as an image that cannot run anything."""
    data = base64.b64encode(to_svg(drawn).encode()).decode()
    text = html.escape(caption)
    return Html(
        f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str | Html]]) -> Html:
    """A table that scrolls by itself where it is too wide."""
    head = "".join(f"<th{_kind(name)}>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, header, row))}</tr>" for row in rows)
    return Html(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _cell(name: str, value: str | Html) -> str:
    return f"<td{_kind(name)}>{value.text if isinstance(value, Html) else html.escape(value)}</td>"


def _kind(column: str) -> str:
    """Columns of words stand left and wrap; all others are numbers."""
    return ' class="text"' if column in TEXT_COLUMNS else ""


def definitions(entries: dict[str, str]) -> Html:
    """Names and what they stand for."""
    return Html(
        "<dl>" + "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in entries.items()) + "</dl>"
    )
