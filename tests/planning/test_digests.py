"""The settings that decide a job: those that its rule reads, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from faithdiff.config import Profile
from faithdiff.methods.method import Study
from faithdiff.planning import digests
from faithdiff.planning.digests import Digests
from faithdiff.study.layout import Layout
from faithdiff.study.provenance import closure
from faithdiff.study.rules import RULES

# What jobs of a rule are about; a rule that is not here has one job.
JOBS = {
    "prepare_dataset": [{"dataset": "train"}, {"dataset": "Scenes"}, {"dataset": "prior"}],
    "degrade": [{"dataset": "Scenes"}],
    "caption": [{"dataset": "Scenes"}],
    "degrade_train": [{"dataset": "train"}],
    "pretrain_alignment": [{"recipe": "released"}],
    "train_variant": [{"method": "faithdiff"}],
    "train_baseline": [{"method": m, "dataset": "train"} for m in ("realesrgan", "supir")],
    "restore_baseline": [{"method": m} for m in ("bicubic", "supir-own")],
    "restore_denoiser": [{"method": m} for m in ("supir", "faithdiff")],
    "restore_shard": [{"method": "supir"}],
}


def changed(**settings: object) -> Study:
    """The study of the profile `test` with other settings; `__` is the dot of a path."""
    study = Study.load(Path("config/test.yaml"))
    content = study.profile.model_dump(mode="json")
    content["curves"] = {}
    for path, value in settings.items():
        *parents, key = path.split("__")
        node = content
        for part in parents:
            node = node[part]
        node[key] = value
    return Study(Profile.model_validate(content), study.file, Layout("test"))


def rerun(study: Study) -> dict[str, set[str]]:
    """Rules, each with the jobs whose settings are not those of the profile as it is."""
    before, after = Digests(changed()), Digests(study)
    found: dict[str, set[str]] = {}
    for rule in RULES:
        for job in JOBS.get(rule.name, [{}]):
            if before.settings(rule.name, job) != after.settings(rule.name, job):
                found.setdefault(rule.name, set()).add(job.get("method", job.get("dataset", "")))
    return found


REPORT = {"tables", "figures", "claims", "manifest"}


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ({"report__bootstrap": 77}, REPORT),
        ({"variants__faithdiff__label": "Ours"}, {*REPORT, "report"}),
        ({"training__prefetch": 9}, {"manifest"}),  # where a training runs, not what it makes
        ({"captioner__batch_size": 4}, {"manifest"}),  # answers do not depend on either
        ({"captioner__processes": 2}, {"manifest"}),
        ({"captioner__top_p": 0.5}, {"caption", "manifest"}),
        ({"device": "cuda"}, {"tables", "manifest"}),
        ({"alignment__heads": 1}, {"pretrain_alignment", "train_variant", "manifest"}),
        ({"restore__steps": 3}, {"figures", "manifest", "restore_shard"}),
    ],
)
def test_a_setting_makes_again_what_reads_it(settings: dict[str, object], rules: set[str]) -> None:
    found = rerun(changed(**settings))
    restoring = {"restore_baseline": {"supir-own"}, "restore_denoiser": {"supir", "faithdiff"}}
    if "restore__steps" in settings:
        assert {rule: found.pop(rule) for rule in restoring} == restoring  # not bicubic
    assert {*found} == rules


def test_a_training_reads_the_settings_of_its_method() -> None:
    loss = rerun(changed(training__loss="l1"))
    assert loss["train_baseline"] == {"supir"}  # Real-ESRGAN has losses of its own
    assert {"pretrain_alignment", "train_variant"} <= {*loss}
    assert loss["restore_denoiser"] == {"supir", "faithdiff"}  # the held-out loss
    warm = rerun(changed(training__optimiser__warmup=7))
    assert warm["train_baseline"] == {"realesrgan", "supir"}


def test_a_data_set_is_made_again_for_its_own_settings_alone() -> None:
    count = changed().profile.data.train.count  # type: ignore[union-attr]
    assert rerun(changed(data__train__count=count + 1)) == {
        "prepare_dataset": {"train"},
        "manifest": {""},
    }


def test_the_prior_is_read_once_for_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def folder_digest(folder: Path, _: object) -> str:
        asked.append(folder)
        return "prior"

    monkeypatch.setattr(digests, "folder_digest", folder_digest)
    of_jobs = Digests(Study.load(Path("config/mini.yaml")))
    for rule in ("pretrain_alignment", "train_variant", "restore_denoiser"):
        for job in JOBS[rule]:
            of_jobs.settings(rule, job)
    assert asked == [Path("prior/mini")]


def test_an_edit_of_external_code_trains_nothing_and_the_reverse() -> None:
    external = ("faithdiff.methods.external", "baselines.official")
    for rule in RULES:
        if rule.methods in ("variants", "trained", "trained baselines", "denoisers"):
            reads = closure(*rule.modules)
            assert not [name for name in reads if name.startswith(external)], rule.name
    for module in ("baselines.official.diffbir", "faithdiff.methods.external.own"):
        reads = closure(module)
        assert not [n for n in reads if n.startswith(("faithdiff.train", "faithdiff.restore"))]
    # The program that runs in the environment of the authors decides results, too.
    assert "baselines.official.driver" in closure("baselines.official.seesr")
