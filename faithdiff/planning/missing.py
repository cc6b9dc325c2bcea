"""Looks what a study would read and is not there, before anything starts.

Nothing is fetched or prepared for it: what is here now takes part.
"""

from __future__ import annotations

import functools
from pathlib import Path

from faithdiff.config import FolderSet, MixtureSet, PackageSet, Profile, parts_of
from faithdiff.data.artifacts import ARTIFACTS_FILE, Artifact, load_artifacts
from faithdiff.data.fetch import RAW
from faithdiff.data.folders import sources
from faithdiff.data.photographs import PHOTOGRAPHS, lacking, photographs_of
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
        for name in data.test
        if (why := absent_from_set(name, study))
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


def absent_from_set(name: str, study: Study) -> str:
    """Say why a set has no images; empty where it has some, or needs nothing from outside."""
    chosen = study.profile.datasets[name]
    parts = parts_of(chosen).values()
    for part in parts:
        if isinstance(part, PackageSet) and (gone := lacking(photographs_of(part))):
            return (
                f"{len(gone)} photographs of {part.files} are not in {PHOTOGRAPHS}, or corrupted "
                f"there; {_way_to_photographs(name, study)}"
            )
    if not isinstance(chosen, FolderSet | MixtureSet):
        return ""
    empty = [p.path for p in parts if isinstance(p, FolderSet) and not _has_files(p.path)]
    if empty:
        ways = dict.fromkeys(way_to_get(path, study.profile) for path in empty)
        return f"{', '.join(map(str, empty))}: no images; {'; '.join(ways)}"
    try:
        sources(chosen)
    except UserError as error:
        return str(error)
    return ""


def not_there(study: Study) -> list[str]:
    """What jobs read and would stop at: each with its field, its path and the way out."""
    sets = [why for reasons in missing_sets(study).values() for why in reasons]
    return [*missing_weights(study), *sets]


def missing_sets(study: Study) -> dict[str, list[str]]:
    """Why sets that jobs read have no images, by name: each with field, path and way out."""
    found = {
        name: _lacking(folders, study, _way_to_photographs(name, study))
        for name, folders in _set_folders(study.profile).items()
    }
    return {name: said for name, said in found.items() if said}


def missing_weights(study: Study) -> list[str]:
    """Which weights that jobs read are not there: each with its field, its path, the way out."""
    return _lacking(weights_read(study.profile), study)


def weights_read(profile: Profile) -> dict[str, Path]:
    """Weights of networks that jobs read from outside of the study, by field."""
    variants = profile.variants.items()
    found = {f"variants.{name}.weights": each.weights for name, each in variants if each.weights}
    if profile.prior.source == "shipped" and (profile.on_prior or profile.learns):
        found["prior.path"] = profile.prior.path
    if any(chosen.asks for chosen in profile.used_datasets.values()):
        found["captioner.path"] = profile.captioner.path
    if profile.captioner.clean and any(chosen.asks for chosen in profile.data.test.values()):
        found["captioner.clean"] = profile.captioner.clean
    return found


def way_to_get(path: Path, profile: Profile) -> str:
    """What a person does about a path of a profile where nothing is."""
    roots = {"weights": profile.score.weights, "data": RAW}
    wanted = path.resolve()
    for artifact in _artifacts(ARTIFACTS_FILE.absolute()):
        root = roots[artifact.root]
        place = (artifact.folder(root) or artifact.file(root)).resolve()
        above_or_below = wanted in (place, *place.parents) or place in wanted.parents
        # Of what is here already: the path names something that it does not hold.
        if above_or_below and artifact.profiles and not artifact.is_here(root):
            # A profile that extends another has the paths of it, and no files listed for it.
            own = profile.profile in artifact.profiles
            name = profile.profile if own else artifact.profiles[0]
            return f"faithdiff fetch --profile {name} brings it or says how"
    return "faithdiff fetch does not bring it: correct the path, or put it there"


def _way_to_photographs(dataset: str, study: Study) -> str:
    # Not by --profile alone, which asks for a profile that config/artifacts.yaml names.
    return f"faithdiff fetch --dataset {dataset} --config {study.file} brings them"


@functools.cache
def _artifacts(file: Path) -> tuple[Artifact, ...]:
    """The list of artifacts, read once for all paths."""
    return tuple(load_artifacts(file).values())


def _set_folders(profile: Profile) -> dict[str, dict[str, Path]]:
    """The folders that images of sets are read from: by set, then by field."""
    fields = {"train": "data.train", "prior": "prior.training.data"}
    found = {}
    for name, chosen in profile.used_datasets.items():
        field = fields.get(name, f"data.test.{name}")
        of_set: dict[str, Path] = {}
        for part, each in parts_of(chosen).items():
            place = f"{field}.parts.{part}" if part else field
            if isinstance(each, FolderSet):
                of_set[f"{place}.path"] = each.path
            elif isinstance(each, PackageSet):
                of_set[place] = PHOTOGRAPHS
        if of_set:
            found[name] = of_set
    return found


def _lacking(paths: dict[str, Path], study: Study, photographs: str = "") -> list[str]:
    """What is wrong with paths of a profile, by field; fields of folders end in ``path``.

    Args:
        photographs: The way to get the photographs of packages.
    """
    found = []
    for field, path in paths.items():
        if not path.exists():
            said = "is missing"
        elif field.endswith("path") and not path.is_dir():
            said = "is a file, not a folder"
        elif path.is_dir() and not _has_files(path):
            said = "is empty"
        else:
            continue
        way = photographs if path == PHOTOGRAPHS else way_to_get(path, study.profile)
        found.append(f"{field}: {path}: {said}; {way}")
    return found


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(file.is_file() for file in folder.rglob("*"))
