"""Two ways of doing the same, timed in turns in one process; and the table of what was found."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from faithdiff.errors import RunError, UserError
from faithdiff.study.files import write_text_atomic

BEGIN, END = "<!-- bench-peers -->", "<!-- /bench-peers -->"
PEERS, WAYS = "peers", "ways"
HEADINGS = {
    PEERS: ("what", "here", "the peer", "peer / here", "agreement", "why"),
    WAYS: ("what", "as it is", "the other way", "other / as it is", "same bits", "taken"),
}


class SideBySide(BaseModel):
    """One thing done in two ways.

    Attributes:
        kind: ``peers``: another package's way; ``ways``: another way of our own.
        ours: Our way, as it is; `theirs` likewise.
        ours_seconds: CPU seconds, median of the repetitions.
        theirs_seconds: None where it was not run; `note` then says why.
        agreement: How near the results are.
        note: What differs, or why one is faster, or why a way is not taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    what: str
    ours: str
    theirs: str
    ours_seconds: float
    theirs_seconds: float | None
    agreement: str
    note: str

    def row(self) -> str:
        """A line of the Markdown table."""
        theirs, ratio = self.theirs, "not run"
        if self.theirs_seconds is not None:
            theirs += f", {duration(self.theirs_seconds)}"
            ratio = f"{self.theirs_seconds / self.ours_seconds:.2f}"
        ours = f"{self.ours}, {duration(self.ours_seconds)}"
        return f"| {self.what} | {ours} | {theirs} | {ratio} | {self.agreement} | {self.note} |"


class PeerRecord(BaseModel):
    """All comparisons of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    repetitions: int
    packages: dict[str, str]
    comparisons: list[SideBySide]

    @classmethod
    def read(cls, file: Path) -> PeerRecord:
        """Read what :func:`write` wrote."""
        return cls.model_validate_json(file.read_text(encoding="utf-8"))

    def page(self) -> str:
        """The section of ``docs/benchmark.md``."""
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        lines = [
            f"On {self.machine}, one thread, in one run: CPU seconds, median of {self.repetitions} "
            f"in turns. {packages}."
        ]
        for kind, title in ((PEERS, "Peers"), (WAYS, "Hot loops, and other ways")):
            rows = [found.row() for found in self.comparisons if found.kind == kind]
            if rows:
                head = HEADINGS[kind]
                ruler = "|".join("---:" if "/" in name else "---" for name in head)
                lines += ["", f"### {title}", f"| {' | '.join(head)} |", f"|{ruler}|", *rows]
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Three digits, in the unit that suits them."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def write(measured: PeerRecord, record: Path, page: Path | None) -> None:
    """Write the JSON record, and the tables between the marks of a page.

    Raises:
        UserError: The page has no such marks.
    """
    write_text_atomic(measured.model_dump_json(indent=1) + "\n", record)
    if page is None:
        return
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page}: has no section between {BEGIN} and {END} to write the tables in")
    write_text_atomic(f"{before}{BEGIN}\n{measured.page()}\n{END}{after}", page)


def in_turns(ways: Sequence[Callable[[], object]], repetitions: int) -> list[float]:
    """Median CPU seconds of each way, after one call of each that warms up.

    In turns, so that what else runs on the machine slows all of them; CPU and not wall time, so
    that waiting for a core does not count.
    """
    spent: list[list[float]] = [[] for _ in ways]
    for repetition in range(repetitions + 1):
        for way, seconds in zip(ways, spent, strict=True):
            begun = time.process_time()
            way()
            if repetition:
                seconds.append(time.process_time() - begun)
    return [statistics.median(seconds) for seconds in spent]


def command_seconds(
    command: Sequence[str | Path],
    folder: Path,
    prints: str,
    environment: Mapping[str, str] | None = None,
) -> float:
    """CPU seconds of a command, start-up included.

    Args:
        prints: What its output holds where it did its work: its exit code does not tell, as 1 says
            to some that there are differences.

    Raises:
        RunError: It failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=dict(environment) if environment is not None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if prints not in done.stdout:
        said = done.stderr.strip().splitlines()[-3:]
        raise RunError(f"{command[0]} ended with {done.returncode}: {' / '.join(said)}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
