"""Trains FaithDiff and its variants: stage 1 (alignment alone), then stage 2.

Paper §3.3: stage 1 pre-trains the alignment on a frozen encoder and a frozen diffusion model;
stage 2 fine-tunes LQ encoder, alignment and diffusion model together. A variant changes one
thing: what stage 2 trains, which features enter, how they are aligned, or whether stage 1 ran.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faithdiff import seeds
from faithdiff.config import Group, Phase, Profile, Stage1, Variant, digest
from faithdiff.errors import CheckpointError, RunError
from faithdiff.methods import Denoiser, Method, Restorer, Study
from faithdiff.models.alignment import Alignment, Standardise
from faithdiff.models.faithdiff import FaithDiff, build, load
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.official import import_official
from faithdiff.models.prior import load_prior
from faithdiff.models.weights import load_part
from faithdiff.provenance import folder_digest
from faithdiff.train.cache import Cache
from faithdiff.train.cost import Cost, measure
from faithdiff.train.loop import Job, train, write_log
from faithdiff.train.objective import prediction_target

GROUPS: tuple[Group, ...] = ("lq_encoder", "alignment", "unet")


class VariantMethod(Method):
    """One entry of `variants` in the profile."""

    trained = True
    denoises = True

    def __init__(self, profile: Profile, name: str) -> None:
        self._profile = profile
        self._name = name
        self._variant: Variant = profile.variants[name]

    def train(self, study: Study, seed: int, folder: Path, state: Path) -> Cost:
        if self._variant.weights is not None:
            return measure({}, _networks(_import(study, self._variant.weights, folder), study), [])
        model, cache, log = _start(study, self._variant.recipe, seed)
        if self._variant.pretrain:
            _load_stage1(study, self._variant.recipe, seed, model)
        for number, phase in enumerate(self._variant.phases, 1):
            log += _phase(study, model, cache, phase, seed, state / f"phase{number}.pt", self._name)
        model.save(folder)
        write_log(log, folder / "training.csv")
        groups = [group for phase in self._variant.phases for group in phase.train]
        return measure({g: model.group(g) for g in groups}, _networks(model, study), log)

    def load(self, study: Study, folder: Path) -> Restorer:
        from faithdiff.restore.restorer import DTYPES, FaithDiffRestorer

        device = self._profile.device
        dtype = DTYPES[self._profile.restore.precision]
        model = load(folder, dtype).to(device)
        prior = load_prior(study.prior_folder, dtype, model.unet).to(device)
        return FaithDiffRestorer(model, prior, self._profile.restore, self._profile.data.scale)

    def denoiser(self, study: Study, folder: Path) -> Denoiser:
        model = load(folder).to(self._profile.device)
        return Denoiser(model.lq_encoder, model)

    def settings(self, study: Study) -> dict[str, Any]:
        return {
            "restore": self._profile.restore.model_dump(
                mode="json", exclude={"batch_size", "tile_batch"}
            ),
            "prior": folder_digest(study.prior_folder),
        }


def pretrain(study: Study, recipe: str, seed: int, folder: Path, state: Path) -> Cost:
    """Stage 1: train the alignment of a recipe alone; write ``alignment/`` and ``training.csv``."""
    model, cache, _ = _start(study, recipe, seed)
    config = study.profile.training
    job = _job(study, model, cache, ("alignment",), seed, f"stage 1 {recipe}")
    job.groups[0]["lr"] = config.stage1_learning_rate
    job.steps, job.state = config.stage1_steps, state / "stage1.pt"
    _run(job, model, ("alignment",), config.weights)
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


def _start(study: Study, recipe: str, seed: int) -> tuple[FaithDiff, Cache, list[dict[str, Any]]]:
    """The untrained model of a recipe, equal for every variant that names it, and its data."""
    profile = study.profile
    torch.set_num_threads(1)
    device = profile.device
    prior = load_prior(study.prior_folder).to(device)
    stage: Stage1 = profile.recipes[recipe]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed(profile.seed, "alignment", "init", recipe, seed))
        model = build(prior, stage, profile.alignment).to(device)
    cache = Cache(study.layout.train_cache, prior, profile.data.scale, profile.training)
    norm = model.alignment.condition.norm_in
    if isinstance(norm, Standardise):
        with torch.no_grad():
            norm.fit(model.lq_encoder(cache.lq_sample(16).to(device)))
    return model, cache, []


def _load_stage1(study: Study, recipe: str, seed: int, model: FaithDiff) -> None:
    folder = study.layout.stage1(recipe, seed) / "alignment"
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is missing; make it with: "
            f"faithdiff pretrain --config {study.file} --recipe {recipe} --seed {seed}"
        )
    pretrained = load_part(Alignment, folder)
    try:
        model.alignment.load_state_dict(pretrained.state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: is not the alignment of recipe {recipe}: {error}"
        ) from None


def _phase(
    study: Study, model: FaithDiff, cache: Cache, phase: Phase, seed: int, state: Path, name: str
) -> list[dict[str, Any]]:
    """One optimisation of stage 2; returns its log."""
    groups = tuple(phase.train)
    title = f"{name} {'+'.join(groups)}"
    job = _job(study, model, cache, groups, seed, title)
    job.steps, job.state = study.profile.training.stage2_steps, state
    if phase.objective == "feature-matching":
        job.loss = _feature_matching(study, model, cache, seed)
    _run(job, model, groups, study.profile.training.weights)
    return job.log


def _job(
    study: Study, model: FaithDiff, cache: Cache, groups: tuple[Group, ...], seed: int, name: str
) -> Job:
    config = study.profile.training
    rates = config.learning_rates.model_dump()

    def loss(step: int, micro: int) -> Tensor:
        batch = cache.batch(seed, step, micro, master=study.profile.seed)
        return denoising_loss(model, cache, batch, config.loss)

    return Job(
        name=name,
        model=model,
        groups=[{"params": list(model.group(g).parameters()), "lr": rates[g]} for g in groups],
        loss=loss,
        steps=0,
        optimiser=config.optimiser,
        micro_batches=config.batch_size // config.micro_batch,
        ema_decay=config.ema_decay,
        identity=digest(
            config, study.profile.prior, study.profile.alignment, name, seed, _hash(model)
        ),
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )


def denoising_loss(model: FaithDiff, cache: Cache, batch: Any, kind: str) -> Tensor:
    """Mean distance between prediction and target, in float32 (paper: L1 on the noise)."""
    noisy = cache.scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    features = model.lq_encoder(batch.lq)
    prediction = model(noisy, batch.timesteps, features, batch.prompt, batch.time_ids)
    target = prediction_target(cache.scheduler, batch.latents, batch.noise, batch.timesteps)
    distance = F.l1_loss if kind == "l1" else F.mse_loss
    return distance(prediction.float(), target.float())


def _feature_matching(study: Study, model: FaithDiff, cache: Cache, seed: int) -> Any:
    """Loss of `separate`: the LQ encoder learns to give the features of the HQ image."""
    teacher = LQEncoder.from_vae(cache.prior.vae, model.lq_encoder.config.features)
    teacher.requires_grad_(False).to(study.profile.device)

    def loss(step: int, micro: int) -> Tensor:
        batch = cache.batch(seed, step, micro, master=study.profile.seed)
        target = teacher(batch.hq)
        return F.mse_loss(model.lq_encoder(batch.lq), target) / target.var()

    return loss


def _run(job: Job, model: FaithDiff, groups: tuple[Group, ...], weights: str) -> None:
    """Train the named groups only, and prove that the others did not change by one bit."""
    frozen = [name for name in GROUPS if name not in groups]
    for name in GROUPS:
        model.group(name).requires_grad_(name in groups)
    _announce(job, model, groups)
    before = {name: _hash(model.group(name)) for name in frozen}
    model.train()  # `attention: released` mixes the images of a micro-batch in this mode only
    averaged = train(job)
    if weights == "ema":
        assert isinstance(averaged, FaithDiff)
        for name in groups:  # only these: averaging turns a frozen -0.0 into 0.0
            model.group(name).load_state_dict(averaged.group(name).state_dict())
    for name in frozen:
        if _hash(model.group(name)) != before[name]:
            raise RunError(f"{job.name}: the frozen group {name} changed during training")


def _announce(job: Job, model: FaithDiff, groups: tuple[Group, ...]) -> None:
    print(f"{job.name}: {job.steps} updates")
    for name in GROUPS:
        count = sum(p.numel() for p in model.group(name).parameters())
        role = "trained" if name in groups else "frozen"
        print(f"  {name:<11} {count / 1e6:8.3f} M parameters  {role}")


def _hash(module: nn.Module) -> str:
    """Digest of all parameters and buffers."""
    sha = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
