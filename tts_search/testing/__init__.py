"""For the tests of people who write strategies, generators and scorers: fakes, and conformance suites."""

from tts_search.testing.fakes import FakeGenerator, FakeScorer, FakeTokenizer

__all__ = ["FakeGenerator", "FakeScorer", "FakeTokenizer"]
