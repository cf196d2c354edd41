"""The sandbox's filter on every number, argument and machine: a small interpreter runs it as a kernel would."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grading.calls import BY_ARGUMENTS, MACHINES, NUMBERS
from tts_search.grading import sandbox_child

OWN = 4321
words = st.integers(0, 2**64 - 1) | st.integers(0, 2**13) | st.integers(0, 2**13).map(lambda n: n | 7 << 32)
arguments = st.lists(words, min_size=6, max_size=6)
PROGRAMS = {machine: sandbox_child._filter(machine, OWN) for machine in MACHINES}
LISTED = {
    machine: {
        int(word)
        for call in sandbox_child._ALLOWED.replace("\n", ",").split(",")
        if call and (word := call.split()[1 + column]) != "-"
    }
    | {NUMBERS[name][column] for name in BY_ARGUMENTS}
    | ({2} if column == 0 else set())  # open
    for column, machine in enumerate(MACHINES)
}


def allows(machine: str, number: int, given: list[int], architecture: int | None = None) -> bool:
    """What the kernel would do, in the part of classic BPF that the filter uses."""
    known = sandbox_child._ARCHITECTURES[machine][0]
    data = struct.pack("<IIQ6Q", number, known if architecture is None else architecture, 0, *given)
    place = held = 0
    while True:
        code, yes, no, value = PROGRAMS[machine][place]
        place += 1
        match code:
            case 0x20:
                held = struct.unpack_from("<I", data, value)[0]
            case 0x54:
                held &= value
            case 0x05:
                place += value
            case 0x15:
                place += yes if held == value else no
            case 0x35:
                place += yes if held >= value else no
            case 0x06:
                return value == 0x7FFF0000
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize("machine", MACHINES)
class TestFilter:
    @given(st.integers(0, 600) | st.integers(0, 2**32 - 1), arguments)
    def test_what_is_not_listed_is_refused(self, machine: str, number: int, given: list[int]) -> None:
        assert number in LISTED[machine] or not allows(machine, number, given)

    def test_none_of_the_roads_is_listed(self, machine: str) -> None:
        roads = {name: both[MACHINES.index(machine)] for name, both in NUMBERS.items() if name not in BY_ARGUMENTS}
        assert [name for name, number in roads.items() if number in LISTED[machine]] == []
        assert len(PROGRAMS[machine]) < 4096, "the kernel takes no longer one"

    @given(st.sampled_from(sorted(LISTED["x86_64"] | LISTED["aarch64"])), arguments, st.integers(0, 2**32 - 1))
    def test_other_kinds_of_calls_are_refused(self, machine: str, number: int, given: list[int], kind: int) -> None:
        assert kind == sandbox_child._ARCHITECTURES[machine][0] or not allows(machine, number, given, kind)
        assert not allows(machine, number | 0x40000000, given)  # x32

    @given(words, words, arguments)
    def test_only_itself_is_signalled(self, machine: str, pid: int, high: int, rest: list[int]) -> None:
        for name in ("kill", "tkill", "tgkill"):
            number = NUMBERS[name][MACHINES.index(machine)]
            assert allows(machine, number, [pid, *rest[1:]]) == (pid & 0xFFFFFFFF == OWN)
            assert not any(allows(machine, number, [OWN ^ 1 << bit, *rest[1:]]) for bit in range(32))
            assert allows(machine, number, [OWN | high >> 32 << 32, *rest[1:]])

    @given(words, words, arguments)
    def test_only_harmless_commands_are_given(self, machine: str, command: int, word: int, rest: list[int]) -> None:
        fcntl, ioctl, clone = (NUMBERS[name][MACHINES.index(machine)] for name in ("fcntl", "ioctl", "clone"))
        low, flags = command & 0xFFFFFFFF, word & 0xFFFFFFFF
        is_plain = low in (0, 1, 2, 3, 1030) or (low == 4 and not flags & os.O_ASYNC)
        assert allows(machine, fcntl, [rest[0], command, word, *rest[3:]]) == is_plain
        assert low in (0x541B, 0x5421, 0x5451, 0x5450, 0x5401, 0x802C542A, 0x5413) or not allows(
            machine, ioctl, [rest[0], command, word, *rest[3:]]
        )
        assert allows(machine, clone, [word | 0x10000, *rest[1:]]) == (not flags & 0x7E020000)
        assert not allows(machine, clone, [word & ~0x10000, *rest[1:]])

    @given(words, arguments)
    def test_files_are_opened_to_be_read(self, machine: str, flags: int, rest: list[int]) -> None:
        is_reading = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_ASYNC)
        openat = NUMBERS["openat"][MACHINES.index(machine)]
        assert allows(machine, openat, [*rest[:2], flags, *rest[3:]]) == is_reading
        if machine == "x86_64":
            assert allows(machine, 2, [rest[0], flags, *rest[2:]]) == is_reading

    @given(arguments)
    def test_limits_are_read_and_not_set(self, machine: str, rest: list[int]) -> None:
        number = NUMBERS["prlimit64"][MACHINES.index(machine)]
        assert allows(machine, number, [0, rest[1], 0, *rest[3:]])
        assert not allows(machine, number, [0, rest[1], rest[2] or 1, *rest[3:]])
        assert not allows(machine, number, [0, rest[1], 1 << 32, *rest[3:]])
