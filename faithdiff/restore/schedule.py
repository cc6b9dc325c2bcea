"""Noise schedules: the timesteps that a sampler visits, and the formulas of the forward process.

``z_t = sqrt(ᾱ_t) z + sqrt(1-ᾱ_t) ε`` throughout (Ho et al., NeurIPS 2020); diffusers' Euler keeps
``z_t / sqrt(ᾱ_t)`` between its steps, and gives the model ``z_t`` by ``scale_model_input``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from torch import Tensor

from faithdiff.config import Restore
from faithdiff.errors import ConfigError

LAST = 999  # the timestep of the released start point


class Step(Protocol):
    """What a scheduler gives for one step."""

    prev_sample: Tensor


class Scheduler(Protocol):
    """A diffusers scheduler whose step is linear in its inputs and keeps no history."""

    config: Mapping[str, object]
    timesteps: Tensor
    init_noise_sigma: float

    def set_timesteps(self, num_inference_steps: int) -> None: ...

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor: ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Step: ...


def make_scheduler(config: Restore, trained: DDPMScheduler) -> Scheduler:
    """The sampler of a profile, on the prior's own noise schedule."""
    kind = DDIMScheduler if config.scheduler == "ddim" else EulerDiscreteScheduler
    # From the prior's own betas: SDXL's, and a wrong schedule would denoise to the wrong level.
    scheduler: Scheduler = kind.from_config(
        trained.config, timestep_spacing=config.timestep_spacing
    )
    return scheduler


def visited(scheduler: Scheduler, steps: int, highest: int | None = None) -> Tensor:
    """Set a scheduler to `steps` steps and tell which it visits, descending.

    Args:
        highest: Skip the timesteps above it; None skips none.

    Raises:
        ConfigError: No timestep is as low as `highest`.
    """
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if highest is None:
        return timesteps
    late = timesteps[timesteps <= highest]
    if not len(late):
        raise ConfigError(
            f"restore.start_timestep: no step of {steps} is at or below {highest}; the lowest is "
            f"{int(timesteps[-1])}"
        )
    if hasattr(scheduler, "set_begin_index"):
        # Euler counts its steps instead of looking the timestep up; DDIM does not count.
        scheduler.set_begin_index(len(timesteps) - len(late))
    return late


def add_noise_as_released(trained: DDPMScheduler, clean: Tensor, noise: Tensor) -> Tensor:
    """``sqrt(ᾱ) z + sqrt(1-ᾱ) n`` at timestep 999, with noise scaled for the sampler already.

    In Euler's units the clean latent would enter whole; here 7% of it is left (official pipeline).
    """
    timesteps = torch.full((len(clean),), LAST, device=clean.device)
    return trained.add_noise(clean, noise, timesteps)


def noise_level(alpha: Tensor) -> Tensor:
    """The deviation of the noise relative to the clean latent: ``sqrt((1 - ᾱ) / ᾱ)``."""
    return ((1 - alpha) / alpha).sqrt()


def clean_latents(prediction: Tensor, noisy: Tensor, alpha: Tensor, kind: str) -> Tensor:
    """The clean latent that a prediction implies, from ``sqrt(ᾱ) z + sqrt(1-ᾱ) ε``."""
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if kind == "epsilon":
        return (noisy - noise * prediction) / signal
    # v = sqrt(ᾱ) ε - sqrt(1-ᾱ) z is z_t turned by a right angle: no division by what may be zero.
    return signal * noisy - noise * prediction


def prediction_of(clean: Tensor, noisy: Tensor, alpha: Tensor, kind: str) -> Tensor:
    """The prediction that implies a clean latent: the inverse of :func:`clean_latents`."""
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if kind == "epsilon":
        return (noisy - signal * clean) / noise
    return (signal * noisy - clean) / noise
