"""Curves: rows at other values of a setting, what they do, and their tables and figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from shared import ROOT
from shared.scores import make_scores, with_report
from torch.utils.flop_counter import FlopCounterMode

from faithdiff.config import Profile, load_profile
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.prior import load_prior
from faithdiff.report.curves import curve_figure, curve_table, own_value, points
from faithdiff.report.tables import metric_columns
from faithdiff.restore.run import describe
from faithdiff.train.cache import Cache
from faithdiff.train.cost import Costs, last_stage

BUDGET = {"setting": "budget", "methods": ["faithdiff", "frozen"], "values": [2, 0.5]}
START = {"setting": "start_timestep", "methods": ["faithdiff"], "values": [400]}


def with_curves(profile: Profile, **curves: Any) -> Profile:
    return Profile.model_validate({**profile.model_dump(mode="json"), "curves": curves})


def at(study: Study, **curves: Any) -> Study:
    return replace(study, profile=with_curves(study.profile, **curves))


# --- Rows ---------------------------------------------------------------------------------------


def test_a_value_is_a_method_like_any_other(profile: Profile) -> None:
    wider = with_curves(profile, budget=BUDGET, start=START)
    assert wider.updates_of("faithdiff-budget-2") == 280
    assert wider.updates_of("faithdiff-budget-0_5") == 70
    assert "faithdiff-budget-2" in wider.trained and "faithdiff-budget-2" in wider.denoisers
    row = "faithdiff-start_timestep-400"
    assert wider.checkpoint_of(row) == "faithdiff" and row not in wider.trained
    assert wider.methods[row].label == "FaithDiff, start at 400"
    assert wider.tables == ["main", "ablation", "curve-budget", "curve-start", "cost"]


def test_a_method_stands_on_a_curve_at_its_own_value(profile: Profile) -> None:
    named = {"label": "late", "implementation": "baselines.supir:SUPIR"}
    late = {**named, "settings": {"budget": 2, "sampling": {"start_timestep": 0}}}
    plain = {**profile.model_dump(mode="json"), "baselines": {"late": late}}
    plain["report"] = {**plain["report"], "main": ["late", "faithdiff"]}
    wider = Profile.model_validate(plain)
    # A start at timestep 0 is a setting like any other, and not one that was left out.
    assert own_value(wider, "late", "start_timestep") == 0
    assert own_value(wider, "faithdiff", "start_timestep") == wider.restore.start_timestep
    assert (own_value(wider, "late", "budget"), own_value(wider, "late", "rates")) == (2, 1)
    assert own_value(wider, "late", "captions") is None


def test_a_curve_of_a_baseline_changes_its_settings() -> None:
    mini = load_profile(ROOT / "config" / "mini.yaml")
    wider = with_curves(
        mini,
        budget={**BUDGET, "methods": ["supir"], "values": [3]},
        guidance={"setting": "guidance_scale", "methods": ["supir"], "values": [2]},
    )
    assert wider.updates_of("supir-budget-3") == 60 + 360
    own = wider.settings_of("supir-guidance_scale-2")
    assert own["sampling"] == {"guidance_scale": 2} and own["encoder_steps"] == 60


def test_a_profile_that_was_written_out_is_the_same_again(profile: Profile) -> None:
    wider = with_curves(profile, budget=BUDGET, start=START)
    assert Profile.model_validate(wider.model_dump(mode="json")) == wider


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ({**START, "setting": "budgets"}, r"curves\.c\.setting: 'budgets' is not one of"),
        ({**START, "methods": ["faithdif"]}, r"curves\.c\.methods: 'faithdif' is not one of"),
        ({**START, "methods": ["bicubic"]}, r"curves\.c\.methods: 'bicubic' is not one of"),
        ({**START, "values": [-3]}, "start_timestep"),
        ({**START, "setting": "steps", "values": [3]}, "3 steps are too few"),
        ({**START, "values": ["early"]}, "of start_timestep must be a number, not 'early'"),
        ({**START, "setting": "captions", "values": [2]}, "must be none, given or a method"),
        ({**BUDGET, "values": [2, 2.0]}, "one occurs twice"),
        ({**START, "setting": "captions", "values": ["sesr"]}, "'sesr' is not one of none, given"),
        ({**START, "setting": "restoration_guidance"}, "FaithDiff makes no restored image"),
    ],
)
def test_a_curve_that_cannot_be_names_what_is_wrong(
    tmp_path: Path, curve: dict[str, Any], message: str
) -> None:
    text = {"extends": str(ROOT / "config" / "mini.yaml"), "profile": "p", "curves": {"c": curve}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        build_all(tmp_path / "p.yaml")


def build_all(file: Path) -> None:
    study = Study.load(file)
    for name in study.profile.methods:
        find_method(study, name)


# --- What a row does ----------------------------------------------------------------------------


def restored(study: Study, name: str, captions: list[str]) -> torch.Tensor:
    folder = study.layout.checkpoint("faithdiff", 0)
    lq = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    return find_method(study, name).load(study, folder).restore(lq, captions, [7])


def test_a_sampled_variant_has_the_weights_of_the_variant(study: Study) -> None:
    wider = at(
        study,
        captions={"setting": "captions", "methods": ["faithdiff"], "values": ["none", "given"]},
        start={**START, "values": [300, 600]},
        steps={"setting": "steps", "methods": ["faithdiff"], "values": [4, 8]},
    )
    words, row = ["a red house"], "faithdiff-captions-"
    plain = restored(wider, "faithdiff", words)
    assert torch.equal(restored(wider, f"{row}given", words), plain)
    assert torch.equal(restored(wider, f"{row}none", words), restored(wider, "faithdiff", [""]))
    # 600 is the start of the profile.
    assert torch.equal(restored(wider, "faithdiff-start_timestep-600", words), plain)
    assert not torch.equal(restored(wider, "faithdiff-start_timestep-300", words), plain)
    # It has four steps.
    assert torch.equal(restored(wider, "faithdiff-steps-4", words), plain)
    assert not torch.equal(restored(wider, "faithdiff-steps-8", words), plain)
    folder = study.layout.checkpoint("faithdiff", 0)
    method = find_method(wider, f"{row}none")
    assert describe(wider, method, f"{row}none", folder)["weights"] is not None
    assert method.settings(wider) != find_method(wider, f"{row}given").settings(wider)


def test_rates_multiply_the_learning_rates(study: Study, tmp_path: Path) -> None:
    wider = at(study, rates={"setting": "rates", "methods": ["faithdiff"], "values": [2]})
    logs = {}
    for name in ("faithdiff", "faithdiff-rates-2"):
        (tmp_path / name).mkdir()
        find_method(wider, name).train(wider, 0, tmp_path / name, tmp_path / f"{name}-s")
        logs[name] = pd.read_csv(tmp_path / name / "training.csv")
    slow, fast = logs.values()
    np.testing.assert_allclose(fast["learning_rate"], 2 * slow["learning_rate"])


# --- Tables and figures -------------------------------------------------------------------------


def frame(wider: Profile) -> pd.DataFrame:
    """FaithDiff gains nothing from updates, the frozen prior 1 dB for each doubling."""

    def value(method: str, metric: str, image: int) -> float:
        doublings = {"0_5": -1, "2": 1}.get(method.rpartition("-")[2], 0)
        gain = doublings if method.startswith("frozen") else 0.2
        return 20 + 0.1 * image + gain + 0.01 * ((image * 7 + len(method)) % 5)

    return make_scores(wider, value)


def test_each_value_is_compared_with_the_first_method_at_that_value(profile: Profile) -> None:
    wider = with_report(with_curves(profile, budget=BUDGET), bootstrap=4096)
    table = curve_table(frame(wider), wider, "budget", metric_columns(wider))
    psnr = [column.metric for column in table.columns].index("psnr")
    rows = {row.method: row for row in table.blocks[0].rows}
    assert list(rows) == [
        "faithdiff-budget-0_5", "frozen-budget-0_5", "faithdiff", "frozen", "faithdiff-budget-2",
        "frozen-budget-2",
    ]  # fmt: skip
    found = {name: row.cells[psnr].comparison for name, row in rows.items()}
    for name, other, gain in (
        ("frozen-budget-0_5", "faithdiff-budget-0_5", -1.2),
        ("frozen", "faithdiff", -0.2),
        ("frozen-budget-2", "faithdiff-budget-2", 0.8),
    ):
        compared = found[name]
        assert compared is not None and compared.other == other and compared.significant
        assert compared.mean == pytest.approx(gain, abs=0.05)
    assert found["faithdiff"] is None and found["faithdiff-budget-2"] is None
    assert [rows[name].updates for name in rows] == [70, 70, 140, 140, 280, 280]


@pytest.mark.parametrize(
    "curve",
    [
        BUDGET,
        {**BUDGET, "setting": "rates"},
        {**START, "methods": ["faithdiff", "frozen"]},
        {**START, "setting": "steps", "values": [40]},
        {**START, "setting": "captions", "values": ["none", "given"]},
    ],
)
def test_every_kind_of_curve_is_drawn_or_says_that_nothing_was_run(
    profile: Profile, curve: dict[str, Any]
) -> None:
    wider = with_curves(profile, c=curve)
    scores = frame(wider)
    columns = metric_columns(wider)
    table = curve_table(scores, wider, "c", columns)
    assert curve_figure(wider, table, "c", {}) is not None
    rows = {row for at in points(wider, wider.curves["c"]).values() for row in at.values()}
    none = scores[~scores["method"].isin(rows)]
    table = curve_table(none, wider, "c", columns)
    assert all(cell.status == "not run" for row in table.blocks[0].rows for cell in row.cells)
    curve_figure(wider, table, "c", {})


def test_a_budget_is_drawn_by_updates_and_by_operations(profile: Profile) -> None:
    wider = with_curves(profile, c=BUDGET)
    table = curve_table(frame(wider), wider, "c", metric_columns(wider))
    compute = {"faithdiff": 3e12, "faithdiff-budget-2": 7e12, "frozen": 2e12}
    figure = curve_figure(wider, table, "c", compute)
    assert figure is not None
    panel = next(a for a in figure.axes if a.get_xlabel() == "TFLOP of the last stage")
    faithdiff, frozen = panel.get_lines()[:2]
    assert list(faithdiff.get_xdata()) == [3, 7] and list(frozen.get_xdata()) == [2]


@pytest.mark.parametrize("name", ["supir", "diffbir"])
def test_operations_of_a_control_are_those_of_its_real_update(study: Study, name: str) -> None:
    prior, training = load_prior(study.layout.trained_prior), study.profile.training
    model = find_method(study, name).untrained(study, prior)
    assert model is not None
    batch = Cache(study.layout.train_cache, prior, study.profile.data.scale, training).batch(
        0, master=0
    )
    with FlopCounterMode(display=False) as counter:
        seen = model.see(batch.lq)
        model.predict(
            batch.latents, batch.timesteps, seen, batch.prompt, batch.time_ids
        ).sum().backward()
    update = counter.get_total_flops() * training.micro_batches
    # A CPU's own attention kernel is one operation that the counter does not know.
    counted = last_stage(study, name)
    assert counted == pytest.approx(update * study.profile.control_updates(name), rel=0.1)
    wider = at(study, c={"setting": "budget", "methods": [name], "values": [3]})
    assert last_stage(wider, f"{name}-budget-3") == pytest.approx(3 * counted, rel=0.01)


def test_nothing_is_counted_of_what_is_not_trained(study: Study) -> None:
    assert last_stage(study, "bicubic") is None
    assert last_stage(study, "faithdiff") == pytest.approx(
        study.profile.training.batch_size
        * sum(study.profile.phase_updates("faithdiff"))
        * Costs(study.profile)
        .phase(study.profile.recipes["released"], ["lq_encoder", "alignment", "unet"])
        .flops
    )
