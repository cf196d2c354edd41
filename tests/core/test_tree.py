"""The tree: what a path is made of, what a scorer sees of it, and where its thinking ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.searches import Watched, scripted
from tts_search import BestOfN, Expand, Plan, SearchResult, StepBeamSearch, Tree, Until
from tts_search.core.protocols import Question
from tts_search.core.tree import Ending, Trajectory
from tts_search.testing import FakeGenerator, FakeScorer, run_search
from tts_search.testing.fakes import CLOSE, END, OPEN, STEP, FakeTokenizer


class Unopened(FakeTokenizer):
    """Its prompts leave it to the model to open the thinking part."""

    def render(self, messages: Question) -> tuple[int, ...]:
        return super().render(messages)[:-1]


class Opening(FakeGenerator):
    @property
    def tokenizer(self) -> FakeTokenizer:
        return Unopened()


def opened(*tokens: int, strategy: Plan | None = None) -> SearchResult:
    return run_search(Opening(script=lambda prefix, _: tokens[min(len(prefix) - 4, len(tokens) - 1)]), BestOfN(n=1))


@pytest.mark.parametrize(
    ("tokens", "thinking", "answer", "steps"),
    [
        (b"\n|a.b-\n c \n.", "a.\n\nb", "c", ["\n<think>a.\n\n"]),
        (b"|a-c.", "a", "c", []),
        (b"||a-c.", "<think>a", "c", []),
        (b"|a|b-c-d.", "a<think>b", "c\nd", []),
        (b"|a-c-.", "a", "c", []),
        (b"|a-c|b-d.", "a", "cd", []),
        (b"|a-c|b.", "a", "c", []),
        (b" a.", " a", "a", []),  # it does not think
        (b"a-c.", "a", "c", []),
        (b"a-.", "a", "a", []),
        (b"So |a.b-c.", "a.\n\nb", "c", ["So <think>a.\n\n"]),
        (b"|a-.", "a", "", []),
    ],
    ids=[
        "white space first",
        "at once",
        "twice",
        "a second closing tag",
        "a trailing one",
        "a second thought",
        "a second thought that is cut off",
        "plain",
        "never opened",
        "a tag that closes nothing",
        "text first",
        "no answer",
    ],
)
def test_tags_are_in_neither_part(tokens: bytes, thinking: str, answer: str, steps: list[str]) -> None:
    r"""In `tokens` a bar opens, a dash closes, a full stop is `.\n\n` inside the thinking and the end behind it."""
    special = {ord("|"): OPEN, ord("-"): CLOSE}
    ids = [special.get(token, token) for token in tokens[:-1]]
    result = opened(*(STEP if token == ord(".") else token for token in ids), END)
    assert (result.thinking, result.answer) == (thinking, answer)
    assert [step.text for step in result.steps] == steps


def test_a_thought_that_is_still_open_has_no_answer() -> None:
    tree = run_search(FakeGenerator(script=scripted(97, STEP, CLOSE, 98, END)), BestOfN(n=1)).tree
    assert tree is not None
    thought, final = tree.nodes[1:]
    assert tree.split(tree.root) == ("", "")
    assert tree.split(thought) == ("a.\n\n", "")
    assert tree.split(final) == ("a.\n\n", "b")


def test_a_scorer_is_told_what_is_known_already() -> None:
    seen: list[Trajectory] = []

    class Remembering(FakeScorer):
        def score(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
            seen.extend(trajectories)
            return super().score(trajectories)

    question = [{"role": "user", "content": "Why?"}]
    generator = FakeGenerator(step=0.3)
    tree = run_search(generator, StepBeamSearch(width=2, branching=3), question=question, scorer=Remembering()).tree
    assert tree is not None
    assert {len(trajectory.known_scores) for trajectory in seen} >= {0, 1, 2, 3}
    for trajectory in seen:
        assert trajectory.prompt_ids == tree.prompt_ids == generator.tokenizer.render(question)
        assert trajectory.question == tuple(question)
        assert len(trajectory.known_scores) < len(trajectory.step_ends)
        (same,) = {node.step_scores for node in tree if tree.token_ids(node) == trajectory.token_ids}
        assert trajectory.known_scores == same[: len(trajectory.known_scores)]
    for node in tree.nodes[1:]:  # scored again, it is told no more than at first: what its parent was worth
        parent = tree.parent(node)
        assert parent is not None
        assert tree.trajectory(node).known_scores == parent.step_scores
    assert tree.trajectory(tree.root).known_scores == ()


def test_scores_and_log_probabilities_stay_with_their_tokens() -> None:
    generator = Watched(step=0.4, close=0.0)
    result = run_search(generator, StepBeamSearch(width=2, branching=3), selector="majority", max_tokens=12)
    tree = result.tree
    assert tree is not None
    assert any(node.forced_tokens for node in tree)
    for node in tree.nodes[1:]:
        sampled = node.token_ids[node.forced_tokens :]
        assert tuple(node.logprobs) == tuple(-token / 1000 for token in sampled)
        assert node.token_scores is not None
        assert all(math.isnan(score) for score in node.token_scores[: node.forced_tokens])
        assert node.token_scores[node.forced_tokens :].tolist() == [token / 1000 for token in sampled]
        path = tree.trajectory(node)
        assert path.token_scores is not None
        assert len(path.token_scores) == len(path.token_ids) == node.length
        assert all(math.isnan(s) or s == t / 1000 for s, t in zip(path.token_scores, path.token_ids, strict=True))
        assert len(path.steps) == len(path.step_ends)
    assert tree.trajectory(tree.root).token_scores is None


def test_a_path_scored_in_parts_has_a_place_for_every_token() -> None:
    """Where an engine gave no scores for a part of a path, as a server that lost its head does, they are unknown."""
    tree = run_search(FakeGenerator(script=scripted(97, STEP, CLOSE, 98, END)), BestOfN(n=1), scorer=FakeScorer()).tree
    assert tree is not None
    thought, answer = tree.nodes[1:]
    bare = replace(thought, token_scores=None)
    scores = tree.trajectory(replace(answer, up=bare)).token_scores
    assert scores is not None
    assert [math.isnan(score) for score in scores] == [True] * 3 + [False] * 2
    tree.nodes[1:] = [thought, replace(answer, token_scores=None)]
    scores = tree.trajectory(tree.nodes[2]).token_scores
    assert scores is not None
    assert [math.isnan(score) for score in scores] == [False] * 3 + [True] * 2


def test_the_answer_of_a_thought_is_its_newest_child() -> None:
    tree = run_search(FakeGenerator(script=scripted(97, CLOSE, 98, END)), BestOfN(n=1)).tree
    assert tree is not None
    thought, final = tree.nodes[1:]
    assert tree.answered(thought) is final
    assert tree.answered(final) is final
    newer = tree.add(replace(final, index=3))
    assert tree.answered(thought) is newer


def test_what_has_ended() -> None:
    result = run_search(FakeGenerator(step=0.3), StepBeamSearch(width=2, branching=4, chunk_tokens=6))
    assert result.tree is not None
    over = {node.ending: node.ended for node in result.tree}
    assert over == {ending: ending in (Ending.THOUGHT, Ending.END) for ending in over}
    assert over.keys() == set(Ending)


def test_a_node_that_does_not_fit_is_refused() -> None:
    def one(tree: Tree) -> Plan:
        yield [Expand(tree.root, until=Until.END)]

    tree, other = (run_search(FakeGenerator(), one).tree for _ in range(2))
    assert tree is not None
    assert other is not None
    (node,) = tree.children(tree.root)
    for index, up in ((1, tree.root), (3, tree.root), (2, None), (2, replace(node, index=2)), (2, other.root)):
        with pytest.raises(ValueError, match=f"node {index} with parent .* does not fit a tree of 2 nodes"):
            tree.add(replace(node, index=index, up=up))
    assert tree.add(replace(node, index=2, up=node)) is tree.nodes[2]
    assert tree.add(replace(node, index=3, up=tree.root)) in tree.children(tree.root)
