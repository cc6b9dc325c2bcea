"""`make bench-peers`: time the suite beside its peers, and write docs/benchmark.md's tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from faithdiff.errors import FaithDiffError
from faithdiff.methods.method import Study
from faithdiff.planning.peers.networks import restoring, samplers, training
from faithdiff.planning.peers.pixels import degradation, metrics
from faithdiff.planning.peers.record import PeerRecord, SideBySide, versions, write
from faithdiff.planning.peers.tables import audits
from faithdiff.study.provenance import hardware

PACKAGES = (
    "torch",
    "diffusers",
    "basicsr",
    "pyiqa",
    "torchmetrics",
    "dvc",
    "opencv-python-headless",
)
RECORD, PAGE = Path("docs/benchmark.json"), Path("docs/benchmark.md")


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the record and the page."""
    options = _options(words)
    torch.set_num_threads(1)
    study = Study.load(options.config)
    found: list[SideBySide] = []
    with TemporaryDirectory(prefix="faithdiff-peers-") as scratch:
        for name, measure in _parts(study, options, Path(scratch)).items():
            if options.only and name not in options.only:
                continue
            print(f"bench-peers: {name} ...", file=sys.stderr, flush=True)
            for comparison in measure():
                print(comparison.row(), flush=True)
                found.append(comparison)
    machine = hardware()
    packages = versions(PACKAGES)
    if options.asv and options.asv_version:
        packages["asv"] = options.asv_version
    measured = PeerRecord(
        machine=str(machine["processor"]), repetitions=options.repetitions,
        packages=packages, comparisons=found,
    )  # fmt: skip
    write(measured, options.record, options.page)


def _parts(
    study: Study, options: argparse.Namespace, scratch: Path
) -> dict[str, Callable[[], Iterator[SideBySide]]]:
    small, times = options.small, options.repetitions

    def folder(name: str) -> Path:
        made = scratch / name
        made.mkdir()
        return made

    images, methods, rows, steps = (1, 2, 3, 1) if small else (8, 10, 250, 4)
    return {
        "degradation": lambda: degradation(study, images, times, folder("degradation")),
        "metrics": lambda: metrics(study, images, times, folder("metrics")),
        "audit": lambda: audits(methods, rows, folder("audit"), Path(), options.asv),
        "sampler": lambda: samplers(study, steps, times),
        "restoring": lambda: restoring(study, times),
        "training": lambda: training(study, times),
    }


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config/mini.yaml"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="parts to measure; the record holds these alone")
    parser.add_argument("--small", action="store_true", help="rehearse on a few small things")
    parser.add_argument("--asv", type=Path, help="asv's command, from an environment of its own")
    parser.add_argument("--asv-version", default="")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument(
        "--page", type=Path, help="page whose section is written, such as " + str(PAGE)
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        main()
    except FaithDiffError as problem:
        print(f"bench-peers: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
