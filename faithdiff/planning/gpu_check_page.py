"""The figures of ``make gpu-check``: a JSON file, and from it the table of docs/full-size.md."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from faithdiff.errors import UserError
from faithdiff.study.files import write_text_atomic
from faithdiff.study.provenance import hardware

# Dense products of 16-bit numbers in TFLOP/s, from the makers' data sheets.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "A800": 312, "L40S": 362, "RTX 4090": 165}
BEGIN, END = "<!-- gpu-check -->", "<!-- /gpu-check -->"
NOT_RUN = (
    "Not run: no GPU was at hand. `make gpu-check` measures it in ten minutes and writes it here."
)
PACKAGES = ("torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class MeasuredOn:
    """What the figures are of: without it they say nothing."""

    card: str
    driver: str
    cuda: str
    commit: str
    small: bool
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def peak(self) -> float | None:
        """TFLOP/s of the card in 16 bits, if its data sheet is known."""
        return next((peak for name, peak in PEAKS.items() if name in self.card), None)


@dataclass(frozen=True)
class Figure:
    """One measurement; `error` is the relative difference from what it should equal.

    Attributes:
        seconds: For an image of 20 steps, or an update.
        times: How many times faster than the one-tile loop.
        note: Why there is no figure.
    """

    section: str
    what: str
    seconds: float | None = None
    times: float | None = None
    images_per_second: float | None = None
    memory_gib: float | None = None
    tflops: float | None = None
    error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Figures:
    """All measurements of a run."""

    machine: MeasuredOn
    took: int  # seconds
    rows: list[Figure]


def machine(device: str, small: bool) -> MeasuredOn:
    """This machine, for figures that are measured on it now."""
    found = hardware()
    gpu = device == "cuda"
    return MeasuredOn(
        card=torch.cuda.get_device_name() if gpu else str(found["processor"]),
        driver=_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        cuda=torch.version.cuda or "",
        commit=_output("git", "describe", "--always", "--dirty", "--abbrev=10"),
        small=small,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def write(report: Figures, file: Path, page: Path | None) -> None:
    """Write the JSON file, and the table into the page, if there is one."""
    write_text_atomic(json.dumps(asdict(report), indent=1) + "\n", file)
    print(f"\n{table(report)}\n{file}")
    if page is not None:
        write_text_atomic(with_table(page.read_text(encoding="utf-8"), table(report)), page)
        print(page)


def read(file: Path) -> Figures:
    """Read what :func:`write` wrote."""
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = [Figure(**row) for row in found["rows"]]
    return Figures(MeasuredOn(**found["machine"]), found["took"], rows)


def with_table(page: str, text: str) -> str:
    """A page with this text between its two marks.

    Raises:
        UserError: It has no marks.
    """
    marked = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)
    if not marked.search(page):
        raise UserError(f"the page has no {BEGIN} ... {END}, where the table would stand")
    return marked.sub(lambda _: f"{BEGIN}\n{text.strip()}\n{END}", page)


def table(report: Figures) -> str:
    """The figures in Markdown, with what they are of."""
    about = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    driver = f"driver {about.driver.splitlines()[0]}, " if about.driver else ""
    small = "**A rehearsal with small networks: these numbers say nothing.** " * about.small
    peak = f"peak in 16 bits {about.peak:g} TFLOP/s" if about.peak else "peak not known"
    lines = [
        f"{small}{about.card}; {driver}CUDA {about.cuda or 'none'}, {versions}; commit "
        f"{about.commit or 'unknown'}; {peak}. Random weights, {report.took} s in all. Seconds are "
        "for an image of 20 steps with decoding, or for an update. Operations are counted on eager "
        "networks; a backward pass counts as two forward passes, and recomputation does not count. "
        "The difference is a share of the root mean square: from the CPU in fp32, or from the "
        "one-tile loop after two steps.",
        "",
        "| | s | times the loop | images/s | peak GiB | TFLOP/s | of peak | differs by |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report.rows:
        if row.note:
            lines.append(f"| {row.what} | {row.note} | | | | | | |")
            continue
        share = f"{row.tflops / about.peak:.0%}" if row.tflops and about.peak else ""
        figures = [
            _figure(row.seconds), _figure(row.times), _figure(row.images_per_second),
            _figure(row.memory_gib), _figure(row.tflops), share,
            "" if row.error is None else f"{row.error:.1e}",
        ]  # fmt: skip
        lines.append(f"| {row.what} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
