"""Whoever must see everything run sets `TTS_SEARCH_NO_SKIPS=1`: a skip is a failure then, unless it stands here.

`tests/conftest.py` calls `watch`.
"""

from __future__ import annotations

import os

import pytest

VARIABLE = "TTS_SEARCH_NO_SKIPS"
_TEXTS = "tests/generators/openai/test_vllm_server.py::TestTexts::test_"
_NOT_EXACT = (
    "a server batches as it likes, so it promises no exact greedy tokens, and the conformance suite asks for none"
)
ALLOWED: dict[str, str] = {
    _TEXTS + "greedy_ignores_seeds": _NOT_EXACT,
    _TEXTS + "stop_id_ends_a_completion": _NOT_EXACT,
    _TEXTS + "continuing_in_pieces_is_the_same": _NOT_EXACT,
}
"""The beginning of a test's id, and why that test may be skipped even there."""


class SkipsAreFailures:
    """Remembers what was skipped, and fails the session for what is not allowed."""

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}

    def _remember(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and not report.nodeid.startswith(tuple(ALLOWED)):
            reason = report.longrepr
            self.skipped[report.nodeid] = str(reason[2] if isinstance(reason, tuple) else reason)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._remember(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._remember(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, reason in sorted(self.skipped.items()):
            terminalreporter.write_line(f"SKIPPED, and nothing may be skipped here: {test}: {reason}", red=True)


def watch(config: pytest.Config) -> None:
    """Watch for skips where none is allowed, in the process that hears of all tests."""
    if os.environ.get(VARIABLE) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipsAreFailures(), "skips-are-failures")
