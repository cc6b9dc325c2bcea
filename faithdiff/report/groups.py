"""Which rows of a table may be read as one comparison: who trained a method, on what, how long.

A published system has seen other data for longer; beside designs that were trained here on the same
data it is a landmark, not a rival.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from faithdiff.config import Baseline, Profile
from faithdiff.report.cells import TITLES, Block

_ORDER = ("", *TITLES)


def group_of(profile: Profile, method: str) -> str:
    """Key of the group that a method is in; empty for interpolation, which is in none."""
    found = profile.methods[method]
    if found.published:
        return "published"
    if profile.updates_of(method) is not None:
        return "controlled"
    return "" if isinstance(found, Baseline) else "own"


def in_groups(profile: Profile, methods: Iterable[str]) -> list[str]:
    """Methods group by group, in their own order within each."""
    return sorted(methods, key=lambda method: _ORDER.index(group_of(profile, method)))


def contenders(profile: Profile, methods: Iterable[str]) -> list[str]:
    """Methods among which the best is marked.

    The controlled ones on the common sampler, and the user's own beside them; all, where nothing
    was trained here.
    """
    chosen = list(methods)
    groups = {method: group_of(profile, method) for method in chosen}
    # A study without training compares published systems among themselves, which is fair again.
    if "controlled" not in groups.values():
        return chosen
    return [
        method
        for method in chosen
        if groups[method] in ("controlled", "own") and profile.checkpoint_of(method) == method
    ]


def grouped(blocks: Sequence[Block], profile: Profile) -> list[Block]:
    """The blocks of a table, each row with its group."""
    return [
        replace(b, rows=tuple(replace(r, group=group_of(profile, r.method)) for r in b.rows))
        for b in blocks
    ]


def budgeted(blocks: Sequence[Block], profile: Profile) -> list[Block]:
    """The blocks of a table, each row with the updates of its training."""
    return [
        replace(b, rows=tuple(replace(r, updates=profile.updates_of(r.method)) for r in b.rows))
        for b in blocks
    ]
