"""The memory that this process may take: of the machine, or less in a container or a queue's job.

A scheduler limits a job by a control group of Linux, and ends it where it takes more. psutil, like
the kernel's own total, speaks of the whole machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

# Limit, use, and what of it is cache that the kernel gives back first: in version 2 and 1.
_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@dataclass(frozen=True)
class Memory:
    """Bytes that a process may have in all, and those that are free now."""

    total: int
    free: int


def memory(root: Path = Path("/")) -> Memory:
    """The memory of this process: the least of what the machine and its control groups allow.

    Args:
        root: Where ``proc`` and ``sys`` are mounted.
    """
    machine = psutil.virtual_memory()
    found = [Memory(machine.total, machine.available), *_limits(root)]
    return Memory(min(each.total for each in found), min(each.free for each in found))


def _limits(root: Path) -> Iterator[Memory]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version not in _FILES:
            continue
        mount = root / "sys/fs/cgroup" / version
        own = mount / path.lstrip("/")
        # A group has no more than those above it. In a container the own path may be one that only
        # the host knows; the limit is then that of the mount itself.
        for group in (own, *own.parents):
            limit, used, cache = _FILES[version]
            most, taken = _number(group / limit), _number(group / used)
            if most is not None and taken is not None:
                yield Memory(most, max(most - taken + _cache(group, cache), 0))
            if group == mount:
                break


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no file, or no limit (``max``)."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cache(group: Path, name: str) -> int:
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = (line.split() for line in lines)
    return next((int(parts[1]) for parts in found if parts[0] == name), 0)
