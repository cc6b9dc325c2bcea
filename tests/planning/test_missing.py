"""A study goes on without test sets and baselines that are not there, where that was asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from shared import ROOT
from shared.whole import run
from snakemake.cli import parse_config

from faithdiff import cli
from faithdiff.data.images import write_png
from faithdiff.errors import ConfigError, UserError
from faithdiff.methods.absent import FILE
from faithdiff.methods.method import Study
from faithdiff.planning.doctor import findings
from faithdiff.planning.machine import Machine
from faithdiff.planning.missing import not_there, way_to_get
from faithdiff.planning.overrides import Asked, asked_for
from faithdiff.planning.plan import write_plan
from faithdiff.score.rows import ALL

PROFILE, RESULTS = Path("config/part.yaml"), Path("results/part")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bicubic and given outputs on two sets; neither the outputs nor the second set are there."""
    for part in ("config", "results/paper"):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / "prior").symlink_to(ROOT / "prior")
    monkeypatch.chdir(tmp_path)
    test = yaml.safe_load(Path("config/mini.yaml").read_text())
    gone = {"source": "folder", "path": "raw/Real", "lq_only": True, "captions": "none"}
    profile = {
        "extends": "mini.yaml",
        "profile": "part",
        "data": {
            "levels": ["II"],
            "test": {
                "Photos": {"source": "photos", "count": 2, "size": 96},
                "Scenes": None,
                "Real": gone,
            },
        },
        "variants": dict.fromkeys(test["variants"]),
        "baselines": dict.fromkeys(name for name in test["baselines"] if name != "bicubic")
        | {"theirs": {"label": "Theirs", "outputs": "outputs/{dataset}/{level}"}},
        "score": {"metrics": ["psnr", "piqe"], "protocols": ["ycbcr"]},
        "report": {
            "protocol": "ycbcr",
            "panel_images": 1,
            "main": ["bicubic", "theirs"],
            "ablation": ["bicubic"],
        },
    }
    PROFILE.write_text(yaml.safe_dump(profile))
    return tmp_path


def ask(*entries: str, starting: bool = True) -> Asked:
    return asked_for(parse_config(["profile=part", *entries]), [], starting)


def put_set_and_outputs() -> None:
    image = np.zeros((24, 24, 3), np.uint8)
    write_png(image, Path("raw/Real/a.png"))
    for place in ("Photos/II", "Real/real"):
        write_png(image, Path(f"outputs/{place}/a.png"))


def test_what_is_missing_is_left_out_and_said(study: Path) -> None:
    asked = ask("allow_missing=true")
    assert [*asked.study.profile.data.test] == ["Photos"]
    assert "theirs" not in asked.study.profile.methods
    assert asked.study.profile.report.main == ["bicubic"]
    lines = list(asked.absent.lines())
    assert lines[0].startswith("test set Real: unavailable: raw/Real: no images; faithdiff fetch")
    assert lines[1].startswith("baseline theirs: unavailable: outputs/Photos/II: no such folder")


def test_it_is_whole_without_being_asked_and_once_all_is_there(study: Path) -> None:
    assert [*ask().study.profile.data.test] == ["Photos", "Real"]
    ask("allow_missing=true").write()
    assert [*Study.load(PROFILE).profile.data.test] == ["Photos"]  # what its jobs see
    put_set_and_outputs()
    assert [*ask("allow_missing=true", starting=False).study.profile.data.test] == ["Photos"]
    asked = ask("allow_missing=true")
    assert asked.study == Study.whole(PROFILE) and not asked.absent
    asked.write()
    assert not (RESULTS / FILE).exists()
    assert Study.load(PROFILE) == Study.whole(PROFILE)


BY_HAND = "faithdiff fetch does not bring it: correct the path, or put it there"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("prior: {path: prior/minii}", f"prior.path: prior/minii: is missing; {BY_HAND}"),
        (
            "data: {test: {Own: {source: folder, path: data/own}}}",
            f"data.test.Own.path: data/own: is missing; {BY_HAND}",
        ),
        (
            "data: {train: {source: mixture, parts: {a: {source: folder, path: own.yaml}}}}",
            f"data.train.parts.a.path: own.yaml: is a file, not a folder; {BY_HAND}",
        ),
        (
            "data: {test: {Own: {source: packages, size: 128, crops: 1}}}",
            "data.test.Own: data/raw/photographs: is missing; faithdiff fetch --dataset Own "
            "--config own.yaml brings them",
        ),
        # No file of config/artifacts.yaml is listed for a profile of this name.
        (
            "data: {test: {Own: {source: folder, path: data/raw/DIV2K-Val/DIV2K_valid_HR}}}",
            "data.test.Own.path: data/raw/DIV2K-Val/DIV2K_valid_HR: is missing; faithdiff fetch "
            "--profile released brings it or says how",
        ),
    ],
)
def test_a_path_where_nothing_is_is_named_before_its_job_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str, said: str
) -> None:
    for part in ("config", "prior"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    file = Path("own.yaml")
    file.write_text(f"extends: {ROOT}/config/mini.yaml\nprofile: own\n{changes}\n")
    study = Study.load(file)
    assert not_there(study) == [said]
    assert write_plan(file, 1, 0.4).endswith(f"\n## Not there yet\n\n- {said}\n")
    found = findings(study, Machine((), "", "2", "", True, (), 16, 900))
    assert [why for each in found for why in each.problems] == [said]


def test_what_was_fetched_already_is_not_fetched_for_a_path_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    profile = Study.load(Path("config/released.yaml")).profile
    path = Path("data/raw/DIV2K-Val/DIV2K_valid_HRR")
    assert way_to_get(path, profile).startswith("faithdiff fetch --profile released")
    path.parent.mkdir(parents=True)
    assert way_to_get(path, profile) == BY_HAND


def test_there_is_something_to_go_on_with(study: Path) -> None:
    text = PROFILE.read_text()
    PROFILE.write_text(text.replace("ablation:\n  - bicubic", "ablation:\n  - theirs"))
    with pytest.raises(ConfigError, match="compared with theirs, which is not there"):
        ask("allow_missing=true")
    PROFILE.write_text(text)
    with pytest.raises(ConfigError, match="must be true or false"):
        ask("allow_missing=2")
    photos = "Photos: {source: folder, path: nowhere}"
    changes = f"data={{test: {{{photos}}}}}"
    with pytest.raises(UserError, match=r"no test set with HQ images is there: Photos: nowhere"):
        ask(changes, "allow_missing=true")


def test_rows_say_why_and_tables_are_of_the_rest(study: Path) -> None:
    ask("allow_missing=true").write()
    cli.prepare("Photos", PROFILE)
    cli.degrade("Photos", ["II"], PROFILE)
    cli.restore_sets("bicubic", 0, PROFILE)
    cli.score("bicubic", 0, PROFILE)
    cli.collect(PROFILE)
    scores = pd.read_csv(RESULTS / "scores.csv", keep_default_na=False)
    gone = scores[scores["image"] == ALL].set_index(["method", "dataset", "level", "metric"])
    assert set(gone.index) == {
        ("bicubic", "Real", "real", "piqe"),
        ("theirs", "Real", "real", "piqe"),
        ("theirs", "Photos", "II", "piqe"),
        ("theirs", "Photos", "II", "psnr"),
    }
    assert gone["status"].str.match("unavailable: (raw|outputs)/").all()
    assert set(scores.loc[scores["image"] != ALL, "status"]) == {"ok"}
    cli.tables(PROFILE)
    main = (RESULTS / "tables/main.md").read_text()
    assert "Bicubic" in main and "Theirs" not in main and "Real" not in main
    cli.figures(PROFILE)
    cli.claims(PROFILE)
    cli.manifest(PROFILE)
    cli.report(PROFILE)


# In a process of its own: the workflow sets variables of the environment, and holds a lock.
PARAM = """
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, ResourceSettings

with SnakemakeApi() as api:
    loaded = api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(config={"profile": "part", "allow_missing": True}),
        snakefile=Path("Snakefile"),
    )
    print("ABSENT", loaded._workflow.get_rule("collect").params["absent"])
"""


def test_another_reason_collects_again(study: Path) -> None:
    for part in ("Snakefile", "workflow", "faithdiff", "baselines"):
        (study / part).symlink_to(ROOT / part)

    def reasons() -> str:
        call = [sys.executable, "-c", PARAM]
        done = subprocess.run(call, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("ABSENT ")[2]

    before = reasons()
    assert "raw/Real: no images" in before and "outputs/Photos/II: no such folder" in before
    Path("outputs/Photos/II").mkdir(parents=True)
    assert reasons() != before  # Snakemake runs a job again whose params differ


def test_a_run_is_of_what_is_there_and_ends_with_what_is_not(study: Path) -> None:
    for part in ("Snakefile", "workflow", "faithdiff", "baselines"):
        (study / part).symlink_to(ROOT / part)
    said = run(study, "allow_missing=true", "--until", "prepare_dataset", profile="part")
    assert "MISSING: test set Real: unavailable: raw/Real: no images" in said
    assert "MISSING: baseline theirs: unavailable: outputs/" in said
    assert "theirs" in (RESULTS / FILE).read_text()
    assert Path("data/part/Photos/index.csv").exists() and not Path("data/part/Real").exists()
