"""Memory where a control group limits it: both versions, groups within groups, containers."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from faithdiff.study.memory import Memory, memory

GIB = 2**30


def group(root: Path, folder: str, limit: str, used: int = 0, cache: int = 0) -> None:
    """A control group with a limit; of version 1 below ``memory``."""
    older = folder.startswith("memory")
    names = ("limit_in_bytes", "usage_in_bytes") if older else ("max", "current")
    place = root / "sys/fs/cgroup" / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (place / f"memory.{name}").write_text(f"{value}\n")
    key = "total_inactive_file" if older else "inactive_file"
    (place / "memory.stat").write_text(f"anon 1\n{key} {cache}\n")


def belongs_to(root: Path, text: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 GiB, of which 60 are free."""

    class Has:
        total, available = 64 * GIB, 60 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Has)


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    assert memory(tmp_path) == Memory(64 * GIB, 60 * GIB)  # no Linux
    belongs_to(tmp_path, "0::/user.slice\n")
    group(tmp_path, "user.slice", "max")
    assert memory(tmp_path) == Memory(64 * GIB, 60 * GIB)


@pytest.mark.parametrize(
    ("own", "folder"),
    [
        ("0::/job", "job"),
        ("9:name=systemd:/\n4:cpu,memory:/job\n0::/", "memory/job"),
        ("0::/", ""),  # a container with a name space of its own
        ("4:memory:/docker/none-of-ours", "memory"),  # and one that sees the host's path
    ],
)
def test_a_limit_counts_and_cache_is_free(tmp_path: Path, own: str, folder: str) -> None:
    belongs_to(tmp_path, f"{own}\n")
    group(tmp_path, folder, str(8 * GIB), 5 * GIB, 2 * GIB)
    assert memory(tmp_path) == Memory(8 * GIB, 5 * GIB)


def test_the_tightest_of_the_groups_counts(tmp_path: Path) -> None:
    belongs_to(tmp_path, "0::/queue/job\n")
    group(tmp_path, "queue", str(8 * GIB), 7 * GIB)
    group(tmp_path, "queue/job", str(16 * GIB), 3 * GIB)
    assert memory(tmp_path) == Memory(8 * GIB, GIB)


def test_a_full_group_and_the_huge_number_of_no_limit(tmp_path: Path) -> None:
    belongs_to(tmp_path, "4:memory:/job\n")
    group(tmp_path, "memory", "9223372036854771712")
    assert memory(tmp_path).free == 60 * GIB
    group(tmp_path, "memory/job", str(GIB), 2 * GIB)
    assert memory(tmp_path) == Memory(GIB, 0)
