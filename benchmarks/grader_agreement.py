"""How often graders agree with people on what models wrote: `python benchmarks/grader_agreement.py`.

Reads `tests/grading/model_answers.jsonl`. Every second answer there is closed: nobody looks at what a grader makes of
it while graders are being written, so that only its count says how good they are. *right* is the share of answers whose
verdict is the label's; *reading* the share where the grader takes the answer for what a reader says it says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tts_search.grading import Grader
from tts_search.grading.choice import multiple_choice
from tts_search.grading.math import MathGrader

LABELS = Path(__file__).parents[1] / "tests" / "grading" / "model_answers.jsonl"


def main(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with MathGrader() as math:
        print("| half | grader | answers | right | reading |\n|---|---|---|---|---|")
        for half in ("open", "closed"):
            for name, grader in (("math", math), ("choice", multiple_choice)):
                part = [row for row in rows if row["grader"] == name and row["closed"] == (half == "closed")]
                right = sum(grader(row["text"], row["reference"]) == row["correct"] for row in part)
                print(f"| {half} | {name} | {len(part)} | {right} | {sum(reads(grader, row) for row in part)} |")


def reads(grader: Grader, row: dict[str, Any]) -> bool:
    """Whether what the label says it says is right for the grader; where it says nothing, whether no letter is."""
    if row["says"] is not None:
        return grader(row["text"], row["says"])
    return row["grader"] == "math" or not any(grader(row["text"], letter) for letter in "ABCD")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else LABELS)
