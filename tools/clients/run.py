"""Real clients, unchanged, against `tts-search serve`: each in an environment of its own.

    python tools/clients/run.py [--clients openai curl ...] [--environments .clients] [--url http://host:8000/v1]

Makes what environments are missing (from the package index), starts a server with the embedded model unless told of
one, runs every client's script, and prints a table. A script fails where a check of its own does; its last line says
what it saw. The exit status says whether all went well.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 900


@dataclass(frozen=True)
class Client:
    """A script, and the packages that its environment needs."""

    script: str
    packages: tuple[str, ...] = ()


CLIENTS = {
    "openai": Client("openai_client.py", ("openai==3.57.0",)),
    "litellm": Client("litellm_client.py", ("litellm==1.110.2",)),
    "langchain": Client("langchain_client.py", ("langchain-openai==1.7.4",)),
    "inspect": Client("inspect_client.py", ("inspect-ai", "openai")),
    "lm-eval": Client("lm_eval_client.py", ("lm-eval[api]",)),
    "curl": Client("curl_client.sh"),
    "open-webui": Client("open_webui_replay.py", ("httpx",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), default=list(CLIENTS))
    parser.add_argument("--environments", type=Path, default=Path(".clients"), help="where they are kept")
    parser.add_argument("--url", help="of a server that is there already, with /v1")
    options = parser.parse_args()
    with serving(options.url) as url:
        failed = [name for name in options.clients if not run(name, CLIENTS[name], options.environments, url)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, client: Client, environments: Path, url: str) -> bool:
    """Run one client; whether all went well."""
    python = environment(name, client, environments)
    command = (
        [str(python), str(HERE / client.script)]
        if client.script.endswith(".py")
        else ["bash", str(HERE / client.script)]
    )
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    given = os.environ | {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none", "PATH": path}
    started = time.monotonic()
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=SECONDS, check=False)
    lines = done.stdout.strip().splitlines()
    seconds, said = time.monotonic() - started, lines[-1] if lines else ""
    print(f"{name:11}{'FAILED' if done.returncode else 'ok':8}{seconds:6.1f} s  {said}", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-6000:], sep="\n")
    return done.returncode == 0


def environment(name: str, client: Client, folder: Path) -> Path:
    """The Python of a client's environment, made where it is missing."""
    place = (folder / name).resolve()
    python = place / "bin" / "python"
    if not (place / ".made").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        if client.packages:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *client.packages], check=True)
        (place / ".made").touch()
    return python


@contextmanager
def serving(url: str | None) -> Iterator[str]:
    """The address of a server with the embedded model."""
    if url is not None:
        yield url
        return
    command = [sys.executable, "-m", "tts_search", "serve", "--port", "0", "--no-access-log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if found := re.search(r"http://\S+/v1", line):
                    yield found.group()
                    break
            else:
                sys.exit("the server did not start")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
