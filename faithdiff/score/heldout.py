"""The held-out denoising loss: how well a method denoises test images that it never saw.

The noise is fixed per image and timestep, the same for every method on the study's prior, so
differences between them show long before sampled images separate them. The loss is taken at the
timesteps that the common sampler visits: what a method does at others never enters an image. The
loss at single timesteps, further ones included, is kept for the curve over t.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from faithdiff.config import Restore, digest
from faithdiff.data.images import read_image, sha256_file
from faithdiff.data.recorded import check_hq, check_lq, hq_hashes, lq_hashes, pictures
from faithdiff.methods.method import Denoiser, Method, Study
from faithdiff.models.objective import distance, prediction_target, time_ids
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.repeatable import compute_repeatably
from faithdiff.restore.arrays import to_tensor
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.run import captions_of
from faithdiff.restore.schedule import make_scheduler, visited
from faithdiff.score.rows import ScoreRow, write_rows
from faithdiff.study import seeds
from faithdiff.study.checkpoints import check_checkpoint
from faithdiff.study.progress import ProgressBar

# Rows like those of any metric, so that tables, statistics and claims need no second path.
METRIC, PROTOCOL = "heldout_loss", "heldout"


def at(timestep: int) -> str:
    """The metric's name at a single timestep."""
    return f"{METRIC}@{timestep}"


def visited_timesteps(restore: Restore, prior: Prior) -> list[int]:
    """Timesteps of the common sampler, ascending."""
    highest = restore.start_timestep if restore.start_point == "lq" else None
    found = visited(make_scheduler(restore, prior.scheduler), restore.steps, highest)
    return sorted({round(float(timestep)) for timestep in found})


def heldout_job(study: Study, method: Method, name: str, seed: int) -> None:
    """Write ``heldout.csv`` of one (method, seed): rows in the columns of ``scores.csv``."""
    compute_repeatably(study.profile)
    device = study.profile.device
    check_checkpoint(study.layout.checkpoint(name, seed))
    model = method.denoiser(study, study.layout.checkpoint(name, seed))
    dtype = torch.float32 if model.unet is None else model.unet.dtype
    prior = load_prior(study.prior_folder, dtype, model.unet).to(device)
    config = study.profile.training.heldout
    sampled = visited_timesteps(study.profile.restore, prior)
    # Together, so that each image is encoded once for all of them.
    timesteps = sorted({*sampled, *config.curve})
    kind = prior.scheduler.config.prediction_type
    # What changes the numbers without a change of code: a comparison of two commits refuses to
    # compare losses whose digests differ. float32 is not named: digests of earlier results hold.
    rounded = [] if dtype == torch.float32 else [str(dtype)]
    protocol = digest(sampled, config, study.profile.training.loss, kind, *rounded)
    rows = []
    places = [(d, lv) for d in study.profile.data.with_hq for lv in study.profile.data.levels]
    for dataset, level in ProgressBar(places, f"held-out {name}", unit="set"):
        # The first images of the index for every method: another subset would be another test set.
        captions = list(captions_of(study, dataset, level).items())[: config.images]
        hq_recorded = hq_hashes(study.layout.dataset(dataset))
        lq_recorded = lq_hashes(study.layout.lq(dataset, level))
        known = pictures(study.layout.dataset(dataset))
        at_scale = study.at_scale(study.profile.data.scale_of(dataset))
        for image, caption in captions:
            hq = study.layout.dataset(dataset) / "hq" / f"{image}.png"
            lq = study.layout.lq(dataset, level) / f"{image}.png"
            check_hq(hq, hq_recorded)
            check_lq(lq, lq_recorded)
            # The same noise at every level: levels differ by their LQ image alone.
            noise = [
                seeds.torch_generator(study.profile.seed, "heldout", dataset, image, timestep)
                for timestep in timesteps
            ]
            losses = heldout_losses(at_scale, model, prior, hq, lq, caption, timesteps, noise)
            found = dict(zip(timesteps, losses, strict=True))
            # Over the visited timesteps alone, unweighted: each is one step of the sampler, and a
            # mean over all 1000 would be ruled by those that no image passes through.
            values = {METRIC: sum(found[timestep] for timestep in sampled) / len(sampled)}
            values |= {at(timestep): loss for timestep, loss in found.items()}
            for metric, value in values.items():
                rows.append(
                    ScoreRow(
                        method=name,
                        variant=name,
                        seed=seed,
                        dataset=dataset,
                        level=level,
                        image=image,
                        picture=known[image],
                        metric=metric,
                        protocol=PROTOCOL,
                        value=repr(value),
                        status="ok",
                        restored_sha256="",  # of no image: the loss looks at latents under noise
                        hq_sha256=sha256_file(hq),
                        protocol_sha256=protocol,
                    )
                )
    write_rows(rows, study.layout.restored(name, seed) / "heldout.csv")


@torch.no_grad()
def heldout_losses(
    study: Study,
    model: Denoiser,
    prior: Prior,
    hq: Path,
    lq: Path,
    caption: str,
    timesteps: Sequence[int],
    generators: Sequence[torch.Generator],
) -> list[float]:
    """Loss of one image at each timestep, its noise from the generator of the same place.

    The loss is the training's. Networks compute in their own precision; latents, noise and the
    distance are float32.
    """
    training, factor = study.profile.training, prior.factor
    clean, degraded = to_tensor(read_image(hq)), to_tensor(read_image(lq))
    # Cut and not padded: latents of a padded border hold no image, and their loss would count.
    height, width = (side // factor * factor for side in clean.shape[2:])
    device = prior.unet.device
    clean = clean[:, :, :height, :width].to(device) * 2 - 1
    seen = enlarge(degraded, study.profile.data.scale)[:, :, :height, :width].to(device) * 2 - 1
    moments = prior.encode_moments(clean.to(prior.vae.dtype)).float()
    # The mean of the posterior and not a sample: one source of chance less, and the target is the
    # same for every method.
    latents = prior.sample_latents(moments, torch.zeros_like(moments[:, ::2]))
    condition = model.see(seen)
    # Each method by the captions that it is sampled with: the loss is of what makes its images.
    prompt = prior.encode_text(model.captions(condition, [caption]))
    condition = condition.to(prior.unet.dtype)
    ids = time_ids((height, width), torch.zeros(1, 2), (height, width)).to(device)
    losses = []
    for number, generator in zip(timesteps, generators, strict=True):
        timestep = torch.tensor([number], device=device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        noisy = prior.scheduler.add_noise(latents, noise, timestep)
        given = noisy.to(prior.unet.dtype)
        prediction = model.predict(given, timestep, condition, prompt, ids)
        target = prediction_target(prior.scheduler, latents, noise, timestep)
        losses.append(float(distance(prediction.float(), target, training.loss)))
    return losses
