"""What a search asks of its engine, and what its account says of it: every token, every request, every seed once."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.searches import Watched, scripted
from tts_search import MCTS, BestOfN, Completion, Expand, Plan, Request, Sampling, Tree, Until
from tts_search.core.events import Progress
from tts_search.core.result import StopReason
from tts_search.sprm.config import SPRMConfig
from tts_search.testing import FakeGenerator, FakeScorer, run_search
from tts_search.testing.fakes import CLOSE, END, STEP

AT_THE_STEP = SPRMConfig(hidden_size=1, readout="step")


@pytest.mark.parametrize("head", [None, AT_THE_STEP], ids=["no head", "read at the step"])
@pytest.mark.parametrize("selector", ["best", "majority"])
@pytest.mark.parametrize("strategy", [BestOfN(n=6, wave=2), MCTS(until=Until.STEP, leaves=2)], ids=repr)
@pytest.mark.parametrize("early_stop", [None, 0.0])
def test_the_account_is_what_the_engine_said(
    strategy: BestOfN | MCTS, selector: str, head: SPRMConfig | None, early_stop: float | None
) -> None:
    generator = Watched(head_config=head, step=0.3)
    result = run_search(
        generator, strategy, selector=selector, scorer=FakeScorer(), budget=300, max_tokens=40, early_stop=early_stop
    )
    said = [(request, one) for request, completions in generator.said for one in completions]
    answers = [one for request, one in said if request.stop_ids == {END}]
    usage = result.usage
    assert answers
    assert usage.sampled_tokens == sum(one.sampled_tokens for _, one in said) <= 300
    assert usage.answer_tokens == sum(one.sampled_tokens for one in answers)
    assert usage.prompt_tokens == sum(len(request.prefix) for request, _ in said)
    assert usage.cached_tokens == sum(one.cached_tokens for _, one in said)
    assert usage.requests == len(said)


def test_samples_of_one_node_travel_together() -> None:
    generator = FakeGenerator()
    run_search(generator, BestOfN(n=4))
    assert [len(request.seeds) for request in generator.requests] == [4, 1]


def asked(**options: Any) -> list[Request]:
    generator = FakeGenerator(step=0.4, sampling=Sampling(temperature=0.3, top_k=7))
    run_search(generator, MCTS(until=Until.STEP), selector="majority", budget=600, **options)
    return generator.requests


def test_no_sample_is_drawn_twice() -> None:
    """By node, by number, by part; by question and by seed."""
    searches = [asked(), asked(seed=1), asked(question="Why not?")]
    seeds = Counter(seed for requests in searches for request in requests for seed in request.seeds)
    assert sum(seeds.values()) > 100
    assert max(seeds.values()) == 1
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert max(seeds) > 1 << 60


def test_a_search_keeps_its_tree_and_its_sampling() -> None:
    trees = [{request.tree for request in requests} for requests in (asked(), asked(seed=1), asked(question="No?"))]
    assert [len(tree) for tree in trees] == [1, 1, 1]
    assert len(set.union(*trees)) == 3
    assert {request.sampling for request in asked()} == {Sampling(temperature=0.3, top_k=7)}


@pytest.mark.parametrize(
    ("until", "stops"), [(Until.STEP, {STEP, CLOSE, END}), (Until.THOUGHT, {CLOSE, END}), (Until.END, {END})]
)
def test_an_engine_stops_where_it_must_and_nowhere_else(until: Until, stops: set[int]) -> None:
    def one(tree: Tree) -> Plan:
        yield [Expand(tree.root, until=until)]

    generator = FakeGenerator()
    run_search(generator, one)
    assert generator.requests[0].stop_ids == stops
    plain = FakeGenerator(thinks=False)
    run_search(plain, one)
    assert plain.requests[0].stop_ids == stops - {CLOSE}


# Progress.


class Telling(FakeGenerator):
    """Tells of every token on its own, or of none."""

    async def generate(self, request: Request) -> list[Completion]:
        completions = await super().generate(replace(request, on_tokens=None))
        tell = request.on_tokens if self.name == "talks" else None
        for _ in range(sum(one.sampled_tokens for one in completions) if tell else 0):
            assert tell is not None
            tell(1)
            await asyncio.sleep(0)
        return completions


@pytest.mark.parametrize("name", ["talks", "silent"])
def test_progress_counts_up_to_the_account(name: str) -> None:
    seen: list[Progress] = []
    result = run_search(Telling(name=name), MCTS(until=Until.STEP, leaves=3), budget=200, on_progress=seen.append)
    counts = [p.sampled_tokens for p in seen]
    assert counts == sorted(counts)
    assert counts[-1] == result.usage.sampled_tokens
    assert {(p.question, p.budget) for p in seen} == {("Why?", 200)}
    assert result.tree is not None
    assert [p.nodes for p in seen] == sorted(p.nodes for p in seen)
    assert (seen[0].nodes, seen[-1].nodes) == (1, len(result.tree) - 1)
    if name == "talks":
        assert {*range(1, counts[-1] + 1)} <= {*counts}, "token by token, those in flight included"


# How a budget that may not pay for all is spent.


def turns(strategy: Any, budget: int, **options: Any) -> list[list[int]]:
    """Sizes of the requests for thoughts, in the order in which they were made, with what each was allowed."""
    generator = FakeGenerator(**options)
    run_search(generator, strategy, budget=budget, max_tokens=300)
    return [[len(r.seeds), r.max_tokens] for r in generator.requests if r.stop_ids != {END}]


TEN = scripted(*[97] * 9, CLOSE, 98, END)


def test_whole_samples_are_worth_more_than_many_that_were_cut_off() -> None:
    generator = FakeGenerator(script=TEN)
    result = run_search(generator, BestOfN(n=20), budget=100)
    assert len(result.candidates) == 9, "ten a thought, two for the answer, and twice that for another's"
    assert result.stop_reason is StopReason.BUDGET
    assert run_search(generator, BestOfN(n=7), budget=100).stop_reason is StopReason.COMPLETED


def test_what_is_known_of_their_length_says_how_many_go_at_once() -> None:
    # The first may take all. Then five of ten tokens each, with a quarter more to be sure, share 65, and one has the 15
    # that are left. Of the 25 that are kept for the answer two are spent on it, and four stay: 19 go back, and with the
    # five that were left two more share them. The last four pay for less than half of a thought: none begins.
    spent = [[1, 75], [5, 13], [1, 15], [2, 12]]
    assert turns(BestOfN(n=20), 100, script=TEN) == spent


def test_where_it_pays_for_all_they_go_at_once() -> None:
    def three(tree: Tree) -> Plan:
        yield [Expand(tree.root, 3, Until.THOUGHT, max_tokens=25)]

    assert turns(three, 100, script=TEN) == [[3, 25]]
    assert turns(three, 99, script=TEN)[0] == [3, 25]  # of 99 a quarter is 24
    assert turns(three, 98, script=TEN)[0] != [3, 25]


def test_the_longest_kind_decides_how_many_go_at_once() -> None:
    def both(tree: Tree) -> Plan:
        yield [Expand(tree.root, until=Until.STEP), Expand(tree.root, until=Until.THOUGHT)]
        yield [Expand(tree.root, 6, Until.STEP), Expand(tree.root, 6, Until.THOUGHT)]

    script = scripted(97, STEP, *[97] * 7, CLOSE, 98, END)  # a step of two tokens, a thought of ten
    # Twelve are due, and 48 tokens left, as if each took ten and a quarter more: four steps, then of 40 two steps and a
    # thought, two thoughts of 26, and two of what the answer leaves.
    spent = [[4, 12], [1, 14], [1, 13], [1, 13], [2, 13], [2, 10]]
    assert turns(both, 80, script=script)[2:] == spent


def test_what_pays_for_less_than_half_a_sample_begins_none_and_takes_one_on_that_has_begun() -> None:
    def one_and_more(tree: Tree) -> Plan:
        yield [Expand(tree.root, until=Until.THOUGHT)]
        yield [Expand(tree.root, 3, Until.THOUGHT, max_tokens=60)]

    assert turns(one_and_more, 20, script=TEN) == [[1, 15]], "five are left, and less than half of 12.5"
    assert turns(one_and_more, 22, script=TEN) == [[1, 17], [1, 7]], "seven are more"
    thirty = scripted(*[97] * 29, CLOSE, 98, END)
    assert turns(one_and_more, 70, script=thirty) == [[1, 53], [1, 23], [1, 11]], "the last seven of the second"


def test_the_longest_that_may_come_decides_where_nothing_is_known() -> None:
    def both(tree: Tree) -> Plan:
        yield [Expand(tree.root, 8, max_tokens=10), Expand(tree.root, 2, max_tokens=40)]

    # 160 are wanted where 75 are to be had: one at a time, as if each were of the longest kind.
    assert turns(both, 100, script=scripted(*[97] * 9, STEP))[0] == [1, 10]
