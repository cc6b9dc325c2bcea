"""Checks of a study before its first job: against the files and the classes that it names.

What the profile alone shows is found whenever it is read (:mod:`faithdiff.config.checks`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from faithdiff.config import Baseline, PhotoSet, digest
from faithdiff.degrade.levels import load_choices
from faithdiff.errors import ConfigError, RunError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.planning.code_digests import code_digest
from faithdiff.score.protocols import definitions_of
from faithdiff.study.files import write_text_atomic


def check_study(study: Study, record: Path | None = None) -> None:
    """Refuse a study of which a job would fail for what is in its profile.

    Args:
        record: Where it is kept which baselines fit their classes, since importing these takes
            seconds; None keeps it nowhere.

    Raises:
        ConfigError: Names the field, what is wrong with it, and what is allowed.
    """
    if found := [*_levels(study), *_photos(study)]:
        raise ConfigError("\n".join(f"{study.file}: {each}" for each in found))
    try:
        definitions_of(study.profile)
    except ConfigError as error:
        raise ConfigError(f"{study.file}: {error}") from None
    _check_baselines(study, record)


def _levels(study: Study) -> Iterator[str]:
    data = study.profile.data
    known = [*load_choices(data.levels_file)]
    named = {"levels": data.levels, "train_level": [data.train_level]}
    for key, names in named.items():
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                yield (
                    f"data.{key}: {data.levels_file} has no level {name!r}{hint} "
                    f"(it has: {', '.join(known)})"
                )


def _photos(study: Study) -> Iterator[str]:
    from faithdiff.data.photos import PHOTOS

    data, prior = study.profile.data, study.profile.prior
    sets = {f"data.test.{name}": chosen for name, chosen in data.test.items()}
    sets["data.train"] = data.train
    if prior.source == "train":
        sets["prior.training.data"] = prior.training.data
    for where, chosen in sets.items():
        if isinstance(chosen, PhotoSet) and chosen.count > len(PHOTOS):
            yield f"{where}.count: {chosen.count} photographs asked for, {len(PHOTOS)} ship"


def _check_baselines(study: Study, record: Path | None) -> None:
    """Build every baseline once, so that its class checks its settings."""
    known = _read(record)
    fit = list(known)
    for name, baseline in study.profile.baselines.items():
        if isinstance(baseline, Baseline):
            key = _identity(study, name, baseline)
            if key is None or key not in known:
                find_method(study, name).check(study)
                fit += [key] if key else []
    if record is not None and fit != known:
        with suppress(RunError):  # a folder that cannot be written: they are built again
            write_text_atomic(json.dumps(fit), record)


def _identity(study: Study, name: str, baseline: Baseline) -> str | None:
    """What decides whether a baseline fits; None for a module outside of the suite."""
    profile = study.profile
    module = baseline.implementation.partition(":")[0]
    try:
        code = code_digest(module, "faithdiff.methods.registry")
    except ModuleNotFoundError:
        return None
    return digest(name, baseline, profile.settings_of(name), profile.data, profile.prior, code)


def _read(record: Path | None) -> list[str]:
    try:
        return list(json.loads(record.read_text(encoding="utf-8"))) if record else []
    except (OSError, ValueError, TypeError):
        return []
