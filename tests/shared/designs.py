"""The controlled designs of the small study, trained and untrained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from baselines.controlled import ControlledMethod
from baselines.design import Design
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.prior import load_prior
from faithdiff.study import seeds
from faithdiff.train.run import run_job

METHODS = ["diffbir", "supir", "seesr"]


def train(study: Study, name: str, seed: int = 0) -> None:
    method = find_method(study, name)
    folder = study.layout.checkpoint(name, seed)
    run_job(study, name, seed, folder, lambda out, state: method.train(study, seed, out, state))


def changed(study: Study, name: str, **settings: Any) -> Study:
    """The study with other settings of a baseline."""
    config = study.profile.baselines[name]
    config = config.model_copy(update={"settings": {**config.settings, **settings}})
    baselines = {**study.profile.baselines, name: config}
    return replace(study, profile=study.profile.model_copy(update={"baselines": baselines}))


def method_of(study: Study, name: str) -> ControlledMethod:
    method = find_method(study, name)
    assert isinstance(method, ControlledMethod)
    return method


def untrained(study: Study, name: str, **settings: Any) -> Design:
    method = method_of(changed(study, name, **settings), name)
    prior = load_prior(study.prior_folder)
    return method._build(study, prior, 0, None).eval().requires_grad_(False)


def loaded(study: Study, name: str, restore: dict[str, Any] | None = None, **switches: Any) -> Any:
    """The trained restorer with other settings of the sampler."""
    config = study.profile.restore.model_copy(update=restore or {})
    study = replace(study, profile=study.profile.model_copy(update={"restore": config}))
    study = changed(study, name, sampling=switches)
    return method_of(study, name).load(study, study.layout.checkpoint(name, 0))


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=seeds.torch_generator(0, "controlled", *shape))
