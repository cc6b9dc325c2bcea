from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from shared import ROOT

from faithdiff.errors import RunError, UserError
from faithdiff.tracking.dvc import pull_study, version_study
from faithdiff.tracking.jobs import METADATA, jobs_file, restore_jobs, save_jobs

STAMP = Path("logs", "mini", "version.json")
IMAGE = Path("restored/mini/faithdiff/seed0/Photos/II/cat.png")
ENDED = 1_700_000_000.5


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path, message: str) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)


def checkout(root: Path) -> Path:
    """A new Git repository with the suite's own DVC files and configs."""
    for name in (".dvcignore", "dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvc/plots"):
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    shutil.copytree(ROOT / "config", root / "config")
    generated = ("data", "checkpoints", "restored", "logs", ".snakemake", "results/*/report")
    write(root / ".gitignore", "".join(f"/{name}/\n" for name in generated) + "*.partial\n")
    git(root, "init", "--quiet")
    return root


def write_outputs(root: Path, psnr: float = 25.5) -> None:
    """A small file for everything that a run of `mini` makes."""
    write(root / "data/mini/Photos/hq/cat.png", "pixels of a cat")
    write(root / "data/mini/Photos/index.csv", "name,sha256\ncat,0\n")
    write(root / "checkpoints/mini/faithdiff/seed0/model.safetensors", "weights")
    write(root / "checkpoints/mini/.work/faithdiff/state", "a running job's")
    write(root / IMAGE, f"restored at {psnr}")
    write(root / "restored/mini/.store/key.png", "finished before a kill")
    write(root / "logs/mini/benchmarks/train.tsv", "s\n1.5\n")
    results = root / "results/mini"
    write(results / "scores.csv", f"image,value\ncat,{psnr}\n")
    write(results / "manifest.json", json.dumps({"psnr": psnr}))
    write(results / "claims.json", json.dumps({"reproduced": psnr}))
    write(results / "claims.md", f"reproduced: {psnr}")
    write(results / "report/index.html", f"<p>{psnr}")
    write(results / "tables/main.md", f"| {psnr} |")
    write(results / "figures/ablation.png", f"picture of {psnr}")
    write(results / "figures/perception-distortion.png", f"picture of {psnr}")
    curves = f"faithdiff,0,joint,10,{psnr / 100},0.001\nfrozen,0,joint,10,0.5,0.001\n"
    write(results / "training.csv", "method,seed,phase,step,loss,learning_rate\n" + curves)
    write(results / "cost.csv", f"method,updates\nfaithdiff,{psnr}\n")
    summary = {"faithdiff": {"Photos": {"II": {"psnr@ycbcr": psnr}}}}
    write(results / "summary.json", json.dumps(summary))


def write_record(root: Path, output: str) -> None:
    """Snakemake's own record of a finished job, under Snakemake's own name for it."""
    from snakemake.persistence.file import FilePersistence

    persistence = FilePersistence(path=root / ".snakemake")
    name = persistence._record_path(str(root / METADATA), output)
    write(Path(name), json.dumps({"rule": "restore", "endtime": ENDED}))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = checkout(tmp_path / "study")
    write_outputs(root)
    return root


@pytest.fixture(scope="module")
def two_commits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = checkout(tmp_path_factory.mktemp("two") / "study")
    write_outputs(root)
    version_study("mini", root, root / STAMP)
    commit(root, "first")
    write_outputs(root, psnr=26.25)
    config = root / "config/mini.yaml"
    text = config.read_text(encoding="utf-8")
    seed = f"seed: {yaml.safe_load(text)['seed']} "
    config.write_text(text.replace(seed, "seed: 7 ", 1), encoding="utf-8")
    version_study("mini", root, root / STAMP)
    commit(root, "second")
    return root


def locked(root: Path) -> dict[str, dict[str, Any]]:
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    return {out["path"]: out for out in lock["stages"]["study@mini"]["outs"]}


def test_a_recorded_study_is_clean_and_its_files_are_left_alone(study: Path) -> None:
    os.utime(study / IMAGE, (ENDED, ENDED))
    before = (study / IMAGE).stat()
    version_study("mini", study, study / STAMP)
    after = (study / IMAGE).stat()
    assert (after.st_mtime, after.st_ino, after.st_mode, after.st_nlink) == (
        ENDED,
        before.st_ino,
        before.st_mode,
        1,
    )
    with Repo(str(study)) as repo:
        assert repo.status() == {}
    outs = locked(study)
    assert outs["data/mini"]["nfiles"] == 2
    assert outs["checkpoints/mini"]["nfiles"] == 1  # neither .work
    assert outs["restored/mini"]["nfiles"] == 1  # nor .store
    scores = (study / "results/mini/scores.csv").read_bytes()
    assert outs["results/mini/scores.csv"]["md5"] == hashlib.md5(scores).hexdigest()
    stamp = json.loads((study / STAMP).read_text(encoding="utf-8"))
    assert stamp["versioned"]
    assert {path: out["md5"] for path, out in stamp["outs"].items()} == {
        path: out["md5"] for path, out in outs.items()
    }
    assert not list(study.rglob("*.partial"))
    commit(study, "first")
    assert not git(study, "ls-files", "data", "checkpoints", "restored", "logs")

    write(study / IMAGE, "other pixels")
    with Repo(str(study)) as repo:
        assert "restored/mini" in str(repo.status())


def test_two_commits_can_be_compared(two_commits: Path) -> None:
    with Repo(str(two_commits)) as repo:
        metrics = repo.metrics.diff("HEAD~1", "HEAD")["diff"]["results/mini/summary.json"]
        assert metrics["faithdiff.Photos.II.psnr@ycbcr"] == {
            "old": 25.5,
            "new": 26.25,
            "diff": 0.75,
        }
        params = repo.params.diff("HEAD~1", "HEAD")["diff"]["config/mini.yaml"]
        assert {name: change["new"] for name, change in params.items()} == {"seed": 7}
        files = {change["path"] for change in repo.diff("HEAD~1", "HEAD")["modified"]}
        assert IMAGE.as_posix() in files
        assert not any(path.startswith(("data", "checkpoints")) for path in files)
    output = dvc(two_commits, "plots", "diff", "HEAD~1", "HEAD", "--json")
    plots = json.loads(output)
    assert not plots.get("errors")
    assert len(plots["data"]["results/mini/figures/ablation.png"]) == 2
    (curves,) = plots["data"]["training-mini"]
    points = curves["content"]["data"]["values"]
    losses = {(point["rev"], point["method"]): point["loss"] for point in points}
    assert losses["HEAD~1", "faithdiff"] == "0.255"
    assert losses["HEAD", "faithdiff"] == "0.2625"


def test_an_older_commit_brings_its_files_back_and_keeps_finished_images(
    two_commits: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(two_commits, tmp_path / "copy")
    git(root, "checkout", "--quiet", "HEAD~1")
    with Repo(str(root)) as repo:
        repo.checkout(force=True)
        assert repo.status() == {}
    assert (root / IMAGE).read_text(encoding="utf-8") == "restored at 25.5"
    assert (root / "restored/mini/.store/key.png").is_file()
    assert (root / "checkpoints/mini/.work/faithdiff/state").is_file()


@pytest.mark.parametrize("lacking", ["dvc.yaml", "stage", "git"])
def test_where_there_is_nothing_to_record_in_nothing_is_touched(lacking: str, study: Path) -> None:
    profile = "mini"
    if lacking == "dvc.yaml":
        (study / "dvc.yaml").unlink()
    elif lacking == "git":
        shutil.rmtree(study / ".git")
    else:
        profile = "test"
    version_study(profile, study, study / STAMP)
    stamp = json.loads((study / STAMP).read_text(encoding="utf-8"))
    assert not stamp["versioned"]
    assert {"dvc.yaml": "no dvc.yaml", "stage": "study@test", "git": "Git"}[lacking] in stamp[
        "reason"
    ]
    assert not (study / "dvc.lock").exists()
    assert not (study / ".dvc/cache").exists()


def test_inside_dvc_repro_the_lock_is_left_to_dvc(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "study@mini")
    version_study("mini", study, study / STAMP)
    assert "dvc repro" in json.loads((study / STAMP).read_text(encoding="utf-8"))["reason"]
    assert (study / jobs_file("mini")).is_file()
    assert not (study / "dvc.lock").exists()


def test_without_dvc_init_the_command_is_named(study: Path) -> None:
    shutil.rmtree(study / ".dvc")
    with pytest.raises(UserError, match="dvc init"):
        version_study("mini", study, study / STAMP)


@pytest.mark.parametrize("file", ["dvc.lock", "dvc.yaml"])
@pytest.mark.parametrize("verb", [version_study, pull_study])
def test_both_sides_of_a_merge_are_told_before_dvc_is_asked(
    study: Path, file: str, verb: Callable[[str, Path, Path], None]
) -> None:
    content = b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n"
    (study / file).write_bytes(content)
    with pytest.raises(UserError, match=rf"{file}: holds both sides of a merge"):
        verb("mini", study, study / STAMP)
    assert (study / file).read_bytes() == content


def test_a_missing_output_is_named(study: Path) -> None:
    shutil.rmtree(study / "restored")
    with pytest.raises(RunError, match="restored/mini; make it with: snakemake"):
        version_study("mini", study, study / STAMP)
    assert not (study / STAMP).exists()


def test_a_cache_that_cannot_be_written_leaves_the_lock_as_it_was(study: Path) -> None:
    version_study("mini", study, study / STAMP)
    (study / STAMP).unlink()
    before = (study / "dvc.lock").read_bytes()
    write(study / IMAGE, "x" * 3_000_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))  # stands in for a full disk
    try:
        with pytest.raises(RunError, match=r"1 objects could not be written.*free space"):
            version_study("mini", study, study / STAMP)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (study / "dvc.lock").read_bytes() == before
    assert not (study / STAMP).exists()


def pushed(study: Path, remote: Path) -> Path:
    """A fresh clone of a recorded study whose files were pushed to a folder."""
    write_record(study, IMAGE.as_posix())
    write_record(study, "checkpoints/mini/faithdiff/seed0")
    version_study("mini", study, study / STAMP)
    with pytest.raises(UserError, match="dvc remote add"):
        pull_study("mini", study, study / STAMP)
    add_remote(study, remote)
    with Repo(str(study)) as repo:
        assert repo.push() > 0
    commit(study, "first")
    clone = study.with_name("clone")
    git(study, "clone", "--quiet", str(study), str(clone))
    return clone


def add_remote(root: Path, remote: Path) -> None:
    config = (root / ".dvc/config").read_text(encoding="utf-8")
    default = config.replace("[core]\n", "[core]\n    remote = folder\n")
    write(root / ".dvc/config", f"{default}['remote \"folder\"']\n    url = {remote}\n")


def test_a_clone_pulls_what_was_pushed(study: Path, tmp_path: Path) -> None:
    clone = pushed(study, tmp_path / "remote")
    pull_study("mini", clone, clone / STAMP)
    assert (clone / IMAGE).read_bytes() == (study / IMAGE).read_bytes()
    assert (clone / IMAGE).stat().st_mtime == ENDED
    folder = clone / "checkpoints/mini/faithdiff/seed0"
    assert (folder / ".snakemake_timestamp").stat().st_mtime == ENDED
    records = {p.relative_to(clone): p.read_text() for p in (clone / METADATA).rglob("*")}
    assert len(records) == 2
    assert all(json.loads(text)["endtime"] == ENDED for text in records.values())
    assert json.loads((clone / STAMP).read_text(encoding="utf-8"))["versioned"]
    with Repo(str(clone)) as repo:
        assert repo.status() == {}
    assert not git(clone, "status", "--porcelain")

    write(clone / "results/mini/scores.csv", "image,value\ncat,99\n")
    with pytest.raises(UserError, match=r"results/mini/scores\.csv: not what dvc\.lock says"):
        pull_study("mini", clone, clone / STAMP)


def test_a_remote_that_lacks_a_file_is_an_error(study: Path, tmp_path: Path) -> None:
    clone = pushed(study, tmp_path / "remote")
    digest = hashlib.md5((study / IMAGE).read_bytes()).hexdigest()
    (tmp_path / "remote/files/md5" / digest[:2] / digest[2:]).unlink()
    with pytest.raises(RunError, match=r"in the remote.*dvc push.*or make them here: snakemake"):
        pull_study("mini", clone, clone / STAMP)
    assert not (clone / STAMP).exists()


def test_a_remote_whose_disk_is_gone_is_asked_about(study: Path, tmp_path: Path) -> None:
    clone = pushed(study, tmp_path / "remote")
    (tmp_path / "remote").rename(tmp_path / "unmounted")
    with pytest.raises(RunError, match=r"is its disk mounted \(dvc remote list\)\?") as caught:
        pull_study("mini", clone, clone / STAMP)
    assert "\n" not in str(caught.value)
    assert not (clone / STAMP).exists()


@pytest.mark.parametrize("verb", [version_study, pull_study])
def test_a_cache_whose_disk_is_gone_is_named(
    study: Path, tmp_path: Path, verb: Callable[[str, Path, Path], None]
) -> None:
    clone = pushed(study, tmp_path / "remote")
    pull_study("mini", clone, clone / STAMP)
    write(clone / IMAGE, "other")
    write(tmp_path / "disk", "a file where the disk was")
    write(clone / ".dvc/config.local", f"[cache]\n    dir = {tmp_path / 'disk' / 'cache'}\n")
    lock = (clone / "dvc.lock").read_bytes()
    with pytest.raises(RunError, match=r"disk/cache.*disk of DVC's cache mounted"):
        verb("mini", clone, clone / STAMP)
    assert (clone / "dvc.lock").read_bytes() == lock
    assert (clone / IMAGE).read_text() == "other"


def test_job_records_survive_long_and_unusual_names(tmp_path: Path) -> None:
    long = f"restored/mini/{'näme with spaces ' * 8}/{'x' * 120}/manifest.json"
    outputs = [long, "results/mini/scores.csv"]
    elsewhere = ["data/lab/Photos/index.csv", "logs/mini/version.json"]  # not of `mini`'s outputs
    for output in (*outputs, *elsewhere):
        write(tmp_path / output, "made")
        write_record(tmp_path, output)
    write_record(tmp_path, "data/mini/gone.csv")
    assert len(json.loads(save_jobs("mini", tmp_path).read_text())) == 2
    saved = {p for p in (tmp_path / METADATA).rglob("*") if p.is_file()}
    shutil.rmtree(tmp_path / ".snakemake")
    assert restore_jobs("mini", tmp_path) == 2
    assert {p for p in (tmp_path / METADATA).rglob("*") if p.is_file()} < saved
    assert (tmp_path / long).stat().st_mtime == ENDED


@pytest.mark.parametrize("content", ['{"cut', "[]", '{"eA==": []}', '{"eA==": {"rule": "x"}}'])
def test_corrupted_job_records_are_an_error(tmp_path: Path, content: str) -> None:
    write(tmp_path / jobs_file("mini"), content)
    with pytest.raises(UserError, match=r"jobs\.json"):
        restore_jobs("mini", tmp_path)


# A workflow in the layout of the suite, with folders and files as outputs.
SNAKEFILE = """
from pathlib import Path

rule all:
    input: "logs/mini/version.json"
rule train:
    output: directory("checkpoints/mini/faithdiff/seed0")
    benchmark: "logs/mini/benchmarks/train.tsv"
    shell: "mkdir -p {output}; echo weights > {output}/w; mkdir -p data/mini; echo i > data/mini/i"
rule restore:
    input: rules.train.output
    output: "restored/mini/faithdiff/manifest.json"
    shell: "cat {input}/w > {output}"
rule collect:
    input: rules.restore.output
    output: multiext("results/mini/", "scores.csv", "training.csv", "cost.csv", "summary.json"),
        claims=multiext("results/mini/claims", ".json", ".md")
    params: psnr=config.get("psnr", 25)
    shell: "for f in {output}; do echo {params.psnr} > $f; done"
rule figures:
    input: "results/mini/scores.csv"
    output: *[directory(f"results/mini/{name}") for name in ("figures", "tables", "report")]
    shell: "for f in {output}; do mkdir $f; cat {input} > $f/ablation.png; done"
rule manifest:
    input: rules.figures.output
    output: "results/mini/manifest.json"
    shell: "echo done > {output}"
rule version:
    input: rules.manifest.output
    output: "logs/mini/version.json"
    shell: "python -c 'from pathlib import Path; from faithdiff.tracking.dvc import version_study;"
        ' version_study("mini", Path(), Path("{output}"))'
        "'"
"""


def snakemake(root: Path, *arguments: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nocolor"]
    limit = ["--max-checksum-file-size", "1000000000"]
    done = subprocess.run(
        [*command, *limit, *arguments], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_in_a_clone_with_pulled_data_snakemake_has_nothing_to_do(tmp_path: Path) -> None:
    root = checkout(tmp_path / "study")
    write(root / ".gitignore", (root / ".gitignore").read_text() + ".snakemake_timestamp\n")
    write(root / "Snakefile", SNAKEFILE)
    snakemake(root)
    assert "Nothing to be done" in snakemake(root, "--dry-run")
    add_remote(root, tmp_path / "remote")
    with Repo(str(root)) as repo:
        assert repo.status() == {}
        repo.push()
    commit(root, "first")
    clone = tmp_path / "clone"
    git(root, "clone", "--quiet", str(root), str(clone))
    pull_study("mini", clone, clone / STAMP)
    assert "Nothing to be done" in snakemake(clone, "--dry-run")
    plan = snakemake(clone, "--dry-run", "--config", "psnr=26")
    jobs = {
        line.split()[1] for line in plan.splitlines() if line.startswith(("rule ", "localrule "))
    }
    assert {job.rstrip(":") for job in jobs} == {"all", "collect", "figures", "manifest", "version"}
