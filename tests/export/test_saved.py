"""JSON: everything comes back, and what came back can be exported like the original."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.export.searches import Grow, NotANumber, any_byte, run
from tts_search import BestOfN, SearchResult, StopReason, Tree, Until
from tts_search.errors import GeneratorError, InvalidInputError, TTSError
from tts_search.export import from_json, to_graphml, to_html, to_json, tree_from_json
from tts_search.export.text_tree import to_text
from tts_search.testing import FakeGenerator, FakeScorer

texts = st.text(min_size=1, max_size=30).map(lambda text: text + "?")
questions = st.one_of(
    texts,
    st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": texts}), min_size=1, max_size=3),
)
chance = {
    "thinks": st.booleans(),
    "step": st.floats(0, 0.4),
    "close": st.floats(0, 0.3),
    "end": st.floats(0.01, 0.3),
    "ends_anywhere": st.booleans(),
    "scores": st.booleans(),
}
generators = st.one_of(
    st.builds(FakeGenerator, **chance),
    st.builds(NotANumber, **chance),
    st.builds(FakeGenerator, thinks=st.booleans(), script=st.just(any_byte)),
)
strategies = st.one_of(
    st.builds(BestOfN, n=st.integers(1, 6)),
    st.builds(
        Grow,
        rounds=st.integers(0, 6),
        n=st.integers(1, 4),
        until=st.sampled_from(Until),
        max_tokens=st.one_of(st.none(), st.integers(1, 20)),
    ),
)
# As one token, as bytes that no token holds together, as ids, and by a function.
rules = st.sampled_from([None, "ab", {97, 98}, lambda text: "c" in text])


def written(result: SearchResult) -> dict[str, Any]:
    """Every value of a result and of its tree, in a form in which NaN equals itself."""
    values = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in ("tree", "error")}
    found: dict[str, Any] = {name: repr(value) for name, value in values.items()}
    found["error"] = (type(result.error), str(result.error))
    if result.tree is not None:
        found |= written_tree(result.tree)
    return found


def written_tree(tree: Tree) -> dict[str, Any]:
    return {
        "asked": tree.question,
        "prompt_ids": tree.prompt_ids,
        "prompt": tree.decode(tree.prompt_ids),
        "nodes": [repr(node) for node in tree],
        "children": [[child.index for child in tree.children(node)] for node in tree],
        "visits": tree.visits,
        "trajectories": [repr(tree.trajectory(node)) for node in tree],
        "steps": [tree.trajectory(node).steps for node in tree],
        "texts": [tree.trajectory(node).text for node in tree],
        "split": [tree.split(node) for node in tree],
        "thinking": tree.segmenter.thinking,
    }


@given(
    questions, generators, strategies, rules, st.sampled_from([FakeScorer(), None]), st.integers(30, 600), st.integers()
)
@settings(max_examples=150)
def test_everything_comes_back(
    question: Any, generator: Any, strategy: Any, rule: Any, scorer: Any, budget: int, seed: int
) -> None:
    result = run(
        strategy,
        generator,
        question=question,
        step_rule=rule,
        scorer=scorer,
        budget=budget,
        seed=seed,
        selector="majority",
    )
    text = to_json(result)
    again = from_json(text)
    assert written(again) == written(result)
    assert to_json(again) == text
    assert again.tree is not None
    for export in (to_html, to_graphml, to_text):
        assert export(again) == export(result)
    assert written_tree(tree_from_json(text)) == written_tree(again.tree)


def test_a_tree_alone(result: SearchResult) -> None:
    assert result.tree is not None
    result.tree.visits[3] = 7
    text = to_json(result.tree, indent=1)
    assert written_tree(tree_from_json(text)) == written_tree(result.tree)
    with pytest.raises(InvalidInputError, match="tree_from_json"):
        from_json(text)


def test_a_file_is_strict_json_that_people_can_read(result: SearchResult) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert result.tree is not None
    data = json.loads(to_json(result), parse_constant=refuse)
    assert data["question"] == "How many apples?"
    assert data["tree"]["texts"][1] == result.tree.decode(result.tree.nodes[1].token_ids)
    assert data["tree"]["prompt"] == "How many apples?<think>"


@pytest.mark.parametrize("error", [GeneratorError("the engine is gone"), OSError("disk")])
def test_a_failed_question(error: Exception) -> None:
    failed = SearchResult(
        question=[{"role": "user", "content": "?"}],
        stop_reason=StopReason.ERROR,
        strategy="s",
        selector="best",
        model="m",
        seed=1,
        error=error,
        index=4,
    )
    again = from_json(to_json(failed))
    assert again.tree is None
    assert (again.question, again.index, again.stop_reason) == (failed.question, 4, StopReason.ERROR)
    assert isinstance(again.error, type(error) if isinstance(error, TTSError) else TTSError)
    assert str(error) in str(again.error)
    with pytest.raises(InvalidInputError, match="without a tree"):
        tree_from_json(to_json(failed))
    with pytest.raises(InvalidInputError, match="no tree"):
        to_html(failed)


def test_lone_surrogates_are_replaced(hostile: SearchResult) -> None:
    again = from_json(to_json(replace(hostile, error=TTSError("\udcff"))))
    assert again.question == hostile.question.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert str(again.error) == "\ufffd"


def edited(result: SearchResult, edit: Any) -> str:
    data = json.loads(to_json(result))
    edit(data)
    return json.dumps(data)


def test_broken_files_are_refused(result: SearchResult) -> None:
    broken = [
        ("", "the text"),
        ("[]", "the text"),
        ('{"format": "tts-search", "version": 1}', "no result"),
        (edited(result, lambda d: d.update(version=2)), "version"),
        (edited(result, lambda d: d["result"].update(novelty=1)), "novelty"),
        (edited(result, lambda d: d["tree"]["nodes"][5].update(parent=99)), "node 5"),
        (edited(result, lambda d: d["tree"]["nodes"][5].update(depth=9)), "node 5"),
        (edited(result, lambda d: d["tree"].update(nodes=[])), "broken"),
        (edited(result, lambda d: d["tree"]["tokens"]["text"].pop("97")), "97"),
        (edited(result, lambda d: d["tree"]["tokens"].update(step_rule={})), "step rule"),
        (edited(result, lambda d: d["tree"]["tokens"]["text"].update({str(1 << 50): "a"})), "token ids"),
        (edited(result, lambda d: d["tree"]["tokens"]["text"].update({"97": [999]})), "broken"),
    ]
    for text, message in broken:
        with pytest.raises(InvalidInputError, match=message):
            from_json(text)


def test_a_tokenizer_that_breaks_its_contract_is_named(result: SearchResult) -> None:
    assert result.tree is not None
    tree = Tree("?", result.tree.prompt_ids, result.tree.segmenter, lambda ids: "x" * len(ids))
    tree.add(replace(result.tree.nodes[1], up=tree.root))
    with pytest.raises(InvalidInputError, match="node 1"):
        to_json(tree)
