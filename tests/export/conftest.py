"""What the export tests share: a plain search, a hostile one, and a browser to look at them with."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.export.searches import HOSTILE, Grow, run, spelled
from tts_search import SearchResult, Until
from tts_search.testing import FakeGenerator


@pytest.fixture(scope="session")
def result() -> SearchResult:
    """A tree of some thirty nodes."""
    return run(Grow(rounds=8), seed=3)


@pytest.fixture(scope="session")
def hostile() -> SearchResult:
    """Hostile text in every place that has text."""
    result = run(Grow(rounds=2, until=Until.THOUGHT), FakeGenerator(script=spelled(HOSTILE)), selector="majority")
    assert result.tree is not None
    result.tree.question = HOSTILE
    candidates = tuple(replace(c, answer=HOSTILE, vote=HOSTILE) for c in result.candidates)
    return replace(
        result,
        question=HOSTILE,
        answer=HOSTILE,
        strategy=HOSTILE,
        model=HOSTILE,
        selector=HOSTILE,
        candidates=candidates,
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium that keeps a record of its console and of its requests."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver here: the explorer page was NOT tested in a browser")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
            options.add_argument(f"--{flag}")
        for flag in ("disable-background-networking", "disable-component-update", "window-size=1400,1000"):
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={profile}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield chrome
        finally:
            chrome.quit()
