"""An engine's process does not outlive the one that started it, however that one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import psutil
import pytest

from tts_search.generators.vllm import parent
from tts_search.generators.vllm.engine import environment
from tts_search.generators.vllm.parent import STARTED_BY, end_with_parent


def threads(told: Queue[list[str]]) -> None:
    end_with_parent()
    told.put([thread.name for thread in threading.enumerate()])


@pytest.mark.parametrize("whose", ["ours", "another's", "nobody's"])
def test_only_engines_of_ours_are_watched(whose: str) -> None:
    context = get_context("spawn")
    told = context.Queue()
    with environment({"ours": {STARTED_BY: str(os.getpid())}, "another's": {STARTED_BY: "1"}}.get(whose, {})):
        child = context.Process(target=threads, args=(told,))
        child.start()
    assert ("tts-search-parent" in told.get()) == (whose == "ours")
    child.join()
    end_with_parent()
    assert "tts-search-parent" not in [thread.name for thread in threading.enumerate()], "nobody started this process"


def engine(place: str, deaf: bool) -> None:
    """Says which process it is, and never ends by itself."""
    parent.LOOK_SECONDS = parent.GRACE_SECONDS = 0.05
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
    Path(place).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


STARTER = """
import os, sys
from multiprocessing import get_context
from tests.generators.vllm.test_parent import STARTED_BY, engine
if __name__ == "__main__":
    os.environ[STARTED_BY] = str(os.getpid())
    get_context("spawn").Process(target=engine, args=(sys.argv[1], sys.argv[2] == "deaf")).start()
"""


@pytest.mark.parametrize("hearing", ["hears", "deaf"])
def test_it_ends_with_a_process_that_was_killed(tmp_path: Path, hearing: str) -> None:
    script, place = tmp_path / "starter.py", tmp_path / "pid"
    script.write_text(STARTER)
    root = Path(__file__).resolve().parents[3]
    starter = subprocess.Popen([sys.executable, script, place, hearing], env={**os.environ, "PYTHONPATH": str(root)})
    while not (place.exists() and place.read_text()):
        assert starter.poll() is None
        time.sleep(0.02)
    started = psutil.Process(int(place.read_text()))
    assert started.ppid() == starter.pid
    starter.kill()
    starter.wait()
    started.wait(timeout=60)
    assert not started.is_running()
