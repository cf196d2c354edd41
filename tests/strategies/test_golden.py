"""Golden trees: every strategy grows exactly this tree from this seed on the fake engine.

To accept a change that is meant: delete tests/strategies/golden/*.txt, run the tests twice, and read the difference.
"""

from pathlib import Path

import pytest

from tts_search import DVTS, MCTS, BestFirst, BestOfN, Repeat, SearchResult, StepBeamSearch, Until
from tts_search.core.protocols import Strategy
from tts_search.testing import FakeGenerator, FakeScorer, run_search

GOLDEN = Path(__file__).parent / "golden"

STRATEGIES: dict[str, Strategy] = {
    "best_of_n": BestOfN(n=4),
    "beam": StepBeamSearch(width=2, branching=3),
    "beam_chunks": StepBeamSearch(width=2, branching=2, until=Until.THOUGHT, chunk_tokens=6),
    "dvts": DVTS(subtrees=2, branching=3),
    "mcts": MCTS(until=Until.STEP, children=3, exploration=2**0.5),
    "mcts_puct_max": MCTS(until=Until.STEP, children=3, exploration=2**0.5, selection="puct", backup="max", leaves=2),
    "mcts_paper": MCTS(expansion_tokens=8, exploration=2**0.5),
    "mcts_scaled": MCTS(expansion_tokens=8),
    "best_first": BestFirst(),
    "best_first_chunks": BestFirst(until=Until.THOUGHT, chunk_tokens=8, leaves=3),
    "beam_again": Repeat(StepBeamSearch(width=2, branching=2)),
}


def drawing(result: SearchResult) -> str:
    assert result.tree is not None
    lines = [
        f"{'  ' * node.depth}{node.index} {node.ending} {node.value:.4f} {result.tree.visits.get(node.index, '-')} "
        f"{result.tree.decode(node.token_ids)!r}"
        for node in result.tree
    ]
    choice = f"chosen {result.chosen} of {len(result.candidates)}: {result.answer!r}"
    return "\n".join([*lines, choice, f"{result.stop_reason} {result.usage.sampled_tokens}", ""])


@pytest.mark.parametrize("name", STRATEGIES)
def test_golden_tree(name: str) -> None:
    generator = FakeGenerator(step=0.2, close=0.06, end=0.3)
    result = run_search(generator, STRATEGIES[name], scorer=FakeScorer(), budget=160, answer_tokens=20, seed=7)
    path = GOLDEN / f"{name}.txt"
    if not path.exists():
        path.write_text(drawing(result))
        pytest.fail(f"{path.name} did not exist: written now, read it before you commit it")
    assert drawing(result) == path.read_text()
