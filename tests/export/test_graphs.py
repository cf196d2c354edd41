"""networkx and GraphML."""

import io
import sys

import networkx
import pytest

from tests.export.searches import HOSTILE, Grow, run
from tts_search import SearchResult
from tts_search.errors import MissingDependencyError
from tts_search.export import plot, to_graphml, to_networkx
from tts_search.export.rows import chosen_path


def test_the_graph_is_the_tree(result: SearchResult) -> None:
    assert result.tree is not None
    graph = to_networkx(result)
    assert networkx.is_arborescence(graph)
    assert [graph.nodes[n]["text"] for n in graph] == [result.tree.decode(n.token_ids) for n in result.tree]
    assert [n for n in graph if graph.nodes[n]["chosen"]] == sorted(chosen_path(result))
    assert graph.nodes[0]["visits"] == len(result.tree) - 1
    assert graph.graph["answer"] == result.answer
    assert to_networkx(result, visits={0: 5}).nodes[0]["visits"] == 5
    assert "strategy" not in to_networkx(result.tree).graph


def test_graphml_reads_back(result: SearchResult) -> None:
    graph = to_networkx(result)
    again = networkx.read_graphml(io.BytesIO(to_graphml(result).encode()), node_type=int)
    assert set(again.edges) == set(graph.edges)
    for node, data in graph.nodes(data=True):
        for name in ("text", "tokens", "value", "visits", "chosen", "ending"):
            assert again.nodes[node].get(name) == data[name]
        scores = [float(s) for s in str(again.nodes[node]["step_scores"]).split()]
        assert scores == pytest.approx(data["step_scores"], rel=1e-5)


def test_graphml_of_hostile_text(hostile: SearchResult) -> None:
    again = networkx.read_graphml(io.BytesIO(to_graphml(hostile).encode()))
    question = again.graph["question"]
    assert question.startswith("</script><script>")
    assert "\x00" not in question
    assert question.count("\ufffd") == 3  # NUL, escape and the surrogate
    assert len(question) == len(HOSTILE) - 1  # one line end instead of two characters


def test_a_missing_library_names_the_extra(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("networkx", "matplotlib.figure", "matplotlib.cm"):
        monkeypatch.setitem(sys.modules, name, None)
    for export in (to_networkx, to_graphml, plot):
        with pytest.raises(MissingDependencyError, match=r"tts-search\[plot\]"):
            export(result)


def test_unscored_searches_have_no_values() -> None:
    graph = to_networkx(run(Grow(rounds=2), scorer=None, selector="majority"))
    assert {data["value"] for _, data in graph.nodes(data=True)} == {None}
