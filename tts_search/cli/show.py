"""A search result drawn for people: answer, thinking with step scores, candidates, token account.

In a terminal with colours and a frame around the answer; in a pipe the same as plain text, one step a line. It knows
results; how they came about it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tts_search.cli.terminal import plain, writes_unicode
from tts_search.core.result import SearchResult, StopReason
from tts_search.export.colors import ANY, color

BAR_CELLS = 5
CANDIDATES_SHOWN = 8
_CHOSEN_BY = {
    "best": "the highest score wins",
    "majority": "the answer with the most votes wins",
    "weighted": "the answer whose scores add up highest wins",
    "logprob": "the highest mean log-probability wins",
}


def draw(result: SearchResult, console: Console) -> str:
    """The whole report as text for this console: answer, thinking with step scores, candidates, token account."""
    parts: list[RenderableType] = [_answer(result, console)]
    for title, detail, body in (_thinking(result, console), _candidates(result, console), _account(result)):
        if body is not None:
            parts += [Text(), Text.assemble((title, "bold"), ("  " + detail, "dim")), Padding(body, (0, 0, 0, 2))]
    return drawn(Group(*parts), console)


def drawn(what: RenderableType, console: Console) -> str:
    """Text for this console, without the blanks that tables leave at the ends of lines."""
    with console.capture() as capture:
        console.print(what)
    return "".join(line.rstrip(" ") + "\n" for line in capture.get().split("\n")[:-1])


def remark(result: SearchResult) -> str | None:
    """Why the search ended, in plain words with a remedy; None where there is nothing to say."""
    cap = f"{result.budget:,} tokens" if result.budget else "tokens"
    if result.stop_reason is StopReason.EMPTY:
        return "the model ended its response at once: there is no text to answer from. Try another --seed or --model"
    if not result.answer.strip():
        if result.stop_reason is StopReason.BUDGET:
            return f"the budget of {cap} was spent before an answer was written: raise --budget"
        return "the model wrote nothing after its thinking: try another --seed, or more --answer-tokens"
    return {
        StopReason.BUDGET: f"the budget of {cap} was spent: this is the best it paid for. Raise --budget to search on",
        StopReason.LENGTH: "no path came to an end: the best one was cut off and answered from. Raise --max-tokens to "
        "let it finish",
        StopReason.EARLY: "the search ended early: more of it could not have changed the choice",
        StopReason.TIME: "the time was up: this is the best answer until then. Raise --seconds to search on",
        StopReason.HALTED: "the search was halted: this is the best answer until then",
    }.get(result.stop_reason)


def _answer(result: SearchResult, console: Console) -> RenderableType:
    answer = plain(result.answer.strip())
    note = remark(result)
    lines = [Text(answer, "bold")] if answer else []
    if not console.is_terminal:
        said = [note] if note else []
        said += [f"warning: {plain(warning)}" for warning in result.warnings]
        return Group(*lines, *[Text(f"({words})") for words in said])
    if not answer:
        lines = [Text("no answer", "italic")]
    for words in [note or "", *map(plain, result.warnings)]:
        if words:
            lines += [Text(), Text(words[0].upper() + words[1:] + ".", "yellow")]
    score = "" if result.score is None else f"score {result.score:.2f}"
    colour = "green" if answer and not note and not result.warnings else "yellow"
    return Panel(
        Group(*lines), title=Text("Answer"), title_align="left", subtitle=score, subtitle_align="right",
        border_style=colour, padding=(0, 2),
    )  # fmt: skip


def _segments(result: SearchResult) -> list[tuple[str, float | None]]:
    """The thinking in pieces: every finished step with its score, then what follows the last of them."""
    texts = [step.text for step in result.steps]
    joined = "".join(texts)
    # What the model wrote in front of its thinking, and the tag, stand in the first steps, and not in `thinking`.
    thinking, size = result.thinking, len(joined)
    tag = joined.find(thinking[:16]) if thinking else size
    if tag < 0:
        tag = next((k for k in range(max(0, size - 16), size) if thinking.startswith(joined[k:])), size)
    front = tag
    for number, text in enumerate(texts):
        texts[number], front = text[front:], max(0, front - len(text))
    rest = thinking[size - tag :] if thinking.startswith(joined[tag:]) else ""
    pieces = [(text, step.score) for text, step in zip(texts, result.steps, strict=True)]
    return [*pieces, (rest, None)] if rest.strip() else pieces


def _thinking(result: SearchResult, console: Console) -> tuple[str, str, RenderableType | None]:
    segments = _segments(result)
    scored = any(score is not None for _, score in segments)
    same = result.thinking.strip() == result.answer.strip()  # a model without thinking tags
    if not segments or (same and not scored):
        return "", "", None
    title = "The answer, step by step" if same else "Thinking"
    count = len(result.steps)
    detail = f"{count} step{'s' * (count != 1)}" + (", each scored from 0 to 1" if scored else ", not scored")
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim", no_wrap=True)
    if scored:
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, width=BAR_CELLS)
    table.add_column()
    for number, (text, score) in enumerate(segments, start=1):
        words = Text(plain("\n".join(line for line in text.strip("\n").rstrip().splitlines() if line.strip())))
        label = str(number) if number <= count else ""
        if not scored:
            table.add_row(label, words)
        elif score is None:
            words.stylize("dim")
            table.add_row(label, Text("   –" if writes_unicode(console) else "   -", "dim"), "", words)
        else:
            style = color(score, ANY)
            table.add_row(label, Text(f"{score:.2f}", style), Text(_bar(score, console), style), words)
    return title, detail, table


def _bar(score: float, console: Console) -> str:
    """The score once more as a length, for eyes and places without colour."""
    halves = round(min(max(score, 0.0), 1.0) * BAR_CELLS * 2)
    return "━" * (halves // 2) + "╸" * (halves % 2) if writes_unicode(console) else "=" * ((halves + 1) // 2)


@dataclass(frozen=True, slots=True)
class _Row:
    """Candidates that say the same, by index, the chosen one or else the best first."""

    words: Text
    members: Sequence[int]


def _candidates(result: SearchResult, console: Console) -> tuple[str, str, RenderableType | None]:
    candidates = result.candidates
    if len(candidates) < 2:
        return "", "", None
    voted = sum(c.answer is not None for c in candidates) > 1
    rows = _rows(result, voted=voted)
    shown, more = rows[:CANDIDATES_SHOWN], sum(len(row.members) for row in rows[CANDIDATES_SHOWN:])
    headings = ["score"] * (result.score is not None) + ["sum"] * (result.selector == "weighted")
    headings += ["votes"] if voted else ["paths"] * (len(rows) < len(candidates))
    headings += ["logprob"] * (result.selector == "logprob") + ["tokens"]
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for _ in headings:
        table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row(
        "", *(Text(name, "dim") for name in headings), Text("answer" if voted else "answer, or last thought", "dim")
    )
    mark = "▸" if writes_unicode(console) else ">"
    for row in shown:
        cells = _cells(result, row)
        chosen = result.chosen in row.members
        if chosen:
            row.words.stylize("bold")
        table.add_row(mark if chosen else "", *(cells[name] for name in headings), row.words)
    chosen_by = _CHOSEN_BY.get(result.selector, f"chosen by {result.selector}")
    rest = [Text(f"and {more} more; --json has them all", "dim")] if more > 0 else []
    return "Candidates", f"{len(candidates)} paths, {chosen_by}", Group(table, *rest)


def _rows(result: SearchResult, *, voted: bool) -> list[_Row]:
    """Equal candidates together; the chosen one's row first, then by votes where they decide, then by score."""
    candidates, chosen = result.candidates, result.chosen
    words = [_words(result, i, voted=voted) for i in range(len(candidates))]
    equal: dict[tuple[str, ...], list[int]] = {}
    for i in sorted(range(len(candidates)), key=lambda i: (i != chosen, -(candidates[i].score or 0.0), i)):
        score = "" if candidates[i].answer is not None or candidates[i].score is None else f"{candidates[i].score:.2f}"
        equal.setdefault((words[i].plain, score), []).append(i)
    rows = [_Row(words[members[0]], members) for members in equal.values()]
    if result.selector in ("majority", "weighted"):
        weigh = _sum if result.selector == "weighted" else lambda _, row: len(row.members)
        rows.sort(key=lambda row: (chosen not in row.members, -weigh(result, row)))
    return rows


def _sum(result: SearchResult, row: _Row) -> float:
    return sum(result.candidates[i].score or 0.0 for i in row.members)


def _cells(result: SearchResult, row: _Row) -> dict[str, Text]:
    best = result.candidates[row.members[0]]
    lengths = [result.tree.nodes[result.candidates[i].node].token_length for i in row.members] if result.tree else []
    tokens = " to ".join(f"{length:,}" for length in dict.fromkeys((min(lengths), max(lengths)))) if lengths else ""
    return {
        "score": Text() if best.score is None else Text(f"{best.score:.2f}", color(best.score, ANY)),
        "sum": Text(f"{_sum(result, row):.2f}"),
        "votes": Text(str(len(row.members)) if best.vote is not None else ""),
        "paths": Text(str(len(row.members))),
        "logprob": Text("" if best.mean_logprob is None else f"{best.mean_logprob:.3f}"),
        "tokens": Text(tokens),
    }


def _words(result: SearchResult, index: int, *, voted: bool) -> Text:
    """A candidate's answer. One that nobody needed is none that is missing: its last thought stands there."""
    candidate = result.candidates[index]
    if candidate.answer is not None:
        words = candidate.vote or " ".join(candidate.answer.split())
        return Text(plain(words), no_wrap=True, overflow="ellipsis") if words else Text("empty", "dim")
    if voted or index == result.chosen or result.tree is None:
        return Text("not answered" if voted or index == result.chosen else "", "dim")
    thinking, _ = result.tree.split(result.tree.nodes[candidate.node])
    last = next((line.strip() for line in reversed(thinking.splitlines()) if line.strip()), "")
    return Text(plain(f"... {last}") if last else "", "dim", no_wrap=True, overflow="ellipsis")


def _cut_off(result: SearchResult) -> int:
    """How many samples were cut off and so are no candidates, where every sample was to be one."""
    tree = result.tree
    if tree is None or result.stop_reason is not StopReason.COMPLETED or "BestOfN" not in result.strategy:
        return 0
    return sum(not node.ended for node in tree.leaves() if node.up is not None)


def _account(result: SearchResult) -> tuple[str, str, RenderableType]:
    usage = result.usage
    cap = f" of {result.budget:,} allowed" if result.budget else ""
    rows = [("sampled", f"{usage.sampled_tokens:,}{cap}, {usage.answer_tokens:,} of them for answers")]
    if usage.saved_tokens:
        rows.append(("saved", f"{usage.saved_tokens:,} by stopping early"))
    if cut := _cut_off(result):
        paths = f"{cut:,} of {cut + len(result.candidates):,} paths"
        rows.append(("left out", f"{paths}, which came to no end: --max-tokens is their limit"))
    cached = (
        f", {usage.cached_tokens / usage.prompt_tokens:.0%} of it from the prefix cache" if usage.prompt_tokens else ""
    )
    rows.append(("prompt", f"{usage.prompt_tokens:,}{cached}"))
    if usage.scored_tokens:
        rows.append(("scored", f"{usage.scored_tokens:,}, in passes of the scorer's own"))
    speed = f", {usage.sampled_tokens / usage.seconds:,.0f} tokens/s" if usage.seconds else ""
    rows.append(("requests", f"{usage.requests:,} in {usage.seconds:.1f} s{speed}"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in rows:
        table.add_row(label, text)
    return "Tokens", f"{result.model}, {result.strategy}, seed {result.seed}", table
