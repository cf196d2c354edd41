"""`tts-search serve` as a process: starts with nothing said, drains on SIGTERM, says in one line what it cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest

QUESTION = [{"role": "user", "content": "Using the numbers 7, 5, 15 and 11, make 24."}]


def serve(*options: str, code: str = "", **environment: str) -> subprocess.Popen[str]:
    start = f"{code}\nfrom tts_search.cli import main\nimport sys\nsys.argv[0] = 'tts-search'\nmain()"
    command = [sys.executable, "-c", start, "serve", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def test_it_serves_the_embedded_model_and_lets_what_runs_come_to_its_end() -> None:
    process = serve("--port", "0")
    assert process.stderr is not None
    try:
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
        rest: list[str] = []
        threading.Thread(target=lambda: rest.extend(process.stderr or ()), daemon=True).start()
        with httpx.Client(base_url=url, timeout=120, transport=httpx.HTTPTransport(retries=3)) as http:
            while http.get("/ready").status_code != 200:
                pass
            got: list[Any] = []
            body = {"messages": QUESTION, "search": {"effort": "high"}}
            asking = threading.Thread(target=lambda: got.append(http.post("/v1/chat/completions", json=body)))
            asking.start()
            with httpx.Client(base_url=url, timeout=60) as other:
                while "tts_search_in_flight 1.0" not in other.get("/metrics").text and not got:
                    pass
            process.send_signal(signal.SIGTERM)
            asking.join(120)
        assert got[0].status_code == 200
        assert process.wait(60) == 143
        assert "terminated" in "".join(rest)
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--host", "0.0.0.0"), "", "TTS_SEARCH_API_KEY"),
        (("--default", "nonsense"), "", "nonsense"),
        (("--concurrency", "0"), "", "concurrency"),
        (("--keys", "nowhere.toml"), "", "nowhere.toml"),
        ((), "import sys; sys.modules['fastapi'] = None", "tts-search[serve]"),
    ],
)
def test_what_it_cannot_is_one_line(options: tuple[str, ...], code: str, message: str) -> None:
    process = serve("--port", "0", *options, code=code, TTS_SEARCH_API_KEY="")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 2
    assert message in told
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1
