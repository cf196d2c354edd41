"""No graded program reaches another process, by whatever call; and what honest programs do goes on working.

The attacks are raw system calls at a bystander. `test_sandbox_filter` tries every number and argument.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grading.calls import MACHINES, NUMBERS
from tts_search.errors import TTSError
from tts_search.grading import sandbox, sandbox_child
from tts_search.grading.sandbox import Limits, run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux only")

REFUSALS = {"-1 1", "-1 11", "-1 13", "-1 38"}  # EPERM, EAGAIN, EACCES, ENOSYS

PRELUDE = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in (NUMBERS[name], *arguments)]
    print(libc.syscall(*words), ctypes.get_errno())
def ints(*values):
    return ctypes.byref((ctypes.c_int * 32)(*values))
def opened(path, flags):
    try: print(os.open(path, flags))
    except OSError as error: print(-1, error.errno)
HIGH = 1 << 32  # the kernel takes an int, and so it reads a word with this as one without
r, w = os.pipe()
"""

ROADS = {
    "kill": "call('kill', VICTIM, 9); call('kill', VICTIM | HIGH, 9)",
    "kill a group": "call('kill', -VICTIM, 9)",
    "kill all": "call('kill', -1, 0); call('kill', 0, 0)",
    "tkill": "call('tkill', VICTIM, 9); call('tgkill', VICTIM, VICTIM, 9); call('tgkill', -1, VICTIM, 9)",
    "queue a signal": "call('rt_sigqueueinfo', VICTIM, 9, ints(9, 0, -1)); "
    "call('rt_tgsigqueueinfo', VICTIM, VICTIM, 9, ints(9, 0, -1))",
    "a descriptor of a process": "call('pidfd_open', VICTIM, 0); call('pidfd_getfd', r, 0, 0)",
    "a folder of a process": "call('pidfd_send_signal', os.open(f'/proc/{VICTIM}', os.O_RDONLY), 9, 0, 0)",
    "a pipe's owner": "call('fcntl', r, 8, VICTIM); call('fcntl', r, 10, 9); call('fcntl', r, 4, os.O_ASYNC); "
    "os.write(w, b'x')",
    "a pipe's owner, the long way": "call('fcntl', r, 15, ints(1, VICTIM)); call('fcntl', r, 8 | HIGH, VICTIM); "
    "call('fcntl', r, 10 | HIGH, 9); call('fcntl', r, 4 | HIGH, os.O_ASYNC | HIGH); os.write(w, b'x')",
    "a lease": "call('fcntl', os.open('/proc/self/maps', os.O_RDONLY), 1024, 0); call('fcntl', r, 1026, 2)",
    "a lock": "call('flock', os.open(PLACE, os.O_RDONLY), 2); call('fcntl', os.open(PLACE, os.O_RDONLY), 6, ints(0))",
    "a pipe's owner by ioctl": "call('ioctl', r, 0x8901, ints(VICTIM)); call('ioctl', r, 0x5452, ints(1)); "
    "call('ioctl', r, 0x5452 | HIGH, ints(1))",
    "a socket's owner": "s = socket.socketpair()[0].fileno(); call('ioctl', s, 0x8901, ints(VICTIM)); "
    "call('ioctl', s, 0x8902, ints(VICTIM)); call('ioctl', s, 0x8902 | HIGH, ints(-VICTIM)); "
    "call('fcntl', s, 8, VICTIM)",
    "a terminal": "t = os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY)\n"
    "for command in (0x5410, 0x5412, 0x540E, 0x5422, 0x40045436, 0x5414): call('ioctl', t, command, ints(3))\n"
    "call('fcntl', t, 4, os.O_ASYNC); opened(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_ASYNC); call('vhangup')",
    "a message queue": "call('mq_open', b'tts-search', 0o102, 0o600, 0); call('mq_notify', r, ints(0, 0, 9))",
    "a timer": "call('timer_create', 1, ints(0, 0, 9, 4, VICTIM), ints())",
    "trace": "call('ptrace', 16, VICTIM, 0, 0); call('ptrace', 0x4206, VICTIM, 0, 0)",
    "its memory": "call('process_vm_writev', VICTIM, 0, 0, 0, 0, 0); call('process_madvise', r, 0, 0, 0, 0); "
    "call('process_mrelease', r, 0); call('migrate_pages', VICTIM, 0, 0, 0); "
    "call('move_pages', VICTIM, 0, 0, 0, 0, 0); "
    "call('kcmp', VICTIM, VICTIM, 0, 0, 0); opened(f'/proc/{VICTIM}/mem', os.O_RDWR)",
    "its files in /proc": "opened(f'/proc/{VICTIM}/oom_score_adj', os.O_WRONLY); opened(f'/proc/{VICTIM}/comm', 1)",
    "a ring of calls": "call('io_uring_setup', 8, ints()); call('io_uring_enter', r, 1, 0, 0, 0, 0); "
    "call('io_uring_register', -1, 0, 0, 0); call('io_setup', 1, ints())",
    "priorities": "call('setpriority', 0, VICTIM, 19); call('ioprio_set', 1, VICTIM, 3 << 13); "
    "call('sched_setscheduler', VICTIM, 5, ints(0)); call('sched_setparam', VICTIM, ints(0)); "
    "call('sched_setattr', VICTIM, ints(48, 5), 0)",
    "processors": "call('sched_setaffinity', VICTIM, 8, ints(1)); call('sched_setaffinity', VICTIM | HIGH, 8, ints(1))",
    "limits": "call('prlimit64', VICTIM, 0, ints(), 0); call('prlimit64', VICTIM, 0, 0, ints()); "
    "call('prlimit64', 0, 0, ints(9, 0, 9), 0)",
    "keys": "call('add_key', 0, 0, 0, 0, 0); call('request_key', 0, 0, 0, 0); call('keyctl', 0, -3, 1)",
    "the kernel's tools": "call('bpf', 0, 0, 0); call('perf_event_open', 0, VICTIM, -1, -1, 0); "
    "call('userfaultfd', 0); call('fanotify_init', 0, 0); call('unshare', 1 << 29); call('setns', r, 0)",
    "shared memory and queues": "call('shmat', 0, 0, 0); call('msgsnd', 0, 0, 0, 0); call('semop', 0, 0, 0); "
    "call('memfd_create', b'x', 0)",
    "a parent's death": "call('prctl', 1, 9); call('prctl', 0x59616D61, VICTIM)",
    "another process": "call('clone', 17, 0, 0, 0, 0); call('clone', 0x8000 | 9, 0, 0, 0, 0); "
    "call('clone', 0x10000 | 1 << 17, 0, 0, 0, 0); call('clone3', 0, 0); call('execveat', -1, 0, 0, 0, 0)",
    "groups": "call('setsid'); call('setpgid', 0, VICTIM)",
    "sockets": "call('socket', 1, 1, 0); call('connect', r, 0, 0); call('socketpair', 1, 2, 0, ints()); "
    "call('socketpair', 2, 1, 0, ints()); call('sendto', w, b'x', 1, 0, ints(1), 16); call('sendmsg', w, 0, 0)",
}


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """An innocent process of the same user, in a group of its own."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.fixture
def terminal() -> Iterator[str]:
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("road", ROADS)
def test_no_road_leads_to_another_process(road: str, bystander: subprocess.Popen[bytes], terminal: str) -> None:
    pid, column = bystander.pid, MACHINES.index(platform.machine())
    numbers = {name: both[column] for name, both in NUMBERS.items()}

    def state() -> object:
        limits = resource.prlimit(pid, resource.RLIMIT_CPU)
        return bystander.poll(), limits, os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid)

    before = state()
    names = f"VICTIM, NUMBERS, TERMINAL, PLACE = {pid}, {numbers}, {terminal!r}, {__file__!r}"
    run = run_program(f"{names}\n{PRELUDE}\n{ROADS[road]}")
    assert run.exit_code == 0, run.errors
    assert run.output
    assert set(run.output.splitlines()) <= REFUSALS
    with pytest.raises(subprocess.TimeoutExpired):  # a signal on its way would have come by then
        bystander.wait(0.05)
    assert state() == before


def test_landlock_is_a_second_lock(bystander: subprocess.Popen[bytes], tmp_path: Path) -> None:
    script = (
        "import ctypes, os, sys\nfrom tts_search.grading.sandbox_child import _lock\n"
        "libc = ctypes.CDLL(None)\nlibc.prctl(38, 1, 0, 0, 0)\nassert _lock(libc)\n"
        "for attack in (lambda: os.kill(int(sys.argv[1]), 9), lambda: os.readlink(f'/proc/{sys.argv[1]}/cwd'),\n"
        "               lambda: os.symlink('/', 'tts-search'), lambda: open('tts-search', 'w'),\n"
        "               lambda: os.mkdir('tts-search-was-here')):\n"
        "    try: attack(); print('done')\n"
        "    except PermissionError: print('refused')"
    )
    ask = [sys.executable, "-c", script, str(bystander.pid)]
    run = subprocess.run(ask, capture_output=True, text=True, check=True, cwd=tmp_path)
    version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
    if version >= 6:
        assert run.stdout.split() == ["refused"] * 5
        assert bystander.poll() is None


HONEST = {
    "asyncio": "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n"
    "    return await asyncio.gather(*(asyncio.to_thread(abs, -i) for i in range(3)))\n"
    "assert asyncio.run(f()) == [0, 1, 2]",
    "threads": "from concurrent.futures import ThreadPoolExecutor as T\n"
    "assert list(T(4).map(abs, range(-9, 0)))[0] == 9",
    "deep recursion in a thread": "import sys, threading\nsys.setrecursionlimit(10**6); threading.stack_size(2**27)\n"
    "def f(n): return n and 1 + f(n - 1)\nout = []\n"
    "t = threading.Thread(target=lambda: out.append(f(50_000))); t.start(); t.join(); assert out == [50_000]",
    "numpy": "import numpy as np\nassert np.allclose(np.linalg.inv(np.eye(200) * 2), np.eye(200) / 2)",
    "a signal to itself": "import os, signal\ngot = []\nsignal.signal(signal.SIGUSR1, lambda *_: got.append(1))\n"
    "signal.raise_signal(signal.SIGUSR1); os.kill(os.getpid(), signal.SIGUSR1)\n"
    "signal.pthread_kill(__import__('threading').get_ident(), signal.SIGUSR1); assert len(got) == 3",
    "an alarm": "import signal, time\ndef late(*_): raise TimeoutError\nsignal.signal(signal.SIGALRM, late)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
    "try: time.sleep(9)\nexcept TimeoutError: pass\nelse: raise SystemExit(3)",
    "pipes": "import os, select\nr, w = os.pipe(); os.set_blocking(r, False); os.set_inheritable(w, True)\n"
    "os.write(w, b'x'); assert select.select([r], [], [], 1)[0] == [r]; assert os.read(r, 9) == b'x'",
    "its limits": "import resource, os\nassert resource.getrlimit(resource.RLIMIT_NOFILE) == (32, 32)\n"
    "assert resource.prlimit(os.getpid(), resource.RLIMIT_CORE) == (0, 0)",
    "its machine": "import os, sys, time, platform, random, secrets, mmap\n"
    "os.cpu_count(); os.listdir('/'); os.stat('/')\n"
    "os.sched_setaffinity(0, os.sched_getaffinity(0)); mmap.mmap(-1, 9); secrets.token_hex(); platform.uname()\n"
    "assert not sys.stdout.isatty(); time.sleep(0.001); time.process_time(); os.getcwd()",
    "input": "import sys, io\nassert sys.stdin.read() == ''; sys.stdout.flush(); open('/dev/null').read()\n"
    "sys.stdin = io.StringIO('7'); assert input() == '7'; open(0).close()",
    "the end of itself": "import os, atexit\natexit.register(print, 'bye'); os.fsync(1)",
}  # fmt: skip


@pytest.mark.parametrize("what", HONEST)
def test_honest_programs_go_on_working(what: str) -> None:
    run = run_program(HONEST[what])
    assert (run.exit_code, run.errors) == (0, "")


@pytest.mark.parametrize(("how", "signal"), [("abort()", 6), ("kill(os.getpid(), 15)", 15)])
def test_a_program_may_end_itself(how: str, signal: int) -> None:
    assert run_program(f"import os; os.{how}").exit_code == -signal


def test_what_cannot_be_confined_is_not_run() -> None:
    for limits in (Limits(memory_mb=1), Limits(open_files=1)):
        with pytest.raises(TTSError, match=r"before it was confined, so none was run.* MB and .* files"):
            run_program("print(1)", limits=limits)


def test_where_the_filter_is_refused_none_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(f"open('confined', 'w').close()\nprint(1)\nraise SystemExit({sandbox_child.REFUSED})\n")
    monkeypatch.setattr(sandbox_child, "__file__", str(child))
    monkeypatch.setattr(sandbox, "_confines", sandbox._confines.__wrapped__)
    with pytest.raises(TTSError, match=r"needs a Linux kernel with seccomp filters.* none was run"):
        run_program("print(1)")


@pytest.mark.parametrize("refusing", ["_install", "_lock"])
def test_a_kernel_that_does_not_take_the_filter_runs_nothing(refusing: str, tmp_path: Path) -> None:
    code = f"from tts_search.grading import sandbox_child as c\nc.{refusing} = lambda *_: False\n"
    code += "import sys; open('p.py', 'w').write('print(1)'); c.main('p.py', '__main__', 9, 2**30, 999, 32)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (sandbox_child.REFUSED, b"")
    assert (tmp_path / sandbox_child.CONFINED).stat().st_size == 0


def test_a_process_that_has_ended_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id may be another's by then."""
    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, lambda *a: pytest.fail(f"a signal was sent: {a}"))
    assert run_program("print(1)").exit_code == 0
