"""Trains FaithDiff and its variants: stage 1 (alignment alone), then stage 2.

Paper §3.3: stage 1 pre-trains the alignment on a frozen encoder and a frozen diffusion model;
stage 2 fine-tunes LQ encoder, alignment and diffusion model together. A variant changes one
thing: what stage 2 trains, which features enter, how they are aligned, or whether stage 1 ran.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faithdiff.config import Group, Phase, Profile, Stage1, Training, Variant, digest
from faithdiff.errors import CheckpointError, RunError
from faithdiff.methods.method import Denoiser, Method, Restorer, Study
from faithdiff.models.alignment import Alignment, Standardise
from faithdiff.models.faithdiff import FaithDiff, build, load
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.objective import distance, prediction_target
from faithdiff.models.official import import_official
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.repeatable import (
    allow_tf32,
    channels_first,
    channels_last,
    compute_repeatably,
)
from faithdiff.models.weights import DTYPES, load_part, module_digest
from faithdiff.study import seeds
from faithdiff.study.checkpoints import check_checkpoint
from faithdiff.study.plain import Json
from faithdiff.study.provenance import folder_digest
from faithdiff.study.records import Cost
from faithdiff.train.cache import Batch, Cache
from faithdiff.train.engine import Trained
from faithdiff.train.log import LogRow, write_log
from faithdiff.train.loop import Job, train
from faithdiff.train.prefetch import Prefetcher
from faithdiff.train.processes import Processes, join
from faithdiff.train.spent import measure, parameters
from faithdiff.train.validation import check_sources, draw_grid, evaluating

PLAIN = {"vae_tile": 0, "compile": False, "channels_last": False}
GROUPS: tuple[Group, ...] = ("lq_encoder", "alignment", "unet")


class VariantMethod(Method):
    """One entry of `variants` in the profile."""

    trained = True
    denoises = True
    offloads = True

    def __init__(self, profile: Profile, name: str) -> None:
        self._profile = profile
        self._name = name
        self._variant: Variant = profile.variants[name]

    def train(self, study: Study, seed: int, folder: Path, state: Path) -> Cost:
        if self._variant.weights is not None:
            return measure({}, _networks(_import(study, self._variant.weights, folder), study), [])
        matched = any(phase.objective == "feature-matching" for phase in self._variant.phases)
        training = _start(study, self._variant.recipe, seed, hq=matched)
        if self._variant.pretrain:
            _load_stage1(training, self._variant.recipe)
        log: list[LogRow] = []
        # Each stage and phase goes on in the data where the last one ended: variants of one budget
        # see the same batches in the same order, whatever their stages are.
        seen = study.profile.training.stage1_steps if self._variant.pretrain else 0
        updates = self._profile.phase_updates(self._name)
        for number, phase in enumerate(self._variant.phases):
            job = _phase(training, phase, updates[number], seen, self._name, self._variant.rates)
            job.state = state / f"phase{number + 1}.pt"
            model = _run(job, training, tuple(phase.train))
            training = replace(training, model=model)
            log += job.log
            seen += updates[number]
        # The raw or averaged weights, by `training.weights`. The released model is the raw ones.
        if training.processes.first:
            training.model.save(folder)
            write_log(log, folder / "training.csv")
        groups = [group for phase in self._variant.phases for group in phase.train]
        parts: dict[str, nn.Module] = {group: training.model.group(group) for group in groups}
        return measure(parts, _networks(training.model, study), log)

    def load(self, study: Study, folder: Path) -> Restorer:
        return load_restorer(study.profile, study.prior_folder, folder)

    def denoiser(self, study: Study, folder: Path) -> Denoiser:
        model = load(folder, DTYPES[self._profile.restore.precision]).to(self._profile.device)
        return Denoiser(model.see, model.predict, unet=model.unet, sees_pairs_once=True)

    def settings(self, study: Study) -> dict[str, Json]:
        return {
            "restore": self._profile.restore.decisive(),
            "prior": folder_digest(study.prior_folder),
        }


def load_restorer(profile: Profile, prior_folder: Path, folder: Path) -> Restorer:
    """Load a checkpoint, to restore as ``profile.restore`` says."""
    dtype = DTYPES[profile.restore.precision]
    model = load(folder, dtype).to(profile.device)
    prior = load_prior(prior_folder, dtype, model.unet).to(profile.device)
    return _restorer(profile, model, prior)


def _restorer(profile: Profile, model: FaithDiff, prior: Prior) -> Restorer:
    from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer

    return FaithDiffRestorer(model, prior, profile.restore, profile.data.scale)


@dataclass(frozen=True)
class _Training:
    """What the stages of one repetition share: the model, its data, and who computes."""

    study: Study
    seed: int
    model: FaithDiff
    cache: Cache
    processes: Processes
    device: torch.device
    batch: Callable[[int, int], Batch]  # of an update and micro-batch

    @property
    def config(self) -> Training:
        return self.study.profile.training


def pretrain(study: Study, recipe: str, seed: int, folder: Path, state: Path) -> Cost:
    """Stage 1: train the alignment of a recipe alone; write ``alignment/`` and ``training.csv``."""
    training = _start(study, recipe, seed)
    updates = training.config.stage1_steps
    # The released stage 1 gives the optimiser the same three modules (10.6 M parameters at SDXL's
    # size) and leaves the encoder and the UNet as they are: the alignment first learns to pass on
    # what a frozen encoder says, so that stage 2 does not begin by tearing up the prior.
    job = _job(training, ("alignment",), f"stage 1 {recipe}", updates)
    job.groups = [Trained.whole(training.model.alignment, training.config.stage1_learning_rate)]
    job.state = state / "stage1.pt"
    model = _run(job, training, ("alignment",))
    if training.processes.first:
        model.alignment.save_pretrained(folder / "alignment")
        write_log(job.log, folder / "training.csv")
    return measure({"alignment": model.alignment}, _networks(model, study), job.log)


def _import(study: Study, weights: Path, folder: Path) -> FaithDiff:
    """Take published weights in place of training."""
    if not weights.is_file():
        raise CheckpointError(
            f"{weights}: is missing; get it with: faithdiff fetch --profile {study.profile.profile}"
        )
    model = import_official(
        weights, study.prior_folder / "unet" / "config.json", study.profile.alignment.heads
    )
    model.save(folder)
    return model


def _networks(model: FaithDiff, study: Study) -> list[nn.Module]:
    """All networks that restoring needs."""
    prior = load_prior(study.prior_folder, unet=model.unet)
    return [model, prior.vae, *prior.text_encoders]


def _start(study: Study, recipe: str, seed: int, hq: bool = False) -> _Training:
    """The untrained model of a recipe, equal for every variant that names it, and its data.

    Args:
        hq: Whether anything learns from HQ pixels, beside their latents.
    """
    profile = study.profile
    compute_repeatably(profile)
    allow_tf32(profile)
    processes, device = join(profile.device)
    # The VAE and the text encoders stay on the CPU: their outputs are in the cache.
    prior = load_prior(study.prior_folder)
    # Keyed by recipe and repetition, not by the variant: variants that share a recipe share its
    # stage 1, and start stage 2 from the same weights. Forked, as the networks draw from the global
    # generator.
    stage: Stage1 = profile.recipes[recipe]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed(profile.seed, "alignment", "init", recipe, seed))
        model = build(prior, stage, profile.alignment).to(device)
    if profile.training.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
        model.lq_encoder.enable_gradient_checkpointing()
    cache = Cache(study.layout.train_cache, prior, profile.data.scale, profile.training, hq)
    # Before anything is trained, and from the first images: the same in every process and
    # repetition.
    norm = model.alignment.condition.norm_in
    if isinstance(norm, Standardise):
        with torch.no_grad():
            norm.fit(model.lq_encoder(cache.lq_sample(16).to(device)))
    batch = _batches(cache, profile, seed, processes, device)
    return _Training(study, seed, model, cache, processes, device, batch)


def _batches(
    cache: Cache, profile: Profile, seed: int, processes: Processes, device: torch.device
) -> Callable[[int, int], Batch]:
    """What draws the batch of an update and micro-batch: in the loop, or ahead of it."""
    config = profile.training
    if config.prefetch == 0:
        return lambda step, micro: cache.batch(seed, step, micro, master=profile.seed)

    def draw(step: int, micro: int) -> Batch:
        return cache.draw(seed, step, micro, master=profile.seed)

    return Prefetcher(draw, config.micro_batches, processes, config.prefetch, device)


def _load_stage1(training: _Training, recipe: str) -> None:
    study, seed = training.study, training.seed
    folder = study.layout.stage1(recipe, seed) / "alignment"
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is missing; make it with: "
            f"faithdiff pretrain --config {study.file} --recipe {recipe} --seed {seed}"
        )
    check_checkpoint(folder.parent)
    pretrained = load_part(Alignment, folder)
    try:
        training.model.alignment.load_state_dict(pretrained.state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: is not the alignment of recipe {recipe}: {error}"
        ) from None


def _phase(
    training: _Training, phase: Phase, updates: int, seen: int, name: str, rates: float
) -> Job:
    """One optimisation of stage 2, whose data begin after the updates that were `seen`."""
    groups = tuple(phase.train)
    job = _job(training, groups, f"{name} {'+'.join(groups)}", updates, seen, rates)
    if phase.objective == "feature-matching":
        job.loss = _feature_matching(training, seen)
    return job


def _job(
    training: _Training,
    groups: tuple[Group, ...],
    name: str,
    updates: int,
    seen: int = 0,
    factor: float = 1.0,
) -> Job:
    config, cache = training.config, training.cache
    model = training.model.to(training.device)  # where a sharded phase has left it on the CPU
    profile = training.study.profile
    rates = config.learning_rates.model_dump()

    # `seen`: stage 2 goes on in the data where stage 1 ended, and never trains on its batches
    # again.
    def loss(step: int, micro: int) -> Tensor:
        return denoising_loss(model, cache, training.batch(seen + step, micro), config.loss)

    return Job(
        name=name,
        model=model,
        # One rate for each group: the published ones are 5e-6 for the encoder, which is good
        # already, and 5e-5 for all else.
        groups=[Trained.whole(model.group(group), factor * rates[group]) for group in groups],
        loss=loss,
        steps=updates,
        optimiser=config.optimiser,
        micro_batches=config.micro_batches,
        images=config.batch_size,
        # Averaged weights that are not the model would only fill memory.
        ema_decay=config.ema_decay if config.weights == "ema" else None,
        precision=config.precision,
        processes=training.processes,
        shard_optimiser=config.shard_optimiser,
        # Not the model itself: it is called whole, but its encoder is also called before it.
        sharded=GROUPS if config.shard_model else (),
        # All that decides the weights, and nothing else: a state survives another number of
        # processes, and never another setting. The weights at the start stand for stage 1 and for
        # the prior.
        identity=digest(
            config.decisive(),
            profile.prior,
            profile.alignment,
            name,
            updates,
            seen,
            factor,
            training.seed,
            module_digest(model),
        ),
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        validate=_validation(training, name) if config.validation_every else None,
        validation_every=config.validation_every,
    )


def _validation(training: _Training, name: str) -> Callable[[int, nn.Module | None, Path], None]:
    """What draws the grid of an update: of the averaged weights, where they are kept."""
    study, prior = training.study, training.cache.prior
    check_sources(study)

    def validate(update: int, averaged: nn.Module | None, folder: Path) -> None:
        model = averaged or training.model
        assert isinstance(model, FaithDiff)
        # Only while a grid is drawn: at SDXL's size VAE and text encoders take 4 GB that training
        # needs.
        device = model.unet.device
        resident = [prior.vae, *prior.text_encoders]  # otherwise on the CPU
        for module in resident:
            module.to(device)
        file = folder / f"{name.replace(' ', '-')}-{update:06d}.png"
        # These would stay with the model that goes on to be trained.
        plain = study.profile.restore.model_copy(update=PLAIN)
        profile = study.profile.model_copy(update={"restore": plain})
        restorer = _restorer(profile, model, prior)
        evaluating(model, lambda: draw_grid(study, restorer, update, file))
        for module in resident:
            module.to("cpu")

    return validate


def denoising_loss(
    model: FaithDiff, cache: Cache, batch: Batch, kind: Literal["l1", "mse"]
) -> Tensor:
    """Mean distance between prediction and target."""
    noisy = cache.scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    features = model.lq_encoder(batch.lq)
    prediction = model(noisy, batch.timesteps, features, batch.prompt, batch.time_ids)
    target = prediction_target(cache.scheduler, batch.latents, batch.noise, batch.timesteps)
    return distance(prediction, target, kind)


def _feature_matching(training: _Training, seen: int) -> Callable[[int, int], Tensor]:
    """Loss of `separate`: the LQ encoder learns to give the features of the HQ image."""
    model, cache = training.model, training.cache
    # The encoder as it was at first. Looking at the HQ image it gives what an encoder that ignores
    # the degradation would give: a target that needs no diffusion model, hence "separate".
    teacher = LQEncoder.from_vae(cache.prior.vae, model.lq_encoder.config.features)
    teacher.requires_grad_(False).to(model.lq_encoder.device)

    def loss(step: int, micro: int) -> Tensor:
        batch = training.batch(seen + step, micro)
        target = teacher(batch.hq).float()
        # A share of the features' variance: the learning rate then means the same for any VAE.
        return F.mse_loss(model.lq_encoder(batch.lq).float(), target) / target.var()

    return loss


def _run(job: Job, training: _Training, groups: tuple[Group, ...]) -> FaithDiff:
    """Train the named groups only, and prove that the others did not change by one bit.

    Returns:
        The trained model; another one than before where it was trained in shards.
    """
    model = training.model
    frozen = [name for name in GROUPS if name not in groups]
    for name in GROUPS:
        model.group(name).requires_grad_(name in groups)
    if job.processes.first:
        _announce(job, model, groups)
    # Not only by requires_grad: buffers, a shared tensor or averaged weights could change what a
    # table calls frozen, and the claim of the ablation hangs on it.
    before = {name: module_digest(model.group(name)) for name in frozen}
    model.train()  # `attention: released` mixes the images of a micro-batch in this mode only
    if training.config.channels_last:
        channels_last(model)
    averaged, trained = train(job), job.model
    assert isinstance(trained, FaithDiff)
    channels_first(trained)
    if training.config.weights == "ema":
        assert isinstance(averaged, FaithDiff)
        for name in groups:  # only these: averaging turns a frozen -0.0 into 0.0
            trained.group(name).load_state_dict(averaged.group(name).state_dict())
    for name in frozen:
        if module_digest(trained.group(name)) != before[name]:
            raise RunError(f"{job.name}: the frozen group {name} changed during training")
    return trained


def _announce(job: Job, model: FaithDiff, groups: tuple[Group, ...]) -> None:
    print(f"{job.name}: {job.steps} updates")
    for name in GROUPS:
        count = parameters(model.group(name))
        role = "trained" if name in groups else "frozen"
        print(f"  {name:<11} {count / 1e6:8.3f} M parameters  {role}")
