"""A search's events as JSON, for pages that draw it while it runs: `/v1/searches/{id}/events`.

    started   question, budget
    grown     nodes: index, parent, ending, score (of the whole path), tokens, pieces (text; score, where a step ends)
    sampled   tokens, nodes
    chosen    node, thinking, score
    answering text, more of the answer
    finished  search: as in a reply, and the answer; failed: error, as in a reply

A watcher who comes late hears everything that has happened first. Knows no reply.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from tts_search.core.events import Answering, Chosen, Event, Grown, Sampled, Started
from tts_search.core.tree import Node, Tree
from tts_search.serving.refusals import refusal_of
from tts_search.serving.reply_content import extension
from tts_search.serving.searches import Search
from tts_search.serving.sse_out import data


async def watch(search: Search) -> AsyncIterator[bytes]:
    """Everything, in order; the end is `finished` or `failed`."""
    async for events in search.listen():
        for event in events:
            if (told := _told(event, search.tree)) is not None:
                kind, fields = told
                yield data({"type": kind, **fields}, event=kind)
    result = search.result
    if result is None:
        error = search.error or RuntimeError("the search ended without a result")
        yield data({"type": "failed", **refusal_of(error).body}, event="failed")
        return
    told = {"answer": result.answer, "search": extension(search.id, result, search.plan.warnings)}
    yield data({"type": "finished", **told}, event="finished")


def _told(event: Event, tree: Tree | None) -> tuple[str, dict[str, Any]] | None:
    if isinstance(event, Started):
        return "started", {"question": event.question, "budget": event.budget}
    if isinstance(event, Sampled):
        return "sampled", {"tokens": event.sampled_tokens, "nodes": event.nodes}
    if isinstance(event, Grown) and tree is not None:
        return "grown", {"nodes": [_node(node, tree) for node in event.nodes]}
    if isinstance(event, Chosen):
        return "chosen", {"node": event.node.index, "thinking": event.thinking, "score": event.score}
    if isinstance(event, Answering):
        return "answering", {"text": event.text}
    return None


def _node(node: Node, tree: Tree) -> dict[str, Any]:
    return {
        "index": node.index,
        "parent": node.parent,
        "ending": str(node.ending),
        "score": node.value if node.new_step_scores else None,
        "tokens": len(node.ids),
        "pieces": list(_pieces(node, tree)),
    }


def _pieces(node: Node, tree: Tree) -> Iterator[dict[str, Any]]:
    """The node's own text, cut where steps end; the first piece may go on with a step of its parent's."""
    begin = node.length - len(node.ids)
    ends = [end - begin for end in node.new_step_ends]
    scores = node.new_step_scores or (None,) * len(ends)
    start = 0
    for end, score in zip(ends, scores, strict=True):
        yield {"text": tree.decode(node.ids[start:end]), "step": True, "score": score}
        start = end
    if start < len(node.ids):
        yield {"text": tree.decode(node.ids[start:]), "step": False, "score": None}
