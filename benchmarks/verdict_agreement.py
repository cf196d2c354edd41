r"""Whether the graders agree with the verdicts that others gave on models' answers, with and without a label in front.

    python benchmarks/verdict_agreement.py example_model_solutions.jsonl [--against FOLDER]

The file is GSM8K's own of 2021 (https://github.com/openai/grade-school-math): a question, its `ground_truth`, and the
solutions of four models with `is_correct` for each, by a script that reads the last line, "A: 18". Here an answer is
read three ways: as it is, without that line, so that it ends in a sentence ("She makes 9 * 2 = $<<9*2=18>>18 every
day."), and the latter without its calculator marks. It counts as right where the extractor's vote is the reference's
number; the share of answers is printed at which that is what the verdict says. `--against` names a checkout of another
version, which reads the same answers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ("auto", "math", "number")
WAYS = ("as it is", "without its label", "without marks too")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(agreements(options.file)))
        return
    packages = {"this version": Path(__file__).parents[1]}
    if options.against:
        packages[str(options.against)] = options.against.resolve()
    print(f"{'':24}{'':20}" + "".join(f"{name:>9}" for name in NAMES))
    for name, package in packages.items():
        command = [sys.executable, "-P", __file__, str(options.file), "--read"]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(package)}, stdout=subprocess.PIPE, check=True
        )
        for way, shares in json.loads(done.stdout).items():
            print(f"{name:24}{way:20}" + "".join(f"{shares[extract]:9.3f}" for extract in NAMES))


def agreements(path: Path) -> dict[str, dict[str, float]]:
    """By way of reading and extractor, the share of answers at which it says what the verdict says."""
    from tts_search.selection.votes import EXTRACTS, merge_votes

    answers = list(read(path))
    found: dict[str, dict[str, float]] = {}
    for way, text_of in zip(WAYS, (str, unlabelled, unmarked), strict=True):
        found[way] = {}
        for name in NAMES:
            votes = [EXTRACTS[name](text_of(text)) for text, _, _ in answers]
            says = [
                vote is not None and len(set(merge_votes([reference, vote]).keys)) == 1
                for vote, (_, reference, _) in zip(votes, answers, strict=True)
            ]
            found[way][name] = sum(said == right for said, (_, _, right) in zip(says, answers, strict=True)) / len(says)
    return found


def read(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Answers, references and verdicts."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        reference = row["ground_truth"].rpartition("A:")[2].strip().replace(",", "").lstrip("$")
        for solution in row.values():
            if isinstance(solution, dict):
                yield solution["solution"], reference, solution["is_correct"]


def unlabelled(text: str) -> str:
    """An answer without its last line, "A: 18"."""
    return text.rpartition("\nA:")[0] or text


def unmarked(text: str) -> str:
    """An answer without "A: 18" and without `<<9*2=18>>`."""
    return re.sub(r"<<[^<>]*>>", "", unlabelled(text))


if __name__ == "__main__":
    main()
