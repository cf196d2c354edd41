"""How much of this machine's main memory is free: what the system says, and not more than a container's limit."""

from __future__ import annotations

from pathlib import Path

import psutil

# Limit, use, and the account of it, of which file caches can be had back: version 2 of control groups, then version 1.
GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process can take now."""
    free = int(psutil.virtual_memory().available)
    for limit, used, caches in GROUPS:
        try:
            most, taken = int((groups / limit).read_text()), int((groups / used).read_text())
            lines = (groups / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # no such version here, or "max": no limit
            continue
        account = dict(line.split() for line in lines)
        free = min(free, max(0, most - taken + int(account.get(caches, 0))))
    return free
