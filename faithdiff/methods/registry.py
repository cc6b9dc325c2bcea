"""Finds a method of a profile by its name.

Baselines are named in the config as ``module:Class``, so that `baselines` may use `faithdiff` and
never the reverse.
"""

from __future__ import annotations

import importlib
from typing import Any

from faithdiff.config import Baseline, OwnCommand, OwnOutputs, Variant
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Method, Study


def find_method(study: Study, name: str) -> Method:
    """Build a method of the profile by its name.

    Raises:
        ConfigError: No such method, or its implementation cannot be imported.
    """
    config = study.profile.methods.get(name)
    if config is None:
        known = ", ".join(study.profile.methods)
        raise ConfigError(f"{study.file}: has no method {name!r} (it has: {known})")
    if isinstance(config, Variant):
        variant: Method = _import(config.implementation)(study.profile, name)
        return variant
    if isinstance(config, OwnOutputs | OwnCommand):
        from faithdiff.methods.external import own

        return own.build(config, f"{study.file}: baselines.{name}", name)
    return _baseline(study, name, config)


def _baseline(study: Study, name: str, config: Baseline) -> Method:
    where = f"{study.file}: baselines.{name}"
    try:
        found = _import(config.implementation)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}.implementation: {config.implementation}: {error}") from None
    method: Method = found(study.profile.settings_of(name), f"{where}.settings")
    for name in ("trained", "denoises") if config.checkpoint_of is None else ():
        wanted = getattr(method, name)
        if wanted != getattr(config, name):
            raise ConfigError(f"{where}.{name}: must be {str(wanted).lower()} for this method")
    return method


def _import(implementation: str) -> Any:
    """The class behind ``module:Class``. Found by name: what trains and restores uses this room."""
    module, _, attribute = implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)
