"""The audit of a large study beside DVC's and asv's comparison of as many numbers."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from faithdiff.planning.peers.record import PEERS, SideBySide, command_seconds
from faithdiff.report.scores import COLUMNS

METRICS = ("psnr", "ssim", "ms_ssim", "gmsd", "fsim", "lpips", "musiq", "clipiqa+")
PLACES = tuple(itertools.product(("Photos", "Scenes"), ("I", "II", "III")))
MACHINE, ENVIRONMENT = "bench", "existing"


@dataclass(frozen=True)
class Scores:
    """Made-up scores of a study at two revisions: ``(methods, places, images, metrics)``."""

    old: NDArray[np.float64]
    new: NDArray[np.float64]

    @classmethod
    def draw(cls, methods: int, images: int) -> Scores:
        rng = np.random.default_rng(0)
        shape = (methods, len(PLACES), images, len(METRICS))
        old = rng.normal(20, 1, shape)
        return cls(old, old + rng.normal(0.01, 0.2, shape))

    @property
    def sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.old, self.new

    def names(self) -> Iterator[tuple[str, tuple[str, str], str, str]]:
        """Method, place, image and metric of each value, in order."""
        methods, _, images, _ = self.old.shape
        yield from itertools.product(
            [f"method{i}" for i in range(methods)], PLACES, map("{:04}".format, range(images)),
            METRICS,
        )  # fmt: skip


def audits(
    methods: int, images: int, folder: Path, root: Path, asv: Path | None
) -> Iterator[SideBySide]:
    """`faithdiff audit` beside `dvc metrics diff` and `asv compare`, each as a command.

    Args:
        methods: Of the study; places and metrics are those of the table above.
        root: Of the suite: its protocols say which direction of a metric is better.
        asv: The command, from an environment of its own; None: it is not run.
    """
    scores = Scores.draw(methods, images)
    ours = command_seconds(_audit(scores, folder / "audit"), root, f"{_cells(scores)} cells")
    last = scores.old.shape[2] - 1
    command, where = _dvc(scores, folder / "dvc")
    dvc = command_seconds(command, where, f"method0-Scenes-III-{last:04}-psnr")
    asv_seconds = None
    if asv:
        command, where, home = _asv(scores, folder / "asv", asv)
        named = f"track_psnr('method0', 'Scenes-III', '{last:04}')"
        asv_seconds = command_seconds(command, where, named, home)
    peers: list[tuple[str, float | None, str]] = [
        (
            "dvc metrics diff",
            dvc,
            "DVC flattens one JSON file and prints each number; no pairing, interval or verdict",
        ),
        (
            "asv compare",
            asv_seconds,
            "asv prints each number; its verdicts need repeated runs of each, which scores lack"
            if asv
            else "give its command with --asv",
        ),
    ]
    for name, seconds, note in peers:
        yield SideBySide(
            kind=PEERS,
            what=f"compare two revisions of {scores.old.size:,} numbers, "
            "start-up included, one call",
            ours="faithdiff audit: paired intervals and sign-flip tests",
            theirs=name,
            ours_seconds=ours,
            theirs_seconds=seconds,
            agreement="the same means (a test compares them)" if name.startswith("dvc") else "",
            note=note,
        )


def _cells(scores: Scores) -> int:
    methods, places, _, metrics = scores.old.shape
    return methods * places * metrics


def _audit(scores: Scores, folder: Path) -> list[str | Path]:
    rows = [
        ("mini", method, "", 0, *place, image, image, metric, "ycbcr")
        for method, place, image, metric in scores.names()
    ]
    table = pd.DataFrame(rows, columns=COLUMNS[:10]).assign(
        status="ok", restored_sha256="a" * 64, hq_sha256="b" * 64, protocol_sha256="c" * 16
    )
    for name, values in zip(("old", "new"), scores.sides, strict=True):
        (folder / name).mkdir(parents=True)
        filled = table.assign(value=values.ravel())[COLUMNS]
        filled.to_csv(folder / name / "scores.csv", index=False)
    return [sys.executable, "-m", "faithdiff.cli", "audit", folder / "old", folder / "new"]


def _dvc(scores: Scores, folder: Path) -> tuple[list[str | Path], Path]:
    """A repository with one JSON file of metrics at two commits."""
    folder.mkdir(parents=True)
    dvc: list[str | Path] = [sys.executable, "-m", "dvc"]
    _git(folder, "init", "--quiet")
    subprocess.run([*dvc, "init", "--quiet"], cwd=folder, check=True, capture_output=True)
    (folder / "dvc.yaml").write_text("metrics:\n- scores.json\n", encoding="utf-8")
    for values in scores.sides:
        nested: dict[str, float] = {}
        for (method, place, image, metric), value in zip(
            scores.names(), values.ravel(), strict=True
        ):
            nested["-".join((method, *place, image, metric))] = float(value)
        (folder / "scores.json").write_text(json.dumps(nested), encoding="utf-8")
        _commit(folder)
    return [*dvc, "metrics", "diff", "HEAD~1", "HEAD"], folder


def _asv(scores: Scores, folder: Path, asv: Path) -> tuple[list[str | Path], Path, dict[str, str]]:
    """A repository with asv's records of two commits: a benchmark for each metric."""
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    results = folder / "results"
    config = {"version": 1, "project": "scores", "repo": ".", "branches": ["main"]}
    config["results_dir"] = results.name
    (folder / "asv.conf.json").write_text(json.dumps(config), encoding="utf-8")
    methods, _, images, _ = scores.old.shape
    params = [
        [repr(f"method{i}") for i in range(methods)],
        [repr("-".join(place)) for place in PLACES],
        [repr(f"{i:04}") for i in range(images)],
    ]
    (results / MACHINE).mkdir(parents=True)
    about = {"arch": "", "cpu": "", "machine": MACHINE, "num_cpu": "1", "os": "", "ram": ""}
    (results / MACHINE / "machine.json").write_text(json.dumps({**about, "version": 1}))
    shape = {
        "param_names": ["method", "place", "image"], "params": params, "type": "track",
        "unit": "unit", "version": "1", "timeout": 60.0, "code": "",
    }  # fmt: skip
    listed = {f"track_{metric}": {**shape, "name": f"track_{metric}"} for metric in METRICS}
    (results / "benchmarks.json").write_text(json.dumps({**listed, "version": 2}))
    commits: list[str] = []
    for values in scores.sides:
        (folder / "touched").write_text(str(len(commits)), encoding="utf-8")
        commits.append(_commit(folder))
        record = {
            "commit_hash": commits[-1], "env_name": ENVIRONMENT, "date": 1_000 * len(commits),
            "params": about | {"python": "3"}, "python": "3", "requirements": {}, "env_vars": {},
            "result_columns": ["result", "params", "version"],
            "results": {
                f"track_{metric}": [values[..., number].ravel().tolist(), params, "1"]
                for number, metric in enumerate(METRICS)
            },
            "durations": {}, "version": 2,
        }  # fmt: skip
        name = f"{commits[-1][:8]}-{ENVIRONMENT}.json"
        (results / MACHINE / name).write_text(json.dumps(record), encoding="utf-8")
    # asv keeps a file about the machine in the home directory.
    home = os.environ | {"HOME": str(folder)}
    command: list[str | Path] = [
        asv,
        "compare",
        "--machine",
        MACHINE,
        "--config",
        folder / "asv.conf.json",
    ]
    return [*command, *commits], folder, home


def _commit(folder: Path) -> str:
    _git(folder, "add", "--all", ".")
    _git(folder, "commit", "--quiet", "--message", "scores")
    return _git(folder, "rev-parse", "HEAD")


def _git(folder: Path, *words: str) -> str:
    who: Sequence[str] = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
