"""A search as a networkx graph, and as GraphML for Gephi, yEd, Cytoscape and the like. Knows no layout."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tts_search.errors import MissingDependencyError
from tts_search.export.rows import Row, Source, result_of, rows, tree_of

if TYPE_CHECKING:
    import networkx

# What XML 1.0 cannot hold, in any notation (control characters, surrogates, two non-characters). A carriage return can
# stand there, but every parser turns it into a newline: better done here, where it can be seen.
_NOT_XML = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_networkx(source: Source, *, visits: Mapping[int, int] | None = None) -> networkx.DiGraph[int]:
    """A directed graph from parents to children. Nodes are named by their index in the tree.

    Node attributes: `text`, `tokens`, `depth`, `length` (tokens of the path), `ending`, `value` (None where nothing was
    scored), `step_scores` (of the whole path), `new_step_scores` (of the node's own steps), `mean_logprob`, `visits`
    (see `rows.Row`), `chosen` (on the path that was answered from), `candidate` (index
    into the candidates, or None), `answer` (a candidate's). Graph attributes: what the result says of the whole search.

    Raises:
        MissingDependencyError: networkx is not installed.
        InvalidInputError: the result has no tree.
    """
    networkx = import_networkx()
    graph = networkx.DiGraph()
    graph.graph.update(_graph_attributes(source))
    result = result_of(source)
    for row in rows(source, visits):
        answer = None if result is None or row.candidate is None else result.candidates[row.candidate].answer
        graph.add_node(row.node.index, **_node_attributes(row), answer=answer)
        if row.node.parent is not None:
            graph.add_edge(row.node.parent, row.node.index)
    return graph


def to_graphml(source: Source, *, visits: Mapping[int, int] | None = None) -> str:
    """The graph of `to_networkx` as GraphML text.

    What GraphML cannot say is left out or spelled: an attribute that is None or NaN is absent from its node, scores are
    numbers with spaces between them, and characters that XML forbids become U+FFFD.

    Raises:
        MissingDependencyError: networkx is not installed.
        InvalidInputError: the result has no tree.
    """
    networkx = import_networkx()
    graph = to_networkx(source, visits=visits)
    plain = networkx.DiGraph(**_xml_attributes(graph.graph))
    plain.add_nodes_from((node, _xml_attributes(data)) for node, data in graph.nodes(data=True))
    plain.add_edges_from(graph.edges)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + "\n".join(networkx.generate_graphml(plain)) + "\n"


def _node_attributes(row: Row) -> dict[str, Any]:
    node = row.node
    return {
        "text": row.text,
        "tokens": node.token_count,
        "depth": node.depth,
        "length": node.token_length,
        "ending": str(node.ending),
        "value": row.value,
        "step_scores": node.step_scores,
        "new_step_scores": tuple(piece.score for piece in row.pieces if piece.score is not None),
        "mean_logprob": row.mean_logprob,
        "visits": row.visits,
        "chosen": row.chosen,
        "candidate": row.candidate,
    }


def _graph_attributes(source: Source) -> dict[str, Any]:
    result = result_of(source)
    question = tree_of(source).question
    if not isinstance(question, str):
        question = "\n\n".join(f"{message.get('role')}: {message.get('content')}" for message in question)
    if result is None:
        return {"question": question}
    names = ("answer", "score", "strategy", "selector", "model", "seed", "budget")
    return {
        "question": question,
        **{name: getattr(result, name) for name in names},
        "stop_reason": str(result.stop_reason),
        "sampled_tokens": result.usage.sampled_tokens,
    }


def _xml_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, str):
            plain[name] = _NOT_XML.sub("\ufffd", value.replace("\r\n", "\n").replace("\r", "\n"))
        elif isinstance(value, tuple):
            plain[name] = " ".join(format(number, ".6g") for number in value)
        elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            plain[name] = value
    return plain


def import_networkx() -> Any:
    """The library.

    Raises:
        MissingDependencyError: networkx is not installed.
    """
    try:
        import networkx
    except ImportError as error:
        raise MissingDependencyError("graphs need networkx: pip install 'tts-search[plot]'") from error
    return networkx
