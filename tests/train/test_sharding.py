"""A model in shards over two processes learns what a copy in each of them learns.

Sums over micro-batches and processes are taken in another order, which moves their last bits: a
float32 has 7 digits, so losses agree to 1e-5 after nine updates, as those of two processes and one
do.
"""

from __future__ import annotations

import copy
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from pydantic import ValidationError
from shared import ROOT
from shared.gloo import together
from shared.toy_training import Killed, close, same, toy, uninterrupted
from torch import nn

from faithdiff.config import load_profile
from faithdiff.errors import ConfigError
from faithdiff.planning.bench_sampler import random_model
from faithdiff.planning.gpu_check import OPTIMISER, _batch
from faithdiff.train import sharding
from faithdiff.train.engine import Trained
from faithdiff.train.loop import Job, _shard, train
from faithdiff.train.processes import Processes


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_in_shards_it_learns_the_same(precision: str) -> None:
    replicated, sharded = uninterrupted(2, False, precision), uninterrupted(2, True, precision)
    # In 16 bits a sum that differs in its last bit may round to another number of 11 bits.
    digits = 1e-5 if precision == "fp32" else 2e-3
    assert sharded[2] == pytest.approx(replicated[2], rel=digits)
    if precision == "fp32":
        assert close(sharded[0], replicated[0]) and close(sharded[1], replicated[1])
    frozen = [name for name in sharded[0] if name.startswith("2.")]
    assert frozen and all(torch.equal(sharded[0][n], replicated[0][n]) for n in frozen)


@patch.object(sharding, "BLOCK", 2**16)
def networks(processes: Processes, sharded: bool) -> list[float]:
    """Three updates of FaithDiff with checkpointing, its parts in many blocks."""
    prior, model = random_model(ROOT / "prior" / "mini", "cpu")
    model.unet.enable_gradient_checkpointing()
    model.lq_encoder.enable_gradient_checkpointing()
    model.lq_encoder.requires_grad_(False)
    if sharded:
        assert len(list(sharding.blocks(model.unet))) > 10
    entries = ("lq_encoder", "alignment", "unet")
    batches = [_batch(prior, model, 64, 1, "cpu"), _batch(prior, model, 32, 1, "cpu")]
    job = Job(
        "networks", model, [Trained.whole(model.group(name), 1e-3) for name in entries[1:]],
        lambda step, micro: batches[micro](step), 3, OPTIMISER, 2, ema_decay=0.9, log_every=1,
        processes=processes, sharded=entries if sharded else (),
    )  # fmt: skip
    model.train()
    averaged = train(job)
    assert averaged is not None and isinstance(job.model, type(model))
    weight = [float(part.unet.conv_in.weight.double().sum()) for part in (job.model, averaged)]
    return [*(row["loss"] for row in job.log), *weight]


@pytest.mark.slow
def test_networks_in_many_blocks_learn_the_same() -> None:
    found = together(2, networks, True)
    assert found[0] == found[1]
    assert found[0] == pytest.approx(together(2, networks, False)[0], rel=1e-5)


def test_killed_in_shards_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    state = tmp_path / "toy.pt"
    with pytest.raises(Killed):
        together(2, toy, state, 5, True)
    parts = sorted((tmp_path / "toy.000003.parts").glob("*.distcp"))
    sizes = [part.stat().st_size for part in parts]
    assert len(sizes) == 2 and 0.8 < sizes[0] / sizes[1] < 1.25
    raw, averaged, losses, done = together(2, toy, state, -1, True)[0]
    whole = uninterrupted(2, True)
    assert done[0] == 3
    assert same(raw, whole[0]) and same(averaged, whole[1]) and losses == whole[2]


@pytest.mark.parametrize(
    ("before", "after"), [((2, True), (1, False)), ((1, False), (2, True)), ((2, True), (4, True))]
)
def test_shards_are_read_by_another_number_of_processes(
    tmp_path: Path, before: tuple[int, bool], after: tuple[int, bool]
) -> None:
    state = tmp_path / "toy.pt"
    with pytest.raises(Killed):
        together(before[0], toy, state, 5, before[1])
    raw, averaged, losses, done = together(after[0], toy, state, -1, after[1])[0]
    whole = uninterrupted(2)
    assert done[0] == 3 and losses == pytest.approx(whole[2], rel=1e-5)
    assert close(raw, whole[0]) and close(averaged, whole[1])


def test_a_skeleton_is_the_model_without_its_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].bias.requires_grad_(False)
    model[1].register_buffer("table", torch.arange(3), persistent=False)
    frame = sharding.skeleton(model)
    assert all(tensor.is_meta for tensor in frame.state_dict().values())
    assert torch.equal(frame[1].table, model[1].table)
    again = sharding.whole(copy.deepcopy(frame), model)
    assert same(again.state_dict(), model.state_dict())
    assert [p.requires_grad for p in again.parameters()] == [True, False, True, True]


def test_blocks_are_small_enough_and_worth_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "BLOCK", 64 * 10)
    level = nn.ModuleList([nn.Linear(20, 20), nn.Linear(21, 21), nn.Linear(100, 100)])
    model = nn.ModuleDict({"in": nn.Linear(2, 2), "level": level, "out": nn.Linear(4, 4)})
    assert list(sharding.blocks(model)) == [level[0], level[1], model["out"]]


def test_processes_that_do_not_divide_an_update_are_refused() -> None:
    job = Job(
        "toy", nn.Linear(1, 1), [], lambda *_: torch.zeros(()), 1, None,  # type: ignore[arg-type]
        micro_batches=4, processes=Processes(0, 3), sharded=("",),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"toy: 3 processes do not divide the 4 micro-batches"):
        _shard(job, None)


def test_the_setting_is_off_decides_nothing_and_excludes_pictures() -> None:
    training = load_profile(Path("config/mini.yaml")).training
    assert not training.shard_model
    on = training.model_copy(update={"shard_model": True})
    assert on.decisive() == training.decisive()
    for changes, message in [
        ({"validation_every": 5}, "shard_model: true leaves no process the whole"),
        ({"channels_last": True}, "set one of them to false"),
    ]:
        with pytest.raises(ValidationError, match=message):
            type(training).model_validate({**on.model_dump(), **changes})
