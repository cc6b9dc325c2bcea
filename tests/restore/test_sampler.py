"""The sampling loop: sizes, batches, seeds, schedules, and the released loop beside it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from diffusers import DDPMScheduler
from shared.restoring import SCALE, make_restorer, random_lq
from torch import Tensor

from faithdiff.config import Restore, parse
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Study
from faithdiff.models.faithdiff import load
from faithdiff.models.objective import time_ids
from faithdiff.models.prior import load_prior
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.schedule import make_scheduler, visited

# diffusers' Euler scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    ("size", "colour"), [((13, 21), "none"), ((8, 9), "adain"), ((1, 16), "wavelet")]
)
def test_any_size_is_restored(study: Study, size: tuple[int, int], colour: str) -> None:
    restored = make_restorer(study, color_fix=colour).restore(random_lq(1, 3, *size), ["a"], [1])
    assert restored.shape == (1, 3, SCALE * size[0], SCALE * size[1])
    assert torch.isfinite(restored).all()
    assert restored.min() >= 0 and restored.max() <= 1


def test_an_image_does_not_depend_on_its_batch(study: Study) -> None:
    restorer = make_restorer(study, guidance_scale=3.0)
    lq, captions, seeds = random_lq(3, 3, 12, 16), ["a hill", "", "a house"], [5, 6, 7]
    together = restorer.restore(lq, captions, seeds)
    for row in range(3):
        alone = restorer.restore(lq[row : row + 1], captions[row : row + 1], seeds[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    turned = restorer.restore(lq.flip(0), captions[::-1], seeds[::-1]).flip(0)
    assert torch.allclose(turned, together, atol=1e-5)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
@pytest.mark.parametrize("start", ["lq", "noise"])
def test_the_seed_decides_the_noise(study: Study, start: str, scheduler: str) -> None:
    restorer = make_restorer(study, start_point=start, color_fix="none", scheduler=scheduler)
    lq = random_lq(1, 3, 12, 12)
    first, again, other = (restorer.restore(lq, ["a"], [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


def test_restoring_leaves_the_global_random_state_alone(study: Study) -> None:
    restorer, before = make_restorer(study), torch.get_rng_state()
    restorer.restore(random_lq(1, 3, 8, 8), ["a"], [1])
    assert torch.equal(torch.get_rng_state(), before)


def test_guidance_of_one_is_the_captioned_prediction(study: Study) -> None:
    lq = random_lq(1, 3, 12, 12)
    plain = make_restorer(study, guidance_scale=1.0).restore(lq, ["a hill"], [1])
    # The pair of a guided prediction is equal here, so any scale gives the same as none.
    equal = make_restorer(study, guidance_scale=7.0, negative_prompt="a hill")
    guided = make_restorer(study, guidance_scale=7.0, negative_prompt="a house")
    assert torch.allclose(equal.restore(lq, ["a hill"], [1]), plain, atol=1e-4)
    assert not torch.allclose(guided.restore(lq, ["a hill"], [1]), plain, atol=1e-4)


def test_a_start_below_the_schedule_is_refused(study: Study) -> None:
    # Three steps from the last timestep: 999, 666, 333.
    with pytest.raises(ConfigError, match=r"start_timestep: no step of 3 .* 300; the lowest is"):
        make_restorer(study, steps=3, start_timestep=300).restore(random_lq(1, 3, 8, 8), [""], [0])


def _timesteps(config: Restore, trained: DDPMScheduler) -> Tensor:
    return visited(make_scheduler(config, trained), config.steps, config.start_timestep)


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_late_start_visits_the_low_end_of_the_schedule(
    study: Study, kind: str, spacing: str
) -> None:
    trained = load_prior(study.layout.trained_prior).scheduler
    base = study.profile.restore.model_dump() | {"scheduler": kind, "timestep_spacing": spacing}
    early = parse({**base, "steps": 10, "start_timestep": 999}, Restore, "restore")
    late = parse({**base, "steps": 10, "start_timestep": 450}, Restore, "restore")
    every, some = (_timesteps(config, trained).tolist() for config in (early, late))
    assert len(every) == 10 and every == sorted(every, reverse=True)
    assert some == [timestep for timestep in every if timestep <= 450]


def test_the_noised_start_has_the_variance_of_its_timestep(study: Study) -> None:
    """With a model that predicts nothing new, Euler's scaled start is the DDPM forward process."""
    prior = load_prior(study.layout.trained_prior)
    config = parse(
        {**study.profile.restore.model_dump(), "scheduler": "euler", "steps": 10}, Restore, "r"
    )
    scheduler = make_scheduler(config, prior.scheduler)
    timesteps = visited(scheduler, config.steps, config.start_timestep)
    clean, noise = random_lq(1, 4, 8, 8), random_lq(1, 4, 8, 8, seed=1)
    started = scheduler.add_noise(clean, noise, timesteps[:1])
    expected = prior.scheduler.add_noise(clean, noise, timesteps[:1].long())
    assert torch.allclose(scheduler.scale_model_input(started, timesteps[0]), expected, atol=1e-4)


def _released_loop(
    study: Study, restorer: FaithDiffRestorer, config: Restore, lq: Tensor
) -> Tensor:
    """The released sampling of one image, one tile after the other, as its code orders it.

    Each tile has its own scheduler and takes its own step; the stepped latents are averaged.
    """
    model = load(study.layout.checkpoint("faithdiff", 0))
    prior = load_prior(study.layout.trained_prior)
    enlarged = enlarge(lq, SCALE) * 2 - 1
    features, moments = model.lq_encoder(enlarged), prior.encode_moments(enlarged)
    generator = torch.Generator().manual_seed(11)
    posterior, noise = (torch.randn(moments[:, ::2].shape, generator=generator) for _ in range(2))
    main = make_scheduler(config, prior.scheduler)
    timesteps = visited(main, config.steps, config.start_timestep)
    latents = main.add_noise(prior.sample_latents(moments, posterior), noise, timesteps[:1])
    (height, width), side = latents.shape[2:], config.tile
    starts = [
        (min(top, height - side), min(left, width - side))
        for top in range(0, height - side + config.tile_stride, config.tile_stride)
        for left in range(0, width - side + config.tile_stride, config.tile_stride)
    ]
    schedulers = {start: copy.deepcopy(main) for start in starts}
    prompt = prior.encode_text(["", "a hill"])
    bell = torch.tensor(
        [
            [
                math.exp(-((y - side / 2) ** 2) / side**2 / 0.02)
                * math.exp(-((x - (side - 1) / 2) ** 2) / side**2 / 0.02)
                for x in range(side)
            ]
            for y in range(side)
        ]
    )
    for timestep in timesteps:
        total, weight = torch.zeros_like(latents), torch.zeros(height, width)
        for (top, left), scheduler in schedulers.items():
            here = (..., slice(top, top + side), slice(left, left + side))
            noisy = scheduler.scale_model_input(latents[here], timestep)
            corner = torch.tensor([[top, left]]) * prior.factor
            ids = time_ids(
                (height * prior.factor, width * prior.factor), corner, (side * prior.factor,) * 2
            )
            uncond, cond = (
                model(noisy, timestep.expand(1), features[here], prompt[row : row + 1], ids)
                for row in (0, 1)
            )
            guided = uncond + config.guidance_scale * (cond - uncond)
            total[here] += scheduler.step(guided, timestep, latents[here]).prev_sample * bell
            weight[here[1:]] += bell
        latents = total / weight
    return (prior.decode(latents) / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_merging_predictions_equals_the_released_loop(study: Study, scheduler: str) -> None:
    changes = {"scheduler": scheduler, "tile": 12, "tile_stride": 6, "color_fix": "none"}
    restorer = make_restorer(study, **changes)
    config = parse({**study.profile.restore.model_dump(), **changes}, Restore, "restore")
    lq = random_lq(1, 3, 12, 14)
    with torch.no_grad():
        expected = _released_loop(study, restorer, config, lq)
    restored = restorer.restore(lq, ["a hill"], [11])
    whole = make_restorer(study, **{**changes, "tile": 64}).restore(lq, ["a hill"], [11])
    assert torch.allclose(restored, expected, atol=2e-5)
    assert not torch.allclose(restored, whole, atol=2e-4)


def test_progress_counts_every_pass(study: Study) -> None:
    restorer = make_restorer(study, tile=8, tile_stride=8, steps=5, start_timestep=999)
    seen: list[tuple[int, int]] = []
    restorer.progress = lambda done, total: seen.append((done, total))
    restorer.restore(random_lq(1, 3, 8, 8), [""], [0])
    factor = load_prior(study.layout.trained_prior).factor
    total = 5 * (8 * SCALE // factor // 8) ** 2
    assert seen == [(done, total) for done in range(1, total + 1)]
