"""A small suite in Git with a history of results, for tests of the audit."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from faithdiff import cli
from faithdiff.audit.compare import Change
from faithdiff.audit.report import Audit, Request, audit
from faithdiff.data.images import sha256_file, write_png
from faithdiff.methods.method import Study
from faithdiff.report.manifest import write_manifest
from faithdiff.report.tables import write_tables
from faithdiff.score.collect import collect
from faithdiff.score.rows import ScoreRow
from faithdiff.score.run import write_scores
from faithdiff.study import provenance
from faithdiff.tracking.dvc import version_study

PARTS = ("faithdiff", "baselines", "workflow", "config", "results/paper")
IMAGES = 12
COST = {
    "parts": {"unet": 5}, "total": 9, "pre_updates": 0, "pre_seconds": 0.0, "updates": 4,
    "seconds": 1.0,
}  # fmt: skip
LAPTOP = {"processor": "one", "cores": 2, "gpus": [], "torch": "2.13.0"}
PROFILE = """
extends: test.yaml
profile: tiny
data: {levels: [I, II]}
variants: {features-8ch: null}
baselines: {realesrgan-x4plus: null, diffbir: null, supir: null, supir-own: null, seesr: null}
score: {protocols: [ycbcr, faithdiff-repo], metrics: [psnr, gmsd, lpips]}
report: {main: [bicubic, realesrgan, faithdiff], ablation: [faithdiff, separate], bootstrap: 2000}
"""
DVC = """
stages:
  study:
    matrix:
      profile: [tiny]
    cmd: snakemake --config profile=${item.profile}
    params:
      - config/tiny.yaml:
      - config/levels.yaml:
      - config/protocols.yaml:
    outs:
      - restored/${item.profile}
      - results/${item.profile}/scores.csv: {cache: false}
    metrics:
      - results/${item.profile}/summary.json: {cache: false}
"""
Shift = Callable[[str, str, str, str, int], float]  # method, metric, dataset, level, image


def nothing(*_: object) -> float:
    return 0.0


@dataclass
class World:
    """A repository with the suite's code, and the last thing written to it."""

    root: Path

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text("utf-8")
        assert old in text
        (self.root / name).write_text(text.replace(old, new), "utf-8")

    def audit(self, old: str = "", new: str = "", crops: bool = False, **more: Any) -> Audit:
        return audit(Request(old, new, "tiny", **more), self.root, crops)

    def run(
        self, shift: Shift = nothing, weights: str = "w", images: int = IMAGES, seeds: Any = (0,)
    ) -> None:
        """Write all that a finished run of `tiny` leaves, with values moved by `shift`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            patch.setattr(provenance, "ROOT", self.root)
            study = Study.load(Path("config/tiny.yaml"))
            study = replace(study, profile=study.profile.model_copy(update={"seeds": list(seeds)}))
            write_inputs(study, weights, images)
            write_restorations(study, shift, images)
            collect(study.profile, study.layout)
            write_tables(study.profile, study.layout)
            write_manifest(study)

    def scores(self) -> pd.DataFrame:
        return pd.read_csv(self.root / "results/tiny/scores.csv", dtype=str, keep_default_na=False)


def write(file: Path, content: str | dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def write_inputs(study: Study, weights: str, images: int) -> None:
    layout, levels = study.layout, study.profile.data.levels
    names = "".join(f"{name(i)},caption\n" for i in range(images))
    for dataset in ("train", "prior", *study.profile.data.test):
        write(layout.dataset(dataset) / "index.csv", f"name,caption\n{names}")
        for level in (study.profile.data.train_level, *levels):
            write(layout.lq(dataset, level) / "degradation.jsonl", f"{dataset} {level}\n")
    write(layout.trained_prior / "unet" / "model.safetensors", "prior")
    folders = [layout.stage1("released", seed) for seed in study.profile.seeds]
    for method, seed in itertools.product(study.profile.trained, study.profile.seeds):
        folders.append(layout.checkpoint(method, seed))
    for folder in folders:
        write(folder / "model.safetensors", f"{folder} {weights}")
        run = {"seconds": 1.5, "commit": "c0ffee", "hardware": LAPTOP, "cost": COST}
        write(folder / "run.json", run)


def write_restorations(study: Study, shift: Shift, images: int) -> None:
    profile, layout = study.profile, study.layout
    rows: dict[tuple[str, int], list[ScoreRow]] = {}
    places = list(itertools.product(profile.data.test, profile.data.levels))
    for method, seed, (dataset, level) in itertools.product(profile.methods, profile.seeds, places):
        folder, hashes = layout.restoration(method, seed, dataset, level), {}
        own = rows.setdefault((method, seed), [])
        for i in range(images):
            file = folder / f"{name(i)}.png"
            bright = 60 + 3 * i + round(10 * abs(shift(method, "psnr", dataset, level, i)))
            pixels = np.full((24, 24, 3), 50, np.uint8)
            pixels[4:20, 4:20] = bright
            write_png(pixels, file)
            hashes[name(i)] = {"sha256": sha256_file(file)}
            for metric, protocol in itertools.product(
                profile.score.metrics, profile.score.protocols
            ):
                value, status = score(method, metric, dataset, level, i, seed), "ok"
                value += shift(method, metric, dataset, level, i)
                if metric == "lpips":
                    value, status = "", "unavailable: needs weights; run: faithdiff fetch"
                own.append(
                    ScoreRow(
                        method=method,
                        variant=method if method in profile.variants else "",
                        seed=seed,
                        dataset=dataset,
                        level=level,
                        image=name(i),
                        picture=name(i),
                        metric=metric,
                        protocol=protocol,
                        value=str(value),
                        status=status,
                        restored_sha256=hashes[name(i)]["sha256"],
                        hq_sha256=f"hq {dataset} {i}",
                        protocol_sha256=f"{metric} {protocol}",
                    )
                )
        write(folder / "manifest.json", {"images": hashes, "hardware": LAPTOP})
    for (method, seed), own in rows.items():
        write_scores(own, layout.restored(method, seed) / "scores.csv")
        if method in profile.variants:
            write_scores([], layout.restored(method, seed) / "heldout.csv")


def name(image: int) -> str:
    return f"image-{image:02}"


def score(method: str, metric: str, dataset: str, level: str, image: int, seed: int) -> float:
    """Methods are 1 dB apart, bicubic last; images differ more than methods."""
    key = sum(map(ord, f"{method}{metric}{dataset}{level}{image}{seed}"))
    noise = float(np.random.default_rng(key).normal())
    rank = ["bicubic", "realesrgan", "faithdiff", "separate"].index(method)
    if metric == "psnr":
        return 20 + 0.5 * image + rank + 0.1 * noise
    return 0.2 - 0.01 * rank + 0.001 * noise  # GMSD: lower is better


def faithdiff_sharper(method: str, metric: str, dataset: str, level: str, image: int) -> float:
    """FaithDiff gains 3 dB on every image and level, a little more on some."""
    if method == "faithdiff" and metric == "psnr":
        return 3 + 0.01 * image + (2 if (dataset, level, image) == ("Photos", "II", 7) else 0)
    return 0.0


def realesrgan_worse(method: str, metric: str, *place: Any) -> float:
    both = faithdiff_sharper(method, metric, *place)
    return both - 0.4 - 0.001 * place[2] if (method, metric) == ("realesrgan", "psnr") else both


def remember(root: Path) -> None:
    """What the rule `version` does: hashes to dvc.lock, copies to DVC's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        version_study("tiny", Path(), Path("logs", "version.json"))


def cell(found: Audit, method: str, metric: str, *place: str) -> Change:
    (change,) = (
        change
        for change in found.comparison.changes
        if (change.method, change.column.metric) == (method, metric)
        and (change.dataset, change.level) == (place or ("all", "all"))
    )
    return change


def run_main(
    arguments: list[str],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Run a command that must exit with 2; returns its one message."""
    monkeypatch.chdir(world.root)
    monkeypatch.setattr(sys, "argv", ["faithdiff", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("faithdiff: ") == 1
    assert "Traceback" not in error
    return error
