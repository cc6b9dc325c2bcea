"""Records of jobs: committed ones are read and written as they are; others say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.errors import CorruptedError, RunError
from faithdiff.study.checksums import with_checksum
from faithdiff.study.manifest import Manifest
from faithdiff.study.records import RunRecord
from faithdiff.study.restored import RestoredSet

COMMITTED = sorted((ROOT / "results").glob("*/manifest.json"))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_a_committed_manifest_is_written_again_as_it_is(file: Path) -> None:
    kept = json.loads(file.read_text(encoding="utf-8"))
    written = with_checksum(Manifest.read(file).plain())
    for key in ("checksum", "sealed"):
        kept.pop(key, None)
        written.pop(key, None)
    texts = [json.dumps(each, indent=1, ensure_ascii=False) for each in (written, kept)]
    assert texts[0] == texts[1]


def test_what_an_older_version_did_not_write_has_its_default(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text('{"seconds": 3, "of_a_later_version": [1]}', encoding="utf-8")
    run = RunRecord.read(file)
    assert run.cost is None and run.files == {} and run.plain() == {"seconds": 3}


def test_seconds_stay_whole_where_they_were_written_whole() -> None:
    spent = {"parts": {}, "total": 1, "pre_updates": 0, "pre_seconds": 0, "updates": 2}
    run = {"cost": {**spent, "seconds": 1.5}}
    assert json.dumps(RunRecord.model_validate(run).plain()) == json.dumps(run)


def test_a_field_that_does_not_fit_is_named(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text('{"images": {"a": {"seed": 1}}}', encoding="utf-8")
    with pytest.raises(CorruptedError, match=r"manifest.json: is corrupted: images.a: .*neither"):
        RestoredSet.read(file)


def test_a_record_that_a_study_lacks_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run.json: No such file.*; run: snakemake"):
        RunRecord.require(tmp_path / "run.json")


def test_machines_are_those_of_the_shards_where_there_are_any() -> None:
    alone = RestoredSet.model_validate({"hardware": {"gpus": ["one"]}})
    assert [machine and machine.gpus for machine in alone.machines] == [["one"]]
    shared = {"hardware": {"gpus": []}, "shards": [{"hardware": {"gpus": ["a"]}}, {}]}
    found = RestoredSet.model_validate(shared).machines
    assert [machine and machine.gpus for machine in found] == [["a"], None]
