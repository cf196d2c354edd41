"""A real vLLM server on a model folder, started as a user starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 550
SETTINGS = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",  # for a model this small, a second thread only waits for the first
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # on the CPU build: one process less to start
}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of a server with the smallest engine that serves; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tts_search.generators.vllm.server", str(folder), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--disable-uvicorn-access-log"]
    command += ["--kv-cache-memory-bytes", str(50 * 2**20), "--max-num-seqs", "32"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | SETTINGS, start_new_session=True)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _healthy(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"the server did not start:\n{log.read()[-4000:]}")
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def running(url: str) -> int:
    """How many requests the server is at work on, by its own metrics."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(names))
