"""The one training loop of the study: prior, stages, variants and trained baselines use it.

Each update draws its batch, noise and timesteps from generators keyed by the update's number, so
the position in the data is that number, and a resumed run equals an uninterrupted one, bit for
bit on CPU.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from faithdiff.config import Optimiser
from faithdiff.errors import RunError


@dataclass
class Job:
    """One optimisation.

    Attributes:
        name: Shown in the progress bar and written as `phase` into ``training.csv``.
        model: Holds every trained module; saved whole in resumable states.
        groups: Parameter groups for AdamW, ``{"params": [...], "lr": ...}``.
        loss: Maps the number of the update to the loss whose gradient is taken.
        steps: Number of updates.
        micro_batches: Forward passes per update; `loss` is called as ``loss(step, micro)``.
        ema_decay: Decay of the averaged weights per update; None keeps none.
        state: Where the resumable state is kept; None keeps none.
        identity: What the job is made from: a state of another identity is not resumed.
    """

    name: str
    model: nn.Module
    groups: list[dict[str, Any]]
    loss: Callable[[int, int], Tensor]
    steps: int
    optimiser: Optimiser
    micro_batches: int = 1
    ema_decay: float | None = None
    state: Path | None = None
    identity: str = ""
    log_every: int = 10
    checkpoint_every: int = 50
    log: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # since the last row of the log


def train(job: Job) -> nn.Module | None:
    """Run a job to its end, resuming its state where one of the same identity lies.

    Returns:
        The averaged model, or None if the job keeps none. ``job.model`` holds the raw weights and
        ``job.log`` the rows of ``training.csv``.

    Raises:
        RunError: The loss is not finite; the last resumable state is kept.
    """
    parameters = [p for group in job.groups for p in group["params"]]
    optimiser = torch.optim.AdamW(
        job.groups,
        betas=job.optimiser.betas,
        eps=job.optimiser.eps,
        weight_decay=job.optimiser.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: rate(s, job))
    average = _average(job)
    first = _resume(job, optimiser, schedule, average)
    begun = time.perf_counter() - (job.log[-1]["seconds"] if job.log else 0.0)
    bar = tqdm(
        range(first, job.steps), job.name, job.steps, initial=first, mininterval=2, unit="step"
    )
    for step in bar:
        loss = _accumulate(job, step)
        if not math.isfinite(loss):
            raise RunError(_diverged(job, step, loss))
        nn.utils.clip_grad_norm_(parameters, job.optimiser.max_grad_norm)
        learning_rate = float(schedule.get_last_lr()[-1])
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        if average is not None:
            average.update_parameters(job.model)
        job.losses.append(loss)
        if (step + 1) % job.log_every == 0 or step == job.steps - 1:
            job.log.append(_row(job, step, learning_rate, time.perf_counter() - begun))
            bar.set_postfix(loss=f"{job.log[-1]['loss']:.4f}")
            job.losses.clear()
        if (step + 1) % job.checkpoint_every == 0 and step + 1 < job.steps:
            _save(job, step + 1, optimiser, schedule, average)
    return average.module if average is not None else None


def rate(step: int, job: Job) -> float:
    """Share of the learning rate at an update: linear warm-up, hold, then cosine to zero."""
    if step < job.optimiser.warmup:
        return (step + 1) / (job.optimiser.warmup + 1)
    start = max(job.optimiser.warmup, round(job.optimiser.hold * job.steps))
    if step < start:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(job.steps - start, 1)))


def _accumulate(job: Job, step: int) -> float:
    total = 0.0
    for micro in range(job.micro_batches):
        loss = job.loss(step, micro) / job.micro_batches
        loss.backward()
        total += loss.item()
    return total


def _average(job: Job) -> AveragedModel | None:
    if job.ema_decay is None:
        return None
    return AveragedModel(job.model, multi_avg_fn=get_ema_multi_avg_fn(job.ema_decay))


def _row(job: Job, step: int, learning_rate: float, seconds: float) -> dict[str, Any]:
    return {
        "phase": job.name,
        "step": step,
        "loss": math.fsum(job.losses) / len(job.losses),
        "learning_rate": learning_rate,
        "seconds": round(seconds, 3),
    }


def _diverged(job: Job, step: int, loss: float) -> str:
    kept = ""
    if job.state and job.state.is_file():
        kept = f"; the last state before it is kept in {job.state}"
    return (
        f"{job.name}: the loss is {loss} at update {step}{kept}. Lower the learning rate or "
        "max_grad_norm in the profile, then run the same command again."
    )


def _save(
    job: Job, step: int, optimiser: Any, schedule: Any, average: AveragedModel | None
) -> None:
    if job.state is None:
        return
    state = {
        "identity": job.identity,
        "step": step,
        "model": job.model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "log": job.log,
        "losses": job.losses,
    }
    job.state.parent.mkdir(parents=True, exist_ok=True)
    partial = job.state.with_suffix(".partial")
    try:
        torch.save(state, partial)
        os.replace(partial, job.state)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise RunError(f"{job.state}: the training state cannot be written: {error}") from None


def _resume(job: Job, optimiser: Any, schedule: Any, average: AveragedModel | None) -> int:
    """Load the resumable state; a state of another identity, or a damaged one, starts afresh."""
    if job.state is None or not job.state.is_file():
        return 0
    try:
        state = torch.load(job.state, weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - a damaged file raises what it likes
        tqdm.write(f"{job.state}: damaged, starting afresh ({type(error).__name__}: {error})")
        return 0
    if state["identity"] != job.identity:
        tqdm.write(f"{job.state}: belongs to other settings, starting afresh")
        return 0
    job.model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    if average is not None:
        average.load_state_dict(state["average"])
    job.log[:] = state["log"]
    job.losses[:] = state["losses"]
    return int(state["step"])


def write_log(log: list[dict[str, Any]], file: Path) -> None:
    """Write ``training.csv``: phase, step, loss (mean since the row before), rate, seconds."""
    pd.DataFrame(log).to_csv(file, index=False, lineterminator="\n")
