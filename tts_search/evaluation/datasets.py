"""Problems by the name of a published benchmark, or from a file of one's own; checked before anything is searched.

`load_dataset("gsm8k")` reads the Hugging Face hub, `load_dataset("gsm8k=path")` a local copy in the same schema,
`load_dataset("my.jsonl")` any file with a prompt and an answer column, `load_dataset("puzzles")` the embedded model's
held-out number puzzles.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tts_search.errors import InvalidInputError, MissingDependencyError
from tts_search.evaluation.benchmarks import BENCHMARKS, Benchmark, number
from tts_search.evaluation.records import SUFFIXES, Row, read_rows
from tts_search.shards import Shard

PUZZLES = "puzzles"
PROMPT_COLUMNS = ("question", "prompt", "problem", "input")
ANSWER_COLUMNS = ("answer", "reference", "target", "final_answer")
_ID_COLUMNS = ("id", "question_id", "unique_id")
LONGEST_REFERENCE = 10_000  # characters; programs' tests may be longer
LONGEST_QUESTION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question and what a right answer agrees with, in the words of the data set's grader."""

    id: str
    question: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Problems with different ids, at least one, and the name of the grader that belongs to them."""

    name: str
    problems: tuple[Problem, ...]
    grader: str

    def __len__(self) -> int:
        return len(self.problems)

    def head(self, limit: int | None) -> Dataset:
        """The first `limit` problems; all for None."""
        return self if limit is None else replace(self, problems=self.problems[:limit])

    def part(self, shard: Shard) -> Dataset:
        """The problems of one shard.

        Raises:
            InvalidInputError: there are none.
        """
        mine = tuple([problem for problem in self.problems if shard.holds(problem.question)])
        if not mine:
            raise InvalidInputError(f"shard {shard} holds none of the {len(self)} questions: make fewer shards")
        return replace(self, problems=mine)


def load_dataset(
    source: str | Path,
    *,
    limit: int | None = None,
    grader: str | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    release: str = "v6",
    since: str | None = None,
    until: str | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        source: a benchmark's name (`ceval:computer_network` for one subject), `name=path` for a local copy of it (a
            file or a folder), the path of a `.jsonl`, `.json` or `.parquet` file, or `"puzzles"`.
        limit: only the first so many problems.
        grader: a name from `grading.named`; by default the benchmark's own, and `"math"` for a file.
        prompt_column: of a file; by default the first of `PROMPT_COLUMNS` that is there.
        answer_column: of a file; by default the first of `ANSWER_COLUMNS` that is there.
        release: of LiveCodeBench, `"v1"` to `"v6"`.
        since: LiveCodeBench's first day, as in `"2024-08-01"`.
        until: and its last.

    Raises:
        InvalidInputError: no such data set, no network and no copy, a malformed line, a missing column, a duplicate id,
            an absurdly long or empty answer; the message names the file and the line.
        MissingDependencyError: `datasets` is not installed.
    """
    if limit is not None and limit < 1:
        raise InvalidInputError(f"limit must be at least 1, got {limit}")
    name, _, path = str(source).partition("=")
    if name == PUZZLES and not path:
        return _puzzles(limit or 500)
    base, _, subject = name.partition(":")
    if base not in BENCHMARKS:
        place = Path(source)
        if place.suffix not in SUFFIXES and not place.exists():
            known = ", ".join((*BENCHMARKS, PUZZLES))
            raise InvalidInputError(f"unknown data set {str(source)!r}: choose from {known}, or give a file")
        problems = _from_file(place, prompt_column, answer_column)
        return _checked(place.stem, problems, grader or "math", str(place), limit)
    benchmark = BENCHMARKS[base]
    if (since or until) and benchmark.dated is None:
        raise InvalidInputError(f"since and until are for data sets with dates: {base} has none")
    rows = read_rows(Path(path)) if path else _from_hub(base, benchmark, subject or None, release)
    problems = _from_benchmark(benchmark, rows, _day("since", since), _day("until", until))
    return _checked(name, problems, grader or benchmark.grader, path or benchmark.hub, limit)


def _puzzles(count: int) -> Dataset:
    from tts_search.embedded.puzzles import held_out

    questions = [puzzle.question for puzzle in held_out(count)]
    problems = tuple(Problem(id=str(i), question=text, reference=text) for i, text in enumerate(questions))
    return Dataset(name=PUZZLES, problems=problems, grader="puzzle")


Placed = tuple[str, Problem]


def _from_file(path: Path, prompt_column: str | None, answer_column: str | None) -> Iterator[Placed]:
    for index, row in enumerate(read_rows(path)):
        prompt = _column(row, prompt_column, PROMPT_COLUMNS, "prompt")
        answer = _column(row, answer_column, ANSWER_COLUMNS, "answer")
        question = row.values[prompt]
        if not isinstance(question, str):
            raise InvalidInputError(f"{row.place}: column {prompt!r} must be text, got {type(question).__name__}")
        problem = Problem(id=_id(row, _ID_COLUMNS, index), question=question, reference=_text(row, answer))
        yield row.place, problem


def _from_benchmark(
    benchmark: Benchmark, rows: Iterable[Row], since: datetime.date | None, until: datetime.date | None
) -> Iterator[Placed]:
    for index, row in enumerate(rows):
        for column in benchmark.columns + ((benchmark.dated,) if benchmark.dated and (since or until) else ()):
            if row.values.get(column) is None:
                raise InvalidInputError(f"{row.place}: no column {column!r}; there are {', '.join(row.values)}")
        if benchmark.dated and (since or until):
            day = _day(f"{row.place}: {benchmark.dated}", str(row.values[benchmark.dated])[:10])
            if day is None or (since and day < since) or (until and day > until):
                continue
        try:
            question, reference = benchmark.read(row.values)
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise InvalidInputError(f"{row.place}: {error}") from error
        yield row.place, Problem(id=_id(row, benchmark.ids, index), question=question, reference=reference)


def _column(row: Row, wanted: str | None, known: Sequence[str], kind: str) -> str:
    candidates = (wanted,) if wanted else known
    for column in candidates:
        if row.values.get(column) is not None:
            return column
    there = ", ".join(row.values) or "none"
    raise InvalidInputError(
        f"{row.place}: no {kind} column ({' or '.join(candidates)}); there are {there}: name it with {kind}_column"
    )


def _id(row: Row, columns: Sequence[str], index: int) -> str:
    return next((str(row.values[column]) for column in columns if row.values.get(column) is not None), str(index))


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if isinstance(value, (dict, list)):
        raise InvalidInputError(f"{row.place}: column {column!r} must be text or a number, got {type(value).__name__}")
    return number(value)


def _checked(name: str, problems: Iterable[Placed], grader: str, source: str, limit: int | None) -> Dataset:
    seen: dict[str, str] = {}
    found: list[Problem] = []
    for place, problem in islice(problems, limit):
        if problem.id in seen:
            raise InvalidInputError(f"{place}: duplicate id {problem.id!r}, first at {seen[problem.id]}")
        seen[problem.id] = place
        if not problem.question.strip() or len(problem.question) > LONGEST_QUESTION:
            length = len(problem.question)
            raise InvalidInputError(
                f"{place}: a question has 1 to {LONGEST_QUESTION:,} characters, this one {length:,}"
            )
        if not problem.reference.strip():
            raise InvalidInputError(f"{place}: the answer is empty")
        if grader != "code" and len(problem.reference) > LONGEST_REFERENCE:
            raise InvalidInputError(
                f"{place}: the answer has {len(problem.reference):,} characters, where a final answer has at most "
                f"{LONGEST_REFERENCE:,}: is it the whole solution?"
            )
        found.append(problem)
    if not found:
        raise InvalidInputError(f"{source} holds no problems")
    return Dataset(name=name, problems=tuple(found), grader=grader)


def _day(name: str, text: str | None) -> datetime.date | None:
    try:
        return None if text is None else datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{name} must be a day like 2024-08-01, got {text!r}") from error


def _from_hub(name: str, benchmark: Benchmark, subject: str | None, release: str) -> Iterator[Row]:
    if subject is not None and not benchmark.per_subject:
        raise InvalidInputError(f"{name} has no subjects: leave ':{subject}' out")
    try:
        import datasets
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingDependencyError(
            "data sets from the hub need `datasets`: pip install 'tts-search[eval]'"
        ) from error
    library: Any = datasets
    library.disable_progress_bars()
    try:
        if benchmark.files is not None:
            if release not in benchmark.files:
                raise InvalidInputError(f"release must be one of {', '.join(benchmark.files)}, got {release!r}")
            files = [Path(hf_hub_download(benchmark.hub, f, repo_type="dataset")) for f in benchmark.files[release]]
            return chain.from_iterable(map(read_rows, files))
        configs = [subject or benchmark.config]
        if benchmark.per_subject and subject is None:
            configs = library.get_dataset_config_names(benchmark.hub)
        tables = [(config, library.load_dataset(benchmark.hub, config, split=benchmark.split)) for config in configs]
    except InvalidInputError:
        raise
    except Exception as error:  # the hub's clients raise whatever their transports raise
        raise InvalidInputError(
            f"{name} could not be loaded from the hub ({benchmark.hub}): {str(error).splitlines()[0][:200]}. Without a "
            f"network, bring a copy of its files (JSONL or Parquet) and give it as {name}=PATH"
        ) from error
    return (Row(f"{benchmark.hub}, row {i + 1}", dict(row)) for config, table in tables for i, row in enumerate(table))
