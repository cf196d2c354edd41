"""The suites notice every fault: each of their checks has a faulty plug-in that nothing else notices."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from tests.testing import faulty_generators, faulty_plug_ins
from tests.testing.faulty_generators import CONCURRENT, EQUAL, GREEDY, PIECES_OF, STOP, inexact, unseeded
from tests.testing.suites import MAKERS, PlugIn, Weakening, failing, labelled, unrewritten, weakenings
from tts_search.testing import FakeGenerator
from tts_search.testing.conformance import GeneratorConformance
from tts_search.testing.generator_suite import Engine

pytest_plugins = "pytester"

FAULTY = [*faulty_generators.FAULTY, *faulty_plug_ins.FAULTY_SCORERS, *faulty_plug_ins.FAULTY_STRATEGIES]
SOUND = [*faulty_generators.SOUND, *faulty_plug_ins.SOUND]


@pytest.mark.parametrize("plug_in", FAULTY, ids=str)
def test_the_one_test_that_is_for_it_notices_a_fault(plug_in: PlugIn) -> None:
    assert failing(plug_in) == {plug_in.fails}


@pytest.mark.parametrize("suite", MAKERS, ids=lambda suite: suite.__name__)
def test_a_fault_is_noticed_by_plain_assertions_too(suite: type) -> None:
    plain, its_own = unrewritten(suite), [plug_in for plug_in in FAULTY if plug_in.suite is suite]
    assert [each.what for each in its_own if not failing(each, plain, only=each.fails)] == []


@pytest.mark.parametrize("plug_in", SOUND, ids=str)
def test_a_sound_plug_in_passes(plug_in: PlugIn) -> None:
    assert failing(plug_in) == set()


@pytest.mark.parametrize("suite", MAKERS, ids=lambda suite: suite.__name__)
def test_every_test_of_a_suite_has_a_fault_that_it_notices(suite: type) -> None:
    assert {plug_in.fails for plug_in in FAULTY if plug_in.suite is suite} == labelled(suite).keys()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a plan that does not let go
@pytest.mark.parametrize("weakening", [each for suite in MAKERS for each in weakenings(suite)], ids=str)
def test_a_suite_that_asks_less_passes_a_faulty_plug_in(weakening: Weakening) -> None:
    suite = weakening.apply()
    assert any(
        not failing(plug_in, suite, only=plug_in.fails) for plug_in in FAULTY if plug_in.suite is weakening.suite
    ), "no fault is noticed by this check alone: add one to the table, or leave the check out"


def test_only_what_says_so_is_let_off() -> None:
    def failed(make: Callable[[], object]) -> set[str]:
        return failing(PlugIn(suite=GeneratorConformance, what="says nothing", make=make))

    assert failed(unseeded) == {EQUAL, CONCURRENT}
    assert failed(inexact) == {GREEDY, STOP, *PIECES_OF.values()}


@pytest.mark.parametrize(
    ("what", "options"),
    [("other scores in pieces", {"score_tolerance": 3e-3}), ("values that move with the batch", {"tolerance": 2e-5})],
)
def test_a_tolerance_is_the_users_to_set(what: str, options: dict[str, float]) -> None:
    (plug_in,) = (plug_in for plug_in in FAULTY if plug_in.what == what)
    assert failing(dataclasses.replace(plug_in, options=options)) == set()


def test_a_generator_that_hangs_fails() -> None:
    engine = Engine(FakeGenerator, timeout_seconds=0.01)
    with pytest.raises(TimeoutError):
        engine.run(asyncio.Event().wait())
    engine.close()


def test_a_class_has_one_generator_which_is_closed_behind_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from tts_search.testing import FakeGenerator
        from tts_search.testing.conformance import GeneratorConformance

        made = []

        class TestMine(GeneratorConformance):
            def make_generator(self):
                made.append(FakeGenerator(scores=False, context_tokens=300))
                return made[-1]

            def test_later(self, engine):
                assert len(made) == 1, "one for all tests, the last of which took it"
                assert engine.generator is engine.generator is made[1]

        def test_closed():
            assert [generator.closed for generator in made] == [True, True]
        """
    )
    pytester.runpytest_inprocess("-q").assert_outcomes(passed=len(labelled(GeneratorConformance)) + 1, skipped=1)


def test_a_suite_says_what_to_override(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from tts_search.testing.conformance import GeneratorConformance, ScorerConformance, StrategyConformance

        class TestGenerator(GeneratorConformance): ...
        class TestScorer(ScorerConformance): ...
        class TestStrategy(StrategyConformance): ...
        """
    )
    run = pytester.runpytest_inprocess("-q")
    run.assert_outcomes(failed=sum(len(labelled(suite)) for suite in MAKERS))
    for maker in MAKERS.values():
        run.stdout.fnmatch_lines([f"*override {maker}*"])
