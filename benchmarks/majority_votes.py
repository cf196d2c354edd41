"""The majority's accuracy with the votes of version 0.1 and with today's, on the same graded samples, by question.

    python benchmarks/majority_votes.py graded.jsonl [--extract math] [--unboxed]

A line of the file is a sample as `tts-search sample` writes it: `question`, `response` and `correct`. A question counts
as answered rightly where the first sample of the most frequent vote (of equals the one given first) is right; without
votes it is wrong. `--unboxed` takes the box off every answer and leaves its words, as a model ends that was not asked
for one; `correct` stays what it was.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from tts_search.metrics import bootstrap, paired_difference
from tts_search.selection.votes import EXTRACTS, merge_votes, resolve_extract


def main(path: Path, extract: str, samples: int, unboxed: bool) -> None:
    read = resolve_extract(extract)
    questions: dict[str, list[dict[str, object]]] = {}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if unboxed:
            row["response"] = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", row["response"])
        questions.setdefault(row["question"], []).append(row)
    pools = [rows[:samples] for rows in questions.values() if len(rows) >= samples]
    earlier = [[earlier_vote(str(row["response"])) for row in rows] for rows in pools]
    before = [right(rows, cast) for rows, cast in zip(pools, earlier, strict=True)]
    votes = [merge_votes([read(str(row["response"])) for row in rows]) for rows in pools]
    after = [right(rows, merged.keys) for rows, merged in zip(pools, votes, strict=True)]
    single = [sum(bool(row["correct"]) for row in rows) / samples for rows in pools]
    print(f"{len(pools)} questions with {samples} samples; compared by {votes[0].comparer}, extract={extract}")
    print(f"one sample     {bootstrap(single)}")
    print(f"votes before   {bootstrap(before)}")
    print(f"votes now      {bootstrap(after)}")
    print(f"now - before   {paired_difference(after, before)}")
    fewer = sum(len(set(now.keys)) < len(set(cast)) for now, cast in zip(votes, earlier, strict=True))
    print(f"questions with fewer different votes than before: {fewer}")


def earlier_vote(text: str) -> str | None:
    """As version 0.1 read an answer: the last box, else what follows "answer is", else the last line."""
    start = text.rfind("\\boxed{")
    depth, begin = 0, start + len("\\boxed{")
    for at in range(begin, len(text)) if start >= 0 else ():
        depth += (text[at] == "{") - (text[at] == "}")
        if depth < 0:
            said = text[begin:at]
            break
    else:
        declared = re.findall(r"answer(?:\s+is|\s*:)\s*(\S[^\n]*)", text, flags=re.IGNORECASE)
        said = ["", *[line for line in text.splitlines() if line.strip()], *declared][-1]
    return " ".join(said.split()).rstrip(" .").strip("$").rstrip(".").strip() or None


def right(rows: Sequence[dict[str, object]], votes: Sequence[str | None]) -> float:
    counts: dict[str, int] = {}
    for vote in votes:
        if vote is not None:
            counts[vote] = counts.get(vote, 0) + 1
    if not counts:
        return 0.0
    return float(bool(rows[votes.index(max(counts, key=lambda vote: counts[vote]))]["correct"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--extract", choices=list(EXTRACTS), default="auto")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--unboxed", action="store_true")
    given = parser.parse_args()
    main(given.path, given.extract, given.samples, given.unboxed)
