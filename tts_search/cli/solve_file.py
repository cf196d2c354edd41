"""`tts-search solve --file`: many questions in, an answer a line out, over a log that a killed run is gone on with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_search.api import Searcher
from tts_search.cli import terminal
from tts_search.cli.answer_file import AnswerFile, answer_line, key_of
from tts_search.cli.outcomes import FAILED
from tts_search.cli.outputs import check_apart
from tts_search.cli.question_file import Asked, Format, count_lines, read_questions
from tts_search.cli.wording import in_options
from tts_search.core.protocols import Question
from tts_search.errors import InvalidInputError
from tts_search.evaluation.warned import collected
from tts_search.log import SearchLog
from tts_search.log.identity import identity_of_engine
from tts_search.log.search_settings import typed
from tts_search.options import Options
from tts_search.shards import Shard

_FILE = "Many questions"
SHOWN_FAILURES = 8

File = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="FILE", rich_help_panel=_FILE,
        help="Answer every line of this file instead of one question: JSON with a [cyan]question[/cyan] (or "
        "[cyan]messages[/cyan]) and, if you like, an [cyan]id[/cyan].",
    ),
]  # fmt: skip
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", rich_help_panel=_FILE,
        help="Where the answers of --file go. Run the same command again to go on where it was.",
    ),
]  # fmt: skip
FormatName = Annotated[
    Format,
    typer.Option(
        "--format", rich_help_panel=_FILE, help="What a line of both files is: ours, or a request of OpenAI's batches."
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(
        "--log", metavar="FILE", rich_help_panel=_FILE, show_default="OUT.log",
        help="Every finished sample is written here at once, and never sampled again.",
    ),
]  # fmt: skip
Replay = Annotated[
    Path | None,
    typer.Option(
        "--replay", metavar="LOG", rich_help_panel=_FILE,
        help="Ask no engine: find the searches in this log; another --selector, --aggregation or --scorer decides.",
    ),
]  # fmt: skip


def _shard(text: str) -> Shard:
    try:
        return Shard.read(text)
    except InvalidInputError as error:
        raise typer.BadParameter(str(error)) from error


ShardOf = Annotated[
    Shard | None,
    typer.Option(
        "--shard", metavar="I/N", parser=_shard, rich_help_panel=_FILE,
        help="Only part I of N of the questions, such as 0/3; [cyan]tts-search merge[/cyan] joins what was written.",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where the questions come from, and where everything goes."""

    questions: Path
    out: Path
    form: Format = Format.PLAIN
    log: Path | None = None
    replay: Path | None = None
    shard: Shard | None = None

    @property
    def searches(self) -> Path:
        """The log that is written."""
        return self.log or self.out.with_name(self.out.name + ".log")

    def read(self, settings: Mapping[str, Any], shard: Shard | None) -> Iterator[Asked]:
        """The questions of a shard, or all of them; see `read_questions`."""
        return read_questions(self.questions, self.form, shard, settings)

    def check(self) -> None:
        """Refuse before a model is loaded what cannot be read or written.

        Raises:
            InvalidInputError: no such file, or one of them is another.
        """
        if not self.questions.is_file():
            raise InvalidInputError(f"--file {self.questions}: there is no such file")
        if self.replay is not None and self.log is not None:
            raise InvalidInputError("give --log or --replay, not both: a replay writes no log")
        log = self.replay or self.searches
        if self.replay is None and log.resolve() == self.out.resolve():
            raise InvalidInputError(f"--log {log} is --out: name another file for the log")
        check_apart(self.out, self.questions, log)
        if log.exists() and log.samefile(self.questions):
            raise InvalidInputError(f"{log} holds the questions (--file): name another file for the log")
        if self.replay is None and not self.searches.exists() and self.out.exists() and self.out.stat().st_size:
            raise InvalidInputError(
                f"--out {self.out} is there already, and no {self.searches.name} of an earlier run beside it: move it "
                "away, or name another file"
            )


def solve_file(searcher: Searcher, files: Files, options: Options, screen: Any) -> Work:
    """Answer the questions of a file.

    Raises:
        InvalidInputError: a file is not ours, or was written with other settings.
    """
    from tts_search.cli.compare import evaluating
    from tts_search.evaluation.runs import Ticker

    settings = _settings(searcher, files, options)
    total = count_lines(files.questions)
    log: Options = {"log": files.replay, "replay": True} if files.replay else {}
    held = None if files.replay else SearchLog(files.searches)
    try:
        if held is not None:
            log = {"log": held}
        with AnswerFile(files.out, key_of(settings)) as answers, evaluating(screen) as on_progress:
            answers.check(files.read(settings, None))
            work = Work(files, answers, settings, Ticker(total, on_progress, unit="questions"))
            try:
                for result in searcher.search_many(work.questions(), **{**options, **log, "keep_tree": False}):
                    work.take(result)
            except KeyboardInterrupt:
                terminal.say(f"{len(answers)} questions are answered in {files.out}: run the same again to go on")
                raise
            answers.finish()
    finally:
        if held is not None:
            held.close()
    return work


def _settings(searcher: Searcher, files: Files, options: Options) -> dict[str, Any]:
    """All that decides an answer but the question. `model` and the likes may be repeated by a batch's requests."""
    said = {
        name: value if isinstance(value, str | int | float | None) else typed(value) for name, value in options.items()
    }
    engine = identity_of_engine(searcher.generator)
    if isinstance(engine["engine"], dict):  # a server may have moved
        engine["engine"] = {name: value for name, value in engine["engine"].items() if name != "address"}
    return {
        "engine": engine,
        **searcher.settings,
        **said,
        **searcher.settings["sampling"],
        "max_completion_tokens": searcher.settings["max_tokens"],
        "replay": files.replay is not None,
    }


class Work:
    """The lines on their way: which are asked, which are answered, which failed."""

    def __init__(self, files: Files, answers: AnswerFile, settings: dict[str, Any], ticker: Any) -> None:
        self.files, self._answers, self._settings, self._ticker = files, answers, settings, ticker
        self._key = key_of(settings)
        self._asked: dict[int, Asked] = {}  # by their number among those searched
        self.failed: list[tuple[int, str]] = []
        self.failures = 0
        self.unanswered = self.searched = 0
        self.warned: list[tuple[str, tuple[str, ...]]] = []

    def questions(self) -> Iterator[Question]:
        """What is still to be searched, as it is needed."""
        number = 0
        for asked in self._read():
            if self._answers.holds(asked):
                self._ticker.resumed(1, "answering")
            elif asked.error is not None:
                self._answer(asked, None, asked.error)
            else:
                self._asked[number] = asked
                number += 1
                yield asked.question

    @property
    def lines(self) -> int:
        """How many questions have their line."""
        return len(self._answers)

    def _read(self) -> Iterable[Asked]:
        return self.files.read(self._settings, self.files.shard)

    def take(self, result: Any) -> None:
        """A question is answered, or failed."""
        self.unanswered += result.error is None and not result.answer.strip()
        self.searched += 1
        self.warned += [("", result.warnings)] if result.warnings else []
        self._answer(self._asked.pop(result.index), result, None if result.error is None else str(result.error))

    def _answer(self, asked: Asked, result: Any, error: str | None) -> None:
        self._answers.add(asked, answer_line(asked, result, self.files.form, self._key))
        self._ticker.one("answering")
        if error is not None:
            self.failures += 1
            if len(self.failed) < SHOWN_FAILURES:
                self.failed.append((asked.line, error))


def tell(work: Work) -> None:
    """Say what became of the questions.

    Raises:
        typer.Exit: some failed.
    """
    files, lines = work.files, work.lines
    for line, error in work.failed:
        terminal.say_error(f"{files.questions}, line {line}: {error}")
    if work.failures > len(work.failed):
        terminal.say_error(f"and {work.failures - len(work.failed)} more, each in its line of {files.out}")
    if work.unanswered:
        terminal.say(f"{work.unanswered} searches ended without an answer")
    for found in collected(work.warned)[:SHOWN_FAILURES]:
        terminal.say(f"{in_options(found.text)} ({found.searches:,} of {work.searched:,} answers)", "warning: ")
    typer.echo(f"{lines - work.failures} of {lines} questions are answered in {files.out}")
    if work.failures:
        raise typer.Exit(FAILED)
