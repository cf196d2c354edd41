"""The layers of the package hold: `lint-imports` reads pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tts_search

PACKAGE = Path(tts_search.__file__).parent


def test_import_contracts() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([command, "--no-cache"], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", sorted((PACKAGE / "strategies").glob("*.py")), ids=lambda p: p.name)
def test_a_strategy_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 85


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
