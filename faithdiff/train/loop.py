"""The one training loop of the study: prior, stages, variants and trained baselines use it.

Each update draws its batch, noise and timesteps from generators keyed by the update's number, so
the position in the data is that number, and a resumed run equals an uninterrupted one, bit for
bit on CPU.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from faithdiff.config import Optimiser, Precision
from faithdiff.errors import ConfigError, Paused, RunError
from faithdiff.study.progress import ProgressBar
from faithdiff.train import pause, sharding
from faithdiff.train.engine import Engine, Trained
from faithdiff.train.log import LogRow
from faithdiff.train.processes import ALONE, Processes
from faithdiff.train.state import Contents, State


@dataclass
class Job:
    """One optimisation.

    Attributes:
        name: Shown in the progress bar and written as `phase` into ``training.csv``.
        model: Holds every trained module; saved whole in resumable states. Where it is sharded,
            another one takes its place at the end, whole and on the CPU.
        groups: What is trained, and at which learning rate.
        loss: Maps the number of the update to the loss whose gradient is taken.
        steps: Number of updates.
        micro_batches: Forward passes per update; `loss` is called as ``loss(step, micro)``.
        images: Images that an update sees, for the rate at the end.
        ema_decay: Decay of the averaged weights per update; None keeps none.
        precision: Of the passes; weights, their sums and the loss stay float32.
        processes: Those that share the micro-batches; each runs this same job.
        shard_optimiser: Each of them keeps the optimiser's moments of a share of the parameters.
        sharded: Names of the modules in `model` whose weights several processes keep in shards;
            `loss` calls each by itself. Empty: each process keeps all weights.
        state: Where the resumable state is kept; None keeps none.
        identity: What the job is made from: a state of another identity is not resumed.
        validate: Called every `validation_every` updates with the number of updates done, the
            averaged model, if there is one, and a folder for pictures.
    """

    name: str
    model: nn.Module
    groups: list[Trained]
    loss: Callable[[int, int], Tensor]
    steps: int
    optimiser: Optimiser
    micro_batches: int = 1
    images: int = 0
    ema_decay: float | None = None
    precision: Precision = "fp32"
    processes: Processes = ALONE
    shard_optimiser: bool = False
    sharded: tuple[str, ...] = ()
    state: Path | None = None
    identity: str = ""
    log_every: int = 10
    checkpoint_every: int = 50
    validate: Callable[[int, nn.Module | None, Path], None] | None = None
    validation_every: int = 0
    log: list[LogRow] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # since the last row of the log


def train(job: Job) -> nn.Module | None:
    """Run a job to its end, resuming its state where one of the same identity lies.

    Returns:
        The averaged model, or None if the job keeps none. ``job.model`` holds the raw weights and
        ``job.log`` the rows of ``training.csv``.

    Raises:
        RunError: The loss is not finite; the last resumable state is kept.
        Paused: It had to stop early; its state is saved.
    """
    # Every process built the model from the same seed; on unlike machines that is no guarantee of
    # the same bits, and processes that differ by one drift apart.
    job.processes.share(job.model)
    average = _average(job)
    frame = _shard(job, average)
    engine = _engine(job, sharded=frame is not None)
    contents = Contents(job.model, average, engine, job.log, job.losses)
    state = State(job.state, job.identity, contents, job.processes)
    first = state.resume()
    clock = _Clock(job)
    bar = ProgressBar(
        range(first, job.steps), job.name, job.steps, initial=first, mininterval=2, unit="step",
        disable=not job.processes.first,
    )  # fmt: skip
    for step in bar:
        clock.begin()
        loss, stop = _accumulate(job, engine, step, clock.reserve(state))
        # Before the step: after it the weights are NaN, and the state would be saved over a good
        # one. Users of the released code meet this in stage 1 under fp16 (its issue 34).
        if not math.isfinite(loss):
            raise RunError(_diverged(job, step, f"the loss is {loss}"))
        learning_rate = engine.update(rate(step, job))
        if engine.overflowed:
            raise RunError(_diverged(job, step, "fp16 gradients overflow at any loss scale"))
        if average is not None:
            average.update_parameters(job.model)
        # A row of the log averages them: timesteps are drawn at random, so the loss of one update
        # says more about its timesteps than about the model.
        job.losses.append(loss)
        done = step + 1
        if done % job.log_every == 0 or done == job.steps:
            job.log.append(_row(job, step, learning_rate, clock.seconds()))
            bar.set_postfix(loss=f"{job.log[-1]['loss']:.4f}")
            job.losses.clear()
            state.show_log()
        # Within the clock: a time limit must leave room for an update that draws pictures, too.
        _validate(job, done, average)
        clock.end()
        # The last state too: what follows may be stopped before it has used these weights.
        if done % job.checkpoint_every == 0 or done == job.steps or stop:
            state.save(done)
        if stop and done < job.steps and job.state is not None:
            raise Paused(_paused(job, done, stop), job.state)
    clock.summary(first)
    if frame is not None:
        return _gather(job, average, frame)
    return average.module if average is not None else None


def rate(step: int, job: Job) -> float:
    """Share of the learning rate at an update: linear warm-up, hold, then cosine to zero."""
    # Never exactly 0: an update that changes nothing would only age AdamW's moments.
    if step < job.optimiser.warmup:
        return (step + 1) / (job.optimiser.warmup + 1)
    # The paper's schedule is warm-up and cosine (hold 0). In a few hundred updates the cosine would
    # lower the rate while most is still to be learned, hence `hold`.
    start = max(job.optimiser.warmup, round(job.optimiser.hold * job.steps))
    if step < start:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(job.steps - start, 1)))


def _accumulate(job: Job, engine: Engine, step: int, reserve: float) -> tuple[float, str | None]:
    """Gradients of one update; its mean loss, and why to stop after it.

    All processes must decide alike, so what one of them has to say travels with the loss.
    """
    total = 0.0
    for micro in job.processes.mine(job.micro_batches):
        # Divided before the backward pass, so that the sum of gradients is that of the mean loss:
        # the learning rate means the same at any split of the batch. Forward alone under autocast,
        # as torch asks; the backward pass runs in the types that the forward pass chose.
        with engine.autocast():
            loss = job.loss(step, micro) / job.micro_batches
        engine.backward(loss)
        total += loss.item()
    why = pause.reason(reserve) if job.state is not None else None
    total, asked = job.processes.add([total, float(why is not None)], engine.device)
    return total, (why or "asked by another process") if asked else None


def _average(job: Job) -> AveragedModel | None:
    if job.ema_decay is None:
        return None
    # After every update. The released code averages at each 100th with a decay that warms up: more
    # than half of its average is then still the model before training, even after 40,000 updates.
    return AveragedModel(job.model, multi_avg_fn=get_ema_multi_avg_fn(job.ema_decay))


def _engine(job: Job, sharded: bool) -> Engine:
    return Engine(
        job.model,
        job.groups,
        job.optimiser,
        job.precision,
        job.processes,
        job.shard_optimiser,
        sharded,
    )


def _shard(job: Job, average: AveragedModel | None) -> nn.Module | None:
    """Shard the model and its average where that is asked for; returns the model's skeleton."""
    processes = job.processes
    if not job.sharded or processes.count == 1:
        return None
    if job.micro_batches % processes.count:
        raise ConfigError(
            f"{job.name}: {processes.count} processes do not divide the {job.micro_batches} "
            "micro-batches of an update, and with training.shard_model all compute each pass "
            "together; start as many processes as divide batch_size / micro_batch"
        )
    frame = sharding.skeleton(job.model)
    names: dict[Tensor, str] = {p: name for name, p in job.model.named_parameters()}
    device = next(job.model.parameters()).device
    for model in [job.model] if average is None else [job.model, average.module]:
        sharding.shard([model.get_submodule(name) for name in job.sharded], processes, device)
    job.groups = sharding.regroup(job.groups, names, job.model)
    return frame


def _gather(job: Job, average: AveragedModel | None, frame: nn.Module) -> nn.Module | None:
    """Make the model of a job whole again; returns its averaged one, which is whole, too."""
    averaged = None
    if average is not None:
        averaged = sharding.whole(copy.deepcopy(frame), average.module)
    job.model = sharding.whole(frame, job.model)
    return averaged


def _validate(job: Job, done: int, average: AveragedModel | None) -> None:
    """Let the first process draw pictures; the others wait."""
    if job.validate is None or job.state is None or done % job.validation_every:
        return
    if job.processes.first:
        averaged = average.module if average is not None else None
        job.validate(done, averaged, job.state.parent / "validation")
    job.processes.wait()


class _Clock:
    """Seconds of a job over all its calls, and what the next update will take."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._begun = self._lap = time.perf_counter()
        # Of the log, which the state resumes: the costs of a method do not depend on pauses.
        self._before = job.log[-1]["seconds"] if job.log else 0.0
        self._slowest = 0.0

    def seconds(self) -> float:
        """Since the first update of the job, time between its calls left out."""
        return time.perf_counter() - self._begun + self._before

    def begin(self) -> None:
        """An update begins."""
        self._lap = time.perf_counter()

    def end(self) -> None:
        """It ended; saving the state is counted apart."""
        self._slowest = max(self._slowest, time.perf_counter() - self._lap)

    def reserve(self, state: State) -> float:
        """Seconds to keep free before a limit: for this update's successor and for saving."""
        # Twice the slowest so far: a queue kills without asking, and an update that is lost costs
        # more than one that was not begun.
        return 2 * self._slowest + state.seconds

    def summary(self, first: int) -> None:
        """Say how fast it was."""
        job, seconds = self._job, time.perf_counter() - self._begun
        if not job.processes.first or job.steps == first:
            return
        line = f"{job.name}: {job.steps - first} updates in {seconds:.0f} s"
        if job.images:
            line += f", {(job.steps - first) * job.images / seconds:.3g} images/s"
        if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
            line += f", at most {peak / 2**30:.1f} GiB on the GPU"
        ProgressBar.write(line)


def _row(job: Job, step: int, learning_rate: float, seconds: float) -> LogRow:
    return {
        "phase": job.name,
        "step": step,
        "loss": math.fsum(job.losses) / len(job.losses),
        "learning_rate": learning_rate,
        "seconds": round(seconds, 3),
    }


def _paused(job: Job, done: int, why: str) -> str:
    return (
        f"{job.name}: paused after update {done} of {job.steps} ({why}); "
        "the same command goes on from there"
    )


def _diverged(job: Job, step: int, what: str) -> str:
    kept = ""
    if job.state and job.state.is_file():
        kept = f"; the last state before it is kept in {job.state}"
    cure = "Lower the learning rate or max_grad_norm in the profile"
    if job.precision == "fp16":
        cure = "Set training.precision to bf16 in the profile (fp16 overflows, upstream too)"
    return f"{job.name}: {what} at update {step}{kept}. {cure}, then run the same command again."
