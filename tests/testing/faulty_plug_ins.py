"""Scorers and strategies with one fault each, and the one test of the suites that must notice it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.testing.suites import PlugIn
from tts_search.core.protocols import Expand, Plan, Scores, Until
from tts_search.core.result import SearchResult
from tts_search.core.tree import Ending, Node, Trajectory, Tree
from tts_search.segmentation import Phase
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.conformance import ScorerConformance, StrategyConformance
from tts_search.testing.fakes import CLOSE, STEP

Values = list[list[float]]


class Bent:
    """A fake scorer whose answer is spoilt by `bend`."""

    def __init__(self, bend: Callable[[Sequence[Trajectory], Values], Any], **attributes: Any) -> None:
        self._bend = bend
        vars(self).update(attributes)

    def score(self, trajectories: Sequence[Trajectory]) -> Any:
        return self._bend(trajectories, [list(values) for values in FakeScorer().score(trajectories)])


def of_chats(value: Callable[[list[float]], list[float]]) -> Callable[[Sequence[Trajectory], Values], Values]:
    """Spoils only what answers a conversation."""
    return lambda trajectories, values: [
        own if isinstance(trajectory.question, str) else value(own)
        for trajectory, own in zip(trajectories, values, strict=True)
    ]


def alike(trajectories: Sequence[Trajectory], values: Values) -> Values:
    """Every trajectory's own values, whatever stands beside it."""
    return values


def shared(trajectories: Sequence[Trajectory], values: Values) -> Values:
    return [[value / len(values) for value in own] for own in values]


def padded(trajectories: Sequence[Trajectory], values: Values) -> Values:
    """As of a batch that is padded to its first, and cuts off what is longer."""
    widest = max((len(trajectory.token_ids) for trajectory in trajectories), default=0)
    fits = not trajectories or len(trajectories[0].token_ids) == widest
    return values if fits else [[value / 2 for value in own] for own in values]


def hasty(trajectories: Sequence[Trajectory], values: Values) -> Values:
    if any(trajectory.question == "Is that?" for trajectory in trajectories):
        raise RuntimeError("out of memory")
    return values


def forgetful() -> Bent:
    """Remembers what it scored by the steps, and forgets the question."""
    memory: dict[str, list[float]] = {}

    def bend(trajectories: Sequence[Trajectory], values: Values) -> Values:
        asked = [[value / len(str(t.question)) for value in own] for t, own in zip(trajectories, values, strict=True)]
        return [memory.setdefault(t.text, own) for t, own in zip(trajectories, asked, strict=True)]

    return Bent(bend)


def noisy(size: float) -> Callable[[], Bent]:
    """Scores that a batch moves by so much."""
    return lambda: Bent(lambda _, values: [[abs(value - size * (len(values) > 1)) for value in own] for own in values])


def scorer(what: str, fails: str | None, make: Callable[[], Bent]) -> PlugIn:
    return PlugIn(suite=ScorerConformance, what=what, fails=fails, make=make)


VALUES, NOTHING, ALONE = (
    "test_one_value_per_step",
    "test_nothing_to_score",
    "test_a_value_depends_on_its_trajectory_alone",
)
ITSELF = "test_what_it_says_of_itself"

FAULTY_SCORERS = [
    scorer("a value too few", VALUES, lambda: Bent(of_chats(lambda own: own[:-1]))),
    scorer("a value for no step", VALUES, lambda: Bent(lambda _, values: [own or [0.5] for own in values])),
    scorer("a value below 0", VALUES, lambda: Bent(of_chats(lambda own: [-0.1 for _ in own]))),
    scorer("a value above 1", VALUES, lambda: Bent(of_chats(lambda own: [1.1 for _ in own]))),
    scorer("an infinite value", VALUES, lambda: Bent(of_chats(lambda own: [float("inf") for _ in own]))),
    scorer("less than no tokens", VALUES, lambda: Bent(lambda _, values: Scores(values, tokens=-1))),
    scorer("something for nothing", NOTHING, lambda: Bent(lambda _, values: values or [[]])),
    scorer("values that neighbours share", ALONE, lambda: Bent(shared)),
    scorer("the value of another question", ALONE, forgetful),
    scorer("values that move with the order", ALONE, lambda: Bent(padded)),
    scorer("values that move with the batch", ALONE, noisy(1e-5)),
    scorer("an aggregation below 0", ITSELF, lambda: Bent(alike, aggregation=lambda steps: -1.0)),
    scorer("an aggregation above 1", ITSELF, lambda: Bent(alike, aggregation=lambda steps: 2.0)),
    scorer("fails in a search", "test_in_a_search", lambda: Bent(hasty)),
    scorer("no number of calls at once", "test_in_a_search", lambda: Bent(alike, concurrency=0)),
]  # fmt: skip


class Draws:
    """Two samples."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __call__(self, tree: Tree) -> Plan:
        yield [Expand(tree.root, n=2, until=Until.THOUGHT)]


class Anonymous(Draws):
    __repr__ = object.__repr__


class Fleeting(Draws):
    """Draws another number of samples each time that one is made."""

    made = itertools.count()

    def __init__(self) -> None:
        self._more = next(self.made) % 2

    def __call__(self, tree: Tree) -> Plan:
        yield [Expand(tree.root, n=2 + self._more, until=Until.THOUGHT)]


class Counting(Draws):
    """Draws one sample more with each search."""

    def __init__(self) -> None:
        self._searches = 0

    def __call__(self, tree: Tree) -> Plan:
        self._searches += 1
        yield [Expand(tree.root, n=self._searches, until=Until.THOUGHT)]


class Clinging(Draws):
    """Does not let go of its first round."""

    def __call__(self, tree: Tree) -> Plan:
        wanted = [Expand(tree.root, n=2, until=Until.THOUGHT)]
        try:
            yield wanted
        except GeneratorExit:
            yield wanted


class Idle(Draws):
    """Asks for nothing at first."""

    def __call__(self, tree: Tree) -> Plan:
        yield []
        yield from super().__call__(tree)


class Surprised(Draws):
    """Fails where a sample is one that `by` tells."""

    def __init__(self, by: Callable[[Tree, Node], bool]) -> None:
        self._by = by

    def __call__(self, tree: Tree) -> Plan:
        (nodes,) = yield [Expand(tree.root, n=2, until=Until.THOUGHT)]
        if any(self._by(tree, node) for node in nodes):
            raise IndexError("list index out of range")


def searching(spoil: Callable[[SearchResult, FakeGenerator, Mapping[str, Any]], SearchResult]) -> Mapping[str, Any]:
    """The suite with a search whose results are spoilt: no strategy can bring the runner to it."""

    def search(self: StrategyConformance, generator: FakeGenerator, **options: Any) -> SearchResult:
        return spoil(StrategyConformance.search(self, generator, **options), generator, options)

    return {"search": search}


def overspent(budget: int) -> Mapping[str, Any]:
    def spoil(result: SearchResult, _: FakeGenerator, options: Mapping[str, Any]) -> SearchResult:
        more = dataclasses.replace(result.usage, sampled_tokens=budget + 1)
        return dataclasses.replace(result, usage=more) if options.get("budget") == budget else result

    return searching(spoil)


def fruitless(of: FakeGenerator) -> Mapping[str, Any]:
    def spoil(result: SearchResult, generator: FakeGenerator, options: Mapping[str, Any]) -> SearchResult:
        return result if options or repr(generator) != repr(of) else dataclasses.replace(result, candidates=())

    return searching(spoil)


def where_late(change: Callable[[Node], Node]) -> Mapping[str, Any]:
    """Trees whose nodes are others, where completions come in another order."""

    def spoil(result: SearchResult, generator: FakeGenerator, options: Mapping[str, Any]) -> SearchResult:
        nodes: Any = [change(node) for node in result.tree or ()]
        return dataclasses.replace(result, tree=nodes) if generator.delay_seconds and options else result

    return searching(spoil)


def strategy(
    what: str, fails: str | None, make: Callable[[], Draws] = Draws, options: Mapping[str, Any] | None = None
) -> PlugIn:
    return PlugIn(suite=StrategyConformance, what=what, fails=fails, make=make, options=options or {})


ENDS, MANY = "test_ends_with_a_result", "test_one_object_serves_many_searches"
SPENT, SAME = "test_budget_is_never_exceeded", "test_equal_seeds_give_equal_results"

FAULTY_STRATEGIES = [
    strategy("no candidates", f"{ENDS}[thinking]", options=fruitless(FakeGenerator())),
    strategy("no candidates that are late", f"{ENDS}[late]", options=fruitless(FakeGenerator(delay_seconds=0.005))),
    strategy("no thought of a plain model", f"{ENDS}[plain]",
             lambda: Surprised(lambda tree, _: tree.root.state.phase is Phase.PLAIN)),
    strategy("no thought of a path without a step", f"{ENDS}[stepless]",
             lambda: Surprised(lambda _, node: len(node.token_ids) == 200 and STEP not in node.token_ids)),
    strategy("no thought of a run of steps", f"{ENDS}[steps]",
             lambda: Surprised(lambda _, node: node.token_ids[:9].count(STEP) > 6)),
    strategy("no thought of an end before the closing tag", f"{ENDS}[terse]",
             lambda: Surprised(lambda _, node: node.ending is Ending.THOUGHT and CLOSE not in node.token_ids)),
    strategy("no thought of a sample cut off", SPENT,
             lambda: Surprised(lambda tree, node: len(node.token_ids) < 3 and not node.ended)),
    *(strategy(f"{budget} overspent", SPENT, options=overspent(budget)) for budget in (1, 2, 7, 50, 400, 3000)),
    strategy("another search each time", SAME, Fleeting),
    strategy("other tokens where they are late", SAME,
             options=where_late(lambda node: dataclasses.replace(node, ids=node.ids[::-1]))),
    strategy("other places where they are late", SAME,
             options=where_late(lambda node: dataclasses.replace(node, up=(node.up and node.up.up) or node.up))),
    strategy("keeps count of its searches", MANY, Counting),
    strategy("fails for one of many", MANY, lambda: Surprised(lambda tree, _: tree.question == "Two?")),
    strategy("asks for nothing", "test_can_be_abandoned", Idle),
    strategy("does not let go", "test_can_be_abandoned", Clinging),
    strategy("nameless", "test_is_a_value", Anonymous),
]  # fmt: skip

SOUND = [
    scorer("as it should be", None, lambda: Bent(alike)),
    scorer("names its aggregation", None, lambda: Bent(alike, aggregation="min")),
    scorer("counts its tokens", None, lambda: Bent(lambda _, values: Scores(values, tokens=3))),
    scorer("values rounded otherwise", None, noisy(1e-7)),
    strategy("as it should be", None),
]
