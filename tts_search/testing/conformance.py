"""Conformance suites for generators, scorers and strategies: subclass one in pytest, say how to make yours, run.

    from tts_search.testing.conformance import GeneratorConformance

    class TestMyGenerator(GeneratorConformance):
        def make_generator(self):
            return MyGenerator("a-small-model")

The suites know the contracts of `tts_search.core.protocols`, and nothing of an implementation. They need pytest, and
no plug-in of it.
"""

import pytest

# Before they are imported, so that a failing assertion shows its values.
pytest.register_assert_rewrite("tts_search.testing.generator_suite", "tts_search.testing.search_suites")

from tts_search.testing.generator_suite import GeneratorConformance  # noqa: E402
from tts_search.testing.search_suites import ScorerConformance, StrategyConformance  # noqa: E402

__all__ = ["GeneratorConformance", "ScorerConformance", "StrategyConformance"]
