"""The audit on a real git repository: a small study, written by the suite, over several commits."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from shared import ROOT
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.audit.code import TABLE, code_change
from faithdiff.audit.compare import Change
from faithdiff.audit.crops import crops_of
from faithdiff.audit.differences import Difference, manifest_differences
from faithdiff.audit.explain import explain, explanation_json, explanation_sections
from faithdiff.audit.git import Git
from faithdiff.audit.history import history, history_sections
from faithdiff.audit.history_plot import history_figure, to_png
from faithdiff.audit.printing import to_html, to_markdown, to_terminal
from faithdiff.audit.report import Audit, Request, audit
from faithdiff.audit.results import Results
from faithdiff.audit.sections import AuditSection, sections
from faithdiff.audit.tolerance import parse_tolerance
from faithdiff.config import CAPTIONER_OPERATIONAL, OPERATIONAL
from faithdiff.data.images import sha256_file, write_png
from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.report.manifest import write_manifest
from faithdiff.report.tables import write_tables
from faithdiff.score.collect import collect
from faithdiff.score.rows import ScoreRow
from faithdiff.score.run import write_scores
from faithdiff.study import provenance
from faithdiff.study.checksums import with_checksum
from faithdiff.tracking.dvc import version_study

PARTS = ("faithdiff", "baselines", "workflow", "config", "results/paper")
IMAGES = 12
COST = {
    "parts": {"unet": 5}, "total": 9, "pre_updates": 0, "pre_seconds": 0.0, "updates": 4,
    "seconds": 1.0,
}  # fmt: skip
METHODS = {"restore_denoiser": {"variants": "faithdiff.train.variants"}}
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Five commits: first results, a comment, a fix that helps, an edit, one that harms."""
    root = tmp_path_factory.mktemp("world")
    for part in (*PARTS, ".dvc/config", ".dvcignore"):
        source, target = ROOT / part, root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target)
    write(root / "config/tiny.yaml", PROFILE)
    write(root / "dvc.yaml", DVC)
    write(
        root / ".gitignore", "/data/\n/checkpoints/\n/restored/\n/.dvc/cache/\n/.dvc/tmp/\n/logs/\n"
    )
    found = World(root)
    found.git("init", "--quiet", "--initial-branch", "main")
    found.commit("The suite")
    found.run()
    remember(root)
    found.commit("First results")
    found.git("tag", "first")
    found.edit("faithdiff/restore/colour.py", "def ", "# why\ndef ")
    found.commit("A comment on #5, thanks @someone")
    found.edit("faithdiff/restore/colour.py", "import torch\n", "import torch\n\nSTRENGTH = 2\n")
    found.commit("Stronger colour fix")
    found.edit("config/tiny.yaml", "data: {levels", "restore: {guidance_scale: 2.0}\ndata: {levels")
    found.commit("More guidance")
    found.run(faithdiff_sharper, weights="sharper")
    remember(root)
    found.commit("Results of the colour fix")
    found.git("tag", "sharper")
    write(root / "notes.txt", "nothing to do with results")
    found.commit("Notes")
    found.run(realesrgan_worse, weights="sharper")
    remember(root)
    found.commit("Results of a worse baseline")
    found.git("tag", "worse")
    return found


def remember(root: Path) -> None:
    """What the rule `version` does: hashes to dvc.lock, copies to DVC's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        version_study("tiny", Path(), Path("logs", "version.json"))


@pytest.fixture
def other(world: World, tmp_path: Path) -> World:
    """A copy of the repository that the test may change."""
    shutil.copytree(world.root, tmp_path / "copy", symlinks=True)
    return World(tmp_path / "copy")


def cell(found: Audit, method: str, metric: str, *place: str) -> Change:
    (change,) = (
        change
        for change in found.comparison.changes
        if (change.method, change.column.metric) == (method, metric)
        and (change.dataset, change.level) == (place or ("all", "all"))
    )
    return change


# --- revisions ----------------------------------------------------------------------------------


def test_by_default_the_last_change_is_compared_with_the_working_tree(world: World) -> None:
    found = world.audit()
    assert found.old.title.endswith("Results of a worse baseline")
    assert found.new.title.startswith("the working tree")
    assert {change.verdict for change in found.comparison.changes} == {"identical", "no value"}
    assert found.exit_code == 0
    assert found.why.statement == "No value changed, so there is nothing to explain."


@pytest.mark.parametrize(
    ("old", "new"), [("first", "sharper"), ("HEAD~6", "HEAD~2"), ("first", "results-of-then")]
)
def test_tags_expressions_and_folders_name_the_same_results(
    other: World, old: str, new: str
) -> None:
    other.git("worktree", "add", "--quiet", "../then", "sharper")
    shutil.copytree(other.root / "../then/results/tiny", other.root / "results-of-then")
    found = other.audit(old, new)
    assert cell(found, "faithdiff", "psnr").verdict == "better"
    assert cell(found, "faithdiff", "psnr").difference == pytest.approx(3.0967, abs=1e-3)
    # A root of the suite in another folder is the same again.
    assert other.audit("../then", "sharper").exit_code == 0


def test_nothing_is_checked_out(world: World) -> None:
    before = world.git("status", "--porcelain"), world.git("rev-parse", "HEAD")
    world.audit("first", "worse")
    assert (world.git("status", "--porcelain"), world.git("rev-parse", "HEAD")) == before


# --- verdicts -----------------------------------------------------------------------------------


def test_a_gain_is_better_and_the_rest_identical(world: World) -> None:
    found = world.audit("first", "sharper")
    gain = cell(found, "faithdiff", "psnr")
    assert gain.verdict == "better"
    assert gain.low < gain.difference < gain.high
    assert gain.p_holm < 0.05
    assert gain.n == 2 * IMAGES
    assert cell(found, "bicubic", "psnr").verdict == "identical"
    assert cell(found, "faithdiff", "gmsd").verdict == "identical"
    assert cell(found, "faithdiff", "lpips", "Photos", "I").verdict == "no value"
    assert found.exit_code == 0


def test_a_loss_is_a_regression_unless_it_is_tolerated(world: World) -> None:
    found = world.audit("sharper", "worse")
    assert {(c.method, c.column.metric) for c in found.regressions} == {("realesrgan", "psnr")}
    assert found.exit_code == 1
    assert "regressed" in found.conclusion
    for accepted, code in (("0.5", 0), ("0.3", 1), ("5%", 0), ("psnr=0.5", 0), ("gmsd=9", 1)):
        tolerated = replace(found, tolerance=parse_tolerance([accepted]))
        assert tolerated.exit_code == code, accepted
        assert ("worse within the tolerance" in tolerated.conclusion) == (code == 0)


@pytest.mark.parametrize("text", ["much", "-1", "psnr", "psnr=", "=1", "1%%", "psnr=1=2"])
def test_a_tolerance_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--tolerance"):
        parse_tolerance([text])


def test_the_selection_takes_names_and_labels(world: World) -> None:
    found = world.audit("first", "sharper", methods=("Real-ESRGAN (controlled)", "FAITHDIFF"),
                        metrics=("PSNR",), protocols=("all",))  # fmt: skip
    assert {c.method for c in found.comparison.changes} == {"realesrgan", "faithdiff"}
    assert {c.column.metric for c in found.comparison.changes} == {"psnr"}
    assert {c.column.protocol for c in found.comparison.changes} == {"ycbcr", "faithdiff-repo"}
    with pytest.raises(UserError, match=r"--method: 'swinir' is not one of bicubic"):
        world.audit("first", "sharper", methods=("swinir",))


@pytest.mark.parametrize(
    ("column", "value", "place", "said"),
    [
        ("protocol_sha256", "another", {"metric": "psnr"}, "protocol"),
        ("hq_sha256", "another", {"dataset": "Photos"}, "HQ images"),
    ],
)
def test_other_digests_are_not_comparable(
    other: World, column: str, value: str, place: dict[str, str], said: str
) -> None:
    scores = other.scores()
    chosen = (scores[list(place)] == list(place.values())).all(axis=1)
    scores.loc[chosen & (scores["status"] == "ok"), column] = value
    scores.to_csv(other.root / "results/tiny/scores.csv", index=False)
    changes = other.audit().comparison.places
    met = {c.place for c in changes if c.verdict == "not comparable"}
    notes = {c.note for c in changes if c.verdict == "not comparable"}
    assert all(note.startswith(said) for note in notes)
    assert met == {"Photos, I", "Photos, II"} if "dataset" in place else len(met) == 4


@pytest.mark.parametrize(("part", "said"), [("index.csv", "data"), ("degradation", "degradation")])
def test_other_data_is_not_comparable_and_is_named(other: World, part: str, said: str) -> None:
    file = other.root / "results/tiny/manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    if part == "index.csv":
        manifest["data"]["Photos"]["index.csv"] = "0" * 64
    else:
        manifest["data"]["Photos"]["degradation.jsonl"]["II"] = "0" * 64
    write(file, with_checksum(manifest))
    found = other.audit()
    met = [c for c in found.comparison.places if c.verdict == "not comparable"]
    assert {c.place for c in met} == ({"Photos, I", "Photos, II"} if said == "data"
                                      else {"Photos, II"})  # fmt: skip
    assert all(c.note.startswith(said) and "Photos" in c.note for c in met)
    # Cells over everything would mix both kinds: there are none left.
    assert found.comparison.overall == []


def test_cells_that_come_go_fail_and_recover(other: World) -> None:
    scores = other.scores()
    lost = (scores["method"] == "separate") & (scores["metric"] == "psnr")
    scores = scores[scores["method"] != "realesrgan"]
    scores.loc[lost, ["value", "status"]] = ["", "failed: NaN"]
    back = (scores["metric"] == "lpips") & (scores["method"] == "bicubic")
    scores.loc[back, ["value", "status"]] = ["0.5", "ok"]
    scores.to_csv(other.root / "results/tiny/scores.csv", index=False)
    found = other.audit()
    assert cell(found, "realesrgan", "psnr", "Photos", "I").verdict == "removed"
    assert cell(found, "separate", "psnr", "Photos", "I").verdict == "newly failing"
    assert cell(found, "separate", "psnr", "Photos", "I").note == "failed: NaN"
    assert cell(found, "bicubic", "lpips", "Scenes", "II").verdict == "newly working"
    assert found.exit_code == 1
    mirrored = other.audit(".", "HEAD")
    assert cell(mirrored, "realesrgan", "psnr", "Photos", "I").verdict == "added"
    assert cell(mirrored, "separate", "psnr", "Photos", "I").verdict == "newly working"


def test_only_seeds_of_both_are_compared(other: World) -> None:
    other.run(realesrgan_worse, weights="sharper", seeds=(0, 1))
    found = other.audit()
    assert cell(found, "faithdiff", "psnr").verdict == "identical"
    assert "faithdiff: seeds 0 in OLD, 0, 1 in NEW; compared over 0" in found.notes


# --- ranks, marks, images -----------------------------------------------------------------------


def test_who_overtook_whom(world: World) -> None:
    found = world.audit("first", "sharper", metrics=("psnr",))
    overall = [each for each in found.ranks if each.dataset == "all"]
    assert [(e.winner, e.loser) for e in overall] == [("faithdiff", "separate")]
    assert overall[0].more_than_noise
    assert overall[0].before == pytest.approx(-1, abs=0.1)
    assert overall[0].lead == pytest.approx(2.1, abs=0.1)


def test_a_lead_within_noise_is_called_so(other: World) -> None:
    def level(method: str, metric: str, dataset: str, _: str, image: int) -> float:
        noisy = 1 + 0.6 * (-1) ** image
        return noisy if (method, metric) == ("realesrgan", "psnr") else 0.0

    other.run(level)
    ranks = [r for r in other.audit("first", metrics=("psnr",)).ranks if r.dataset == "all"]
    assert [(r.winner, r.loser, r.more_than_noise) for r in ranks] in (
        [("realesrgan", "faithdiff", False)], [],
    )  # fmt: skip
    found = other.audit("first", ".", metrics=("psnr",))
    assert all(not r.more_than_noise or r.low > 0 for r in found.ranks)


def test_bold_that_moved(other: World) -> None:
    def gan_best(method: str, metric: str, *_: Any) -> float:
        return 9.0 if (method, metric) == ("realesrgan", "psnr") else 0.0

    other.run(gan_best)
    moved = [m for m in other.audit("first").marks if m.table == "main" and m.metric == "psnr"]
    assert {(m.method, m.old, m.new) for m in moved} == {
        ("realesrgan", "second", "best"),
        ("faithdiff", "best", "second"),
    }


def test_the_image_that_moved_most_and_its_crops(world: World) -> None:
    found = world.audit("first", "sharper", crops=True, metrics=("psnr",))
    most = found.movers[0]
    assert (most.dataset, most.level, most.image) == ("Photos", "II", "image-07")
    assert most.new - most.old == pytest.approx(5.07)
    # Neither version is in the working tree with these hashes, so both came from DVC's cache.
    assert found.crops[0].mover is most
    assert found.crops[0].png.startswith(b"\x89PNG")
    assert found.without_crop == []


def test_crops_that_cannot_be_had_are_named(other: World) -> None:
    shutil.rmtree(other.root / ".dvc/cache")
    found = other.audit("first", "sharper", crops=True, metrics=("psnr",))
    assert found.crops == []
    assert "not in the working tree or DVC's cache for OLD" in found.without_crop[0]
    crops, missing = crops_of(found.movers, found.new, found.new, other.root)
    assert crops == []
    assert "not in the working tree" in missing[0] or "the same file" in missing[0]


# --- why ----------------------------------------------------------------------------------------


def test_why_names_weights_config_code_and_the_commits_between(world: World) -> None:
    why = world.audit("first", "sharper").why
    explaining = {(d.kind, d.what) for d in why.explaining}
    assert ("weights", "faithdiff/seed0") in explaining
    assert ("config", "restore.guidance_scale") in explaining
    assert ("code", "rule restore_denoiser (variants)") in explaining
    assert [d.kind for d in why.explaining] == sorted(
        (d.kind for d in why.explaining), key=why.kinds.index
    )
    # The baseline has other weights, too, but its scores did not change.
    assert ("weights", "realesrgan/seed0") not in explaining
    assert any(d.what == "realesrgan/seed0" for d in why.differences)
    modules = {d.remark for d in why.explaining if d.what == "rule restore_denoiser (variants)"}
    assert modules == {"faithdiff.restore.colour"}
    # The commit that only wrote a comment touched the file, too: git cannot tell.
    assert [c.subject for c in why.commits][:1] == ["Stronger colour fix"]
    assert any(line.startswith("faithdiff: 48 of 48 restored images") for line in why.entry)


def test_a_comment_alone_explains_nothing(world: World) -> None:
    assert world.git("diff", "--stat", "HEAD~6", "HEAD~5", "--", "faithdiff")
    source = Git(world.root).read_all("HEAD~5", "faithdiff/restore")
    assert b"# why" in source["faithdiff/restore/colour.py"]
    assert code_change(Git(world.root), "HEAD~6", "HEAD~5", METHODS).rules == []
    changed = code_change(Git(world.root), "HEAD~5", "HEAD~4", METHODS).rules
    assert "restore_denoiser (variants)" in {rule.name for rule in changed}


def test_if_nothing_that_can_explain_it_differs_it_says_so(world: World) -> None:
    # The baseline got worse, and nothing recorded says why.
    why = world.audit("sharper", "worse").why
    assert why.changed == ("realesrgan",)
    assert why.statement == (
        "Nothing differs that can explain it: data, degradation, weights, config, code, "
        "packages, hardware and seeds are the same."
    )


def test_what_could_not_be_compared_is_not_called_the_same(other: World) -> None:
    file = other.root / "results/tiny/manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    write(file, with_checksum(manifest | {"commit": "0" * 40}))
    why = other.audit("sharper").why
    assert "code (NEW was made at 000000000, which this clone does not have)" in why.statement
    assert "code," not in why.statement.partition("Not compared")[0]
    file.unlink()
    found = other.audit("sharper")
    assert any("no manifest.json" in note for note in found.notes)
    assert found.why.statement.startswith("Nothing that could explain it was compared")
    assert "weights (NEW has no manifest.json)" in found.why.statement


def test_each_commit_is_read_by_its_own_table_of_rules(other: World) -> None:
    # A rule that only this commit has, of a module that is not in today's table.
    other.edit(TABLE, "RULES = (", 'RULES = (\n    Rule(name="odd", purpose="", modules=("odd",)),')
    write(other.root / "faithdiff/odd.py", "ODD = 1\n")
    other.edit(TABLE, '"odd",)', '"faithdiff.odd",)')
    before = other.commit("A rule of its own")
    write(other.root / "faithdiff/odd.py", "ODD = 2\n")
    after = other.commit("The rule does something else")
    changed = code_change(Git(other.root), before, after, METHODS).rules
    assert [(rule.name, rule.modules) for rule in changed] == [("odd", ("faithdiff.odd",))]


@pytest.mark.parametrize("table", [None, "RULES = tuple(range(3))\n"])
def test_a_commit_without_a_table_is_read_by_the_one_of_today(
    other: World, table: str | None
) -> None:
    file = other.root / TABLE
    file.unlink() if table is None else file.write_text(table, "utf-8")
    before = other.commit("Before there was a table")
    other.edit("faithdiff/restore/colour.py", "STRENGTH = 2", "STRENGTH = 3")
    after = other.commit("Stronger still")
    changed = code_change(Git(other.root), before, after, METHODS).rules
    # A training draws restored images on its way, so it imports the colour fix, too.
    assert {rule.name for rule in changed} == {
        *("pretrain_alignment", "train_variant", "restore_denoiser (variants)"),
    }


# --- history, bisect ----------------------------------------------------------------------------


def test_history_marks_the_commits_where_a_metric_moved(world: World) -> None:
    found = history(Request(profile="tiny", metrics=("psnr",)), 10, world.root)
    assert [c.subject for c in found.commits] == [
        "First results", "Results of the colour fix", "Results of a worse baseline",
    ]  # fmt: skip
    points = {s.method: [p.verdict for p in s.points] for s in found.series}
    assert points["faithdiff"] == ["", "better", "identical"]
    assert points["realesrgan"] == ["", "identical", "worse"]
    (section,) = history_sections(found)
    assert "Results of the colour fix" in section.lines[1]
    own = next(s for s in found.series if s.method == "faithdiff")
    assert all(p.low < p.mean < p.high for p in own.points)
    figure = to_png(history_figure(found))
    assert figure.startswith(b"\x89PNG")
    assert figure == to_png(history_figure(found))
    assert len(history(Request(profile="tiny"), 2, world.root).commits) == 2


def test_git_bisect_finds_the_commit_as_documented(other: World) -> None:
    text = (ROOT / "docs/audit.md").read_text("utf-8")
    recipe = re.search(r"(?s)<!-- bisect -->\n```sh\n(.*?)```", text)
    assert recipe is not None
    commands = recipe.group(1).replace("mini", "tiny").replace("v1.0", "first")
    wrapper = other.root.parent / "bin" / "faithdiff"
    write(wrapper, f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -c '
                   '"from faithdiff.cli import main; main()" "$@"\n')  # fmt: skip
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", f'PATH="{wrapper.parent}:$PATH"\n{commands}'],
        cwd=other.root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "is the first bad commit" in done.stdout, done.stdout + done.stderr
    assert "Results of a worse baseline" in done.stdout


# --- agreement with DVC -------------------------------------------------------------------------


def test_means_agree_with_dvc_metrics_diff(world: World) -> None:
    with Repo(str(world.root)) as repo:
        said = repo.metrics.diff("first", "worse")["diff"]
    metrics = next(iter(said.values()))
    changes = world.audit("first", "worse", protocols=("all",)).comparison.places
    ours = {
        f"{c.method}.{c.dataset}.{c.level}.{c.column.metric}@{c.column.protocol}": c
        for c in changes
        if c.verdict in ("better", "worse", "changed but not significant")
    }
    assert set(metrics) == set(ours)
    assert len(ours) == 16
    for path, change in ours.items():
        # summary.json has six decimals.
        assert metrics[path]["old"] == pytest.approx(change.old, abs=6e-7)
        assert metrics[path]["new"] == pytest.approx(change.new, abs=6e-7)
        assert metrics[path]["diff"] == pytest.approx(change.difference, abs=2e-6)


# --- bad input ----------------------------------------------------------------------------------


def spoil_schema(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.rename(columns={"protocol_sha256": "protocol_digest"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_schema, "has no column protocol_sha256"),
        (lambda s: pd.concat([s, s.iloc[[5]]]), "this row occurs twice"),
        (lambda s: s.assign(value=s["value"].where(s.index != 0, "nan")), "'nan', not a finite"),
        (lambda s: s.drop(index=0), "no row for 1 of the 12 images of Photos, level I"),
        (lambda s: s.assign(profile="mini"), "results of the profile 'mini', not 'tiny'"),
        (lambda s: s.iloc[:0], "has no rows"),
    ],
)
def test_corrupted_scores_are_refused_with_the_reason(
    other: World,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(other.scores()).to_csv(other.root / "results/tiny/scores.csv", index=False)
    other.commit("Corrupted")
    error = run_main(["audit", "first", "HEAD", "--profile", "tiny"], other, monkeypatch, capsys)
    assert said in error
    sha = other.git("rev-parse", "HEAD")[:9]
    assert f"{sha}:results/tiny/scores.csv" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["HEAD~7"], "The suite: has no results/tiny/scores.csv"),
        (["no-such-branch"], "'no-such-branch' is neither a commit, tag or branch"),
        (["config"], "config: this folder has neither scores.csv nor results/"),
        (["--", "-x"], "'-x' is neither"),
        (["--metric", "fid"], "--metric: 'fid' is not one of"),
        (["first", "--history", "3"], ""),
    ],
)
def test_what_cannot_be_compared_exits_with_2(
    world: World,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not said:
        monkeypatch.chdir(world.root)
        result = CliRunner().invoke(cli.app, ["audit", *arguments, "--profile", "tiny"])
        assert result.exit_code == 0  # one name is where the history ends
        return
    command = ["audit", "--profile", "tiny", *arguments]
    assert said in run_main(command, world, monkeypatch, capsys)


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


def test_results_of_another_profile_are_named(other: World) -> None:
    with pytest.raises(UserError, match=r"has no results/mini/scores.csv; it has results of tiny"):
        audit(Request("HEAD", ".", "mini"), other.root)


# --- printing -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def printed(world: World) -> list[AuditSection]:
    return sections(world.audit("first", "worse"))


def test_markdown_is_a_comment_that_names_nobody(printed: list[AuditSection]) -> None:
    text = to_markdown(printed)
    assert len(text) < 65_536
    assert "| better | faithdiff | all sets and levels | PSNR ↑ |" in text
    assert "@someone" not in text
    assert re.search(r"#\d", text) is None
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.count("|") in (7, 8, 9, 11), line


def test_markdown_beyond_the_limit_is_cut_and_says_so(printed: list[AuditSection]) -> None:
    long = [*printed, AuditSection("More", [], ("a", "b"), [("x" * 80, "y")] * 2000)]
    text = to_markdown(long)
    assert len(text) < 65_536
    assert "**Cut here**" in text[-400:]
    lines = re.search(r"(\d+) more lines", text)
    assert lines is not None
    assert int(lines.group(1)) + text.count("\n") > 2000
    assert len(to_markdown(long, limit=4_000)) < 4_000


def test_html_needs_nothing_beside_it_and_escapes_names(world: World) -> None:
    bad = AuditSection("<script>alert(1)</script>", ["a & b"], ("x",), [('"><img src=x>',)])
    text = to_html("t", [*sections(world.audit("first", "sharper", crops=True)), bad])
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "a &amp; b" in text
    assert 'src="data:image/png;base64,' in text
    assert not re.search(r"""(?:src|href)="(?!data:)""", text)


def test_the_terminal_prints_no_control_characters() -> None:
    text = to_terminal([AuditSection("T", ["\x1b[31mred"], ("a",), [("x\x07",)])])
    assert "\x1b" not in text
    assert "\x07" not in text


def test_only_changed_leaves_out_the_rest(world: World) -> None:
    found = world.audit("first", "sharper")
    verdicts = {row[0] for row in sections(found, only_changed=True)[-1].rows}
    assert verdicts == {"better"}
    assert {row[0] for row in sections(found)[-1].rows} == {"better", "identical", "no value"}


@pytest.mark.parametrize("form", ["terminal", "markdown", "json", "html"])
def test_every_format_is_written_with_its_exit_code(
    world: World, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    for arguments, code in ((["first", "sharper"], 0), (["sharper", "worse"], 1)):
        output = tmp_path / f"report.{form}"
        command = ["audit", *arguments, "--profile", "tiny", "--format", form, "--output",
                   str(output), "--pictures", str(tmp_path / "pictures")]  # fmt: skip
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == code, result.output
        text = output.read_text("utf-8")
        assert "faithdiff" in text
        if form == "json":
            data = json.loads(text)
            assert data["exit_code"] == code
            assert {c["verdict"] for c in data["cells"]} >= {"identical", "no value"}
    assert form == "json" or list((tmp_path / "pictures").glob("*.png"))


def test_a_report_takes_the_place_of_a_report_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    output = tmp_path / "report"
    output.touch()  # as `mktemp` leaves it
    for form in ("terminal", "markdown", "json", "html", "terminal"):
        for more in (["first", "sharper"], ["--history", "2"]):
            call = ["audit", *more, "--profile", "tiny", "--format", form, "--output", str(output)]
            before = output.read_bytes()
            assert CliRunner().invoke(cli.app, call).exit_code == 0
            assert output.read_bytes() != before
    profile = Path("config/tiny.yaml")
    text = profile.read_bytes()
    result = CliRunner().invoke(cli.app, ["audit", "--profile", "tiny", "--output", str(profile)])
    assert isinstance(result.exception, UserError)
    assert "is no report that `faithdiff audit` wrote; give another" in str(result.exception)
    assert profile.read_bytes() == text


def test_a_report_that_cannot_be_written_is_no_regression(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "--profile", "tiny", "--output", "config/tiny.yaml/report.md"]
    assert "cannot be written" in run_main(command, world, monkeypatch, capsys)


# --- explain ------------------------------------------------------------------------------------


def test_explain_shows_rows_statistics_and_what_made_them(world: World) -> None:
    found = explain("main", ["FaithDiff", "PSNR", "II", "Photos"], "tiny", "sharper", world.root)
    assert len(found.rows) == IMAGES
    assert found.rows["value"].mean() == pytest.approx(found.cell.mean)
    facts = dict(found.facts)
    manifest = json.loads(world.git("show", "sharper:results/tiny/manifest.json"))
    assert facts["code commit"] == manifest["commit"]
    assert manifest["checkpoints"]["faithdiff/seed0"]["weights"] in facts["weights faithdiff/seed0"]
    assert manifest["data"]["Photos"]["degradation.jsonl"]["II"] in facts["degradation Photos, II"]
    assert manifest["data"]["Photos"]["index.csv"] in facts["data Photos"]
    assert "psnr ycbcr" in facts["protocol"]
    assert '"color_space": "ycbcr"' in facts["defined as"]
    assert "faithdiff restore-sets --method faithdiff --seed 0" in found.commands[1]


def test_explain_takes_the_words_in_any_order(world: World) -> None:
    words = [["II", "Photos"], ["photos", "ii"], ["Photos, Level II"]]
    cells = [
        explain("main", ["faithdiff", "psnr", *w], "tiny", ".", world.root).cell for w in words
    ]
    assert cells[0] == cells[1] == cells[2]
    overall = explain("ablation", ["separate optimisation", "psnr"], "tiny", ".", world.root)
    assert overall.cell.block == "All levels"
    assert len(overall.rows) == 4 * IMAGES


def test_explain_reads_tables_that_still_say_separated(world: World, tmp_path: Path) -> None:
    old = tmp_path / "tiny"
    shutil.copytree(world.root / "results/tiny", old)
    sidecar = old / "tables/ablation.cells.json"
    text = sidecar.read_text("utf-8")
    assert '"significant"' in text
    sidecar.write_text(text.replace("significant", "separated"), "utf-8")
    words = ["separate optimisation", "psnr", "All levels"]
    known = explain("ablation", words, "tiny", str(old), world.root).cell
    assert known == explain("ablation", words, "tiny", ".", world.root).cell


@pytest.mark.parametrize(
    ("table", "words", "said"),
    [
        ("mian", ["FaithDiff", "PSNR"], "has: ablation, cost, main"),
        ("main", ["FaithDiff"], "name a method and a metric"),
        ("main", ["SwinIR", "PSNR"], "'SwinIR' is not one of"),
        ("main", ["FaithDiff", "PSNR"], "name one of these blocks: Photos, Level I"),
        ("main", ["FaithDiff", "PSNR", "IV"], "IV: name one of these blocks"),
    ],
)
def test_explain_says_which_cells_there_are(
    world: World, table: str, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        explain(table, words, "tiny", ".", world.root)


def test_explain_of_a_cost_shows_its_lines_jobs_and_machine(other: World) -> None:
    found = explain("cost", ["FaithDiff", "training s"], "tiny", ".", other.root)
    (row,) = found.rows.to_dict("records")
    assert row["value"] == row["seconds"] == found.cell.mean == COST["seconds"]
    facts = dict(found.facts)
    manifest = json.loads((other.root / "results/tiny/manifest.json").read_text("utf-8"))
    assert facts["cost.csv"] == f"sha256 {manifest['results']['cost.csv']}"
    assert LAPTOP["processor"] in facts["machine of faithdiff/seed0"]
    assert "faithdiff train --method faithdiff" in found.commands[1]
    text = to_terminal(explanation_sections(found), {})
    assert "Rows of cost.csv (1)" in text and "images" not in text
    assert json.loads(explanation_json(found))["rows"][0]["value"] == COST["seconds"]
    with pytest.raises(UserError, match=r"GPU-hours \(the profile runs on CPUs\)"):
        explain("cost", ["FaithDiff", "GPU-hours"], "tiny", ".", other.root)
    other.edit("results/tiny/cost.csv", f",{COST['seconds']},", ",77.5,")
    with pytest.raises(UserError, match=r"cost\.csv 77\.5"):
        explain("cost", ["FaithDiff", "training s"], "tiny", ".", other.root)
    (other.root / "results/tiny/cost.csv").unlink()
    with pytest.raises(UserError, match=r"cost\.csv: is missing; .*collect"):
        explain("cost", ["FaithDiff", "training s"], "tiny", ".", other.root)


def test_explain_notices_a_table_of_other_scores(other: World) -> None:
    scores = other.scores()
    chosen = (scores["method"] == "faithdiff") & (scores["metric"] == "psnr")
    scores.loc[chosen, "value"] = (scores.loc[chosen, "value"].astype(float) + 1).map(repr)
    scores.to_csv(other.root / "results/tiny/scores.csv", index=False)
    with pytest.raises(UserError, match="render it again with: faithdiff tables"):
        explain("main", ["FaithDiff", "PSNR", "II", "Photos"], "tiny", ".", other.root)


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the settings of whoever runs the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return


# --- What can explain a change, asked of manifests alone ------------------------------------------


CONFIG = {
    "profile": "mini",
    "restore": {"steps": 20},
    "training": {"prefetch": 0, "loss": "mse", "optimiser": {"eps": 0}},
    "data": {"train_level": "mix"},
    "seed": 0,
    "device": "cpu",
    "captioner": {"top_p": 0.7},
    "a": {"setting": {"of": {"tomorrow": 6}}},
    "report": {"bootstrap": 6},
    "variants": {"faithdiff": {"label": "FaithDiff", "recipe": "released"}},
    "baselines": {
        "bicubic": {"label": "Bicubic"},
        "gan": {"label": "Real-ESRGAN", "trained": True},
        "supir": {"label": "SUPIR", "trained": True, "denoises": True, "settings": {"a": 1}},
        "supir-own": {"label": "SUPIR, own", "checkpoint_of": "supir"},
    },
}


def changes(path: str, value: Any) -> list[Difference]:
    """What the audit says of two manifests that differ in one value."""
    sides = []
    for last in (False, True):
        manifest = copy.deepcopy({"config": CONFIG, "prior": {"weights": "one"}})
        *parents, key = path.split("/")
        node: Any = manifest
        for part in parents:
            node = node[part]
        if last:
            node[key] = value
        sides.append(Results(cast(Any, None), "mini", pd.DataFrame(), manifest, {}, {}))
    return manifest_differences(*sides)


@pytest.mark.parametrize(
    ("path", "value", "methods"),
    [
        ("config/restore/steps", 10, {"faithdiff", "supir", "supir-own"}),
        # The perceptual loss of a Real-ESRGAN that is trained here is the prior's VAE.
        ("prior/weights", "two", {"faithdiff", "supir", "supir-own", "gan"}),
        ("config/baselines/supir/settings", {"a": 2}, {"supir", "supir-own"}),
        ("config/training/loss", "l1", {"faithdiff", "supir", "supir-own"}),
        ("config/training/optimiser", {"eps": 1}, {"faithdiff", "supir", "supir-own", "gan"}),
        ("config/data/train_level", "II", {"faithdiff", "supir", "supir-own", "gan"}),
        ("config/seed", 7, None),
        ("config/device", "cuda", None),
        ("config/a/setting/of/tomorrow", 7, None),
    ],
)
def test_a_difference_names_the_methods_that_it_can_touch(
    path: str, value: Any, methods: set[str] | None
) -> None:
    (found,) = changes(path, value)
    assert found.can_explain
    assert found.methods == (None if methods is None else frozenset(methods))


@pytest.mark.parametrize(
    "path",
    ["report/bootstrap", "curves", "shards", "baselines/supir/label", "variants/faithdiff/label"],
)
def test_what_only_the_report_reads_explains_no_score(path: str) -> None:
    (found,) = changes(f"config/{path}", "7")
    assert not found.can_explain


@pytest.mark.parametrize(
    "path",
    [
        *(f"training/{name}" for name in sorted(OPERATIONAL)),
        *(f"captioner/{name}" for name in sorted(CAPTIONER_OPERATIONAL)),
    ],
)
def test_where_a_model_runs_explains_no_score(path: str) -> None:
    (found,) = changes(f"config/{path}", 7)
    assert not found.can_explain


@pytest.mark.parametrize("profile", ["mini", "mini-seeds"])
def test_the_committed_results_can_be_audited(profile: str) -> None:
    """They have rows that no table has: the held-out loss at single timesteps."""
    found = audit(Request("HEAD", "HEAD", profile), ROOT, False)
    changes = found.comparison.changes
    assert any("t = 149" in change.column.label for change in changes)
    # Metrics whose weights nobody fetched have no value on either side.
    assert {change.verdict for change in changes} == {"identical", "no value"}
