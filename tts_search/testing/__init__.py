"""For the tests of people who write strategies, generators and scorers: fakes, and conformance suites."""

from tts_search.testing.fakes import FakeGenerator, FakeScorer, FakeTokenizer, run_search

__all__ = ["FakeGenerator", "FakeScorer", "FakeTokenizer", "run_search"]
