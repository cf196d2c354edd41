"""No property is timed: `conftest.py` says so for all of them, and none says otherwise."""

import ast
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent


def test_no_example_is_held_to_a_time() -> None:
    assert settings().deadline is None


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda p: str(p.relative_to(TESTS)))
def test_no_test_sets_a_deadline_of_its_own(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if "deadline" in {keyword.arg for keyword in call.keywords}]
