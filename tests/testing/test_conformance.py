"""The shipped suites accept what this package ships; `test_suites` has what they must not accept."""

from tts_search.core.protocols import Scorer, Strategy
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.sprm.config import SPRMConfig
from tts_search.strategies.beam import StepBeamSearch
from tts_search.strategies.best_first import BestFirst
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.dvts import DVTS
from tts_search.strategies.mcts import MCTS
from tts_search.strategies.repeat import Repeat
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.conformance import GeneratorConformance, ScorerConformance, StrategyConformance


class TestFakeGenerator(GeneratorConformance):
    def make_generator(self) -> FakeGenerator:
        return FakeGenerator(scores=False, context_tokens=2000)


class TestFakeGeneratorWithAHead(GeneratorConformance):
    def make_generator(self) -> FakeGenerator:
        return FakeGenerator(head_config=SPRMConfig(hidden_size=1), context_tokens=2000)


class TestFakeGeneratorThatReadsAtTheStep(GeneratorConformance):
    def make_generator(self) -> FakeGenerator:
        return FakeGenerator(head_config=SPRMConfig(hidden_size=1, readout="step"), context_tokens=2000)


class TestFakeScorer(ScorerConformance):
    def make_scorer(self) -> Scorer:
        return FakeScorer()


class TestEngineSPRM(ScorerConformance):
    def make_scorer(self) -> Scorer:
        return EngineSPRM()


class TestBestOfN(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return BestOfN()


class TestMCTS(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return MCTS()


class TestBeamSearch(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return StepBeamSearch()


class TestDVTS(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return DVTS()


class TestBestFirst(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return BestFirst()


class TestRepeat(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return Repeat(BestOfN(n=3))
