"""The plan: exact parameter counts, counted operations, and a page for every profile."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from shared import ROOT
from torch.utils.flop_counter import FlopCounterMode

from faithdiff import cli
from faithdiff.config import Group, Profile, load_profile
from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.models.faithdiff import build
from faithdiff.models.prior import load_prior
from faithdiff.planning import plan
from faithdiff.planning.disk import download, encoded_set
from faithdiff.planning.memory import memory, memory_lines, zero2
from faithdiff.planning.plan import Plan, write_plan
from faithdiff.train import variants
from faithdiff.train.cache import Cache
from faithdiff.train.cost import Costs, meta_prior


@cache
def counted(profile: str) -> Costs:
    return Costs(Profile.model_validate_json(profile))


@pytest.fixture(autouse=True)
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several plans of one profile share its costs: those of `paper` take seconds to count."""
    monkeypatch.setattr(plan, "Costs", lambda profile: counted(profile.model_dump_json()))


@pytest.fixture
def paper() -> Costs:
    return counted(load_profile(ROOT / "config/paper.yaml").model_dump_json())


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_model_of_the_paper_has_its_size(paper: Costs) -> None:
    model = paper.model(paper.profile.recipes["released"])
    assert all(parameter.is_meta for parameter in model.parameters())
    assert count(model.unet) == 2_567_463_684
    assert count(model.alignment) == 10_608_512
    assert count(model.lq_encoder) == 34_125_696
    assert len(model.state_dict()) == 1_814


def test_a_stage_trains_what_it_says(paper: Costs) -> None:
    recipe = paper.profile.recipes["released"]
    assert paper.phase(recipe, ["alignment"]).trained == 10_608_512
    whole = paper.phase(recipe, ["lq_encoder", "alignment", "unet"])
    assert whole.trained == whole.parameters == 2_612_197_892
    # What gradients need not pass through, or need not be taken for, costs less.
    frozen = paper.phase(recipe, ["lq_encoder", "alignment"])
    assert paper.phase(recipe, ["alignment"]).flops < frozen.flops < whole.flops
    assert whole.recomputed > 0


@pytest.mark.parametrize("groups", [["lq_encoder", "alignment", "unet"], ["alignment"]])
def test_counted_operations_are_those_of_a_real_update(study: Study, groups: list[Group]) -> None:
    costs = Costs(study.profile)
    prior = load_prior(study.layout.trained_prior)
    recipe = study.profile.recipes["released"]
    training = study.profile.training
    model = build(prior, recipe, study.profile.alignment).train()
    for name in ("lq_encoder", "alignment", "unet"):
        model.group(name).requires_grad_(name in groups)
    cache = Cache(study.layout.train_cache, prior, study.profile.data.scale, training)
    batch = cache.batch(0, master=0)
    with FlopCounterMode(display=False) as counter:
        variants.denoising_loss(model, cache, batch, "mse").backward()
    expected = counter.get_total_flops() / training.micro_batch
    phase = costs.phase(recipe, groups)
    # The rule counts the gradient of the first inputs, which no one takes; a CPU's own attention
    # kernel is one operation that the counter does not know.
    assert phase.flops == pytest.approx(expected, rel=0.1)
    assert phase.parameters == count(model)


def test_gradient_checkpointing_trades_operations_for_memory() -> None:
    profile = load_profile(ROOT / "config/mini.yaml")

    def cost(checkpointing: bool) -> tuple[float, float]:
        changes = {"gradient_checkpointing": checkpointing}
        training = profile.training.model_copy(update=changes)
        changed = profile.model_copy(update={"training": training})
        phase = Costs(changed).phase(changed.recipes["released"], ["unet"])
        return phase.recomputed, phase.activations

    assert cost(False)[0] == 0 < cost(True)[0]
    assert cost(True)[1] < 0.7 * cost(False)[1]


@pytest.mark.parametrize("name", ["mini", "lab", "paper", "test"])
def test_every_profile_that_trains_has_a_plan(name: str) -> None:
    file = Path("config", f"{name}.yaml")
    page = write_plan(file, 100, 0.5)
    profile = load_profile(file)
    rows = re.findall(r"^\| ([\w-]+|stage 1 [\w-]+) \| [a-z_ ]+ \| [\d,]+ \|", page, re.M)
    phases = sum(len(variant.phases) for variant in profile.variants.values())
    assert len(rows) == phases + len(profile.recipes)
    assert "100 TFLOP/s at an assumed utilisation of 50%" in page
    for part in ("## Images", "## Trainings", "## Memory per process", "## Disk", "## Download"):
        assert part in page
    assert f"{download(profile).gigabytes:,.1f} GB" in page
    assert f"| encoded training set | {encoded_set(profile, meta_prior(profile))} |" in page
    assert "nan" not in page and "None" not in page


def _plan(profile: Profile, at_file: str) -> Plan:
    study = Study.load(Path(at_file))
    return Plan(Study(profile, study.file, study.layout), 100, 1.0)


def test_hours_follow_from_what_is_printed() -> None:
    profile = load_profile(Path("config/mini.yaml"))
    one = _plan(profile, "config/mini.yaml")
    training = profile.training.model_copy(update={"processes": 2, "micro_batch": 4})
    two = _plan(profile.model_copy(update={"training": training}), "config/mini.yaml")
    run = one.runs[-1]
    work = run.cost.flops * profile.training.batch_size * run.updates
    assert one.hours(run) == pytest.approx(work / 100e12 / 3600)
    assert two.hours(two.runs[-1]) == pytest.approx(one.hours(run) / 2, rel=0.05)


def test_memory_is_the_sum_of_its_formula(paper: Costs) -> None:
    training = paper.profile.training
    cost = paper.phase(paper.profile.recipes["released"], ["lq_encoder", "alignment", "unet"])
    fixed = {way: sum(memory(cost, training, way).values()) - cost.activations
             for way in ("copies", "shard_optimiser", "shard_model")}  # fmt: skip
    # AdamW over two processes; raw weights, so no average is kept
    assert fixed["copies"] == (4 + 4 + 8 + 2) * 2_612_197_892
    assert fixed["shard_optimiser"] == (4 + 4 + 8 / 2 + 2) * 2_612_197_892
    assert fixed["shard_model"] == (4 + 4 + 8) / 2 * 2_612_197_892 + (8 + 2) * cost.gathered
    # Two blocks of the UNet, and what belongs to none: far from all of it.
    assert 2**26 < cost.gathered < 2**28
    assert zero2(cost, 2) == (2 + 14 / 2) * 2_612_197_892


def test_the_plan_shows_each_way_to_share_the_memory_out(paper: Costs) -> None:
    training = paper.profile.training
    cost = paper.phase(paper.profile.recipes["released"], ["lq_encoder", "alignment", "unet"])
    average = training.model_copy(update={"weights": "ema", "processes": 8})
    page = "\n".join(memory_lines("faithdiff", cost, average))
    assert "| part, GiB | copies | shard_optimiser (this profile) | shard_model |" in page
    assert "| weights, 4 B x parameters | 9.73 | 9.73 | 1.22 |" in page
    assert "| averaged weights, 4 B x parameters | 9.73 | 9.73 | 1.22 |" in page
    assert "| AdamW, 8 B x trained | 19.5 | 2.43 | 2.43 |" in page
    alone = training.model_copy(update={"processes": 1})
    assert "| part | GiB |" in "\n".join(memory_lines("faithdiff", cost, alone))


def test_a_plan_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    cli.plan(Path("config/test.yaml"), None, 0.4)
    assert "measured:" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_plan_of_a_cluster() -> None:
    page = write_plan(Path("config/paper.yaml"), 312, 0.4, gpus=8)
    assert re.search(r"^69 jobs, 52 of them on GPUs", page, re.MULTILINE)
    assert re.search(r"^\| train_variant \| 7 \| Stage 2: \w", page, re.MULTILINE)
    together = float(re.search(r"Together ([\d.]+) hours on 2 x", page)[1])  # type: ignore[index]
    gpu_hours = int(
        re.search(r"GPU-hours of the trainings counted above \| ([\d,]+)", page)[1].replace(",", "")  # type: ignore[index]
    )
    assert gpu_hours == pytest.approx(2 * together, rel=0.01)
    wall, chain = (
        int(re.search(rf"{what}[^|]* \| (\d+) hours", page)[1])  # type: ignore[index]
        for what in ("these trainings alone", "their critical path")
    )
    assert chain <= wall and gpu_hours / 8 <= wall <= together


def test_plan_without_trainings() -> None:
    """Released weights are imported: no training, no state, no training set."""
    page = write_plan(Path("config/released.yaml"), 100, 0.4, gpus=2)
    assert "None is counted" in page and "accelerate" not in page
    assert not re.search(r"\| (train|stage 1 \w+|faithdiff) \|", page)
    assert "| RealDeg | not there yet | real |" in page
    assert "| checkpoints of 1 variants | 10.4 |" in page
    assert "Not counted: degradation" in page
    assert "GPU-hours that all jobs request" in page
    assert "nan" not in page and "None |" not in page


def test_plan_refuses_a_cluster_that_cannot_work() -> None:
    with pytest.raises(UserError, match=r"--gpus 4: config/mini\.yaml: device is cpu"):
        write_plan(Path("config/mini.yaml"), 1, 0.4, gpus=4)
    with pytest.raises(UserError, match=r"--gpus 1: .* needs 2 GPUs"):
        write_plan(Path("config/paper.yaml"), 1, 0.4, gpus=1)
