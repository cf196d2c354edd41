"""The page about the command line says what the commands say."""

from __future__ import annotations

import re

from tools.option_table import BEGIN, END, PAGE, table
from tts_search.strategies.naming import read_strategy


def test_the_table_of_options_is_that_of_the_code() -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown == table(), "run python -m tools.option_table"
    for option in ("--system", "--head", "--extract", "--aggregation", "--top-k", "--tokenizer", "--engine-arg"):
        assert re.search(rf"^\| `{option}` \| solve, ", shown, re.MULTILINE), option


def test_examples_have_options_that_there_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    known = set(re.findall(r"--[a-z-]+", table()))
    shown = [line for line in page.splitlines() if line.startswith("tts-search ")]
    assert len(shown) > 3
    for line in shown:
        assert set(re.findall(r"(?<= )--[a-z-]+", line)) <= known
        for strategy in re.findall(r'--strategy "([^"]+)"', line):
            assert callable(read_strategy(strategy))
