"""Looks which test sets and baselines of a study are not there, before anything starts.

Nothing is fetched or prepared for it: what is here now takes part.
"""

from __future__ import annotations

from pathlib import Path

from faithdiff.config import Dataset, FolderSet, MixtureSet
from faithdiff.data.folders import sources
from faithdiff.errors import UserError
from faithdiff.methods.absent import Absent, AbsentSet
from faithdiff.methods.method import Study
from faithdiff.planning.workload import external_method


def absent_from(study: Study) -> Absent:
    """What a study would stop at: sets without images, baselines that lack something.

    Raises:
        UserError: No test set with HQ images is there.
    """
    data = study.profile.data
    datasets = {
        name: AbsentSet(why=why, levels=data.levels_of(name))
        for name, chosen in data.test.items()
        if (why := absent_from_set(chosen, study))
    }
    if not set(data.with_hq) - set(datasets):
        reasons = "; ".join(f"{name}: {absent.why}" for name, absent in datasets.items())
        raise UserError(f"{study.file}: no test set with HQ images is there: {reasons}")
    baselines = {}
    for name in study.profile.baselines:
        method = external_method(study, name)
        if method is not None and (needs := method.needs(study)):
            baselines[name] = "; ".join(needs)
    return Absent(datasets=datasets, baselines=baselines)


def absent_from_set(chosen: Dataset, study: Study) -> str:
    """Say why a set has no images; empty where it has some, or is not a person's folder."""
    if not isinstance(chosen, FolderSet | MixtureSet):
        return ""
    parts = [chosen] if isinstance(chosen, FolderSet) else list(chosen.parts.values())
    empty = [part.path for part in parts if not _has_files(part.path)]
    if empty:
        fetch = f"faithdiff fetch --profile {study.profile.profile}"
        return f"{', '.join(map(str, empty))}: no images; {fetch} brings them or says how"
    try:
        sources(chosen)
    except UserError as error:
        return str(error)
    return ""


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(file.is_file() for file in folder.rglob("*"))
