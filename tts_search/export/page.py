"""A search as one HTML page that needs nothing else: no network, no server, no fonts.

The page is `explorer.html` with the search in it as JSON. The texts of a question and of a model are anybody's: they
reach the document as text alone, and a Content-Security-Policy lets only the page's own script run. Knows no browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from tts_search.core.result import SearchResult
from tts_search.export.colors import DARK, LIGHT
from tts_search.export.rows import Row, Source, result_of, rows, tree_of

POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; base-uri 'none'; form-action 'none'"
)


def to_html(source: Source, *, visits: Mapping[int, int] | None = None) -> str:
    """The explorer page. It works from a file, folds deep levels at first, and stays fluid at thousands of nodes.

    `visits` maps node indices to counts; by default they are those that the strategy left in the tree, and without any
    the page shows how many draws went through each node. The data in it are pure ASCII, whatever the search's language.

    Raises:
        InvalidInputError: the result has no tree.
    """
    template = (files("tts_search.export") / "explorer.html").read_text(encoding="utf-8")
    policy = POLICY.format(
        script=_digest(_between(template, "<script>", "</script>")),
        style=_digest(_between(template, "<style>", "</style>")),
    )
    page = template.replace("{{policy}}", policy)
    before, after = page.split("{{data}}")  # split, not replaced: the data may hold whatever looks like a mark
    return before + _embed(_data(source, visits)) + after


def _embed(data: Any) -> str:
    """JSON for the inside of a script element: without `<` it can neither end the element nor open a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _between(text: str, start: str, end: str) -> str:
    return text.split(start, 1)[1].split(end, 1)[0]


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(source: Source, visits: Mapping[int, int] | None) -> dict[str, Any]:
    tree, result = tree_of(source), result_of(source)
    return {
        "question": _turns(tree.question),
        "nodes": [_node(row) for row in rows(source, visits)],
        "visits": "visits" if visits is not None or tree.visits else "draws",
        "scales": {"light": LIGHT, "dark": DARK},
        "result": None if result is None else _result(result),
    }


def _node(row: Row) -> dict[str, Any]:
    node = row.node
    return {
        "parent": node.parent,
        "ending": str(node.ending),
        "length": node.token_length,
        "tokens": node.token_count,
        "value": _number(row.value),
        "logprob": _number(row.mean_logprob),
        "visits": row.visits,
        "lane": row.lane,
        "chosen": row.chosen,
        "candidate": row.candidate,
        "pieces": [[piece.text, str(piece.kind), piece.tokens, _number(piece.score)] for piece in row.pieces],
    }


def _result(result: SearchResult) -> dict[str, Any]:
    return {
        "answer": result.answer,
        "score": _number(result.score),
        "stop_reason": str(result.stop_reason),
        "strategy": result.strategy,
        "selector": result.selector,
        "model": result.model,
        "seed": result.seed,
        "budget": result.budget,
        "chosen": result.chosen,
        "error": None if result.error is None else f"{type(result.error).__name__}: {result.error}",
        "usage": {name: _number(value) for name, value in asdict(result.usage).items()},
        "candidates": [
            {
                "node": candidate.node,
                "score": _number(candidate.score),
                "logprob": _number(candidate.mean_logprob),
                "answer": candidate.answer,
                "vote": candidate.vote,
            }
            for candidate in result.candidates
        ],
    }


def _turns(question: str | Sequence[Mapping[str, str]]) -> list[list[str]]:
    if isinstance(question, str):
        return [["user", question]]
    return [[str(message.get("role", "")), str(message.get("content", ""))] for message in question]


def _number(value: float | None) -> float | None:
    """What JSON has a number for, rounded to what the page can show."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else round(value, 5)
