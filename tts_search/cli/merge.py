"""The `merge` command: what the shards of a run wrote, joined into what the whole run would have written.

What a file is, its content says. It merges logs of searches, logs of runs, answers, samples, and folders of these.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_search.cli import arguments as options
from tts_search.cli.answer_file import Known, lines_of, read_line, sort_lines
from tts_search.cli.outcomes import outcomes
from tts_search.errors import InvalidInputError, StorageError, TTSError
from tts_search.log import SearchLog, beside
from tts_search.log.file import HEADER
from tts_search.log.search_settings import SETTINGS
from tts_search.store import FORMAT
from tts_search.whole_files import replacing

OutPlace = Annotated[Path, typer.Argument(metavar="OUT", help="A new file, or a new folder for folders.")]
Parts = Annotated[list[Path], typer.Argument(metavar="IN...", help="What the shards wrote: files, or folders.")]

HELP_BELOW = """[bold]Examples[/bold]

[cyan]tts-search merge answers.jsonl part0.jsonl part1.jsonl part2.jsonl[/cyan]
  Answers in the order of their questions, and their logs, if these lie beside them.

[cyan]tts-search merge results results0 results1 && tts-search compare ... --out results[/cyan]
  Nothing is searched again; the report is about all questions.
"""


def merge(out: OutPlace, parts: Parts, debug: options.Debug = False) -> None:
    """Join what the shards of [cyan]compare[/cyan], [cyan]sample[/cyan] or [cyan]solve --file[/cyan] wrote.

    What is not ours, or was made with other settings, is refused; the parts stay as they are.
    """
    with outcomes(debug):
        for path in merge_all(out, parts):
            typer.echo(f"{path}")


def merge_all(out: Path, parts: Sequence[Path]) -> list[Path]:
    """Merge files, or the files of folders, with the logs that lie beside them; what was written.

    All of it is written, or nothing.

    Raises:
        InvalidInputError: there is nothing to merge, `out` is there already, or the parts do not belong together.
        StorageError: a part cannot be read, or the result not written.
    """
    missing = [part for part in parts if not part.exists()]
    if missing:
        raise InvalidInputError(f"{missing[0]} is not there: name what the shards wrote")
    if len({part.resolve() for part in parts}) < len(parts):
        raise InvalidInputError("one of the parts is named twice")
    folders = any(part.is_dir() for part in parts)
    if os.path.lexists(out) and not (folders and out.is_dir() and not any(out.iterdir())):
        raise InvalidInputError(f"{out} is there already: name a new file or folder")
    try:
        return _merge_folders(out, parts) if folders else _merge_with_logs(out, parts)
    except TTSError:
        raise
    except OSError as error:
        raise StorageError(
            f"{error.filename or out}: {error.strerror or error}. Nothing is merged; make room, or name another place"
        ) from error


def _merge_with_logs(out: Path, parts: Sequence[Path]) -> list[Path]:
    log = beside(out)
    logs = [beside(part) for part in parts]
    if os.path.lexists(log):
        raise InvalidInputError(f"{log} is there already: move it away, or name another file than {out}")
    work = {out.name: parts, **({log.name: logs} if any(path.is_file() for path in logs) else {})}
    _check_all_there(work)
    with _written_apart(out) as apart:
        for name, files in work.items():
            _merge_files(apart / name, files)
        for name in reversed(work):  # answers without their log would be nobody's
            (apart / name).replace(out.with_name(name))
    return [out.with_name(name) for name in work]


def _merge_folders(out: Path, parts: Sequence[Path]) -> list[Path]:
    if not all(part.is_dir() for part in parts):
        raise InvalidInputError("some parts are files and some are folders: name the same of each shard")
    names = sorted({file.name for part in parts for file in part.iterdir() if file.is_file() and _kind(file)})
    if not names:
        raise InvalidInputError(f"{parts[0]} holds nothing that tts-search could merge")
    work = {name: [part / name for part in parts] for name in names}
    _check_all_there(work)
    with _written_apart(out) as apart:
        for name, files in work.items():
            _merge_files(apart / name, files)
        apart.replace(out)
    return [out / name for name in names]


def _check_all_there(work: Mapping[str, Sequence[Path]]) -> None:
    for files in work.values():
        there = [file for file in files if file.is_file()]
        if lost := [file for file in files if file not in there]:
            raise InvalidInputError(
                f"{lost[0]} is not there, and {there[0]} is: bring it, or move the others of its kind away to merge "
                "without them"
            )


@contextmanager
def _written_apart(out: Path) -> Iterator[Path]:
    """A folder to write in, beside `out`; what is not moved out of it is gone behind it."""
    apart = out.with_name(f".{out.name}.merging")
    shutil.rmtree(apart, ignore_errors=True)  # of a merge that was killed
    apart.mkdir(parents=True)
    try:
        yield apart
    finally:
        shutil.rmtree(apart, ignore_errors=True)


def _merge_files(out: Path, parts: Sequence[Path]) -> None:
    parts = [part for part in parts if part.stat().st_size]  # a shard may hold no question
    if not parts:
        out.touch()
        return
    kinds = {part: _kind(part) for part in parts}
    for part, kind in kinds.items():
        if kind is None:
            raise InvalidInputError(f"{part} is nothing that tts-search wrote and can merge")
        if kind != kinds[parts[0]]:
            raise InvalidInputError(f"{part} is {kind}, and {parts[0]} is {kinds[parts[0]]}: merge what is alike")
    kind = kinds[parts[0]]
    assert kind is not None
    _MERGERS[kind](out, parts)


def _kind(path: Path) -> str | None:
    """What a file is, None for what is not ours."""
    with path.open("rb") as file:
        begin = file.read(len(HEADER))
        file.seek(0)
        first = file.readline(1 << 26)
    if begin == HEADER:
        return "a log of searches"
    try:
        value = json.loads(first)
    except ValueError:
        return None
    if value == FORMAT:
        return "a log of runs"
    if read_line(first) is not None:
        return "answers"
    from tts_search.training.sampled import FIELDS

    return "samples" if isinstance(value, dict) and value.keys() >= set(FIELDS) else None


def _merge_searches(out: Path, parts: Sequence[Path]) -> None:
    held: list[tuple[Path, set[str]]] = []
    for part in parts:
        with SearchLog(part, write=False) as log:
            held.append((part, {_comparable(record.content) for record in log.of_kind(SETTINGS)}))
    _check_same([(part, settings) for part, settings in held if settings], json.loads)
    with SearchLog(out) as whole:
        for part in parts:
            with SearchLog(part, write=False) as log:
                for record in log:
                    whole.add(*record)


def _comparable(content: bytes) -> str:
    """Settings without where a server was: shards may have asked one each."""
    settings = json.loads(content)
    engine = settings["engine"]["engine"]
    if isinstance(engine, dict):
        engine.pop("address", None)
    return json.dumps(settings, sort_keys=True)


def _merge_runs(out: Path, parts: Sequence[Path]) -> None:
    held = [(part, {_run_settings(line) for line in _run_lines(part)}) for part in parts]
    _check_same([(part, settings) for part, settings in held if settings], json.loads)
    counts: dict[str, tuple[Path, int]] = {}  # where the record of a key stands that counts
    good = set[str]()
    for part in parts:
        for number, line in enumerate(_run_lines(part)):
            record = json.loads(line)
            key = json.dumps(record["key"], sort_keys=True)
            if record.get("error") is None:
                good.add(key)
            elif key in good:  # the search was done again, or elsewhere too
                continue
            counts[key] = (part, number)
    kept = set(counts.values())
    with replacing(out) as file:
        file.write(json.dumps(FORMAT).encode() + b"\n")
        for part in parts:
            file.writelines(line for number, line in enumerate(_run_lines(part)) if (part, number) in kept)


def _run_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        next(file)
        for number, line in enumerate(file, start=2):
            if not line.endswith(b"\n"):
                return  # what a killed run was writing
            try:
                json.loads(line)["key"]
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInputError(f"{path}, line {number}, is no line of a run log: {error}") from error
            yield line


def _run_settings(line: bytes) -> str:
    key = json.loads(line)["key"]
    return json.dumps({name: key[name] for name in key if name not in ("question", "text")}, sort_keys=True)


def _merge_answers(out: Path, parts: Sequence[Path]) -> None:
    settings: dict[str, Path] = {}
    for part in parts:
        for _, known in lines_of(part):
            settings.setdefault(known.settings, part)
    if len(settings) > 1:
        first, second, *_ = settings.values()
        raise InvalidInputError(f"{second} was answered with other settings than {first}: {_told(first, second)}")
    lines, names = dict[int, Path](), dict[str, int]()
    with replacing(out) as file:
        for part in parts:
            for raw, known in lines_of(part):
                if known.line in lines and lines[known.line] != part:
                    raise InvalidInputError(
                        f"{part} and {lines[known.line]} both answer line {known.line}: they are no shards of one run"
                    )
                lines[known.line] = part
                _check_custom_id(raw, known, names)
                file.write(raw)
    sort_lines(out)


def _check_custom_id(raw: bytes, known: Known, names: dict[str, int]) -> None:
    """A batch that names two requests alike answers the first of them alone, wherever they are."""
    name = json.loads(raw).get("custom_id")
    if known.failed or name is None:
        return
    if (other := names.setdefault(str(name), known.line)) != known.line:
        raise InvalidInputError(
            f"custom_id {name!r} is answered in line {other} and in line {known.line}: give each request a name of "
            "its own, and answer them again"
        )


def _told(first: Path, second: Path) -> str:
    """What of two answer files' settings differs, as far as their answers show it."""
    shown = [next(({n: v[n] for n in _SHOWN if n in v} for v in _values(path)), {}) for path in (first, second)]
    differing = [f"{n}={shown[1][n]!r}, not {shown[0].get(n)!r}" for n in shown[1] if shown[0].get(n) != shown[1][n]]
    return ", ".join(differing) or "in what their lines do not show"


_SHOWN = ("strategy", "selector", "model", "seed", "budget")


def _values(path: Path) -> Iterator[dict[str, Any]]:
    for raw, known in lines_of(path):
        if not known.failed:
            yield json.loads(raw)


def _merge_samples(out: Path, parts: Sequence[Path]) -> None:
    whose = dict[str, Path]()
    with replacing(out) as file:
        for part in parts:
            for question, lines in _sampled(part):
                if whose.setdefault(question, part) != part:
                    raise InvalidInputError(
                        f"{part} and {whose[question]} both sample {question:.80}: they are no shards of one run"
                    )
                file.write(lines)


def _sampled(path: Path) -> Iterator[tuple[str, bytes]]:
    """The questions of a file of samples with their lines; one that a killed run was writing is left out."""
    lines = b""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if not line.endswith(b"\n"):
                    return
                value = json.loads(line)
                lines = line if value["sample"] == 1 else lines + line
                if value["sample"] == value["samples"]:
                    yield json.dumps(value["question"], sort_keys=True), lines
                    lines = b""
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInputError(f"{path}, line {number}, is no sample: {error}") from error


def _check_same(held: Sequence[tuple[Path, set[str]]], read: Callable[[str], Any]) -> None:
    """All parts hold the same settings; one that was interrupted may lack some.

    Raises:
        InvalidInputError: they do not; the message names what differs.
    """
    if not held:
        return
    first, wanted = max(held, key=lambda pair: len(pair[1]))
    for part, settings in held:
        for odd in sorted(settings - wanted):
            nearest = min((_differing(read(odd), read(one)) for one in wanted), key=len)
            raise InvalidInputError(f"{part} was made with other settings than {first}: {', '.join(nearest)}")


def _differing(one: Any, other: Any, name: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [text for key in {**one, **other} for text in _differing(one.get(key), other.get(key), str(key))]
    return [] if one == other else [f"{name}={one!r}, not {other!r}"]


_MERGERS: dict[str, Callable[[Path, Sequence[Path]], None]] = {
    "a log of searches": _merge_searches,
    "a log of runs": _merge_runs,
    "answers": _merge_answers,
    "samples": _merge_samples,
}
