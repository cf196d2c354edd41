"""Running a Python program that nobody has read: no network, no files to write, no processes, limits on the rest.

What holds: the program runs in a process and session of its own, with nothing of the caller's environment, under limits
on processor time, wall time, memory, output and open files, and under a system call filter. The filter permits what is
on a list and refuses all else: sockets, new processes (threads are allowed), every way to create, change or remove a
file, and every way to a process outside: to signal it (by `kill` and its kin, a descriptor of a process, the owner of a
file, a terminal, a message queue or a timer), to trace it, write to its memory, or set its priority, processors or
limits. It may signal itself. Where the kernel has Landlock, that refuses writes, signals (of Linux 6.12) and looks into
other processes once more. It leaves nothing behind.

What does not hold: it can *read* whatever the user can read (though tell nobody), named pipes and devices too, where
opening or reading alone can do something, such as take what was meant for another. It can load the machine until its
limits stop it, and attack the kernel through the calls that are permitted. It is no protection against a determined
attacker, least of all as root: grade programs of unknown origin in a container or virtual machine. Linux on x86-64 or
arm64 only; elsewhere, and where the filter cannot be set up, it refuses to run anything.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tts_search.errors import InvalidInputError, TTSError
from tts_search.grading import sandbox_child

_SHOWN = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one run. Processor time is what a solution is judged by, so that a busy machine changes no grade; wall time is
    for programs that sleep.
    """

    cpu_seconds: int = 10
    wall_seconds: float = 30.0
    memory_mb: int = 1024
    output_kb: int = 1024
    open_files: int = 32

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise InvalidInputError(f"{name} must be positive, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of a program: `exit_code` is negative for a signal, None where the wall time ran out."""

    exit_code: int | None
    output: str
    errors: str


def run_program(source: str, stdin: str = "", limits: Limits | None = None, *, name: str = "__main__") -> Run:
    """Run Python source with a text on standard input, as a module of that name. Any number of threads may call it.

    Raises:
        TTSError: this system has no system call filter, or the limits leave no room to set it up: nothing was run.
    """
    if not _confines():
        raise TTSError("running programs needs a Linux kernel with seccomp filters, on x86-64 or arm64: none was run")
    return _run(source, stdin, limits or Limits(), name)


@functools.cache
def _confines() -> bool:
    """Asked once, with a program of our own: later ones could exit with any code."""
    try:
        _run("", "", Limits(), "__main__")
    except TTSError:
        return False
    return True


def _run(source: str, stdin: str, limits: Limits, name: str) -> Run:
    with tempfile.TemporaryDirectory(prefix="tts-search-") as folder:
        place = Path(folder)
        program, given, output, errors = (place / name for name in ("program.py", "stdin", "stdout", "stderr"))
        program.write_bytes(source.encode("utf-8", "replace"))
        given.write_bytes(stdin.encode("utf-8", "replace"))
        numbers = (limits.cpu_seconds, limits.memory_mb * 2**20, limits.output_kb * 2**10, limits.open_files)
        with given.open("rb") as reads, output.open("wb") as writes, errors.open("wb") as complains:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(sandbox_child.__file__), str(program), name, *map(str, numbers)],
                stdin=reads,
                stdout=writes,
                stderr=complains,
                cwd=folder,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            try:
                code = process.wait(limits.wall_seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                process.kill()  # nothing once it has ended: its id may be another's by then
                process.wait()
        complaint = errors.read_text("utf-8", "replace")[-_SHOWN:]
        if code is not None and not _is_marked(place):
            *_, why = ["", *complaint.splitlines()]
            raise TTSError(
                f"a process for programs ended with code {code} before it was confined, so none was run: it may need "
                f"more than the {limits.memory_mb} MB and {limits.open_files} files it was given. {why}".rstrip()
            )
        return Run(exit_code=code, output=output.read_text("utf-8", "replace"), errors=complaint)


def _is_marked(place: Path) -> bool:
    mark = place / sandbox_child.CONFINED
    return mark.exists() and mark.stat().st_size > 0
