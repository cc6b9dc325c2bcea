"""The encoded training set of the small study, for tests of trainings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faithdiff.config import Optimiser, Training, parse
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.prior import Prior
from faithdiff.study import seeds
from faithdiff.train.cache import Batch, Cache
from faithdiff.train.engine import Trained
from faithdiff.train.loop import Job

PROFILE = Path("config/test.yaml")
OPTIMISER = Optimiser(
    betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, max_grad_norm=1.0, warmup=2, hold=0.5
)


def toy_loss(model: nn.Module) -> Callable[[int, int], Tensor]:
    def loss(step: int, micro: int) -> Tensor:
        inputs = torch.randn(4, 3, generator=seeds.torch_generator(0, "toy", step, micro))
        return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return loss


def toy_job(state: Path | None = None, **changes: Any) -> Job:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    job = Job(
        name="toy",
        model=model,
        groups=[Trained.whole(model, 0.01)],
        loss=toy_loss(model),
        steps=9,
        optimiser=OPTIMISER,
        micro_batches=2,
        ema_decay=0.9,
        state=state,
        identity="toy",
        log_every=2,
        checkpoint_every=3,
    )
    for name, value in changes.items():
        setattr(job, name, value)
    return job


def killed_at(job: Job, step: int) -> Job:
    whole = job.loss

    def loss(now: int, micro: int) -> Tensor:
        if now == step:
            raise KeyboardInterrupt
        return whole(now, micro)

    job.loss = loss
    return job


def same_state(one: nn.Module | None, other: nn.Module | None) -> bool:
    assert one is not None and other is not None
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def digest_of(*tensors: Tensor) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


def digest_of_batch(batch: Batch) -> str:
    prompt = batch.prompt
    # Without its HQ pixels, which are read only for a training that looks at them; the latents show
    # the same crops.
    parts = (batch.lq, batch.latents, batch.noise, batch.timesteps, batch.time_ids)
    return digest_of(*parts, prompt.hidden, prompt.pooled)


def training_of(study: Study, **changes: Any) -> Training:
    return parse({**study.profile.training.model_dump(), **changes}, Training, "training")


def changed_training(study: Study, **training: Any) -> Study:
    profile = study.profile.model_copy(update={"training": training_of(study, **training)})
    return Study(profile, study.file, study.layout)


def cache_of(study: Study, prior: Prior, **changes: Any) -> Cache:
    training = training_of(study, **changes)
    return Cache(study.layout.train_cache, prior, study.profile.data.scale, training)


def training_job(study: Study, name: str, seed: int = 0) -> Callable[[Path, Path], None]:
    method = find_method(study, name)
    return lambda folder, state: method.train(study, seed, folder, state)
