"""Which timesteps a sampler visits, and how the noised LQ latent enters the schedule."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from torch import Tensor

from faithdiff.config import Restore
from faithdiff.errors import ConfigError

LAST = 999  # the timestep of the released start point


def make_scheduler(
    config: Restore, trained: DDPMScheduler
) -> DDIMScheduler | EulerDiscreteScheduler:
    """The sampler of a profile, on the prior's own noise schedule."""
    kind = DDIMScheduler if config.scheduler == "ddim" else EulerDiscreteScheduler
    return kind.from_config(trained.config, timestep_spacing=config.timestep_spacing)


def visited(scheduler: Any, steps: int, highest: int | None = None) -> Tensor:
    """Set a scheduler to `steps` steps and tell which it visits, descending.

    Args:
        highest: Skip the timesteps above it; None skips none.

    Raises:
        ConfigError: No timestep is as low as `highest`.
    """
    scheduler.set_timesteps(steps)
    timesteps: Tensor = scheduler.timesteps
    if highest is None:
        return timesteps
    late = timesteps[timesteps <= highest]
    if not len(late):
        raise ConfigError(
            f"restore.start_timestep: no step of {steps} is at or below {highest}; the lowest is "
            f"{int(timesteps[-1])}"
        )
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(len(timesteps) - len(late))
    return late


def add_noise_as_released(trained: DDPMScheduler, clean: Tensor, noise: Tensor) -> Tensor:
    """``sqrt(ᾱ) z + sqrt(1-ᾱ) n`` at timestep 999, with noise scaled for the sampler already.

    In Euler's units the clean latent would enter whole; here 7% of it is left (official pipeline).
    """
    timesteps = torch.full((len(clean),), LAST, device=clean.device)
    return trained.add_noise(clean, noise, timesteps)
