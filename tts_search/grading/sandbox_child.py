"""The process in which a program runs: limits first, then a system call filter, then the program. Linux only.

Run as a script, it imports nothing of tts-search: `sandbox_child.py PROGRAM NAME CPU_SECONDS MEMORY OUTPUT OPEN_FILES`.
`sandbox` starts it and says what it protects against.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys

REFUSED = 97  # the exit code where the kernel does not take the filter
CONFINED = "confined"  # in the working directory

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# Calls that reach nothing outside the process, with their numbers on x86-64 and on arm64 (-: not there). Whatever is
# not listed is refused: a kernel gets new calls with every release, and what a list of refusals forgets is open.
_ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70
preadv2 327 286, pwritev2 328 287, lseek 8 62, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24
pipe 22 -, pipe2 293 59, sendfile 40 71, fsync 74 82, fdatasync 75 83, fadvise64 221 223, readahead 187 213

access 21 -, faccessat 269 48, faccessat2 439 439, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291
statfs 137 43, fstatfs 138 44, readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17
chdir 80 49, fchdir 81 50, umask 95 166, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10
listxattr 194 11, llistxattr 195 12, flistxattr 196 13

brk 12 214, mmap 9 222, munmap 11 215, mremap 25 216, mprotect 10 226, madvise 28 233, mincore 27 232, msync 26 227
membarrier 324 283, get_mempolicy 239 236, pkey_alloc 330 289, pkey_free 331 290, pkey_mprotect 329 288

futex 202 98, futex_waitv 449 449, set_robust_list 273 99, set_tid_address 218 96, rseq 334 293, sched_yield 24 124
exit 60 93, exit_group 231 94, execve 59 221, arch_prctl 158 -, getrandom 318 278

select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21
epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -, eventfd2 290 19, wait4 61 260, waitid 247 95
nanosleep 35 101, clock_nanosleep 230 115, pause 34 -, restart_syscall 219 128
recvfrom 45 207, getsockname 51 204, getpeername 52 205, getsockopt 55 209, shutdown 48 210

time 201 -, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114, times 100 153, getrusage 98 165
alarm 37 -, setitimer 38 103, getitimer 36 102, timerfd_create 283 85, timerfd_settime 286 86, timerfd_gettime 287 87
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137
rt_sigsuspend 130 133, sigaltstack 131 132, signalfd 282 -, signalfd4 289 74

getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getuid 102 174
geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158
uname 63 160, sysinfo 99 179, getcpu 309 168, getrlimit 97 163, getpriority 140 141, sched_getaffinity 204 123
sched_getscheduler 145 120, sched_getparam 143 121, sched_rr_get_interval 148 127
sched_get_priority_max 146 125, sched_get_priority_min 147 126
"""
_NEWER = 453  # the first call that this list knows nothing of

_WRITES = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
_ASYNC = 0o20000  # O_ASYNC: a terminal has a process group to signal, whoever asks
_THREAD, _NAMESPACES = 0x10000, 0x7E020000
_UNIX, _STREAM, _KIND = 1, 1, 0xF
_FILE_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
_SET_FLAGS = 4  # F_SETFL
# FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, and what isatty and get_terminal_size ask: TCGETS, TCGETS2, TIOCGWINSZ
_DEVICE_COMMANDS = (0x541B, 0x5421, 0x5451, 0x5450, 0x5401, 0x802C542A, 0x5413)
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS, PR_SET_VMA
_PROCESS_COMMANDS = (3, 15, 16, 21, 23, 39, 0x53564D41)

_LOAD, _AND, _JUMP, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_EPERM, _EAGAIN, _EACCES, _ENOSYS = 1, 11, 13, 38
_ALL = 0xFFFFFFFF

Line = tuple[int, int, int, int]
Check = tuple[int, int, tuple[int, ...]]
"""Offset of a word of `struct seccomp_data`, mask, and the values it may have under the mask."""


def _low(argument: int, mask: int, *values: int) -> Check:
    """Of an argument its lower half, which is all that the kernel takes of an int."""
    return 16 + 8 * argument, mask, values


def _null(argument: int) -> list[Check]:
    return [_low(argument, _ALL, 0), (20 + 8 * argument, _ALL, (0,))]


def _guarded(own: int) -> list[tuple[str, tuple[int | None, int | None], int, list[list[Check]]]]:
    """Calls whose arguments decide: numbers, the error otherwise, and alternatives of what must hold together."""
    itself = [[_low(0, _ALL, own)]]
    harmless, flags = [_low(1, _ALL, *_FILE_COMMANDS)], [_low(1, _ALL, _SET_FLAGS), _low(2, _ASYNC, 0)]
    return [
        ("open", (2, None), _EACCES, [[_low(1, _WRITES | _ASYNC, 0)]]),
        ("openat", (257, 56), _EACCES, [[_low(2, _WRITES | _ASYNC, 0)]]),
        ("clone", (56, 220), _EAGAIN, [[_low(0, _THREAD | _NAMESPACES, _THREAD)]]),
        ("kill", (62, 129), _EPERM, itself),
        ("tkill", (200, 130), _EPERM, itself),
        ("tgkill", (234, 131), _EPERM, itself),
        ("fcntl", (72, 25), _EPERM, [harmless, flags]),
        ("ioctl", (16, 29), _EPERM, [[_low(1, _ALL, *_DEVICE_COMMANDS)]]),
        ("prctl", (157, 167), _EPERM, [[_low(0, _ALL, *_PROCESS_COMMANDS)]]),
        ("prlimit64", (302, 261), _EPERM, [[_low(0, _ALL, 0, own), *_null(2)]]),  # asks, sets nothing
        ("sched_setaffinity", (203, 122), _EPERM, [[_low(0, _ALL, 0, own)]]),
        ("socketpair", (53, 199), _EPERM, [[_low(0, _ALL, _UNIX), _low(1, _KIND, _STREAM)]]),  # asyncio has one
        ("sendto", (44, 206), _EPERM, [_null(4)]),  # to no address
        ("clone3", (435, 435), _ENOSYS, []),  # its flags lie in memory, which a filter cannot read
        ("openat2", (437, 437), _ENOSYS, []),  # so do these
    ]


def _checked(check: Check, then: list[Line]) -> list[Line]:
    """`then` where the check holds, else on behind it."""
    offset, mask, values = check
    tests = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [(_LOAD, 0, 0, offset), (_AND, 0, 0, mask), *tests, (_JUMP, 0, 0, len(then)), *then]


def _filter(machine: str, own: int) -> list[Line]:
    """A classic BPF program over `struct seccomp_data`: number, architecture, and the calls' arguments.

    `own` is the process' id, the only one that may be signalled.
    """
    audit, column = _ARCHITECTURES[machine]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for call in _ALLOWED.replace("\n", ",").split(","):
        if call and (number := call.split()[1 + column]) != "-":
            program += [(_EQUAL, 0, 1, int(number)), (_RETURN, 0, 0, _ALLOW)]
    for _, numbers, error, alternatives in _guarded(own):
        if (number := numbers[column]) is None:
            continue
        body: list[Line] = []
        for checks in alternatives:
            block = [(_RETURN, 0, 0, _ALLOW)]
            for check in reversed(checks):
                block = _checked(check, block)
            body += block
        body.append((_RETURN, 0, 0, _ERROR | error))
        program += [(_EQUAL, 1, 0, number), (_JUMP, 0, 0, len(body)), *body]
    # Of a call from the future the C library must hear that it is not there: it then does without.
    return [*program, (_AT_LEAST, 0, 1, _NEWER), (_RETURN, 0, 0, _ERROR | _ENOSYS), (_RETURN, 0, 0, _ERROR | _EPERM)]


def _lock(libc: ctypes.CDLL) -> bool:
    """Landlock, a second lock where the kernel has it: no write, no look into other processes, no signal to them.

    Of Linux 5.13, network of 6.7, signals of 6.12.
    """
    create, restrict = 444, 446  # on both machines
    version = libc.syscall(create, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return True
    writes, connections, scopes = 0x1FF2, 0b11, 0b11  # all rights of its first version but executing and reading
    fields = (writes, connections, scopes)[: 1 if version < 4 else 2 if version < 6 else 3]
    rules = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = libc.syscall(create, ctypes.c_char_p(rules), ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0 or libc.syscall(restrict, ruleset, 0) != 0:
        return False
    os.close(ruleset)
    return True


def _install() -> bool:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        return False
    program = b"".join(struct.pack("HBBI", *line) for line in _filter(machine, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, as_filter = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or not _lock(libc):
        return False
    return libc.prctl(set_seccomp, as_filter, ctypes.c_char_p(header), 0, 0) == 0


def main(path: str, name: str, cpu_seconds: int, memory_bytes: int, output_bytes: int, open_files: int) -> None:
    """Limit this process, then run the program at `path` as a module of that name.

    Under the filter, and before the program, one byte is written to the file `CONFINED`.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - pathlib costs 10 ms
        source = file.read()
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, output_bytes),
        (resource.RLIMIT_NOFILE, open_files),
    ):
        resource.setrlimit(limit, (value, value))
    with open(CONFINED, "wb") as told:  # noqa: PTH123
        if not _install():
            sys.exit(REFUSED)
        told.write(b"1")
    sys.argv = ["program.py"]
    sys.setrecursionlimit(100_000)
    exec(compile(source, "program.py", "exec"), {"__name__": name, "__builtins__": __builtins__})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
