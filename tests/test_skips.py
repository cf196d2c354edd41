"""Where everything must run, a skip fails the run, at collection or later, and says what was skipped and why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import ALLOWED, VARIABLE

CONFTEST = "from tests import skips\ndef pytest_configure(config): skips.watch(config)\n"
ROOT = Path(__file__).parents[1]
PASSES = "def test_fine(): pass\n"


def run(folder: Path, test: str, *, strict: bool) -> tuple[int, str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text("import pytest\n" + test)
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {"PYTHONPATH": str(ROOT)} | ({VARIABLE: "1"} if strict else {})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "skip",
    [
        "def test_it(): pytest.skip('no browser')\n",
        "@pytest.mark.skipif(True, reason='no browser')\ndef test_it(): pass\n",
        "pytest.importorskip('no_such_module', reason='no browser')\n",
        "@pytest.fixture\ndef page(): pytest.skip('no browser')\ndef test_it(page): pass\n",
    ],
)
def test_a_skip_fails_where_everything_must_run(tmp_path: Path, skip: str) -> None:
    (tmp_path / "test_other.py").write_text(PASSES)
    assert run(tmp_path, skip, strict=False)[0] == 0
    code, output = run(tmp_path, skip, strict=True)
    assert code == 1
    assert "nothing may be skipped here" in output
    assert "no browser" in output


def test_what_runs_and_passes_is_fine(tmp_path: Path) -> None:
    assert run(tmp_path, PASSES, strict=True)[0] == 0


def test_what_may_be_skipped_is_there() -> None:
    for path in ALLOWED:
        assert "pytest.skip(" in (ROOT / path).read_text()


SUITE = """
from tts_search.testing import FakeGenerator
from tts_search.testing.conformance import GeneratorConformance
class TestFake(GeneratorConformance):
    exact = False
    def make_generator(self): return FakeGenerator(scores=False)
"""


def test_what_a_suite_does_not_ask_is_allowed(tmp_path: Path) -> None:
    code, output = run(tmp_path, SUITE, strict=True)
    assert code == 0, output
    assert "s" in output.splitlines()[0]
