"""Whoever must see everything run sets `TTS_SEARCH_NO_SKIPS=1`: a skip is a failure then, unless it stands here.

`tests/conftest.py` calls `watch`.
"""

from __future__ import annotations

import os

import pytest

VARIABLE = "TTS_SEARCH_NO_SKIPS"
ALLOWED: dict[str, str] = {
    "tts_search/testing/generator_suite.py": "asks a generator only what it promises: some honour no seeds, promise no "
    "exact greedy tokens, or answer from the beginning alone. Each of these is asked of others.",
}
"""The file that skips a test, and why it may, even there."""


class SkipsAreFailures:
    """Remembers what was skipped, and fails the session for what is not allowed."""

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}

    def _remember(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        place, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, report.longrepr)
        if not place.endswith(tuple(ALLOWED)):
            self.skipped[report.nodeid] = str(reason)

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
