"""Training of the controlled designs, rows that share it, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from shared.designs import METHODS, changed, method_of, random_images
from torch import Tensor

from baselines.controlled import ControlledTraining
from baselines.diffbir import DiffBIR, RestorationModule
from faithdiff.config import Profile
from faithdiff.errors import CheckpointError, ConfigError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.prior import load_prior
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.run import describe, restore_job
from faithdiff.score.costs import cost_table
from faithdiff.study.provenance import folder_digest


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", METHODS)
def test_training_again_gives_the_same_bytes(trained: Study, name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before = torch.get_rng_state()
        method_of(trained, name).train(trained, 0, Path("again"), Path("state"))
        assert torch.equal(torch.get_rng_state(), before)
    folder = trained.layout.checkpoint(name, 0)
    assert same(weights(Path("again")), weights(folder))
    assert Path("again/config.json").read_bytes() == (folder / "config.json").read_bytes()
    method_of(trained, name).train(trained, 1, Path("other"), Path("state"))
    assert not same(weights(Path("other")), weights(folder))


@pytest.mark.parametrize("phase", ["first", "last"])
@pytest.mark.parametrize("name", METHODS)
def test_a_killed_training_ends_with_the_same_weights(
    trained: Study, name: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(fatal: int | None) -> Callable[..., None]:
        plain = ControlledTraining.run

        def run(
            self: ControlledTraining, title: str, model: Any, loss: Any, steps: int, rate: float
        ) -> None:
            chosen = "control" if phase == "last" else first_phase(trained, name)
            kill = fatal is not None and title == chosen

            def watched(step: int, micro: int) -> Tensor:
                if kill and step == fatal:
                    raise KeyboardInterrupt
                calls.append(f"{title} {step}")
                return loss(step, micro)

            plain(self, title, model, watched, steps, rate)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(ControlledTraining, "run", counted(2))
        with pytest.raises(KeyboardInterrupt):
            method_of(trained, name).train(trained, 0, Path("out"), Path("state"))
    assert not Path("out").exists()
    calls.clear()
    monkeypatch.setattr(ControlledTraining, "run", counted(None))
    method_of(trained, name).train(trained, 0, Path("out"), Path("state"))
    title = "control" if phase == "last" else first_phase(trained, name)
    assert f"{title} 2" in calls and f"{title} 1" not in calls, "nothing was resumed"
    assert same(weights(Path("out")), weights(trained.layout.checkpoint(name, 0)))


def first_phase(study: Study, name: str) -> str:
    log = pd.read_csv(study.layout.checkpoint(name, 0) / "training.csv")
    return str(log["phase"].iloc[0]).removeprefix(f"{name} ")


@pytest.mark.parametrize("name", METHODS)
def test_the_cost_is_recorded_in_the_run(trained: Study, name: str) -> None:
    folder = trained.layout.checkpoint(name, 0)
    cost = json.loads((folder / "run.json").read_text(encoding="utf-8"))["cost"]
    tensors = weights(folder)
    buffers = sum(t.numel() for k, t in tensors.items() if re.search(r"index|mask|threshold", k))
    trained_count = sum(count for part, count in cost["parts"].items() if part != "tagger")
    assert trained_count == sum(t.numel() for t in tensors.values()) - buffers
    prior = load_prior(trained.prior_folder)
    untouched = sum(p.numel() for module in prior.modules() for p in module.parameters())
    assert cost["total"] >= untouched + trained_count
    log = pd.read_csv(folder / "training.csv")
    assert cost["updates"] == trained.profile.training.stage2_steps
    assert cost["pre_updates"] + cost["updates"] == len(log)  # one row per update in this profile
    assert cost["pre_updates"] > 0 and cost["seconds"] > 0


@pytest.mark.parametrize("name", METHODS)
def test_missing_weights_say_how_to_make_them(study: Study, name: str) -> None:
    folder = study.layout.checkpoint(name, 0)
    with pytest.raises(CheckpointError, match=f"faithdiff train --method {name}"):
        find_method(study, name).load(study, folder)


@pytest.mark.parametrize("name", METHODS)
def test_corrupted_weights_are_refused(trained: Study, name: str) -> None:
    file = trained.layout.checkpoint(name, 0) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        find_method(trained, name).load(trained, file.parent)


@pytest.mark.parametrize("name", METHODS)
def test_misspelt_settings_and_switches_name_their_path(study: Study, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"test.yaml: baselines.{name}.settings: ratee: "):
        find_method(changed(study, name, ratee=1), name)
    with pytest.raises(ConfigError, match=rf"baselines.{name}.settings: sampling.stepps: "):
        find_method(changed(study, name, sampling={"stepps": 1}), name)


def test_a_baseline_that_denoises_must_say_so(study: Study) -> None:
    config = study.profile.baselines["diffbir"].model_copy(update={"denoises": False})
    profile = study.profile.model_copy(update={"baselines": {"diffbir": config}})
    with pytest.raises(ConfigError, match=r"baselines.diffbir.denoises: must be true"):
        find_method(replace(study, profile=profile), "diffbir")


def test_this_file_tests_every_controlled_design(study: Study) -> None:
    assert [name for name, b in study.profile.baselines.items() if b.denoises] == METHODS
    assert DiffBIR.trained and RestorationModule


def test_a_row_of_another_sampler_restores_with_the_same_weights(trained: Study) -> None:
    folder = trained.layout.checkpoint(trained.profile.checkpoint_of("supir-own"), 0)
    common, own = (find_method(trained, name) for name in ("supir", "supir-own"))
    lq, captions = random_images(1, 3, 16, 16), ["a house"]
    restored = [method.load(trained, folder).restore(lq, captions, [1]) for method in (common, own)]
    assert not torch.equal(*restored)
    assert describe(trained, own, "supir-own", folder)["weights"] == folder_digest(folder)
    restore_job(trained, own, "supir-own", 0)
    costs = cost_table(without_others(trained), trained.layout).set_index("method")
    for column in ("trained_parameters", "pre_updates", "updates"):
        assert costs.loc["supir-own", column] == costs.loc["supir", column] > 0


def test_captions_are_read_off_by_the_method_that_is_asked(trained: Study) -> None:
    values = ["none", "given", "seesr"]
    curve = {"setting": "captions", "methods": ["faithdiff", "seesr"], "values": values}
    plain = {**trained.profile.model_dump(mode="json"), "curves": {"captions": curve}}
    study = replace(trained, profile=Profile.model_validate(plain))
    lq, words = random_images(1, 3, 16, 16), ["a house"]

    def restored(name: str, captions: list[str]) -> Tensor:
        folder = study.layout.checkpoint(study.profile.checkpoint_of(name), 0)
        return find_method(study, name).load(study, folder).restore(lq, captions, [1])

    # SeeSR ignores what it is told unless it is told so, and then no longer reads the image.
    assert torch.equal(restored("seesr", words), restored("seesr-captions-seesr", ["other"]))
    assert not torch.equal(restored("seesr-captions-given", words), restored("seesr", words))
    extractor = method_of(study, "seesr").denoiser(study, study.layout.checkpoint("seesr", 0))
    enlarged = enlarge(lq, study.profile.data.scale) * 2 - 1
    tags = extractor.captions(extractor.see(enlarged), words)
    assert torch.equal(restored("faithdiff-captions-seesr", words), restored("faithdiff", tags))
    assert torch.equal(restored("faithdiff-captions-none", words), restored("faithdiff", [""]))
    row = "faithdiff-captions-seesr"
    identity = describe(
        study, find_method(study, row), row, study.layout.checkpoint("faithdiff", 0)
    )
    assert identity["captioner"] == folder_digest(study.layout.checkpoint("seesr", 0))


def without_others(study: Study) -> Any:
    """The profile with the two rows of SUPIR alone, both restored."""
    restore_job(study, find_method(study, "supir"), "supir", 0)
    baselines = {name: study.profile.baselines[name] for name in ("supir", "supir-own")}
    return study.profile.model_copy(update={"baselines": baselines, "variants": {}})


def test_a_missing_checkpoint_of_another_row_names_what_makes_it(study: Study) -> None:
    with pytest.raises(CheckpointError, match=r"faithdiff train .*--method supir --seed 0"):
        restore_job(study, find_method(study, "supir-own"), "supir-own", 0)
