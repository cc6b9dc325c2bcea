"""Precision, loss scaling, gradient checkpointing and learning rates of a training."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.training import (
    OPTIMISER,
    changed_training,
    killed_at,
    same_state,
    toy_job,
    toy_loss,
    training_job,
)
from torch import nn

from faithdiff.errors import RunError
from faithdiff.methods.method import Study
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.study.provenance import folder_digest
from faithdiff.train import variants
from faithdiff.train.engine import Trained
from faithdiff.train.loop import Job, rate, train
from faithdiff.train.run import run_job


def _wide(precision: Any, **changes: Any) -> Job:
    """A toy whose passes a lower precision changes, on inputs that fp16 can hold."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 1))
    groups = [Trained.whole(model, 0.01)]
    changes = {"model": model, "groups": groups, "loss": toy_loss(model), **changes}
    return toy_job(**changes, precision=precision, log_every=1, steps=30)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_float32_weights(precision: str) -> None:
    exact, low = _wide("fp32"), _wide(precision)
    train(exact)
    train(low)
    assert all(p.dtype == torch.float32 for p in low.model.parameters())
    curves = [torch.tensor([row["loss"] for row in job.log]) for job in (exact, low)]
    assert not torch.equal(*curves)
    if precision == "bf16":  # fp16 leaves out the updates that find its loss scale
        assert torch.allclose(*curves, rtol=0.1, atol=0.02)
    assert curves[1][-5:].mean() < 0.5 * curves[1][:5].mean()


def test_fp16_resumes_with_its_loss_scale(tmp_path: Path) -> None:
    whole, state = _wide("fp16"), tmp_path / "toy.pt"
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(killed_at(_wide("fp16", state=state), 7))
    resumed = _wide("fp16", state=state)
    train(resumed)
    assert same_state(resumed.model, whole.model)


def test_fp16_that_overflows_for_good_names_bf16() -> None:
    job = _wide("fp16")
    plain = job.loss
    job.loss = lambda step, micro: plain(step, micro).float() * 1e37  # no scale above 1 will do
    before = copy.deepcopy(job.model)
    with pytest.raises(RunError, match=r"overflow at any loss scale at update \d+\. .*to bf16"):
        train(job)
    assert same_state(before, job.model)


def test_gradient_checkpointing_changes_nothing(study: Study) -> None:
    folder = study.layout.checkpoint("faithdiff", 0)
    before = folder_digest(folder)
    again = changed_training(study, gradient_checkpointing=True)
    calls: list[int] = []
    plain = LQEncoder.enable_gradient_checkpointing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            LQEncoder, "enable_gradient_checkpointing", lambda self: (calls.append(1), plain(self))
        )
        run_job(again, "faithdiff", 0, folder, training_job(again, "faithdiff"))
    assert calls == [1] and folder_digest(folder) == before


def test_gradient_checkpointing_keeps_fewer_activations(study: Study) -> None:
    kept = {}
    for checkpointing in (False, True):
        changed = changed_training(study, gradient_checkpointing=checkpointing)
        start = variants._start(changed, "released", 0)
        start.model.requires_grad_(True)
        sizes: list[int] = []
        pack = lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1]  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            batch = start.cache.batch(0, master=0)
            variants.denoising_loss(start.model, start.cache, batch, "mse")
        kept[checkpointing] = sum(sizes)
    assert kept[True] < 0.7 * kept[False]


@settings(deadline=None, max_examples=50)
@given(steps=st.integers(1, 300), warmup=st.integers(0, 50), hold=st.floats(0, 1))
def test_the_rate_rises_holds_and_falls(steps: int, warmup: int, hold: float) -> None:
    optimiser = OPTIMISER.model_copy(update={"warmup": warmup, "hold": hold})
    job = toy_job(steps=steps, optimiser=optimiser)
    rates = [rate(step, job) for step in range(steps)]
    assert all(0 < r <= 1 for r in rates)
    top = min(warmup, steps - 1)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
