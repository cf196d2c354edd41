"""What docs/serving.md shows works: its Python against a server, its commands, its tables, and the containers."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from tests.serving.servers import serving
from tts_search.cli import app
from tts_search.serving.chat_fields import ChatRequest
from tts_search.serving.keys import Keys
from tts_search.serving.limits import Limits
from tts_search.serving.responses_fields import ResponsesRequest
from tts_search.serving.search_options import EFFORTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    with serving() as running:
        for source in blocks("python"):
            source = source.replace("http://127.0.0.1:8000", running.url).replace('"embedded', '"fake')
            exec(compile(source, "serving.md", "exec"), {})
    assert capsys.readouterr().out


def test_its_commands_have_options_that_there_are() -> None:
    command = get_command(app).commands["serve"]  # pyright: ignore[reportAttributeAccessIssue]
    known = {option for parameter in command.params for option in parameter.opts}
    told = set(re.findall(r"`(--[a-z-]+)", PAGE)) | {
        word for line in PAGE.splitlines() if line.startswith("tts-search serve")
        for word in shlex.split(line, comments=True) if word.startswith("--")
    }  # fmt: skip
    assert told
    assert told - {"--help"} <= known


def test_its_defaults_are_those_of_the_code() -> None:
    limits = Limits()
    for option, value in (
        ("concurrency", limits.concurrency),
        ("queue", limits.waiting),
        ("request-seconds", limits.request_seconds),
        ("drain-seconds", limits.drain_seconds),
    ):
        assert f"| `--{option}` | {value:g} |" in PAGE
    assert "| Best-of-N, N = | " + " | ".join(map(str, EFFORTS.values())) + " |" in PAGE
    assert limits.body_bytes == 2 << 20
    assert (limits.messages, limits.kept, limits.kept_tokens) == (1000, 128, 4_000_000)


def test_its_fields_are_fields() -> None:
    table = PAGE[PAGE.index("| field |") : PAGE.index("Errors have OpenAI's form")]
    first = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    named = {name for cell in first for name in re.findall(r"`(\w+)", cell)}
    assert named <= set(ChatRequest.model_fields) | set(ResponsesRequest.model_fields)


def test_its_metrics_are_told() -> None:
    table = PAGE[PAGE.index("| metric") : PAGE.index("Each request is a line")]
    names = [
        name for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`([a-z_]+)", cell)
    ]
    with serving() as running:
        running.chat()
        page = running.http.get("/metrics").text
    assert len(names) > 15
    assert not [name for name in names if f"tts_search_{name}" not in page]


def test_its_file_of_keys_is_one(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "keys.toml"
    path.write_text(text)
    keys = Keys.read(path, {})
    assert keys.who("Bearer a long random text").tokens_per_day == 2_000_000
    assert tomllib.loads(text).keys() == {"alice", "bob"}


def test_the_containers_start_the_server_with_options_that_there_are() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["tts-search", "serve", "--host", "0.0.0.0"]' in dockerfile
    (service,) = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    assert service["command"][0] == "--model"
    assert "TTS_SEARCH_API_KEY" in service["environment"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (used,) = re.findall(r"ARG EXTRAS=(.*)", dockerfile)
    assert set(used.split(",")) <= set(extras)
